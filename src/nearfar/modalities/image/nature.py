"""What images are, by measurement and without labels, and which views suit that.

Views must change what may vary and keep what tells samples apart. Whether a mirror image or a quarter turn may be had
is asked of the data: where the changed images are natural members of the set, they cannot be told from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.views import plain

MOST, DECODED, FEWEST = 500, 250, 100
"""Images that are looked at; those where each must be decoded; and fewer than can be judged."""

SIDE, SHIFT = 32, 2
"""The side at which they are looked at, and the largest random shift, in pixels: half a pixel by which all were cut off
center must not tell a mirror image."""

TOLD = 0.67
"""Rate from which a changed image is told from one that is not: 0.5 is chance. Below it are images of cells that are
lit from one side, 0.66, and packages with writing on them, mirrored, 0.65; above it traffic signs, mirrored, 0.69, and
photographs of objects, turned, 0.70."""

TOLD_LESS, SOME = 0.62, 300
"""The same for strokes on empty paper, of which few examples of many characters tell less well, 0.65 to 0.69; and for
all images where there are fewer than so many: of 150 to 200, photographs and pictures of objects, turned, 0.62 to 0.72,
and cells at most 0.63."""

COLOR, COLORFUL = 0.04, 1.0
"""Mean distance of the highest channel from the lowest, in [0, 1], from which images are in color; and how many times
as much as brightness colors vary where they tell what is seen."""

PAPER, STROKE = 0.6, 4.0
"""Share of an image that is at the level of its ground, and width of the strokes on it, in pixels, of drawings."""

ABRUPT = 0.5
"""Skewness of the changes along an axis: sound begins at once and fades, and its bands lie on one side of a peak."""

Name = Literal["photo", "colorful", "gray_photo", "turned", "drawing", "ink_drawing", "spectrogram", "sign"]

SUITED: dict[Name, tuple[str, str]] = {
    "photo": ("simclr", "photographs: crops, mirror images and color changes"),
    "colorful": ("colorful", "photographs whose colors tell much: crops, mirror images and mild color changes"),
    "gray_photo": (
        "colorful",
        "gray photographs: mild crops, mirror images and brightness; there are no colors to change",
    ),
    "turned": ("turned", "there is no upright: mirror images and quarter turns are free"),
    "drawing": ("drawing", "light strokes on dark paper: shape counts, so crops are mild and maps affine"),
    "ink_drawing": ("ink_drawing", "dark strokes on white paper: shape counts, so crops are mild and maps affine"),
    "spectrogram": ("spectrogram", "spectrograms: the two axes are of different kinds, so nothing is mirrored"),
    "sign": ("sign", "signs, or images that are turned to one side: a mirror image would be another thing"),
}
"""The views that suit images of each nature, and why, in words."""


@dataclass(frozen=True)
class Nature:
    """name: what the images are. views: those that suit them. reasons: sentences, with what was measured.

    measured: the numbers, by name; none where there are too few images.
    """

    name: Name
    views: str
    reasons: list[str]
    measured: dict[str, float]


def nature(images: Images, seed: int = 0) -> Nature:
    """What some of the images are, the same for the same images and seed. Labels are not looked at.

    Takes a second or so for images in memory; those that are not are decoded, 250 at most.
    """
    most = MOST if images.cached else DECODED
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(images), generator=generator)[:most].sort().values
    view = plain(SIDE)
    x = torch.cat([view(images.pixels(rows).cpu(), images.aspect[rows])[0] for rows in some.split(64)])
    gray, group = x.mean(1), images.group[some]  # n x S x S
    color, colorful = _color(x)
    if len(x) < FEWEST:
        name: Name = "photo" if color >= COLOR else "gray_photo"
        few = f"{len(x)} images are too few to be judged by measurement: views for photographs"
        return Nature(name, SUITED[name][0], [few], {})
    mirrored = told(gray, [gray.flip(2)], group, generator)
    turned = told(gray, [gray.rot90(quarters, (1, 2)) for quarters in (1, 3)], group, generator)
    strokes, (across, down) = _strokes(gray), _skewness(gray)
    numbers = {
        "color": color,
        "colorful": colorful,
        "mirror_told": mirrored,
        "turn_told": turned,
        "paper": strokes.paper,
        "ground": strokes.ground,
        "stroke": strokes.width,
        "abrupt": max(abs(across), abs(down)),
    }
    name = _judged(numbers, len(x))
    views, why = SUITED[name]
    numbers["found"] = found_by_pixels(images.subset(some[:256]), views, seed)
    return Nature(name, views, [why, *_sentences(name, numbers)], numbers)


def _judged(m: dict[str, float], images: int) -> Name:
    gray = m["color"] < COLOR
    drawn = gray and m["paper"] >= PAPER and m["stroke"] <= STROKE and not 0.2 < m["ground"] < 0.8
    if max(m["turn_told"], m["mirror_told"]) < (TOLD_LESS if drawn or images < SOME else TOLD):
        return "turned"
    if gray and m["mirror_told"] >= TOLD and m["abrupt"] >= ABRUPT:
        return "spectrogram"
    if drawn:
        return "ink_drawing" if m["ground"] > 0.5 else "drawing"
    if m["mirror_told"] >= TOLD:
        return "sign"
    return "gray_photo" if gray else "colorful" if m["colorful"] >= COLORFUL else "photo"


def _sentences(name: Name, m: dict[str, float]) -> list[str]:
    said = [
        f"a mirror image is told from an image in {m['mirror_told']:.0%} of cases, a quarter turn in "
        f"{m['turn_told']:.0%} (50% where it is as natural)"
    ]
    if name in ("drawing", "ink_drawing"):
        said.append(f"{m['paper']:.0%} of an image is empty, and strokes are {m['stroke'] / SIDE:.0%} of its side wide")
    if name == "spectrogram":
        said.append(f"changes are sudden in one direction along an axis (skewness {m['abrupt']:.1f})")
    if name in ("photo", "colorful"):
        said.append(f"colors vary {m['colorful']:.1f} times as much as brightness")
    return [
        *said,
        f"raw pixels find the other of two such views in {m['found']:.0%} of cases, among 256 images at most",
    ]


def told(gray: Tensor, changed: Sequence[Tensor], group: Tensor, generator: torch.Generator) -> float:
    """How well changed images are told from images as they are: 0.5 where not at all, 1 always.

    gray: n x S x S.  changed: these, each in one or more ways.  group: n; those of one are no evidence for each other.
    The mean of two rates. A linear classifier of an image and its changed self says which is which (five folds). And
    the nearest of the other images is nearer to the image than to its changed self.
    """
    true = _features(gray, generator)  # n x D
    single = torch.arange(len(gray))
    own = torch.where(group == MISSING, -1 - single, group).unique(return_inverse=True)[1]
    own = own if len(own.unique()) >= 5 else single
    fold = (torch.randperm(len(gray), generator=generator) % 5)[own]
    false = [_features(g, generator) for g in changed]
    difference = torch.stack([true - rows for rows in false]).double()  # ways x n x D
    told_apart = []
    for f in range(5):
        train, test = (difference[:, rows].flatten(0, 1) for rows in (fold != f, fold == f))
        ridge = 0.3 * len(train) * difference.square().mean() + 1e-9
        products = train.T @ train + ridge * torch.eye(train.shape[1], dtype=torch.float64)
        told_apart.append(_rate(test @ torch.linalg.solve(products, train.sum(0))))
    same = own[:, None] == own
    near, *far = ((rows @ true.T).masked_fill_(same, -1).amax(1) for rows in (true, *false))
    nearer = [_rate(near - there) for there in far]
    return float(torch.cat(told_apart).mean() + torch.cat(nearer).mean()) / 2


def _rate(score: Tensor) -> Tensor:
    """1 where the score is above 0, a half where it is 0."""
    return ((score.sign() + 1) / 2).float()


def _shifted(gray: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by a few pixels, its border repeated."""
    n, side = len(gray), gray.shape[1]
    padded = F.pad(gray[:, None], (SHIFT,) * 4, mode="replicate")[:, 0]
    start = torch.randint(0, 2 * SHIFT + 1, (2, n, 1), generator=generator) + torch.arange(side)  # 2 x n x S
    return padded[torch.arange(n)[:, None, None], start[0][:, :, None], start[1][:, None, :]]


