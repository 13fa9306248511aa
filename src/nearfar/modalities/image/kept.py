"""What is left of the meaning of images, by their labels, once each change of some views is made alone.

Meaning is what the labels say, and what tells it are neighbors: of an image's nearest others, by gradients and colors
and no network, some share has its label. The same is asked of changed images among others that are changed likewise.
Where much less of the neighbors share the label, the change makes images of different labels alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.intervals import bootstrap
from nearfar.modalities.examination import Kept, Meaning
from nearfar.modalities.image.nature import SIDE, gradients
from nearfar.modalities.image.plan import Affine, View
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.views import Views, plain

MOST, CLASSES, NEAREST, COPIES = 500, 25, 5, 2
"""Labeled images that are looked at, and the labels that they have, at most; neighbors of each image; and changed
copies of each other image, besides itself."""


def alone(view: View, channels: int) -> dict[str, tuple[Any, View]]:
    """Each change that a view makes, on the plain view, always made, and how strong it is.

    channels: of the images; those of one channel have no colors to change.
    """
    base, found = plain(view.size).views[0], {}
    if view.area:
        found["area"] = (view.area, replace(base, area=view.area, ratio=view.ratio))
    for name in ("flip", "vflip", "solarize"):
        if getattr(view, name):
            found[name] = (getattr(view, name), replace(base, **{name: 1.0}))
    if view.quarter_turns:
        found["quarter_turns"] = (1, replace(base, quarter_turns=True))
    if affine := view.affine:
        for name, still in (("rotate", 0.0), ("scale", (1.0, 1.0)), ("shear", 0.0), ("shift", 0.0)):
            if (value := getattr(affine, name)) != still:
                found[name] = (value, replace(base, affine=replace(Affine(fill=affine.fill), **{name: value})))
    colors = ("brightness", "contrast", "saturation", "hue") if channels == 3 else ("brightness", "contrast")
    for name in colors if view.jitter else ():
        if value := getattr(view, name):
            found[name] = (value, replace(base, jitter=1.0, **{name: value}))
    if view.gray and channels == 3:
        found["gray"] = (view.gray, replace(base, gray=1.0))
    if view.blur:
        found["blur"] = (view.blur, replace(base, blur=1.0, sigma=view.sigma, kernel=view.kernel))
    if view.cutout:
        found["cutout"] = (view.cutout, replace(base, cutout=1.0, hole=view.hole))
    if view.randaugment:
        found["randaugment"] = (
            view.randaugment,
            replace(base, randaugment=view.randaugment, magnitude=view.magnitude),
        )
    return found


@torch.no_grad()
def meaning(images: Images, several: dict[str, Any], seed: int = 0) -> Meaning:
    """What is left of the labels of some images under each change of several views, by the views' names.

    several: views, in which changes are looked at one by one where they are `Views`, and else all together.
    Raises ValueError where fewer than two labels are on two images each.
    """
    label = images.label.cpu()
    counts = torch.bincount(label[label != MISSING], minlength=1)
    often = (label != MISSING) & (counts[label.clamp(min=0)] > 1)
    if len(label[often].unique()) < 2:
        raise UserError("which changes keep the meaning is told by labels, of which two or more are on several images")
    generator = torch.Generator().manual_seed(seed)
    classes = label[often].unique()
    some_classes = classes[torch.randperm(len(classes), generator=generator)[:CLASSES]]
    rows = (often & torch.isin(label, some_classes)).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator)[:MOST]].sort().values
    some = images.subset(rows)
    pixels, aspect = (part.cpu() for part in some.fetch(torch.arange(len(some))))
    judge = _Judge(some)

    size = max((view.size for views in several.values() for view in getattr(views, "views", ())), default=64)
    (still,) = plain(size)(pixels, aspect)
    mean = still.mean((0, 2, 3), keepdim=True)
    before = _features(still, mean)
    untouched = judge(before, [before])

    def made(views: Any, which: int = 0) -> Tensor:
        return _features(views(pixels, aspect, draws=views.draw(len(some), generator))[which].cpu(), mean)

    def kept(change: str, setting: Any, query: Tensor, others: Sequence[Tensor]) -> Kept:
        same = judge(query, [before, *others])
        lost = bootstrap(untouched - same, seed=seed, group=some.group, draws=2000)
        share = float(same.mean()) / max(float(untouched.mean()), 1e-9)
        return Kept(change, list(setting) if isinstance(setting, tuple) else setting, float(same.mean()), share, lost)

    found: dict[str, list[Kept]] = {}
    for name, views in several.items():
        each: dict[str, tuple[Any, View]] = {}
        for view in views.views if isinstance(views, Views) else ():
            each = alone(view, some.channels) | each  # of unequal views the first that makes the change
        rows_of = [
            kept(change, setting, made(Views([view])), [made(Views([view])) for _ in range(COPIES)])
            for change, (setting, view) in each.items()
        ]
        last = len(views) - 1
        whole = kept("all", None, made(views), [made(views, min(c, last)) for c in range(COPIES)])
        found[name] = [*rows_of, whole]
    return Meaning(len(some), judge.chance, float(untouched.mean()), found)


class _Judge:
    """How many of the nearest other images have an image's label."""

    def __init__(self, images: Images) -> None:
        own = torch.arange(len(images))
        label, group = images.label.cpu(), images.group.cpu()
        self.same = label[:, None] == label  # n x n
        self.barred = (own[:, None] == own) | ((group[:, None] == group) & (group != MISSING))
        self.chance = float(self.same[~self.barred].float().mean())

    def __call__(self, query: Tensor, others: Sequence[Tensor]) -> Tensor:
        """The share of each query's `NEAREST` neighbors with its label: n, float64. Each other image counts once, by
        the nearest of its copies.  query: n x D.  others: copies, n x D each."""
        near = torch.stack([query @ rows.T for rows in others]).amax(0).masked_fill(self.barred, -2)
        nearest = near.topk(min(NEAREST, len(near) - 1), dim=1).indices
        return self.same.gather(1, nearest).double().mean(1)


def _features(x: Tensor, mean: Tensor) -> Tensor:
    """Gradients, which know shapes and no colors, and 4 x 4 colors, of images n x C x s x s, as unit rows: n x D.

    mean: of each channel, 1 x C x 1 x 1."""
    small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    coarse = F.normalize(F.adaptive_avg_pool2d(small - mean, 4).flatten(1), dim=1)
    return F.normalize(torch.cat([gradients(small.mean(1)), coarse], 1), dim=1)
