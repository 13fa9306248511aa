"""Images that time and cameras have spoilt: six corruptions at five severities, made on the spot from a seed.

They are those of their kind in CIFAR-10-C, with its strengths, which are for sides of about 32 pixels: at larger sides
they are mild. Never train on them, and note where a view resembles one. Hendrycks and Dietterich 2019, arXiv
1903.12261.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError

SEVERITIES = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # deviation of Gaussian noise
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # deviation of a Gaussian, in pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # what is left of it
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the value of HSV
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # what is left of the side
    "jpeg": (80, 65, 58, 50, 40),  # quality
}


def corrupt(x: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """The images with one corruption, rounded to 8 bits as files are: N x C x H x W in [0, 1].

    x: N x C x H x W in [0, 1], of 1 or 3 channels.  name: a key of SEVERITIES.  severity: 1 to 5.  seed: of the noise,
    of which the first images get the same however many follow.
    """
    if name not in SEVERITIES or severity not in (1, 2, 3, 4, 5):
        raise UserError(f"no corruption {name!r} of severity {severity}; there are {', '.join(SEVERITIES)}, 1 to 5")
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"wanted images N x C x H x W of 1 or 3 channels, got {' x '.join(map(str, x.shape))}")
    strength = SEVERITIES[name][severity - 1]
    if name == "noise":
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        spoilt = x + strength * noise.to(x)
    elif name == "blur":
        spoilt = _blurred(x, strength)
    elif name == "contrast":
        mean = x.mean((2, 3), keepdim=True)
        spoilt = mean + strength * (x - mean)
    elif name == "brightness":
        value = x.amax(1, keepdim=True)
        lighter = (value + strength).clamp(max=1)
        spoilt = torch.where(value > 0, x * lighter / value, lighter)  # hue and saturation stay
    else:
        images = [_to_image(one) for one in x]
        made = [_pixelated(p, strength) if name == "pixelate" else _jpeg(p, int(strength)) for p in images]
        spoilt = torch.stack([_from_image(p) for p in made]).to(x)
    return (255 * spoilt.clamp(0, 1)).round() / 255


def _blurred(x: Tensor, sigma: float) -> Tensor:
    height, width = x.shape[2:]
    return _blur(height, sigma).to(x) @ x @ _blur(width, sigma).to(x).T


def _blur(side: int, sigma: float) -> Tensor:
    """A Gaussian blur with mirrored borders as a matrix, side x side."""
    radius = min(math.ceil(4 * sigma), side - 1)
    tap = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    sources = F.pad(torch.eye(side)[None], (radius, radius), mode="reflect")[0]  # side x side + 2 radius
    return (sources.unfold(1, 2 * radius + 1, 1) @ (tap / tap.sum())).T


def _pixelated(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    small = image.resize((max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.BOX)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file, formats=["JPEG"])


def _to_image(x: Tensor) -> Image.Image:
    pixels = (255 * x).round().byte().permute(1, 2, 0).cpu().numpy()  # H x W x C
    return Image.fromarray(pixels if len(x) == 3 else pixels[:, :, 0])


def _from_image(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels.permute(2, 0, 1) if pixels.dim() == 3 else pixels[None]
