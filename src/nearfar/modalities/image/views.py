"""Views of images: random crops and colors for a whole batch at once, on the device that holds the pixels.

An image comes as a square of S x S pixels into which its true shape was squashed, with its true aspect (width over
height). Crops are drawn in the true shape. Cropping, antialiased resizing, flipping and blurring are linear along each
side of the image, so together they are two matrix products a sample; color jitter and grayscale are one map of the
colors. All chance lies in `Draws`, uniform numbers made on the CPU for the global batch: the views of a sample depend
on its row of them alone, never on the device or on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.machine import opencv
from nearfar.modalities.image import color as color

_TRIES = 10  # a crop is drawn again at most this often until it fits, as in torchvision
_NUMBERS = 2 * _TRIES + 2 + 1 + 8 + 1 + 2 + 1 + 5  # uniform numbers a view: see _plan
_STEPS = {"color": slice(23, 32), "turn": slice(34, 35), "affine": slice(35, 40)}  # which of them a step uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A random affine map about the middle of the view, in the order and with the signs of torchvision's RandomAffine.

    rotate, shear: largest angle either way, in degrees. scale: range of the zoom. shift: largest shift either way, as a
    share of the side. fill: the value of what lies outside the image, in [0, 1].
    """

    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    shift: float = 0.0
    fill: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one view is made: crop, flip, jitter, grayscale, blur, solarize, turn, in that order.

    size: side of the view in pixels.
    area, ratio: ranges of a random crop's share of the image and of its width over its height (log-uniform). Without
        area, the crop is the middle square, `center` times the short side of the image.
    flip, gray, blur, solarize, jitter: probabilities. Solarize inverts values of 0.5 and above.
    brightness, contrast, saturation, hue: strengths with torchvision's meaning, applied in random order. Images that
        are not of 3 channels have brightness and contrast only.
    sigma, kernel: range of the blur's standard deviation, and its width (odd), in pixels of the view.
    affine: a random affine map, always applied, whose border shows what lies outside the crop.
    turns: whether the view is turned by 0, 1, 2 or 3 quarters, each as likely.
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
    turns: bool = False

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
    """The chance behind the views of N samples: uniform numbers in [0, 1), N x V x K, on the CPU."""

    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, rows: slice) -> Draws:
        """The draws of some of the samples, such as those of one process."""
        return Draws(self.numbers[rows])


