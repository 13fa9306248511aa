"""What is done to each sample to make one view: described by `View`, drawn as `Draws`, worked out as `ViewPlan`.

All chance lies in `Draws`, uniform numbers made on the CPU for the global batch. `FIELDS` names them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TRIES = 10
"""A crop is drawn again at most this often until it fits, as in torchvision."""

FIELDS = {
    "crop": 2 * TRIES,  # the share of the image of each crop that is tried, then the shape of each
    "place": 2,  # where it lies: across, down
    "flip": 1,
    "jitter": 1,  # whether colors change
    "factor": 4,  # how much: brightness, contrast, saturation, hue
    "order": 3,  # in which order: contrast and saturation come before hue where theirs are smaller than its number
    "gray": 1,
    "blur": 2,  # whether, and how much
    "turn": 1,  # how many quarters, and by where it lies within its quarter, whether to solarize
    "affine": 5,  # angle, zoom, shear, shift across, shift down
}
"""The uniform numbers behind one view of one sample, in their order: how many serve what."""

MOST_OPERATIONS = 8
"""Of RandAugment, on one view."""

OPERATIONS = 14
"""From which RandAugment draws: see `nearfar.modalities.image.randaugment`."""

FURTHER = {
    "vflip": 1,
    "cutout": 3,  # whether, and where its middle lies: across, down
    "randaugment": 2 * MOST_OPERATIONS,  # which operations, then in which direction each
}
"""Those that follow where a view needs them: views without have the numbers that they always had."""

ALL = FIELDS | FURTHER

STEPS = {"color": ("jitter", "factor", "order", "gray"), "turn": ("turn",), "affine": ("affine",)}
"""The fields that decide a step which two views may share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A random affine map about the middle of the view, in the order and with the signs of torchvision's RandomAffine.

    rotate, shear: largest angle either way, in degrees. scale: range of the zoom. shift: largest shift either way, as a
    share of the side. fill: the value of what lies outside the image, in [0, 1]; None shows the image mirrored there.
    """

    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    shift: float = 0.0
    fill: float | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one view is made: crop, flips, RandAugment, jitter, grayscale, blur, solarize, turn, cutout, in that order.

    size: side of the view in pixels.
    area, ratio: ranges of a random crop's share of the image and of its width over its height (log-uniform). Without
        area, the crop is the middle square, `center` times the short side of the image.
    flip, vflip, gray, blur, solarize, jitter, cutout: probabilities; vflip turns the view upside down. Solarize inverts
        values of 0.5 and above.
    brightness, contrast, saturation, hue: strengths with torchvision's meaning, applied in random order. Images that
        are not of 3 channels have brightness and contrast only.
    sigma, kernel: range of the blur's standard deviation, and its width (odd), in pixels of the view.
    affine: a random affine map, always applied, whose border shows what lies outside the crop.
    quarter_turns: whether the view is turned by 0, 1, 2 or 3 quarters, each as likely.
    hole: side of the square that cutout fills with the view's mean color, as a share of the view's side. Its middle is
        any place of the view, so that a part of it may lie outside (DeVries and Taylor 2017, arXiv 1708.04552).
    randaugment: operations of RandAugment, each drawn anew; at most `MOST_OPERATIONS`. magnitude: of all of them, 0 to
        30 (Cubuk et al. 2020, arXiv 1909.13719).
    """

    size: int
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    center: float = 1.0
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int = 23
    solarize: float = 0.0
    affine: Affine | None = None
    quarter_turns: bool = False
    vflip: float = 0.0
    cutout: float = 0.0
    hole: float = 0.5
    randaugment: int = 0
    magnitude: int = 9

    @property
    def fixed(self) -> bool:
        """Whether nothing of it is random."""
        return not (self.area or self.flip or self.colored or self.blur or self.solarize or self.affine) and not (
            self.quarter_turns or self.further
        )

    @property
    def further(self) -> bool:
        """Whether the numbers of `FURTHER` are needed."""
        return self.vflip > 0 or self.cutout > 0 or self.randaugment > 0

    @property
    def colored(self) -> bool:
        """Whether any color changes."""
        return self.gray > 0 or (self.jitter > 0 and max(self.brightness, self.contrast, self.saturation, self.hue) > 0)

    @property
    def radius(self) -> int:
        """Half the width of the blur; beyond four standard deviations there is nothing to see."""
        return min(self.kernel // 2, math.ceil(4 * self.sigma[1]), self.size - 1)


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance behind the views of N samples: uniform numbers in [0, 1), N x V x sum of `FIELDS`, or of these and
    `FURTHER`, on the CPU."""

    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, rows: slice) -> Draws:
        """The draws of some of the samples, such as those of one process."""
        return Draws(self.numbers[rows])

    def fields(self, view: int) -> dict[str, Tensor]:
        """The numbers of one view by their names: N x width of the field each."""
        names = FIELDS if self.numbers.shape[2] == sum(FIELDS.values()) else ALL
        parts = self.numbers[:, view].split(list(names.values()), dim=1)
        return dict(zip(names, parts, strict=True))


def draw(
    n: int, views: int, generator: torch.Generator, shared: Sequence[tuple[int, str]] = (), *, further: bool = False
) -> Draws:
    """Draw the numbers of `n` samples and so many views from a CPU generator. The first rows do not depend on `n`.

    shared: pairs of a view and a step, one of `STEPS`, whose numbers are those of the first view.
    further: draw those of `FURTHER` too.
    """
    draws = Draws(torch.rand(n, views, sum((ALL if further else FIELDS).values()), generator=generator))
    for view, step in shared:
        first, other = draws.fields(0), draws.fields(view)
        for field in STEPS[step]:
            other[field].copy_(first[field])
    return draws


def no_draws(n: int, views: int) -> Draws:
    """The draws of views in which nothing is random."""
    return Draws(torch.zeros(n, views, sum(FIELDS.values())))


class ViewPlan(NamedTuple):
    """What is to be done for each sample of one view: N x ... tensors."""

    box: Tensor  # N x 4: left, top, width, height in stored pixels, whole numbers
    flip: Tensor  # N, bool
    factors: Tensor  # N x 4: brightness, contrast, saturation, hue
    first: Tensor  # N x 2, bool: contrast before hue, saturation before hue
    gray: Tensor  # N, bool
    sigma: Tensor  # N, 0 where there is no blur
    solarize: Tensor  # N, bool
    turn: Tensor  # N, int64, quarters
    matrix: Tensor  # N x 2 x 3, from view to crop, both in [-1, 1]
    # None where no sample of the view has any:
    vflip: Tensor | None = None  # N, bool
    hole: Tensor | None = None  # N x 4: left, top, right, bottom in pixels of the view, whole numbers; all 0 for none
    operations: Tensor | None = None  # N x operations of RandAugment, int64: which
    reverse: Tensor | None = None  # N x operations, bool: whether in the negative direction

    def rows(self, rows: slice) -> ViewPlan:
        return ViewPlan._make(x if x is None else x[rows] for x in self)

    def to(self, device: torch.device) -> ViewPlan:
        return ViewPlan._make(x if x is None else x.to(device, non_blocking=True) for x in self)


def make_plan(view: View, drawn: dict[str, Tensor], aspect: Tensor, side: int) -> ViewPlan:
    """The parameters of one view of N samples.

    drawn: from `Draws.fields`.  aspect: N, true width over height.  side: of the stored squares, in pixels.
    """
    if view.area is None:
        short = view.center * torch.stack((1 / aspect, aspect), 1).clamp(max=1)  # N x 2
        size = (short * side).round().clamp(1, side)
        start = ((side - size) / 2).floor()
        box = torch.cat((start, size), 1)
    else:
        box = _crop(view.area, view.ratio, drawn["crop"], drawn["place"], aspect, side)
    most = torch.tensor([view.brightness, view.contrast, view.saturation, view.hue])
    still = torch.tensor([1.0, 1.0, 1.0, 0.0])
    low = still - most
    low[:3].clamp_(min=0)
    changed = low + drawn["factor"] * (still + most - low)  # N x 4
    whether, strength = drawn["blur"].unbind(1)
    sigma = torch.where(whether < view.blur, _between(view.sigma, strength), torch.zeros(len(whether)))
    quarters = drawn["turn"][:, 0] * (4 if view.quarter_turns else 1)
    order = drawn["order"]
    return ViewPlan(
        box=box,
        flip=drawn["flip"][:, 0] < view.flip,
        factors=torch.where(drawn["jitter"] < view.jitter, changed, still),
        first=order[:, :2] < order[:, 2:],
        gray=drawn["gray"][:, 0] < view.gray,
        sigma=sigma,
        solarize=quarters.frac() < view.solarize,
        turn=quarters.long(),
        matrix=_affine(view.affine or Affine(), drawn["affine"]),
        **_further(view, drawn),
    )


def in_image(plan: ViewPlan, side: int) -> Tensor:
    """The affine map from places in the view to places in the squashed image, both from -1 to 1, by crop, flip and
    affine map, before the view is turned by quarters: N x 2 x 3."""
    linear = plan.box[:, 2:, None] / side * plan.matrix
    linear[:, :, 2] += (2 * plan.box[:, :2] + plan.box[:, 2:]) / side - 1
    linear[:, :, 0] *= torch.where(plan.flip, -1.0, 1.0)[:, None]
    if plan.vflip is not None:
        linear[:, :, 1] *= torch.where(plan.vflip, -1.0, 1.0)[:, None]
    return linear


def _further(view: View, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `FURTHER` decides of a view, by the names of `ViewPlan`; nothing where no number is drawn for it."""
    made: dict[str, Tensor] = {}
    if "vflip" not in drawn:
        return made
    if view.vflip > 0:
        made["vflip"] = drawn["vflip"][:, 0] < view.vflip
    if view.cutout > 0:
        side = max(1, round(view.hole * view.size))
        start = (drawn["cutout"][:, 1:] * view.size).floor() - side // 2  # as the paper's code: the middle is a pixel
        hole = torch.cat((start, start + side), 1).clamp(0, view.size)
        made["hole"] = hole.long() * (drawn["cutout"][:, :1] < view.cutout)
    if view.randaugment:
        which, direction = drawn["randaugment"].chunk(2, dim=1)
        made["operations"] = (which[:, : view.randaugment] * OPERATIONS).long()
        made["reverse"] = direction[:, : view.randaugment] < 0.5
    return made


def _between(bounds: tuple[float, float], u: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _crop(
    area: tuple[float, float],
    ratio: tuple[float, float],
    crop: Tensor,
    place: Tensor,
    aspect: Tensor,
    side: int,
) -> Tensor:
    """Crop boxes N x 4 by torchvision's rule: the first of ten random shapes that fits, else the middle."""
    share, shape = crop.chunk(2, dim=1)
    share = _between(area, share)  # N x 10
    shape = _between((math.log(ratio[0]), math.log(ratio[1])), shape).exp() / aspect[:, None]  # in the squashed square
    size = (torch.stack(((share * shape).sqrt(), (share / shape).sqrt()), -1) * side).round()  # N x 10 x 2
    fits = ((size > 0) & (size <= side)).all(-1)  # N x 10
    chosen = fits.int().argmax(1)[:, None, None].expand(-1, 1, 2)
    size = size.gather(1, chosen)[:, 0]  # N x 2
    start = (place * (side - size + 1)).floor().minimum(side - size)
    fallback = aspect.clamp(*ratio) / aspect
    whole = (torch.stack((fallback, 1 / fallback), 1).clamp(max=1) * side).round().clamp(min=1)
    some = fits.any(1)[:, None]
    size = torch.where(some, size, whole)
    start = torch.where(some, start, ((side - whole) / 2).floor())
    return torch.cat((start, size), 1)


def _affine(affine: Affine, u: Tensor) -> Tensor:
    """The inverse maps of random affine ones, N x 2 x 3, in coordinates from -1 to 1."""
    angle = (2 * u[:, 0] - 1) * math.radians(affine.rotate)
    scale = _between(affine.scale, u[:, 1])
    shear = ((2 * u[:, 2] - 1) * math.radians(affine.shear)).tan()
    shift = (2 * u[:, 3:5] - 1) * affine.shift * 2  # N x 2
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # torchvision: view = rotate(slant(image)) * scale + shift
    linear = torch.stack((cos - shear * sin, sin + shear * cos, -sin, cos), 1).view(-1, 2, 2)
    return torch.cat((linear, -linear @ shift[:, :, None]), 2)
