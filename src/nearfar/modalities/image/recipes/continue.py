"""Images, trained on from given weights (--weights FILE, or the folder of a run): what does not ruin them.

The rate is a third of that of a training from random weights for what stands behind the encoder, and falls from layer
to layer toward its input. In the first tenth of the steps only what is behind the encoder learns, which begins at
random. The rest is that of measured_images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearfar.modalities.image.recipes import measured_images
from nearfar.modalities.image.settings import Facts
from nearfar.settings import Recipe


def _continued(recipe: Recipe, facts: Facts, **method: Any) -> Recipe:
    settings = replace(
        recipe.settings,
        lr=round(recipe.settings.lr / 3, 5),
        layer_decay=1.0 if facts.own_encoder else 0.75,
        frozen=0.1,
    )
    reasons = {name: why for name, why in recipe.reasons.items() if name != "encoder"}
    return Recipe(settings=settings, method=recipe.method | method, reasons=reasons)


def default(facts: Facts) -> Recipe:
    """A method with its own defaults."""
    return _continued(replace(measured_images.simclr(facts), method={}), facts)


def simclr(facts: Facts) -> Recipe:
    return _continued(measured_images.simclr(facts), facts)


def moco(facts: Facts) -> Recipe:
    return _continued(measured_images.moco(facts), facts)


def byol(facts: Facts) -> Recipe:
    return _continued(measured_images.byol(facts), facts)


def swav(facts: Facts) -> Recipe:
    return _continued(measured_images.swav(facts), facts)


def barlow(facts: Facts) -> Recipe:
    return _continued(measured_images.barlow(facts), facts)


def supcon(facts: Facts) -> Recipe:
    return _continued(measured_images.supcon(facts), facts)


def diet(facts: Facts) -> Recipe:
    """DIET-CP, arXiv 2509.06990, by its released code: a target smoothed less, and mixed images."""
    return _continued(measured_images.diet(facts), facts, smoothing=0.3, mix="both")
