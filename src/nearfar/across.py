"""What parts of data make of each other: the sides of pairs, by the scores of people, by retrieval and by classes that
prompts describe; recordings of one event, moment by moment; and of clips what comes next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING, tensors
from nearfar.data.digests import digests, fingerprint
from nearfar.data.pairs import SCORE, Asked
from nearfar.data.samples import Samples
from nearfar.errors import UserError, counted
from nearfar.evaluation.cross import class_weights
from nearfar.files import origin, replace_csv
from nearfar.methods.dpc import DPC
from nearfar.modalities import kind as kinds
from nearfar.nn.towers import pick_tower
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.across import (
    directions,
    future_table,
    moments_table,
    retrieval_table,
    told_classes,
    zero_shot_table,
)
from nearfar.report.measured import pairs_table
from nearfar.run import Run
from nearfar.training import probe as probing

Say = Callable[[str], None]


@writes
@checked
def evaluate_pairs(
    run: Run,
    data: Any,
    *,
    pair_columns: Sequence[str] = (),
    score_column: str = "",
    part_column: str = "",
    seed: Seed = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """How well cosines agree with scores that people gave to pairs, beside what no network has made and the
    untrained encoder: the correlations of `nearfar.evaluation.similarity`, alignment and uniformity.

    data: a table. pair_columns: the two sides, by default sentence1 and sentence2.  score_column: by default score.
    part_column: the subset of each pair, over which correlations are averaged as well.
    Rows of the split test are measured where a column split names one, else all.
    Writes results/pairs-DATA-DIGEST.json and returns what it holds.
    """
    asked = Asked(columns=tuple(pair_columns), score=score_column, part=part_column)
    _ = run.encoder
    pairs = run.kind.scored_pairs(data, asked, run.made, run.settings)
    for note in pairs.notes:
        say(note)
    sides, plain = [pairs.first, pairs.second], run.kind.plain(run.encoder)
    rows = {
        name: rows.split([len(one) for one in sides]) for name, rows in run.kind.baselines(sides, run.encoder).items()
    }
    for name, encoder in run.beginnings().items():
        rows[name] = tuple(probing.passed(encoder, plain, side, run.batch) for side in sides)
    rows["trained encoder"] = tuple(run.rows(side) for side in sides)
    seen = run.seen(pairs.first) | run.seen(pairs.second)
    table = pairs_table(rows, pairs.score, pairs.part, int(seen.sum()), seed, run.seen_how)
    table["protocol"] |= {"scores": asked.score or SCORE}
    contents = [*digests(pairs.first), *digests(pairs.second), str(pairs.score.tolist()), str(pairs.part)]
    return run.kept(table, "pairs", data, contents, seen)


@writes
@checked
def retrieval(run: Run, data: Any, *, seed: Seed = 0, say: Say = lambda text: None) -> dict[str, Any]:
    """How well each side of pairs finds the others: recall@1, 5 and 10 by cosine, beside chance and the untrained
    encoder. Of several that belong to a query any one counts; those of the split test are measured where one is named.

    Raises ValueError for a run without sides that share a space.
    Writes results/retrieval-DATA-DIGEST.json, and what some queries find to results/found.json; returns the first.
    """
    if not run.sides:
        raise UserError(f"{str(run.path)!r} has no sides that share a space, as clip makes one of pairs")
    samples: Any = run.measured(data, say)
    if len(samples) < 2:
        raise UserError(f"{counted(len(samples), 'pairs')}: finding one among others takes 2 or more")
    encoders: dict[str, Any] = run.beginnings() | {"trained encoder": run.encoder}
    rows = {
        name: {side: _rows(encoder.tower(side), samples.sides[side], run.batch) for side in run.sides}
        for name, encoder in encoders.items()
    }
    made, shown = directions(rows, samples, run.kind.tiles(samples), seed)
    run.write("found", {"directions": shown})
    known = run.seen(samples)
    table = retrieval_table(made, int(known.sum()), len(samples), seed, run.seen_how)
    return run.kept(table, "retrieval", data, [fingerprint(digests(samples), samples)], known)


@writes
@checked
def zero_shot(
    run: Run,
    data: Any,
    prompts: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """How well samples of a tower are told apart by what the other tower makes of prompts; no label is learned from.

    run: opened by the tower.  prompts: for the other one, a table of prompt and label, one or more for each class; the
    column of the prompts is the one that its kind takes. Rows of the split test are measured where one is named.
    Raises ValueError for a run without a tower and another one beside it, and for classes without prompts.
    Writes results/zero-shot-DATA-DIGEST.json and returns what it holds.
    """
    other = _prompted(run)
    samples = run.open(data, labels=labels, label_column=label_column)
    told = other.open(prompts)
    for note in [*samples.notes, *told.notes]:
        say(note)
    tested = samples.of_split("test") if "test" in samples.split else torch.ones(len(samples), dtype=torch.bool)
    samples = samples.subset((tested & (samples.label != MISSING)).nonzero()[:, 0])
    if not len(samples):
        raise UserError(f"zero-shot accuracy takes labels, and none are known: {run.kind.unlabeled}")
    label = told_classes(samples, told, str(prompts))
    right = {}
    ours, theirs = (of.beginnings() | {"trained encoder": of.encoder} for of in (run, other))
    for name, one in ours.items():
        two = theirs[name]
        weights = class_weights(_rows(two, told, run.batch), told.label, len(told.classes))
        right[name] = (_rows(one, samples, run.batch) @ weights.T).argmax(1) == label
    known = run.seen(samples)
    table = zero_shot_table(right, label, told.classes, len(told), int(known.sum()), run.seen_how, seed)
    table["protocol"] |= {"prompts_from": origin(prompts), "labels": origin(labels)}
    return run.kept(table, "zero-shot", data, [fingerprint(digests(one), one) for one in (samples, told)], known)


@writes
@checked
def align(run: Run, data: Any, *, seed: Seed = 0, say: Say = lambda text: None) -> dict[str, Any]:
    """How well recordings of one event agree on its moments: by how much of their length the nearest moment of another
    recording is off (TCN, arXiv 1704.06888), beside raw input and the untrained encoder. Events of the split test are
    measured where one is named.

    Raises ValueError where no event was recorded twice.
    Writes results/moments-DATA-DIGEST.json and returns what it holds.
    """
    samples: Any = run.measured(data, say)
    if not (events := run.kind.events(samples)):
        raise UserError(f"none of the events in {str(data)!r} was recorded twice: there is nothing to align")
    used = sorted({i for rows in events for i in rows})
    encoders = run.beginnings() | {"trained encoder": run.encoder}
    rows: dict[str, dict[int, Tensor]] = {run.kind.raw_name: {}, **{name: {} for name in encoders}}
    for i in used:
        view = run.kind.moments(samples, i, run.encoder)
        rows[run.kind.raw_name][i] = torch.cat([part.flatten(1).float() for part in tensors(view)], 1)
        for name, encoder in encoders.items():
            rows[name][i] = probing.viewed(encoder, view)
    known = run.seen(samples)
    table = moments_table(rows, events, run.kind.noun, int(known[used].sum()), len(used), seed, run.seen_how)
    return run.kept(table, "moments", data, [fingerprint(digests(samples), samples)], known)


@writes
@checked
def future(
    run: Run, data: Any, *, among: PositiveInt = 64, seed: Seed = 0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Of a run of DPC: how often what comes next in a clip is found by what was predicted, among the cells of all
    places, times and clips of some videos (the top-1 and top-5 accuracy of arXiv 1909.04656), beside the block before
    taken as the prediction, and random weights. Videos of the split test are measured where one is named.

    among: videos whose cells are ranked together.
    Raises ValueError for a run of another method.
    Writes results/future-DATA-DIGEST.json and returns what it holds.
    """
    trained = copy.deepcopy(run.method).to(run.device)
    if not isinstance(trained, DPC):
        raise UserError(f"{str(run.path)!r} is a run of {run.config['method']}, which predicts no blocks: as dpc does")
    samples: Any = run.measured(data, say)
    plain, known = run.kind.plain(run.encoder), run.seen(samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {name: getattr(trained, name) for name in ("blocks", "steps", "cells")}
        first = DPC(run.untrained(), **sizes, width=trained.cell.out_features).eval().to(run.device)
    rank: dict[str, list[Tensor]] = {"the block before": [], "untrained encoder": [], "trained encoder": []}
    for index in torch.arange(len(samples)).tensor_split(-(-len(samples) // among)):
        view = kinds.plain_view(plain, samples, index, run.device)
        with torch.no_grad():
            for name, method in (("untrained encoder", first), ("trained encoder", trained)):
                seen, last = method.look(view).split([method.blocks - method.steps, method.steps], 1)
                rank[name].append(_ranks_of(method.forecast(seen), last))
            before, last = F.normalize(seen[:, -1:], dim=3).expand_as(last), F.normalize(last, dim=3)  # of the trained
            rank["the block before"].append(_ranks_of(before, last))
    gallery = torch.cat([torch.full_like(part, len(part)) for part in rank["trained encoder"]])
    made = {name: torch.cat(parts) for name, parts in rank.items()}
    table = future_table(made, gallery, len(samples), int(known.sum()), seed, run.seen_how)
    return run.kept(table, "future", data, [fingerprint(digests(samples), samples), str(among)], known)


def _ranks_of(p: Tensor, z: Tensor) -> Tensor:
    """How many of all cells are as near to a prediction as its own, or nearer, by their product: from 0."""
    scores = p.flatten(0, 2) @ z.flatten(0, 2).T
    return ((scores >= scores.diagonal()[:, None]).sum(1) - 1).cpu()


@dataclass(frozen=True)
class Named:
    """What prompts say of N samples. label: of the nearest class, by name.  near: the nearest prompts of each, as
    (prompt, its class, cosine), nearest first."""

    names: list[str]
    label: list[str]
    near: list[list[tuple[str, str, float]]]

    def __len__(self) -> int:
        return len(self.names)

    def write(self, path: str | Path) -> Path:
        """As a CSV: path, label, and prompt_1, prompt_1_label, prompt_1_similarity, and so on."""
        most = max(map(len, self.near), default=0)
        heads = [f"prompt_{i}{part}" for i in range(1, most + 1) for part in ("", "_label", "_similarity")]
        rows = [
            [name, label, *(cell for prompt, own, s in near for cell in (prompt, own, f"{s:.3f}"))]
            for name, label, near in zip(self.names, self.label, self.near, strict=True)
        ]
        return replace_csv(Path(path), iter([["path", "label", *heads], *rows]))


@checked
def name(run: Run, data: Any, prompts: Any, *, near: PositiveInt = 3, say: Say = lambda text: None) -> Named:
    """Name samples of a tower by the nearest class that prompts for the other one describe.

    run: opened by the tower.  data: what `Run.open_new` takes.  prompts: a table of prompt and label, or prompts alone,
    each of which is a class then.  near: prompts to give beside each.
    Raises ValueError for a run without a tower and another one beside it, and where some prompts alone have a label.
    """
    other = _prompted(run)
    told, samples = other.open(prompts), run.open_new(data)
    for note in [*told.notes, *samples.notes]:
        say(note)
    tiles = other.kind.tiles(told)
    texts = [tiles.face.words(i) or told.names[i] for i in range(len(told))]
    label, classes = told.label, told.classes
    if not classes:
        label, classes = torch.arange(len(told)), texts
    elif bool((label == MISSING).any()):
        raise UserError(f"{str(prompts)!r} has a label for some prompts and none for others: give all, or leave it out")
    if not len(samples):
        return Named([], [], [])
    made = (_rows(other.encoder, told, run.batch), _rows(run.encoder, samples, run.batch))
    prompt, rows = (F.normalize(part, dim=1) for part in made)
    best = (rows @ class_weights(prompt, label, len(classes)).T).argmax(1)
    cosine, index = (rows @ prompt.T).topk(min(near, len(told)))
    return Named(
        names=samples.names,
        label=[classes[c] for c in best.tolist()],
        near=[
            [(texts[i], classes[int(label[i])], s) for i, s in zip(places, values, strict=True)]
            for places, values in zip(index.tolist(), cosine.tolist(), strict=True)
        ],
    )


def side_of(run: Run, data: Any) -> str:
    """The side of a run whose kind data are of. Raises ValueError where none is, or several."""
    towers = {side: kinds.of(pick_tower(run.encoder, side).spec["kind"]) for side in run.sides}
    fits = [side for side, kind in towers.items() if kind.recognizes(data) or _is_sample(kind, data)]
    if len(fits) != 1:
        known = f"name one of {', '.join(fits or towers)} by --tower" if towers else "the run has no sides"
        raise UserError(f"of which side {str(data)!r} is cannot be told: {known}")
    return fits[0]


def _is_sample(kind: kinds.Kind, data: Any) -> bool:
    return isinstance(data, str | Path) and kind.is_sample(data)


def _prompted(run: Run) -> Run:
    """The run, opened by the one side that is not its tower."""
    sides = Run(run.path, run.checkpoint, trust=run.trust).sides
    others = [side for side in sides if side != run.tower]
    if not run.tower or len(others) != 1:
        known = f"name one of {', '.join(sides)} by --tower" if sides else "it has none"
        raise UserError(f"prompts are of one of two sides that share a space, and the samples of the other: {known}")
    other = Run(run.path, run.checkpoint, tower=others[0], trust=run.trust)
    other.device, other.batch = run.device, run.batch
    return other


def _rows(tower: Any, samples: Samples, batch: int) -> Tensor:
    """What a tower makes of its own samples, which it knows how to see plainly."""
    return probing.passed(tower, kinds.of(tower.spec["kind"]).plain(tower), samples, batch)
