"""The views that papers describe, by the names of their methods. Sizes are in pixels."""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image.plan import Affine, View
from nearfar.modalities.image.views import Views, plain


def simclr(size: int, *, strength: float | None = None, blur: float | None = None) -> Views:
    """The two views of SimCLR: crop, flip, strong color jitter, grayscale, blur (Chen et al. 2020, arXiv 2002.05709).

    strength: s of the color jitter: 1 for ImageNet, 0.5 for CIFAR; the latter is the default below 64 px.
    blur: its probability: 0.5, and none below 64 px. Crops are resized bilinearly where the paper's are bicubic.
    """
    strength = (0.5 if size < 64 else 1.0) if strength is None else strength
    view = View(
        size=size,
        area=(0.08, 1.0),
        flip=0.5,
        jitter=0.8,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        gray=0.2,
        blur=_chance(blur, size),
        kernel=_tenth(size),
    )
    return Views([view, view])


def moco_v1(size: int) -> Views:
    """The two views of MoCo v1: crop, grayscale, jitter always, flip (He et al. 2020, arXiv 1911.05722)."""
    view = View(
        size=size,
        area=(0.2, 1.0),
        flip=0.5,
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.4,
        gray=0.2,
    )
    return Views([view, view])


def moco_v2(size: int, *, blur: float | None = None) -> Views:
    """The two views of MoCo v2, and of its CIFAR demo at 32 px (Chen et al. 2020, arXiv 2003.04297).

    blur: its probability: 0.5, and none below 64 px.
    """
    view = View(
        size=size,
        area=(0.2, 1.0),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        gray=0.2,
        blur=_chance(blur, size),
        kernel=13,
    )
    return Views([view, view])


def byol(size: int, *, blur: tuple[float, float] | None = None) -> Views:
    """The two unequal views of BYOL: the first always blurred, the second solarized at times (Grill et al. 2020,
    arXiv 2006.07733).

    blur: its probability in each view: 1 and 0.1, and none below 64 px. Crops are resized bilinearly where the paper's
    are bicubic.
    """
    first, second = blur if blur is not None else ((1.0, 0.1) if size >= 64 else (0.0, 0.0))
    return Views([_byol(size, first, 0.0), _byol(size, second, 0.2)])


def barlow(size: int, *, blur: tuple[float, float] | None = None) -> Views:
    """The two views of Barlow Twins, which are BYOL's (Zbontar et al. 2021, arXiv 2103.03230)."""
    return byol(size, blur=blur)


def _byol(size: int, blur: float, solarize: float) -> View:
    return View(
        size=size,
        area=(0.08, 1.0),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        gray=0.2,
        blur=blur,
        kernel=_tenth(size),
        solarize=solarize,
    )


def swav(
    size: int,
    *,
    crops: tuple[int, int] = (2, 6),
    small: int | None = None,
    area: tuple[float, float] = (0.14, 1.0),
    small_area: tuple[float, float] = (0.05, 0.14),
    blur: float | None = None,
) -> Views:
    """The multi-crop views of SwAV: large ones first, then small ones (Caron et al. 2020, arXiv 2006.09882).

    crops: how many large and small ones. small: side of the small ones: 96 px for 224, in proportion else.
    area, small_area: ranges of their share of the image. blur: its probability: 0.5, and none below 64 px.
    """
    small = round(size * 96 / 224) if small is None else small
    views = []
    for number, side, share in ((crops[0], size, area), (crops[1], small, small_area)):
        view = View(
            size=side,
            area=share,
            flip=0.5,
            jitter=0.8,
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            gray=0.2,
            blur=_chance(blur, size),
            kernel=13,
        )
        views += [view] * number
    return Views(views)


def multi_crop(views: Views, large: int, small: int) -> Views:
    """So many large views, by turns those that are given, then small ones, which are the same of 96 px for 224 and show
    5 to 14 % of the image, as those of SwAV do (Caron et al. 2020, arXiv 2006.09882)."""
    whole = views.repeated(large)
    of = [views.views[v % len(views)] for v in range(small)]
    return Views(
        [*whole.views, *(replace(view, size=round(view.size * 96 / 224), area=(0.05, 0.14)) for view in of)],
        whole.shared,
    )


def supcon(size: int) -> Views:
    """The two views of SupCon on CIFAR: crop, flip, mild jitter, grayscale (Khosla et al. 2020, arXiv 2004.11362)."""
    view = View(
        size=size,
        area=(0.2, 1.0),
        flip=0.5,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        gray=0.2,
    )
    return Views([view, view])


def cmc(size: int) -> Views:
    """The views of CMC: crop and flip, in the image's own colors (Tian et al. 2020, arXiv 1906.05849)."""
    return Views([View(size=size, area=(0.2, 1.0), flip=0.5)] * 2)


def sce(size: int, *, blur: float = 0.5) -> Views:
    """The strong and the weak view of SCE: MoCo v2's, and crop and flip alone (Denize et al. 2021, arXiv 2111.14585).

    blur: its probability in the first.
    """
    return Views([moco_v2(size, blur=blur).views[0], View(size=size, area=(0.2, 1.0), flip=0.5)])


