"""What the sides of pairs find of each other, as the tables and the groups of tiles of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import some
from nearfar.data.samples import Samples
from nearfar.data.tiles import Tiles, data_uri
from nearfar.errors import UserError
from nearfar.evaluation.cross import chance, median_rank, ranks
from nearfar.evaluation.intervals import bootstrap, of_answers
from nearfar.evaluation.moments import nearest_moments
from nearfar.evaluation.protocol import packed
from nearfar.report.samples import found_grid


@dataclass(frozen=True)
class Direction:
    """Queries of one side among all of another. rank: of the first that belongs to each query, by what made the rows:
    Q, from 0.  sample: Q, of which each query is.  chance: recall@k of a ranking at random.  gallery: how many."""

    name: str
    rank: Mapping[str, Tensor]
    sample: Tensor
    chance: Mapping[int, float]
    gallery: int


def retrieval_table(
    directions: Sequence[Direction], seen: int, samples: int, seed: int, how_seen: str
) -> dict[str, Any]:
    """Recall across the sides of pairs as the table of a report; the last row is the run's own.

    seen: pairs of so many `samples` that were in training, how_seen: in what way, `Run.seen_how`.
    """
    rows: dict[str, dict[str, Any]] = {}
    random: dict[str, float] = {}
    gains: dict[str, dict[str, Any]] = {}
    for one in directions:
        main = list(one.rank)[-1]
        random |= {f"{one.name}, R@{k} (%)": value for k, value in one.chance.items()}
        for name, rank in one.rank.items():
            own = rows.setdefault(name, {})
            for k in one.chance:
                title, hit = f"{one.name}, R@{k} (%)", rank < k
                value, low, high = of_answers(hit, group=one.sample, seed=seed)
                own[title] = {"value": value, "low": low, "high": high, "right": packed(hit)}
                if name != main:
                    value, low, high = of_answers(one.rank[main] < k, over=hit, group=one.sample, seed=seed)
                    gains.setdefault(name, {})[title] = {"value": value, "low": low, "high": high}
    first, main = list(rows)[-2:]
    counts = "; ".join(
        f"{one.name}, {len(one.sample):,} queries among {one.gallery:,}, median rank "
        f"{median_rank(one.rank[main]):,} ({median_rank(one.rank[first]):,} {first.removesuffix(' encoder')})"
        for one in directions
    )
    note = (
        "R@k: the share of queries of which one that belongs to it is among the first k by cosine, with 95 % intervals "
        f"over samples; a ranking at random has {', '.join(f'{value:.1f}' for value in random.values())} %. "
        f"{counts[0].upper()}{counts[1:]}."
    )
    note += (
        f" {seen:,} of the {samples:,} pairs were in training{how_seen}: this says how well it finds what it has seen."
        if seen
        else " No pair was in training."
    )
    return {
        "title": "How well the sides find each other",
        "note": note,
        "columns": list(rows[main]),
        "rows": [{"name": name, "main": name == main, "values": values} for name, values in rows.items()],
        "gains": gains,
        "chance": random,
        "seen": {"samples": seen, "of": samples},
        "protocol": {"version": 1, "similarity": "cosine", "ties": "the lower index first", "seed": seed},
    }


def zero_shot_table(
    right: Mapping[str, Tensor],
    label: Tensor,
    classes: Sequence[str],
    prompts: int,
    seen: int,
    how_seen: str,
    seed: int,
) -> dict[str, Any]:
    """The accuracy of classes that prompts describe as the table of a report; the last row is the run's own.

    right: N, which samples are named right, by what made the rows.  label: N.  prompts: of all classes.  seen: samples
    that were in training, how_seen: in what way, `Run.seen_how`.
    """
    title, main = "zero-shot (%)", list(right)[-1]
    cells, gains = {}, {}
    for name, hit in right.items():
        value, low, high = of_answers(hit, seed=seed)
        cells[name] = {title: {"value": value, "low": low, "high": high, "right": packed(hit)}}
        if name != main:
            value, low, high = of_answers(right[main], over=hit, seed=seed)
            gains[name] = {title: {"value": value, "low": low, "high": high}}
    each = {c: 100 * float(right[main][label == c].float().mean()) for c in label.unique().tolist()}
    often = 100 * int(label.bincount().max()) / len(label)
    note = (
        f"Accuracy on {len(label):,} samples, each named by the nearest of {len(classes):,} classes that {prompts:,} "
        f"prompts describe, with 95 % intervals; no label was learned from. Guessing would give "
        f"{100 / len(classes):.1f} %, always naming the most frequent class {often:.1f} %. The mean over classes is "
        f"{sum(each.values()) / len(each):.1f} %."
    )
    note += f" {seen:,} of the samples were in training{how_seen}." if seen else " No sample was in training."
    return {
        "title": "Classes named by their prompts alone",
        "note": note,
        "columns": [title],
        "rows": [{"name": name, "main": name == main, "values": values} for name, values in cells.items()],
        "gains": gains,
        "seen": {"samples": seen, "of": len(label)},
        "per_class": {
            "columns": [title],
            "rows": [{"name": classes[c], "values": {title: {"value": value}}} for c, value in sorted(each.items())],
        },
        "protocol": {"version": 1, "similarity": "cosine", "prompts": prompts, "seed": seed},
    }


def moments_table(
    rows: Mapping[str, Mapping[int, Tensor]],
    events: Sequence[Sequence[int]],
    noun: str,
    seen: int,
    of: int,
    seed: int,
    how_seen: str,
) -> dict[str, Any]:
    """How well recordings of one event agree on its moments, as the table of a report; the last row is the run's own.

    rows: by what made them, of each recording by its position its moments, T x D.  events: positions.  noun: of a
    recording.  seen: how many of them were in training, how_seen: in what way, `Run.seen_how`.
    """
    title, main = "aligned (%)", list(rows)[-1]
    pairs = [list(permutations(event, 2)) for event in events]
    errors = {
        name: torch.stack(
            [torch.cat([nearest_moments(own[a], own[b]).error for a, b in pair]).mean() for pair in pairs]
        )
        for name, own in rows.items()
    }  # one for each event, which came about by itself
    cells, gains = {}, {}
    for name, error in errors.items():
        mean = bootstrap(100 * (1 - error), seed=seed)
        cells[name] = {title: {"value": mean.mean, "low": mean.low, "high": mean.high}}
        if name != main:
            gain = bootstrap(100 * (error - errors[main]), seed=seed)
            gains[name] = {title: {"value": gain.mean, "low": gain.low, "high": gain.high}}
    a, b = pairs[0][0]
    said = ", ".join(f"{name} {100 * float(error.mean()):.1f} %" for name, error in errors.items())
    note = (
        f"Of each frame the nearest of another of {of:,} {noun} of the same event, of {len(events):,} in all: by how "
        f"much of the length it is off is the alignment error ({said}; at random 33 %), and 100 less that the number "
        "shown, with 95 % intervals over events. The picture has, for two recordings of one event, the time of each "
        f"frame from left to right and that of the nearest upward, of {' and '.join(rows)}; the diagonal is perfect."
    )
    note += f" {seen:,} of the recordings were in training{how_seen}." if seen else " No recording was in training."
    return {
        "title": "How well recordings of one event agree on its moments",
        "note": note,
        "columns": [title],
        "rows": [{"name": name, "main": name == main, "values": values} for name, values in cells.items()],
        "gains": gains,
        "picture": diagonals([nearest_moments(own[a], own[b]).nearest for own in rows.values()]),
        "seen": {"samples": seen, "of": of},
        "protocol": {"version": 1, "distance": "euclidean", "ties": "the first moment", "seed": seed},
    }


def future_table(
    rank: Mapping[str, Tensor], gallery: Tensor, videos: int, seen: int, seed: int, how_seen: str
) -> dict[str, Any]:
    """How well predictions find what comes next, as the table of a report; the last row is the run's own.

    rank: of each predicted cell, video by video, by what predicted it, from 0.  gallery: among how many cells it is.
    seen: videos that were in training, how_seen: in what way, `Run.seen_how`.
    """
    video = torch.arange(videos).repeat_interleave(len(gallery) // videos)
    random = {k: 100 * float((k / gallery).clamp(max=1).mean()) for k in (1, 5)}
    table = retrieval_table([Direction("next", rank, video, random, int(gallery.max()))], seen, videos, seed, how_seen)
    median = ", ".join(f"{name} {median_rank(one):,}" for name, one in rank.items())
    note = (
        f"R@k: the share of {len(gallery):,} cells of {videos:,} clips' last blocks that are among the first k for "
        f"what was predicted of them, among the {int(gallery.max()):,} cells of all places, blocks and clips of some "
        f"videos, with 95 % intervals over videos; a ranking at random has {random[1]:.1f} and {random[5]:.1f} %. "
        f"Median rank: {median}."
    )
    note += f" {seen:,} of the {videos:,} videos were in training{how_seen}." if seen else " No video was in training."
    protocol = {"version": 1, "similarity": "product; cosine to the block before", "ties": "come before", "seed": seed}
    return table | {"title": "How well it predicts what comes next", "note": note, "protocol": protocol}


def diagonals(nearest: Sequence[Tensor], side: int = 180) -> str:
    """Time against nearest time, a square for each, as one image in a data URI.  nearest: T, int64 each."""
    picture = torch.full((side, len(nearest) * (side + 12) - 12), 255, dtype=torch.uint8)
    for k, found in enumerate(nearest):
        left, length = k * (side + 12), max(1, len(found) - 1)
        square = picture[:, left : left + side]
        square[:] = 244
        even = torch.arange(side)
        square[side - 1 - even, even] = 190
        across = (torch.arange(len(found)) * (side - 4) // length).tolist()
        for x, y in zip(across, (found * (side - 4) // length).tolist(), strict=True):
            square[side - 4 - y : side - y, x : x + 4] = 40
    return data_uri(picture[None])


def directions(
    rows: Mapping[str, Mapping[str, Tensor]], samples: Any, tiles: Tiles, seed: int
) -> tuple[list[Direction], list[dict[str, Any]]]:
    """Each side looking among all of another: the ranks, and for the report what some queries find.

    rows: of all entries of each side, by what made them, the run's own last.  samples: pairs, which say by `across`
    what belongs together, and by `of_entries` whose an entry is.  tiles: of the pairs.
    """
    made, shown = [], []
    ours = list(rows.values())[-1]
    for a, b in permutations(ours, 2):
        belongs, same = samples.across(a, b)
        whose, of = samples.of_entries(a), samples.of_entries(b)
        asked = belongs[:, 0].unique()  # a caption that is alone has no other one to find
        place = torch.full((len(whose),), MISSING)
        place[asked] = torch.arange(len(asked))
        belongs[:, 0], same[:, 0] = place[belongs[:, 0]], place[same[:, 0]]
        without = same[same[:, 0] != MISSING]
        found = {name: ranks(one[a][asked], one[b], belongs, without) for name, one in rows.items()}
        size = len(of) - bool(len(without))
        made.append(Direction(f"{a} to {b}", found, whose[asked], chance(belongs, size), size))
        shown.append({"name": f"{a} to {b}"} | found_grid(ours[a], ours[b], (whose, of), tiles, seed=seed))
    return made, shown


def told_classes(samples: Samples, told: Samples, prompts: str) -> Tensor:
    """The class of each sample, as prompts number the classes: N. Raises ValueError where a class has no prompt."""
    if bool((told.label == MISSING).any()):
        raise UserError(f"{prompts!r} names no class for some of its prompts: give it a column label")
    if lacking := sorted({samples.classes[c] for c in samples.label.tolist()} - set(told.classes)):
        raise UserError(f"the classes {some(list(map(repr, lacking)))} have no prompt in {prompts!r}")
    place = [told.classes.index(name) if name in told.classes else MISSING for name in samples.classes]
    return torch.tensor(place)[samples.label]
