"""Views of images: random crops and colors for a whole batch at once, on the device that holds the pixels.

An image comes as a square of S x S pixels into which its true shape was squashed, with its true aspect (width over
height). Crops are drawn in the true shape. Cropping, antialiased resizing, flipping and blurring are linear along each
side of the image, so together they are two matrix products a sample; color jitter and grayscale are one map of the
colors. What is done to which sample is worked out in `plan.py`, from uniform numbers made on the CPU for the global
batch: the views of a sample depend on its row of them alone, never on the device or on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.machine import opencv
from nearfar.modalities.image import color
from nearfar.modalities.image.plan import STEPS, Affine, Draws, View, ViewPlan, draw, in_image, make_plan, no_draws
from nearfar.modalities.image.randaugment import randaugment


class Views:
    """Turn a batch of images into V views, one for each `View`; parameters are drawn for each sample and view.

    shared: pairs of a view and a step ("color", "turn" or "affine") whose parameters are those of the first view.
    Raises ValueError for a step of another name.
    """

    def __init__(self, views: Sequence[View], shared: Sequence[tuple[int, str]] = ()) -> None:
        self.views, self.shared = tuple(views), tuple(shared)
        for _, step in self.shared:
            if step not in STEPS:
                raise UserError(f"views cannot share {step!r}: the steps are {', '.join(STEPS)}")

    def __len__(self) -> int:
        return len(self.views)

    def repeated(self, count: int) -> Views:
        """So many views: the first of these, or all of them again."""
        return Views(
            [self.views[v % len(self)] for v in range(count)], [pair for pair in self.shared if pair[0] < count]
        )

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Draw the parameters of `n` samples from a CPU generator. The first rows do not depend on `n`."""
        return draw(n, len(self.views), generator, self.shared, further=self.further)

    @property
    def further(self) -> bool:
        """Whether any view needs the numbers of `nearfar.modalities.image.plan.FURTHER`."""
        return any(view.further for view in self.views)

    @property
    def placed(self) -> bool:
        """Whether `places` can tell where each view lies: not where RandAugment moves it."""
        return not any(view.randaugment for view in self.views)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, aspect: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """Make the views of a batch.

        pixels: N x C x S x S, uint8, each image squashed to a square. aspect: N, its true width over height.
        draws: from `draw`; not needed if no view has anything random, as in `plain`.
        Returns V tensors, N x C x size x size, float32 in [0, 1], on the device of the pixels.
        Raises ValueError if these do not fit together.
        """
        if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[2] != pixels.shape[3]:
            raise UserError(
                f"expected pixels as uint8 N x C x S x S, got {pixels.dtype} of shape {tuple(pixels.shape)}: "
                "resize every image to one square and give its true width / height as `aspect`"
            )
        n, channels, side = len(pixels), pixels.shape[1], pixels.shape[2]
        if draws is None:
            draws = no_draws(n, len(self.views))
        if aspect.shape != (n,) or draws.numbers.shape[:2] != (n, len(self.views)):
            raise UserError(
                f"{n} images and {len(self.views)} views need {n} aspects and draws for {n} x {len(self.views)}, got "
                f"{tuple(aspect.shape)} aspects and draws for {tuple(draws.numbers.shape[:2])}: "
                "draw from these views for the global batch and cut with `draws.rows`"
            )
        if self.further and "vflip" not in draws.fields(0):
            raise UserError("these draws were made for other views: draw from these, with `draw`")
        aspect = aspect.float().cpu()
        plans = [make_plan(view, draws.fields(v), aspect, side).to(pixels.device) for v, view in enumerate(self.views)]
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
                        x = _warp(view, view.affine, plan, source) if view.affine else _resample(view, plan, source)
                        if plan.operations is not None and plan.reverse is not None:
                            x = randaugment(x.clamp_(0, 1), plan.operations, plan.reverse, view.magnitude)
                        torch.clamp(_recolor(plan, x) if view.colored else x, 0, 1, out=part)
                    if view.blur > 0 and (native[v] or view.affine is not None or view.randaugment):
                        _soften(view, plan, part)
                    if view.solarize > 0:
                        _solarize(plan, part)
                    if view.quarter_turns:
                        _turn(plan, part)
                    if plan.hole is not None:
                        _cut_out(plan.hole, part)
        return out

    def places(self, pixels: Tensor, aspect: Tensor, draws: Draws) -> list[Tensor]:
        """Where in its image each view lies, as `nearfar.batch.Batch.places` has it: V of N x 2 x 3.

        Takes what makes the views. The image has the area of a square from -1 to 1.
        """
        aspect, side, places = aspect.float().cpu(), pixels.shape[2], []
        shape = torch.stack((aspect.sqrt(), aspect.rsqrt()), 1)[:, :, None]  # N x 2 x 1
        for v, view in enumerate(self.views):
            plan = make_plan(view, draws.fields(v), aspect, side)
            cos, sin = torch.tensor([1.0, 0, -1, 0])[plan.turn], torch.tensor([0.0, 1, 0, -1])[plan.turn]
            turned = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
            found = in_image(plan, side)
            found[:, :, :2] = found[:, :, :2] @ turned
            places.append((shape * found).to(pixels.device, non_blocking=True))
        return places


