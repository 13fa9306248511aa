"""How well the class of each pixel can be told from frozen maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.digests import digests, fingerprint
from nearfar.data.labels import some
from nearfar.data.masks import Masks, insist_masks, insist_sizes, open_masks
from nearfar.dense.scene import Look, Say, Scene, Split, opened, splits, told
from nearfar.dense.tuned import trained
from nearfar.evaluation.segmentation import (
    PRIORS,
    STRENGTHS,
    Discriminant,
    Grid,
    Sums,
    confusion,
    discriminant,
    overlaps,
    sums,
)
from nearfar.files import origin
from nearfar.method import Encoder
from nearfar.owner import writes
from nearfar.ranges import NonNegativeInt, PositiveInt, Seed, checked
from nearfar.report.dense import segmentation_table, segments
from nearfar.run import Run

Walk = Iterator[tuple[int, list[Tensor], Grid, Tensor]]

WIDEST = 2048
"""Channels of all depths together beyond which the last alone is looked at: sums take their square."""

SHOWN = 5
"""Images in the picture of a report."""


@writes
@checked
def segment(
    run: Run,
    data: Any,
    masks: str | Path,
    *,
    instances: bool = False,
    ignore: NonNegativeInt | None = None,
    finetune: bool = False,
    size: PositiveInt = 256,
    steps: PositiveInt = 300,
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """How well a linear discriminant tells the class of each pixel from frozen maps: mIoU and Dice at the resolution of
    the masks, beside color and position, and the untrained encoder.

    masks, instances: see `nearfar.data.masks.open_masks`.  ignore: the number of pixels that count for nothing.
    size: of the longer side of an image as the encoder sees it, in pixels.
    finetune: a copy of the encoder is trained with a linear head instead, for so many `steps` of 4 images, and nothing
    is chosen.
    Images of the split test are tested where one is named, else three folds are; what is chosen (the depths, the ridge,
    how classes are weighted) is chosen on held-out training images.
    Writes results/masks-DATA-DIGEST.json and returns what it holds.
    """
    insist_masks(masks, (run.kind.columns(data) if isinstance(data, str | Path) else None) or [])
    scene = opened(run, data, size, say)
    truth = open_masks(masks, scene.samples.names, scene.cells(), scene.root(), instances=instances, ignored=ignore)
    insist_sizes(truth, scene.samples.names, scene.size)
    there, noun = truth.there, run.kind.noun
    if not there.all():
        without = [scene.samples.names[i] for i in (~there).nonzero()[:, 0].tolist()]
        say(f"{len(without):,} of {len(there):,} {noun} have no mask and are left out: {some(without)}.")
    parts = splits(scene, there, seed, say, "masks")
    shares = torch.stack(
        [_pixels(truth, i) if there[i] else torch.zeros(len(truth.classes)) for i in range(len(truth))]
    )
    absent = _absent(truth, shares, parts)
    if absent:
        say(absent)
    tested = torch.cat([part.tested for part in parts])
    counts: dict[str, Tensor] = {}
    chosen: dict[str, list[str]] = {}
    named: dict[str, list[Tensor]] = {}
    if finetune:
        for name, encoder in scene.encoders().items():
            counts[name], named[name] = _tuned(encoder, scene, truth, parts, steps, seed)
    else:
        for name, look in {"color and position": scene.whole_look(_colors), **scene.looks()}.items():
            counts[name], chosen[name], named[name] = _tell(look, scene, truth, parts)
    known = scene.known()
    table = segmentation_table(
        counts,
        chosen,
        truth.classes,
        scene.samples.group[tested],
        f"{told(scene, parts, known, choices=not finetune)} {absent}".strip(),
        seed,
        steps if finetune else 0,
    )
    table["picture"] = segments(
        [_shown(scene, truth, int(i), named, k) for k, i in enumerate(tested[:SHOWN])], list(named)
    )
    table["seen"] = {"samples": int(known[tested].sum()), "of": len(tested)}
    table["protocol"] |= {"masks": origin(masks), "instances": instances, "ignored": ignore, "side": scene.whole.side}
    made = [fingerprint(digests(scene.samples), scene.samples), str(masks), str(instances), str(ignore), str(size)]
    made += [f"finetune {steps}"] if finetune else []
    return run.kept(table, "masks", data, made, known)


def _tell(look: Look, scene: Scene, truth: Masks, parts: Sequence[Split]) -> tuple[Tensor, list[str], list[Tensor]]:
    """The confusion of each tested image, what each split chose, and what the first images are taken for."""
    roles = _roles(parts, len(truth))
    of: dict[tuple[str, ...], Sums] = {}
    dims: list[int] = []
    learned = torch.cat([torch.cat([part.fit, part.held]) for part in parts]).unique()
    for i, maps, grid, mask in _walk(look, scene, truth, learned):
        dims = [len(m) for m in maps]
        own = sums(maps, grid, mask, len(truth.classes))
        if roles[i] in of:
            of[roles[i]] += own
        else:
            of[roles[i]] = own
    counts, chosen, named = [], [], []
    for at, part in enumerate(parts):
        fit, whole = (_added(of, at, which) for which in (("fit",), ("fit", "held")))
        choice = _choose(look, scene, truth, part.held, fit, dims)
        chosen.append(choice.said(dims))
        final = choice.fitted(whole, dims)
        for _, maps, grid, mask in _walk(look, scene, truth, part.tested):
            (taken,) = final.named(maps[choice.depth(dims) :], choice.grid(grid, dims))
            counts.append(confusion(taken, mask, len(truth.classes)))
            if len(named) < SHOWN:
                named.append(taken)
    return torch.stack(counts), chosen, named


def _tuned(
    encoder: Encoder, scene: Scene, truth: Masks, parts: Sequence[Split], steps: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """The confusion of each tested image, and what the first are taken for, by encoders trained with a head."""
    counts, named = [], []
    for part in parts:
        tell = trained(encoder, scene, truth, torch.cat([part.fit, part.held]), steps, seed)
        for rows in part.tested.split(8):
            for i, scores in zip(rows.tolist(), tell(rows), strict=True):
                taken = scores.max(0).indices
                counts.append(confusion(taken, truth.classed(i), len(truth.classes)))
                if len(named) < SHOWN:
                    named.append(taken)
    return torch.stack(counts), named


@dataclass(frozen=True)
class _Choice:
    """last: whether only the last depth counts.  strength, prior: see `discriminant`."""

    last: bool
    strength: float
    prior: float

    def depth(self, dims: Sequence[int]) -> int:
        return len(dims) - 1 if self.last else 0

    def grid(self, grid: Grid, dims: Sequence[int]) -> Grid:
        return Grid(grid.rows[self.depth(dims) :], grid.columns[self.depth(dims) :])

    def fitted(self, of: Sums, dims: Sequence[int]) -> Discriminant:
        return discriminant(of, self.strength, self.prior, sum(dims[: self.depth(dims)]))

    def said(self, dims: Sequence[int]) -> str:
        depths = "the last depth" if self.last or len(dims) == 1 else f"{len(dims)} depths"
        favored = {0.0: "all classes alike", 0.5: "by the root of their pixels", 1.0: "by their pixels"}
        return f"{depths}, ridge {self.strength:g}, classes weighted {favored[self.prior]}"


def _choose(look: Look, scene: Scene, truth: Masks, held: Tensor, fit: Sums, dims: Sequence[int]) -> _Choice:
    """The depths, the ridge and the weights of classes with the highest mean IoU on held-out images."""
    lasts = [True] if len(dims) == 1 or sum(dims) > WIDEST else [True, False]
    choices = [_Choice(*one) for one in product(lasts, STRENGTHS, PRIORS)]
    fitted = [choice.fitted(fit, dims) for choice in choices]
    classes, each = len(truth.classes), len(PRIORS)  # which change the bias alone
    counts = torch.zeros(len(choices), classes, classes, dtype=torch.float64)
    for _, maps, grid, mask in _walk(look, scene, truth, held):
        for first in range(0, len(choices), each):
            choice, biases = choices[first], [own.bias for own in fitted[first : first + each]]
            for k, taken in enumerate(fitted[first].named(maps[choice.depth(dims) :], choice.grid(grid, dims), biases)):
                counts[first + k] += confusion(taken, mask, classes)
    return choices[int(overlaps(counts)[0].nanmean(1).nan_to_num(-1).argmax())]


def _walk(look: Look, scene: Scene, truth: Masks, index: Tensor, batch: int = 8) -> Walk:
    """Of each of some images its position, its maps, how they reach its mask, and that."""
    for some_of in index.split(batch):
        several = look(some_of)
        for row, i in enumerate(some_of.tolist()):
            maps = [one[row] for one in several]
            mask = truth.classed(i)
            height, width = mask.shape
            yield i, maps, Grid.of(maps, scene.whole.extent(i), scene.whole.side, (height, width)), mask


def _roles(parts: Sequence[Split], n: int) -> list[tuple[str, ...]]:
    """What each sample is in each split: sums are kept once for all samples that are the same in all."""
    roles = [["" for _ in parts] for _ in range(n)]
    for at, part in enumerate(parts):
        for role in ("fit", "held", "tested"):
            for i in getattr(part, role).tolist():
                roles[i][at] = role
    return [tuple(own) for own in roles]


def _added(of: dict[tuple[str, ...], Sums], at: int, which: Sequence[str]) -> Sums:
    made = None
    for role, own in of.items():
        if role[at] in which:
            made = made or Sums.zero(len(own.square), len(own.count))
            made += own
    assert made is not None
    return made


def _colors(view: Tensor, inside: Tensor) -> list[Tensor]:
    """The colors of a pixel, their means over its neighborhood and over a wider one, and its place, as maps."""
    near, wide = (
        F.avg_pool2d(view * inside, k, 1, k // 2) / F.avg_pool2d(inside, k, 1, k // 2).clamp(min=1e-6) for k in (3, 9)
    )
    at = torch.linspace(-1, 1, view.shape[-1])
    y, x = torch.meshgrid(at, at, indexing="ij")
    place = torch.stack([x, y, x * x, y * y, x * y]).expand(len(view), -1, -1, -1)
    return [torch.cat([view, near, wide, view.square(), place], 1)]


def _pixels(truth: Masks, i: int) -> Tensor:
    mask = truth.classed(i)
    return torch.bincount(mask[mask >= 0], minlength=len(truth.classes)).float()


def _absent(truth: Masks, shares: Tensor, parts: Sequence[Split]) -> str:
    """A sentence on classes that are tested and that some split learns nothing of."""
    lost = torch.zeros(len(truth.classes), dtype=torch.bool)
    for part in parts:
        lost |= (shares[part.tested].sum(0) > 0) & (shares[torch.cat([part.fit, part.held])].sum(0) == 0)
    names = [repr(truth.classes[c]) for c in lost.nonzero()[:, 0].tolist()]
    return f"Tested and in no training mask, so that none of their pixels can be found: {some(names)}." if names else ""


def _shown(scene: Scene, truth: Masks, i: int, named: dict[str, list[Tensor]], k: int) -> list[Tensor]:
    """What a picture shows of an image: the image, its mask and what each row takes it for."""
    height, width = scene.whole.extent(i)
    image = (scene.whole.view(torch.tensor([i]))[0, :, :height, :width] * 255).round().to(torch.uint8)
    return [image, truth.classed(i), *(own[k] for own in named.values())]
