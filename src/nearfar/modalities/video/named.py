"""What is done to the frames of a clip, by name: views of images, with one set of draws for all frames of a clip."""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image import named
from nearfar.modalities.image.plan import View
from nearfar.modalities.image.views import Views


def cvrl(size: int) -> Views:
    """The two views of CVRL: SimCLR's, with larger crops of more shapes (Qian et al. 2021, arXiv 2008.03800)."""
    view = _cvrl(size)
    return Views([view, view])


def cvrl_released(size: int) -> Views:
    """The same as the released code has it: the first always blurred, the second seldom, and solarized at times."""
    view = _cvrl(size)
    blur = (1.0, 0.1) if size >= 64 else (0.0, 0.0)
    return Views([replace(view, blur=blur[0]), replace(view, blur=blur[1], solarize=0.2)])


def motion(size: int) -> Views:
    """The views of `cvrl` without mirror images, where left and right are different motions."""
    view = replace(_cvrl(size), flip=0.0)
    return Views([view, view])


def tcn(size: int) -> Views:
    """Of the same moments twice: mild crops and colors, no mirror images (Sermanet et al. 2018, arXiv 1704.06888).

    The paper crops, scales and distorts colors, and names no strengths.
    """
    view = replace(named.sign(size).views[0], area=(0.8, 1.0))
    return Views([view, view])


def _cvrl(size: int) -> View:
    return replace(named.simclr(size, strength=1.0).views[0], area=(0.3, 1.0), ratio=(1 / 2, 2.0))