def _chunk(views: Sequence[View], channels: int, side: int, device: torch.device) -> int:
    """How many samples to work on at once: what stays in the caches of a CPU, or half a gigabyte elsewhere."""
    size = max(view.size for view in views)
    each = 4 * (channels * (side * side + side * size + size * size) + 4 * side * size)
    return max(8, (6 if device.type == "cpu" else 512) * 2**20 // each)


def _native(view: View, device: torch.device) -> bool:
    """Whether to resize with torch's own kernel, one sample after the other: what is fastest on a CPU from 96 px on."""
    return device.type == "cpu" and view.size >= 96 and view.affine is None and not view.randaugment


def _from_bytes(view: View, plan: ViewPlan, pixels: Tensor, out: Tensor) -> None:
    """Crop, resize, flip and recolor by the fastest means of a CPU, which round to bytes, into `out`."""
    resized = _resize(view, plan, pixels)  # n x s x s x C
    colored = not view.colored or _recolor_bytes(plan, resized)
    torch.mul(resized.permute(0, 3, 1, 2), 1 / 255, out=out)
    if not colored:
        torch.clamp(_recolor(plan, out), 0, 1, out=out)


def _resize(view: View, plan: ViewPlan, pixels: Tensor) -> Tensor:
    """Crop, resize and flip bytes, with a result that is rounded to bytes: n x s x s x C."""
    resized = torch.empty(len(pixels), view.size, view.size, pixels.shape[1], dtype=torch.uint8)
    upside_down = [False] * len(pixels) if plan.vflip is None else plan.vflip.tolist()
    for i, ((left, top, width, height), flip, vflip) in enumerate(
        zip(plan.box.int().tolist(), plan.flip.tolist(), upside_down, strict=True)
    ):
        crop = pixels[i : i + 1, :, top : top + height, left : left + width]
        one = F.interpolate(crop, (view.size, view.size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        one = one.flip(1) if flip else one
        resized[i] = one.flip(0) if vflip else one
    return resized


def _resample(view: View, plan: ViewPlan, source: Tensor) -> Tensor:
    """Crop, resize, flip and blur floats as two products with small matrices: n x C x S x S -> n x C x s x s."""
    n, channels, side, _ = source.shape
    weights = _weights(plan, side, view.size)  # n x 2 x s x S
    if view.blur > 0 and not view.randaugment:
        weights = _blur(plan.sigma, view.size, view.radius)[:, None] @ weights
    across, down = weights.unbind(1)
    rows = source.view(n, channels * side, side) @ across.mT  # n x CS x s
    resized = down.repeat_interleave(channels, dim=0) @ rows.view(n * channels, side, view.size)  # nC x s x s
    return resized.view(n, channels, view.size, view.size)


def _weights(plan: ViewPlan, side: int, size: int) -> Tensor:
    """Matrices n x 2 (across, down) x size x side that crop, flip, resize and divide by 255. The weights are those of
    torch's antialiased bilinear resize: a triangle as wide as a pixel of the result, or of the source if larger."""
    start, length = plan.box.view(-1, 2, 2, 1).unbind(1)  # n x 2 x 1 each
    pixel = (torch.arange(side, device=start.device) + 0.5).expand(len(start), 2, -1)  # n x 2 x S
    outside = (pixel < start) | (pixel > start + length)
    place = (torch.arange(size, device=start.device) + 0.5) / size  # s
    vflip = torch.zeros_like(plan.flip) if plan.vflip is None else plan.vflip
    mirrored = torch.stack((plan.flip, vflip), 1)[:, :, None]
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


def _soften(view: View, plan: ViewPlan, x: Tensor) -> None:
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


def _warp(view: View, affine: Affine, plan: ViewPlan, source: Tensor) -> Tensor:
    n, channels, side, _ = source.shape
    fill = affine.fill or 0.0
    image = source / 255 - fill
    if side > 1.5 * view.size:  # sampling alone would skip pixels
        reduced = (round(1.25 * view.size),) * 2
        image = F.interpolate(image, reduced, mode="bilinear", antialias=True)
    grid = F.affine_grid(in_image(plan, side), [n, channels, view.size, view.size], align_corners=False)
    border = "reflection" if affine.fill is None else "zeros"
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=border, align_corners=False) + fill


def _recolor(plan: ViewPlan, x: Tensor) -> Tensor:
    brightness, contrast, _, _ = plan.factors.unbind(1)
    if x.shape[1] != 3:
        alpha = brightness * contrast
        offset = brightness * (1 - contrast) * x.mean((1, 2, 3))
        return torch.addcmul(offset[:, None, None, None], x, alpha[:, None, None, None])
    linear, offset = _color_map(plan, x.mean((2, 3)))
    return torch.baddbmm(offset[:, :, None], linear, x.flatten(2)).view(x.shape)


def _recolor_bytes(plan: ViewPlan, x: Tensor) -> bool:
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


def _color_map(plan: ViewPlan, mean: Tensor) -> tuple[Tensor, Tensor]:
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


def _solarize(plan: ViewPlan, x: Tensor) -> None:
    """Invert values of 0.5 and above: min(x, 1 - x), in place; min(x, 2 - x) = x elsewhere."""
    bound = torch.where(plan.solarize, 1.0, 2.0)[:, None, None, None]
    torch.minimum(x, bound - x, out=x)


def _turn(plan: ViewPlan, x: Tensor) -> None:
    """Turn the views x, n x C x s x s, by quarters, in place."""
    for quarters in (1, 2, 3):
        rows = (plan.turn == quarters).nonzero()[:, 0]
        x[rows] = x[rows].rot90(quarters, (2, 3))


def _cut_out(hole: Tensor, x: Tensor) -> None:
    """Fill a rectangle of each of the views x, n x C x s x s, with the view's mean color, in place.

    hole: n x 4, left, top, right, bottom.
    """
    place = torch.arange(x.shape[-1], device=x.device)
    across, down = ((place >= hole[:, k, None]) & (place < hole[:, k + 2, None]) for k in (0, 1))  # n x s
    inside = (down[:, :, None] & across[:, None, :])[:, None]  # n x 1 x s x s
    x.copy_(torch.where(inside, x.mean((2, 3), keepdim=True), x))


def plain(size: int) -> Views:
    """The one view of a test: the middle square of the image, 224/256 of its short side, all of it up to 64 px."""
    return Views([View(size=size, center=1.0 if size <= 64 else 224 / 256)])