class Views:
    """Turn a batch of images into V views, one for each `View`; parameters are drawn for each sample and view.

    shared: pairs of a view and a step ("color", "turn" or "affine") whose parameters are those of the first view.
    """

    def __init__(self, views: Sequence[View], shared: Sequence[tuple[int, str]] = ()) -> None:
        self.views = tuple(views)
        self.shared = tuple((view, _STEPS[step]) for view, step in shared)

    def __len__(self) -> int:
        return len(self.views)

    def repeated(self, count: int) -> Views:
        """So many views: the first of these, or all of them again."""
        out = Views([self.views[v % len(self)] for v in range(count)])
        out.shared = tuple(pair for pair in self.shared if pair[0] < count)
        return out

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Draw the parameters of `n` samples from a CPU generator. The first rows do not depend on `n`."""
        numbers = torch.rand(n, len(self.views), _NUMBERS, generator=generator)
        for view, columns in self.shared:
            numbers[:, view, columns] = numbers[:, 0, columns]
        return Draws(numbers)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, aspect: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """Make the views of a batch.

        pixels: N x C x S x S, uint8, each image squashed to a square. aspect: N, its true width over height.
        draws: from `draw`; not needed if no view has anything random, as in `plain`.
        Returns V tensors, N x C x size x size, float32 in [0, 1], on the device of the pixels.
        Raises ValueError if these do not fit together.
        """
        if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[2] != pixels.shape[3]:
            raise ValueError(
                f"expected pixels as uint8 N x C x S x S, got {pixels.dtype} of shape {tuple(pixels.shape)}: "
                "resize every image to one square and give its true width / height as `aspect`"
            )
        n, channels, side = len(pixels), pixels.shape[1], pixels.shape[2]
        if draws is None:
            draws = Draws(torch.zeros(n, len(self.views), _NUMBERS))
        if aspect.shape != (n,) or draws.numbers.shape != (n, len(self.views), _NUMBERS):
            raise ValueError(
                f"{n} images and {len(self.views)} views need {n} aspects and draws for {n} x {len(self.views)}, got "
                f"{tuple(aspect.shape)} aspects and draws for {tuple(draws.numbers.shape[:2])}: "
                "draw from these views for the global batch and cut with `draws.rows`"
            )
        aspect = aspect.float().cpu()
        plans = [_plan(view, draws.numbers[:, v], aspect, side).to(pixels.device) for v, view in enumerate(self.views)]
        native = [_native(view, pixels.device) for view in self.views]
        if any(native):  # torch's own resize is fast on bytes in this order only
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        out = [torch.empty(n, channels, view.size, view.size, device=pixels.device) for view in self.views]
        step = _chunk(self.views, channels, side, pixels.device)
        # Mixed precision would round the resampling weights to 8 bits.
        with torch.autocast(pixels.device.type, enabled=False):
            for start in range(0, n, step):
                rows = slice(start, start + step)
                source = pixels[rows] if all(native) else pixels[rows].float().contiguous()
                for v, view in enumerate(self.views):
                    plan, part = plans[v].rows(rows), out[v][rows]
                    if native[v]:
                        _from_bytes(view, plan, pixels[rows], part)
                    else:
                        made = _warp(view, view.affine, plan, source) if view.affine else _resample(view, plan, source)
                        torch.clamp(_recolor(plan, made) if view.colored else made, 0, 1, out=part)
                    if view.blur > 0 and (native[v] or view.affine is not None):
                        _soften(view, plan, part)
                    if view.solarize > 0:
                        _solarize(plan, part)
                    if view.turns:
                        _turn(plan, part)
        return out


class _Plan(NamedTuple):
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

    def rows(self, rows: slice) -> _Plan:
        return _Plan(*(x[rows] for x in self))

    def to(self, device: torch.device) -> _Plan:
        return _Plan(*(x.to(device, non_blocking=True) for x in self))


def _plan(view: View, numbers: Tensor, aspect: Tensor, side: int) -> _Plan:
    u = numbers.split((2 * _TRIES, 2, 1, 1, 4, 3, 1, 2, 1, 5), dim=1)
    crop, place, flip, jitter, factor, order, gray, blur, solarize, affine = u
    if view.area is None:
        short = view.center * torch.stack((1 / aspect, aspect), 1).clamp(max=1)  # N x 2
        size = (short * side).round().clamp(1, side)
        start = ((side - size) / 2).floor()
        box = torch.cat((start, size), 1)
    else:
        box = _crop(view.area, view.ratio, crop, place, aspect, side)
    strength = torch.tensor([view.brightness, view.contrast, view.saturation, view.hue])
    low = torch.tensor([1.0, 1.0, 1.0, 0.0]) - strength
    low[:3].clamp_(min=0)
    still = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors = torch.where(jitter < view.jitter, low + factor * (still + strength - low), still)  # N x 4
    sigma = torch.where(blur[:, 0] < view.blur, _between(view.sigma, blur[:, 1]), torch.zeros(len(blur)))
    # One number says how far to turn, and where it lies within its quarter, whether to solarize.
    solarize = solarize[:, 0] * (4 if view.turns else 1)
    return _Plan(
        box=box,
        flip=flip[:, 0] < view.flip,
        factors=factors,
        first=order[:, :2] < order[:, 2:],
        gray=gray[:, 0] < view.gray,
        sigma=sigma,
        solarize=solarize.frac() < view.solarize,
        turn=solarize.long(),
        matrix=_affine(view.affine or Affine(), affine),
    )


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


def _chunk(views: Sequence[View], channels: int, side: int, device: torch.device) -> int:
    """How many samples to work on at once: what stays in the caches of a CPU, or half a gigabyte elsewhere."""
    size = max(view.size for view in views)
    each = 4 * (channels * (side * side + side * size + size * size) + 4 * side * size)
    return max(8, (6 if device.type == "cpu" else 512) * 2**20 // each)


def _native(view: View, device: torch.device) -> bool:
    """Whether to resize with torch's own kernel, one sample after the other: what is fastest on a CPU from 96 px on."""
    return device.type == "cpu" and view.size >= 96 and view.affine is None


def _from_bytes(view: View, plan: _Plan, pixels: Tensor, out: Tensor) -> None:
    """Crop, resize, flip and recolor by the fastest means of a CPU, which round to bytes, into `out`."""
    made = _resize(view, plan, pixels)  # n x s x s x C
    colored = not view.colored or _recolor_bytes(plan, made)
    torch.mul(made.permute(0, 3, 1, 2), 1 / 255, out=out)
    if not colored:
        torch.clamp(_recolor(plan, out), 0, 1, out=out)


