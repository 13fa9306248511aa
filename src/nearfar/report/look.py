"""What a run has learned, to be looked at: the content of results/look.json, section by section, and its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.clustering.kmeans import kmeans
from nearfar.data.samples import Samples
from nearfar.data.tiles import Thumbnails, Tiles, data_uri, picture_uri
from nearfar.errors import UserError, counted
from nearfar.evaluation.retrieval import retrieval
from nearfar.looking.attention import last_places
from nearfar.looking.features import laid_over, pca_colors
from nearfar.looking.kernels import first_kernels, grid, kernel_tiles, strongest
from nearfar.looking.pairs import gradient_shares, hardest_positives, suspicious_anchors
from nearfar.method import Encoder, Method
from nearfar.modalities.kind import Kind, plain_view
from nearfar.ops.explanation import at_rest
from nearfar.report.gallery import Gallery, neighbor_gallery
from nearfar.report.html import write
from nearfar.report.numbers import protocol
from nearfar.report.samples import MOST_CLUSTERS, groups_of, nearest, neighbor_grid, spread, unit_rows

SIDE = 128
"""Of a picture, in pixels."""
SHOWN = 6
"""Samples that are looked at one by one."""
HEADS = 6
"""Heads of attention that are shown."""
KERNELS = 64
"""Filters that are shown, at most."""
CPU = torch.device("cpu")


@dataclass(kw_only=True)
class Seen:
    """A run and some samples, as the sections take them.

    encoder, untrained: in eval mode, on the CPU.  features: N x dim, of the samples.  method: that made the encoder;
    where there is none, why not.  settings, made: of the run.  untrusted: why its views are not made, as they are code
    that the user has not said to run; "" where they may be.
    """

    kind: Kind
    encoder: Encoder
    untrained: Encoder
    samples: Samples
    features: Tensor
    method: Method | str
    settings: Any
    made: Mapping[str, Any]
    seed: int
    untrusted: str = ""

    @cached_property
    def tiles(self) -> Tiles:
        """Without what is heard, of which a page holds little: the neighbors of the report have it."""
        tiles = self.kind.tiles(self.samples)
        if isinstance(tiles.face, Thumbnails):
            tiles = replace(tiles, face=Thumbnails(pixels=tiles.face.pixels, aspect=tiles.face.aspect))
        return tiles

    @cached_property
    def few(self) -> Tensor:
        """Positions of some samples, spread over the classes."""
        return spread(self.samples.label, SHOWN, self.seed)

    @cached_property
    def view(self) -> Any:
        """The plain view of these."""
        return plain_view(self.kind.plain(self.encoder), self.samples, self.few, CPU)

    @cached_property
    def pictures(self) -> Tensor:
        """What it looks like: n x 3 x SIDE x SIDE, in [0, 1]."""
        shown = self.kind.pictures(self.encoder, self.view)
        return F.interpolate(shown, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)

    @cached_property
    def contrasted(self) -> tuple[Tensor, str]:
        """What the method contrasts, of all samples, N x D, and what that is, in words."""
        return self.projected(self.features)

    def projected(self, features: Tensor) -> tuple[Tensor, str]:
        head = getattr(self.method, "projector", None)
        if isinstance(self.method, str) or not isinstance(head, torch.nn.Module) or not _takes(head, features.shape[1]):
            return features, "the representation"
        with torch.no_grad():
            return torch.cat([head(rows).float() for rows in features.split(1024)]), "the embedding behind the head"

    def name(self, i: int) -> str:
        return self.tiles.names[int(i)]


def _takes(head: torch.nn.Module, dim: int) -> bool:
    """Whether a head takes rows of a width: that of PixPro is of the cells of maps, which may be of another."""
    widths = [part.in_features for part in head.modules() if isinstance(part, torch.nn.Linear)]
    return not widths or widths[0] == dim


def kernels(seen: Seen) -> dict[str, Any]:
    """The first layer's filters beside those before training."""
    rows = []
    pairs = zip(first_kernels(seen.encoder), first_kernels(seen.untrained), strict=True)
    for number, (weight, before) in enumerate(pairs, 1):
        n, channels, height, width = weight.shape
        chosen = strongest(weight, KERNELS if channels <= 3 else max(1, KERNELS // channels))
        what = f"{n} filters of {channels} x {height} x {width}" + (
            f", the {len(chosen)} largest" if len(chosen) < n else ""
        )
        network = f"network {number}: " if len(first_kernels(seen.encoder)) > 1 else ""
        pictures = [
            _picture(grid(kernel_tiles(part[chosen])).permute(2, 0, 1), f"{network}{when}", f"filters {when}: {what}")
            for when, part in (("before training", before), ("after training", weight))
        ]
        change = float((weight - before).norm() / before.norm().clamp(min=1e-12))
        moved = f"training changed the weights by {_per_cent(change)} of their norm"
        rows.append({"name": network + what, "label": None, "pictures": pictures, "words": moved, "scored": []})
    return {"rows": rows}


def features(seen: Seen) -> dict[str, Any]:
    """The maps at a few depths, in the colors of their principal components."""
    with at_rest(seen.encoder), torch.no_grad():
        maps = seen.encoder.maps(seen.view)
    if any(one.dim() != 4 for one in maps):
        raise UserError("its maps are of space and time, N x C x T x H x W, and maps of one picture are shown")
    colored = [(pca_colors(one, SIDE), f"depth {d}: {_shape(one)}") for d, one in enumerate(maps, 1)]
    return {
        "rows": [
            _row(seen, k, [(colors[k], shape, f"map of {shape}") for colors, shape in colored])
            for k in range(len(seen.few))
        ],
        "protocol": {"components": 3, "fitted over": counted(len(seen.few), seen.tiles.plural)},
    }


def attention(seen: Seen) -> dict[str, Any]:
    """What the heads of the last block attend to, and what is left of the image after all blocks."""
    under = seen.pictures  # or a sentence that the kind has none
    heads, through = last_places(seen.encoder, seen.view)
    count = heads.shape[1]
    chosen = torch.linspace(0, count - 1, min(count, HEADS)).round().long().tolist()
    shown = [("all blocks", through), *((f"head {h + 1}", heads[:, h]) for h in chosen)]
    colored = [(laid_over(under, a), caption) for caption, a in shown]
    return {
        "rows": [
            _row(seen, k, [(over[k], caption, f"attention of {caption}") for over, caption in colored])
            for k in range(len(seen.few))
        ],
        "protocol": {"heads": f"{len(chosen)} of {count}, of the last block", "all blocks": "roll-out"},
    }


def similarity(seen: Seen) -> dict[str, Any]:
    """What makes some samples similar to their nearest neighbor, and to the sample that is farthest."""
    _insist_others(seen)
    unit = unit_rows(seen.features)
    cosine = (unit[seen.few] @ unit.T).scatter(1, seen.few[:, None], torch.nan)  # n x N
    ends = [("nearest", cosine.nan_to_num(-2).argmax(1)), ("farthest", cosine.nan_to_num(2).argmin(1))]
    plain, texts, sides = seen.kind.plain(seen.encoder), seen.tiles.face, []
    for what, other in ends:
        parts = seen.kind.similar_parts(seen.encoder, seen.view, seen.features[other])
        theirs = plain_view(plain, seen.samples, other, CPU)
        pictured = parts[0].picture is not None
        sides.append((what, other, parts, seen.kind.pictures(seen.encoder, theirs) if pictured else None))
    rows = []
    for k in range(len(seen.few)):
        pictures, scored = [], []
        for what, other, parts, shown in sides:
            j, part = int(other[k]), parts[k]
            said = f"{what}, cosine {float(cosine[k, j]):.2f}"
            if part.picture is not None and shown is not None:
                pictures += [
                    (part.picture, f"counts for the {what}", f"what counts for the {what}, {seen.name(j)},"),
                    (shown[k], said, f"the {what}, {seen.name(j)},"),
                ]
            else:
                scored.append({"caption": f"{said}: {texts.words(j) or seen.name(j)}", "words": list(part.words)})
        rows.append(_row(seen, k, pictures) | {"scored": scored})
    return {"rows": rows, "protocol": {"target": "cosine of the representations", "of": "the last maps or tokens"}}


def _insist_others(seen: Seen) -> None:
    if len(seen.samples) < 2:
        raise UserError(f"what is near and far takes others, and one {seen.tiles.noun} is looked at")


def neighbors(seen: Seen) -> dict[str, Any]:
    """Some samples and those nearest to them."""
    _insist_others(seen)
    grid = neighbor_grid(seen.features, seen.tiles, seed=seen.seed)
    return {"grid": grid, "protocol": grid["protocol"]}


def found(seen: Seen, count: int = 7, shown: int = 3) -> dict[str, Any]:
    """The samples whose nearest others are most and least often of their class."""
    label = seen.samples.label
    known = (label != MISSING).nonzero()[:, 0]
    several = known[torch.bincount(label[known])[label[known]] > 1] if len(known) else known
    if not len(known):
        raise UserError(f"right and wrong are told by labels, and none are known: {seen.kind.unlabeled}")
    if not len(several):
        raise UserError(f"right and wrong are told by labels, and no two of these {seen.kind.noun} have the same")
    unit, own = unit_rows(seen.features), label[several]
    near, _ = nearest(unit[several], torch.arange(len(several)), count)  # Q x K
    right = own[near] == own[:, None]
    mean = right.float().mean(1)
    order = mean.argsort(stable=True)
    chosen = torch.tensor([*_apart(order, own, shown), *_apart(order.flip(0), own, shown)]).unique_consecutive()
    ranks = ", ".join(map(_per_cent, right.float().mean(0).tolist()))
    measured = retrieval(seen.features[several], own, seed=seen.seed)
    finding = (
        f"Of the {near.shape[1]} nearest, from the first to the last, {ranks} are of the query's class. Over all that "
        f"are ranked mAP is {measured['mAP']:.1f} % ({measured['low']:.1f} to {measured['high']:.1f}), and in random "
        f"order {measured['prevalence']:.1f} %."
    )
    grid = neighbor_grid(seen.features, seen.tiles, neighbors=count, seed=seen.seed, chosen=several[chosen])
    for query, share in zip(grid["queries"], mean[chosen].tolist(), strict=True):
        query["heading"] = f"{round(share * near.shape[1])} of {near.shape[1]} right"
    return {"grid": grid, "finding": finding, "protocol": grid["protocol"]}


def _apart(order: Tensor, label: Tensor, count: int) -> list[int]:
    """The first positions of an order, one of each class."""
    chosen: dict[int, int] = {}
    for i in order.tolist():
        chosen.setdefault(int(label[i]), i)
        if len(chosen) == count:
            break
    return list(chosen.values())


def positives(seen: Seen, most: int = 256) -> dict[str, Any]:
    """The samples whose two views are farthest apart."""
    if seen.untrusted:
        raise UserError(seen.untrusted)
    viewer = seen.kind.views(seen.samples, seen.settings, dict(seen.made))
    if len(viewer) < 2:
        raise UserError("one view is made of each sample, and so no two are pulled together")
    generator = torch.Generator().manual_seed(seen.seed)
    index = torch.randperm(len(seen.samples), generator=generator)[:most].sort().values
    draws = viewer.draw(len(index), generator)
    rows = []
    with at_rest(seen.encoder), torch.no_grad():
        for start in range(0, len(index), 64):
            part = index[start : start + 64]
            views = viewer(*seen.samples.fetch(part), draws=draws.rows(slice(start, start + len(part))))
            rows.append([seen.projected(seen.encoder(view).float())[0] for view in views[:2]])
    first, second = (torch.cat(parts) for parts in zip(*rows, strict=True))
    hardest, cosine = hardest_positives(first, second, SHOWN)
    shown = []
    for k in hardest.tolist():
        one = index[k : k + 1]
        words = f"cosine {float(cosine[k]):.2f}"
        sheet = seen.kind.sheet(seen.samples, viewer, one, draws.rows(slice(k, k + 1)))
        picture = {
            "uri": picture_uri(sheet.convert("RGB"), "JPEG"),
            "caption": "",
            "alt": f"{seen.name(int(one))} and its views",
        }
        shown.append(_sample(seen, int(one)) | {"pictures": [picture], "words": words})
    finding = (
        f"Of {counted(len(index), seen.tiles.plural)} half have views whose cosine is above "
        f"{float(cosine.median()):.2f}; "
        f"that of the hardest is {float(cosine.min()):.2f}."
    )
    return {"rows": shown, "finding": finding, "protocol": {"cosine of": seen.contrasted[1], "seed": seen.seed}}


def negatives(seen: Seen, anchors: int = 6, count: int = 7) -> dict[str, Any]:
    """The samples that lie nearest to others as if they were views of them, and by how much they are pushed."""
    _insist_others(seen)
    z, what = seen.contrasted
    labels = bool(seen.made["needs_labels"])  # those of a class are then positives of each other
    group = seen.samples.label if labels else seen.samples.group
    temperature = None if isinstance(seen.method, str) else seen.method.pushes_at()
    parts = []
    for some in torch.arange(len(z)).split(512):
        share, cosine = gradient_shares(z, some, temperature=temperature or 1.0, group=group)
        best, at = cosine.topk(min(count, len(z) - 1), dim=1)
        parts.append((best, at, share.gather(1, at), cosine.isfinite().sum(1)))
    cosine, near, share, pushing = (torch.cat(column) for column in zip(*parts, strict=True))
    chosen = suspicious_anchors(cosine[:, 0], near[:, 0], anchors)
    chosen = chosen[cosine[chosen].isfinite().all(1)]
    if not len(chosen):
        raise UserError(f"no {seen.tiles.noun} here has as many as {count} negatives")
    fewest, most = int(pushing[chosen].min()), int(pushing[chosen].max())
    many = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    even = _per_cent(float((1 / pushing[chosen]).mean()), 2)
    remarks = [[_per_cent(value, 2) for value in row] for row in share[chosen].tolist()] if temperature else ()
    grid = groups_of(seen.tiles, chosen, near[chosen], cosine[chosen], remarks=remarks)
    if temperature:
        finding = (
            f"The percentage is the negative's share of the force that pushes the anchor away, among all its {many} "
            f"negatives here, by a softmax at the temperature {temperature:g}; on average it is {even}."
        )
    else:
        none = f"{type(seen.method).__name__} pushes samples away by no softmax at one temperature"
        why = seen.method if isinstance(seen.method, str) else none
        finding = f"No share of a gradient is shown: {why}."
    wrong = seen.samples.label[chosen, None] == seen.samples.label[near[chosen]]
    known = (seen.samples.label[chosen] != MISSING)[:, None] & (seen.samples.label[near[chosen]] != MISSING)
    if not labels and bool(known.any()):
        false = _per_cent(float(wrong[known].float().mean()))
        finding += f" Of those shown {false} are of the anchor's own class: false negatives."
    return {"grid": grid, "finding": finding, "protocol": {"cosine of": what, "negatives": many}}


def clusters(seen: Seen, shown: int = 6, count: int = 8) -> dict[str, Any]:
    """The samples nearest to some prototypes of the method, or to the centers of clusters."""
    table = getattr(seen.method, "prototypes", None)
    table = getattr(table, "weight", table)
    if isinstance(table, Tensor):
        z, what = seen.contrasted
        centers, called = table.detach().float(), "prototype"
    else:
        z, what, called = seen.features, "the representation", "cluster"
        k = min(max(len(seen.samples.classes), 8), MOST_CLUSTERS, len(z))
        centers = kmeans(unit_rows(z), k, seed=seen.seed).centroids
    cosine = unit_rows(z) @ unit_rows(centers).T  # N x K
    assigned = cosine.argmax(1)
    held = torch.bincount(assigned, minlength=len(centers))
    largest = held.argsort(descending=True, stable=True)[:shown]
    largest = largest[held[largest] > 1]
    headings, firsts, near, similar = [], [], [], []
    for c in largest.tolist():
        best, at = cosine[:, c].masked_fill(assigned != c, -2).topk(min(count, int(held[c])))
        headings.append(f"{called} {c + 1}: {counted(int(held[c]), seen.tiles.plural)}{_mostly(seen, assigned == c)}")
        firsts.append(int(at[0]))
        near.append(at[1:])
        similar.append(best[1:])
    parts = [
        groups_of(seen.tiles, torch.tensor([first]), at[None], best[None], headings=[heading])
        for heading, first, at, best in zip(headings, firsts, near, similar, strict=True)
    ]
    if not parts:
        raise UserError(f"no {called} holds two {seen.tiles.plural} or more")
    grid = parts[0] | {"queries": [query for part in parts for query in part["queries"]]}
    empty = int((held == 0).sum())
    finding = f"{counted(len(centers), called + 's')}, of which {empty:,} are the nearest of no {seen.tiles.noun}."
    return {"grid": grid, "finding": finding, "protocol": {"cosine of": what}}


def _mostly(seen: Seen, which: Tensor) -> str:
    """The class that most of some samples are of, and how many are."""
    label = seen.samples.label[which]
    if not len(known := label[label != MISSING]):
        return ""
    most = torch.bincount(known)
    return f", {_per_cent(int(most.max()) / len(known))} {seen.samples.classes[int(most.argmax())]}"


def _shape(maps: Tensor) -> str:
    return f"{maps.shape[1]} x {maps.shape[2]} x {maps.shape[3]}"


def _row(seen: Seen, k: int, pictures: Sequence[tuple[Tensor, str, str]]) -> dict[str, Any]:
    """Pictures of one of the few samples, behind itself.  pictures: 3 x H x W in [0, 1], a caption, and what it is."""
    i = int(seen.few[k])
    shown = [_picture(_bytes(x), caption, f"{what} of {seen.name(i)}") for x, caption, what in pictures]
    first = [_picture(_bytes(seen.pictures[k]), "", seen.name(i))] if pictures else []
    return _sample(seen, i) | {"pictures": [*first, *shown]}


def _sample(seen: Seen, i: int) -> dict[str, Any]:
    return {"name": seen.name(i), "label": seen.tiles.class_name(i), "pictures": [], "words": "", "scored": []}


def _picture(image: Tensor, caption: str, alt: str) -> dict[str, str]:
    return {"uri": data_uri(image), "caption": caption, "alt": alt}


def _per_cent(share: float, places: int = 0) -> str:
    return f"{100 * share:.{places}f} %"


def _bytes(x: Tensor) -> Tensor:
    return x.mul(255).round().clamp(0, 255).byte()


SECTIONS: dict[str, Callable[[Seen], dict[str, Any]]] = {
    "kernels": kernels,
    "features": features,
    "attention": attention,
    "similarity": similarity,
    "neighbors": neighbors,
    "retrieval": found,
    "positives": positives,
    "negatives": negatives,
    "clusters": clusters,
}
"""What can be looked at, by the names that `nearfar look --kind` takes, in the order of the page."""


def sections(seen: Seen, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The sections that were asked for, all by default. One that is not possible says why under "missing"."""
    made = []
    for name in SECTIONS:
        if kinds and name not in kinds:
            continue
        try:
            section = {"missing": "", **SECTIONS[name](seen)}
        except UserError as error:
            section = {"missing": str(error)}
        made.append({"kind": name, "rows": [], "grid": None, "finding": "", "protocol": {}} | section)
    return made


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page.  rows: pictures of samples, or of the network.  gallery: groups of samples."""

    kind: str
    missing: str
    finding: str
    rows: list[dict[str, Any]]
    gallery: Gallery | None
    protocol: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class LookPage:
    """What the page of `nearfar look` shows, without a word of HTML."""

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]


def page_sections(content: Mapping[str, Any] | None, facts: Sequence[tuple[str, str]] = ()) -> list[Section]:
    """The sections of a stored result, as `nearfar.report.record` has read it.

    facts: that stand under each, where the page itself is not of them alone.
    """
    return [
        Section(
            kind=one["kind"],
            missing=one["missing"],
            finding=one["finding"],
            rows=one["rows"],
            gallery=None if one["grid"] is None else neighbor_gallery(one["grid"]),
            protocol=[*((name.lower(), value) for name, value in facts), *protocol(one)],
        )
        for one in (content or {"sections": []})["sections"]
    ]


def source(content: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What a stored result is of: which run and checkpoint, and which data."""
    if content is None:
        return []
    names = {"Run": "run", "Checkpoint": "checkpoint", "Looked at": "data"}
    return [(title, str(content[name])) for title, name in names.items()]


def write_page(path: Path, content: Mapping[str, Any], title: str) -> Path:
    """The page of a result, as `nearfar.report.record` gives it, in one move."""
    page = LookPage(title=title, facts=source(content), sections=page_sections(content))
    return write(path, "look.html", page, {})