def _features(gray: Tensor, generator: torch.Generator) -> Tensor:
    """Gradients and a coarse picture of each image, over two random shifts: n x 144, unit rows."""
    total = torch.zeros(len(gray), 1)
    for _ in range(2):
        moved = _shifted(gray, generator)
        coarse = F.adaptive_avg_pool2d(moved[:, None], 4).flatten(1)
        coarse = F.normalize(coarse - coarse.mean(1, keepdim=True), dim=1)
        total = total + F.normalize(torch.cat([gradients(moved), coarse / 2], 1), dim=1)
    return F.normalize(total, dim=1)


def gradients(gray: Tensor, cells: int = 4, directions: int = 8) -> Tensor:
    """Histograms of the directions of gradients in each of 4 x 4 cells, at half the side: n x 128, unit rows."""
    half = F.avg_pool2d(gray[:, None], 2)[:, 0]
    padded = F.pad(half[:, None], (1,) * 4, mode="replicate")[:, 0]
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    length, angle = torch.hypot(across, down), torch.atan2(down, across) / (2 * torch.pi) * directions
    # An angle between two directions counts for both, by how near it is.
    distance = (angle[:, None] - torch.arange(directions)[:, None, None]).remainder(directions)  # n x 8 x s x s
    weight = (1 - torch.minimum(distance, directions - distance)).clamp(min=0)
    return F.normalize(F.adaptive_avg_pool2d(weight * length[:, None], cells).flatten(1), dim=1)