def _resize(view: View, plan: _Plan, pixels: Tensor) -> Tensor:
    """Crop, resize and flip bytes, with a result that is rounded to bytes: n x s x s x C."""
    made = torch.empty(len(pixels), view.size, view.size, pixels.shape[1], dtype=torch.uint8)
    for i, ((left, top, width, height), flip) in enumerate(
        zip(plan.box.int().tolist(), plan.flip.tolist(), strict=True)
    ):
        crop = pixels[i : i + 1, :, top : top + height, left : left + width]
        one = F.interpolate(crop, (view.size, view.size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        made[i] = one.flip(1) if flip else one
    return made


def _resample(view: View, plan: _Plan, source: Tensor) -> Tensor:
    """Crop, resize, flip and blur floats as two products with small matrices: n x C x S x S -> n x C x s x s."""
    n, channels, side, _ = source.shape
    weights = _weights(plan, side, view.size)  # n x 2 x s x S
    if view.blur > 0:
        weights = _blur(plan.sigma, view.size, view.radius)[:, None] @ weights
    across, down = weights.unbind(1)
    rows = source.view(n, channels * side, side) @ across.mT  # n x CS x s
    made = down.repeat_interleave(channels, dim=0) @ rows.view(n * channels, side, view.size)  # nC x s x s
    return made.view(n, channels, view.size, view.size)


def _weights(plan: _Plan, side: int, size: int) -> Tensor:
    """Matrices n x 2 (across, down) x size x side that crop, flip, resize and divide by 255. The weights are those of
    torch's antialiased bilinear resize: a triangle as wide as a pixel of the result, or of the source if larger."""
    start, length = plan.box.view(-1, 2, 2, 1).unbind(1)  # n x 2 x 1 each
    pixel = (torch.arange(side, device=start.device) + 0.5).expand(len(start), 2, -1)  # n x 2 x S
    outside = (pixel < start) | (pixel > start + length)
    place = (torch.arange(size, device=start.device) + 0.5) / size  # s
    mirrored = torch.stack((plan.flip, torch.zeros_like(plan.flip)), 1)[:, :, None]
    place = start + length * torch.where(mirrored, 1 - place, place)  # n x 2 x s
    width = (length / size).clamp(min=1)
    pixel = (pixel / width).masked_fill(outside, math.inf)
    # The triangle comes out negative, and so does its sum: in place, and the fewest passes over the matrices.
    weights = (pixel[:, :, None] - (place / width)[:, :, :, None]).abs_().sub_(1).clamp_(max=0)  # n x 2 x s x S
    total = weights.sum(3, keepdim=True)
    total[:, 0] *= 255
    return weights.div_(total)


def _blur(sigma: Tensor, size: int, radius: int) -> Tensor:
    """Matrices n x size x size of a Gaussian blur with mirrored borders; the identity where sigma is 0."""
    tap = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = (-0.5 * (tap / sigma.clamp(min=1e-3)[:, None]).square()).exp()  # n x K
    weights = weights.masked_fill(weights < 1e-9, 0)  # denormal numbers would slow the products tenfold
    weights = weights / weights.sum(1, keepdim=True)
    place = (torch.arange(size, device=sigma.device)[:, None] + tap).abs()
    place = size - 1 - (size - 1 - place).abs()  # s x K, mirrored at both ends
    matrix = sigma.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, place.expand(len(sigma), -1, -1), weights[:, None, :].expand(-1, size, -1))


def _soften(view: View, plan: _Plan, x: Tensor) -> None:
    """Blur, in place, those of the views x, n x C x s x s, that are to be blurred."""
    rows = plan.sigma.nonzero()[:, 0]
    if x.device.type == "cpu" and (cv2 := opencv()) is not None:
        for row, sigma in zip(rows.tolist(), plan.sigma[rows].tolist(), strict=True):
            # No wider than there is something to see: the tails would be denormal numbers, which are slow.
            width = (2 * min(view.radius, math.ceil(4 * sigma) + 1) + 1,) * 2
            for plane in x[row].numpy():
                cv2.GaussianBlur(plane, width, sigma, dst=plane, borderType=cv2.BORDER_REFLECT_101)
            x[row].clamp_(0, 1)
        return
    n, channels, size = len(rows), x.shape[1], view.size
    blur = _blur(plan.sigma[rows], size, view.radius)  # n x s x s
    across = x[rows].view(n, channels * size, size)
    down = torch.empty_like(across)
    # The matrices are zero off a narrow band, so a block of results needs little more than its own pixels.
    blocks = [(slice(at, at + 32), slice(max(0, at - view.radius), at + 32 + view.radius)) for at in range(0, size, 32)]
    for block, near in blocks:
        torch.bmm(across[:, :, near], blur[:, block, near].mT, out=down[:, :, block])
    blur = blur.repeat_interleave(channels, dim=0)
    across, down = down.view(n * channels, size, size), across.view(n * channels, size, size)
    for block, near in blocks:
        torch.bmm(blur[:, block, near], across[:, near], out=down[:, block])
    x[rows] = down.view(n, channels, size, size).clamp_(0, 1)


def _warp(view: View, affine: Affine, plan: _Plan, source: Tensor) -> Tensor:
    n, channels, side, _ = source.shape
    # Crop and affine map are one map from the view to the image, in [-1, 1].
    middle = (2 * plan.box[:, :2] + plan.box[:, 2:]) / side - 1  # n x 2
    extent = plan.box[:, 2:] / side  # n x 2
    linear = extent[:, :, None] * plan.matrix  # n x 2 x 3
    linear[:, :, 2] += middle
    linear[:, :, 0] *= torch.where(plan.flip, -1.0, 1.0)[:, None]
    image = source / 255 - affine.fill
    if side > 1.5 * view.size:  # sampling alone would skip pixels
        reduced = (round(1.25 * view.size),) * 2
        image = F.interpolate(image, reduced, mode="bilinear", antialias=True)
    grid = F.affine_grid(linear, [n, channels, view.size, view.size], align_corners=False)
    made = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return made + affine.fill


def _recolor(plan: _Plan, x: Tensor) -> Tensor:
    brightness, contrast, _, _ = plan.factors.unbind(1)
    if x.shape[1] != 3:
        alpha = brightness * contrast
        offset = brightness * (1 - contrast) * x.mean((1, 2, 3))
        return torch.addcmul(offset[:, None, None, None], x, alpha[:, None, None, None])
    linear, offset = _color_map(plan, x.mean((2, 3)))
    return torch.baddbmm(offset[:, :, None], linear, x.flatten(2)).view(x.shape)


def _recolor_bytes(plan: _Plan, x: Tensor) -> bool:
    """The same in place for bytes, n x s x s x C, with a result that is rounded; False where OpenCV is needed and not
    there, or there are not three colors."""
    cv2 = opencv()
    if cv2 is None or x.shape[3] != 3:
        return False
    images = x.numpy()
    mean = torch.tensor([cv2.mean(image)[:3] for image in images]) / 255
    linear, offset = _color_map(plan, mean)
    for image, change in zip(images, torch.cat([linear, 255 * offset[:, :, None]], 2).numpy(), strict=True):
        cv2.transform(image, change, dst=image)
    return True


def _color_map(plan: _Plan, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Jitter and grayscale as A (n x 3 x 3) and b (n x 3), for views whose colors have that mean (n x 3)."""
    brightness, contrast, saturation, hue = plan.factors.unbind(1)
    return color.affine(
        mean,
        brightness,
        contrast,
        saturation,
        hue,
        contrast_first=plan.first[:, 0],
        saturation_first=plan.first[:, 1],
        gray=plan.gray,
    )


def _solarize(plan: _Plan, x: Tensor) -> None:
    """Invert values of 0.5 and above: min(x, 1 - x), in place; min(x, 2 - x) = x elsewhere."""
    bound = torch.where(plan.solarize, 1.0, 2.0)[:, None, None, None]
    torch.minimum(x, bound - x, out=x)


def _turn(plan: _Plan, x: Tensor) -> None:
    """Turn the views x, n x C x s x s, by quarters, in place."""
    for quarters in (1, 2, 3):
        rows = (plan.turn == quarters).nonzero()[:, 0]
        x[rows] = x[rows].rot90(quarters, (2, 3))


def plain(size: int) -> Views:
    """The one view of a test: the middle square of the image, 224/256 of its short side, all of it up to 64 px."""
    return Views([View(size=size, center=1.0 if size <= 64 else 224 / 256)])