def drawing(
    size: int,
    *,
    area: tuple[float, float] = (0.8, 1.0),
    rotate: float = 10.0,
    scale: tuple[float, float] = (0.85, 1.1),
    shear: float = 10.0,
    shift: float = 0.05,
    fill: float = 0.0,
) -> Views:
    """Two views of a drawing or a written character: mild crops and affine maps, no flip, no color.

    area: range of the crop's share of the image. rotate, shear: largest angle in degrees. scale: range of the zoom.
    shift: largest shift as a share of the side. fill: value of the empty paper, 0 for ink drawn as light on dark.
    """
    affine = Affine(rotate=rotate, scale=scale, shear=shear, shift=shift, fill=fill)
    view = View(size=size, area=area, affine=affine)
    return Views([view, view])


def ink_drawing(size: int) -> Views:
    """The views of `drawing` for dark ink on white paper: what an affine map uncovers is white."""
    return drawing(size, fill=1.0)


def sign(
    size: int, *, area: tuple[float, float] = (0.4, 1.0), strength: float = 0.2, hue: float = 0.05, gray: float = 0.0
) -> Views:
    """Two views of a sign, a digit, an icon or whatever else a flip would change: crops and mild colors, no flip.

    area: range of the crop's share of the image. strength: of brightness, contrast and saturation.
    hue: largest change of the hue. gray: probability of grayscale.
    """
    return Views([_mild(size, area, strength, hue, gray)] * 2)


def colorful(
    size: int, *, area: tuple[float, float] = (0.4, 1.0), strength: float = 0.2, hue: float = 0.05, gray: float = 0.0
) -> Views:
    """Two views of a photograph whose color tells what is on it: crops, mirror images, mild colors. The arguments are
    those of `sign`."""
    return Views([replace(_mild(size, area, strength, hue, gray), flip=0.5)] * 2)


def turned(
    size: int, *, area: tuple[float, float] = (0.4, 1.0), strength: float = 0.2, hue: float = 0.05, gray: float = 0.0
) -> Views:
    """Two views of an image that has no upright, from above or from a microscope: crops, all quarter turns and their
    mirror images, mild colors. The arguments are those of `sign`."""
    return Views([replace(_mild(size, area, strength, hue, gray), flip=0.5, quarter_turns=True)] * 2)


def spectrogram(size: int, *, area: tuple[float, float] = (0.4, 1.0), strength: float = 0.2) -> Views:
    """Two views of sound over time and frequency: mild crops, loudness and contrast; no flip, no turn, no hue.

    The arguments are those of `sign`.
    """
    return Views([_mild(size, area, strength, 0.0, 0.0)] * 2)


def _mild(size: int, area: tuple[float, float], strength: float, hue: float, gray: float) -> View:
    return View(
        size=size,
        area=area,
        jitter=0.8,
        brightness=strength,
        contrast=strength,
        saturation=strength,
        hue=hue,
        gray=gray,
    )


def looc(size: int, *, blur: float | None = None) -> Views:
    """Four views of LooC: a query, a free key, one with the query's colors, one turned as it is (Xiao et al. 2020,
    arXiv 2008.05659).

    Colors are MoCo v2's, turns by quarters; crop and flip are always free. blur: its probability: 0.5, and none below
    64 px.
    """
    view = replace(moco_v2(size, blur=blur).views[0], quarter_turns=True)
    return Views([view] * 4, shared=[(2, "color"), (3, "turn")])


def looc_drawing(size: int) -> Views:
    """The views of `looc` for drawings: a query, a free key, one with the query's affine map, one turned as it is."""
    view = replace(drawing(size).views[0], quarter_turns=True)
    return Views([view] * 4, shared=[(2, "affine"), (3, "turn")])


def relicv2(size: int, *, crops: tuple[int, int] = (4, 2), blur: tuple[float, float] | None = None) -> Views:
    """The multi-crop views of ReLICv2: large ones first, by turns BYOL's first and second, then small ones (Tomasev et
    al. 2022, arXiv 2201.05119).

    crops: how many large and small ones; the small have 96 px for 224. blur: as in `byol`. Saliency maps, by which the
    paper at times removes the background, are not there.
    """
    pair = byol(size, blur=blur).views
    small = round(size * 96 / 224)
    large = [replace(pair[number % 2], area=(0.14, 1.0)) for number in range(crops[0])]
    return Views(large + [replace(pair[n % 2], size=small, area=(0.05, 0.14)) for n in range(crops[1])])


def excon(size: int) -> Views:
    """The views of ExCon: the middle of the image as it is, then SupCon's two (Zhang et al. 2021, arXiv
    2111.14271)."""
    return Views([*plain(size).views, *supcon(size).views])


def excon_drawing(size: int) -> Views:
    """The views of `excon` for drawings: the drawing as it is, then two of `drawing`."""
    return Views([*plain(size).views, *drawing(size).views])


def _chance(blur: float | None, size: int) -> float:
    if blur is not None:
        return blur
    return 0.5 if size >= 64 else 0.0


def _tenth(size: int) -> int:
    """The width of SimCLR's blur: a tenth of the side, made odd."""
    return 2 * (size // 10 // 2) + 1


def clip(size: int) -> Views:
    """The view of CLIP: a crop that takes off a tenth of the image at most (Radford et al. 2021, arXiv 2103.00020)."""
    view = View(size=size, area=(0.9, 1.0))
    return Views([view, view])


def mirrored(size: int) -> Views:
    """One view, the middle of the image, mirrored in half of all cases: what a GAN learns to make (arXiv 2006.12681).
    The view `plain` is the same without mirror images."""
    return Views([View(size=size, flip=0.5)])