def _color(x: Tensor) -> tuple[float, float]:
    """How colored images are, n x C x S x S; and the variance of their colors over that of their brightness."""
    x = F.avg_pool2d(x, 2)
    color = float((x.amax(1) - x.amin(1)).mean())
    if x.shape[1] != 3:
        return 0.0, 0.0
    red, green, blue = x.unbind(1)
    opposed = (red - green).var() + ((red + green) / 2 - blue).var()
    return color, float(opposed / x.mean(1).var().clamp(min=1e-9))


class _Strokes(NamedTuple):
    """Medians over images. paper: the share at the level of the ground.  ground: that level.  width: of what is on it,
    in pixels of SIDE."""

    paper: float
    ground: float
    width: float


def _strokes(gray: Tensor) -> _Strokes:
    ground = gray.flatten(1).median(1).values[:, None, None]  # n x 1 x 1: the level of more than half, if there is one
    away = (gray - ground).abs()
    paper = (away < 16 / 255).float().mean((1, 2))
    strongest = away.flatten(1).quantile(0.98, 1).clamp(min=0.05)[:, None, None]
    ink = (away > strongest / 2).float()
    edges = ink.diff(dim=1).abs().sum((1, 2)) + ink.diff(dim=2).abs().sum((1, 2))
    width = 2 * ink.sum((1, 2)) / edges.clamp(min=1)
    return _Strokes(*(float(values.median()) for values in (paper, ground, width)))


def _skewness(gray: Tensor) -> tuple[float, float]:
    """Of the changes from pixel to pixel, across and down, in units of each image's own deviation."""
    z = (gray - gray.mean((1, 2), keepdim=True)) / gray.std((1, 2), keepdim=True).clamp(min=0.02)
    across, down = (z.diff(dim=dim).flatten() for dim in (2, 1))
    a, b = (float((d - d.mean()).pow(3).mean() / d.var().clamp(min=1e-9) ** 1.5) for d in (across, down))
    return a, b


def found_by_pixels(images: Images, views: str, seed: int = 0) -> float:
    """How often, 0 to 1, the other of two views is the nearest of all by raw pixels, at 16 px.

    views: a name of `nearfar.modalities.image.named`.  Near 1, the task is too easy for a network to learn from.
    """
    from nearfar.modalities.image import named

    make = getattr(named, views)(SIDE)
    pixels, aspect = (part.cpu() for part in images.fetch(torch.arange(len(images))))
    draws = make.draw(len(images), torch.Generator().manual_seed(seed))
    rows = torch.cat([F.interpolate(x, (16, 16), mode="area").flatten(1) for x in make(pixels, aspect, draws)[:2]])
    rows = F.normalize(rows - rows.mean(1, keepdim=True), dim=1)
    nearest = (rows @ rows.T).fill_diagonal_(-1).argmax(1)
    return float((nearest == torch.arange(len(rows)).roll(len(images))).float().mean())
