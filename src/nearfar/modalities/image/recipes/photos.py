"""Photographs by the hundreds or thousands: a small network at 128 pixels, for one machine."""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image.recipes import small_images
from nearfar.modalities.image.settings import Settings
from nearfar.settings import Recipe


def _of(recipe: Recipe) -> Recipe:
    return replace(recipe, settings=replace(default().settings, views=recipe.settings.views))


def default() -> Recipe:
    """AdamW, which a few hundred steps suffice for, where SGD wants thousands."""
    return Recipe(settings=Settings(views="simclr", batch=256, optimizer="adamw", lr=1e-3, weight_decay=1e-2))


def simclr() -> Recipe:
    return replace(default(), method={"temperature": 0.2})


def moco() -> Recipe:
    return replace(_of(small_images.moco()), method={"queue": 4096, "momentum": 0.99, "temperature": 0.2})


def byol() -> Recipe:
    return _of(small_images.byol())


def swav() -> Recipe:
    return _of(small_images.swav())


def barlow() -> Recipe:
    return _of(small_images.barlow())


def supcon() -> Recipe:
    return _of(small_images.supcon())


def crossentropy() -> Recipe:
    recipe = _of(small_images.crossentropy())
    return replace(recipe, settings=replace(recipe.settings, view_count=1))


_BANK = {"contrast": "infonce", "temperature": 0.2, "negatives": 4096, "first": "look"}
"""Hundreds of steps are too few for a bank that begins as noise."""


def cmc() -> Recipe:
    recipe = replace(_of(small_images.cmc()), method=_BANK)
    return replace(recipe, settings=replace(recipe.settings, encoder="ycbcr:resnet18"))


def clip() -> Recipe:
    recipe = _of(small_images.clip())
    return replace(recipe, settings=replace(recipe.settings, encoder="ycbcr:resnet18"))


def instdisc() -> Recipe:
    return replace(_of(small_images.instdisc()), method=_BANK | {"proximal": 0.0})


def mochi() -> Recipe:
    return replace(_of(small_images.mochi()), method=moco().method | {"hardest": 256, "mixed": 128, "mixed_query": 64})


def densecl() -> Recipe:
    return moco()


def pixpro() -> Recipe:
    return _of(small_images.pixpro())


def sce() -> Recipe:
    return _of(small_images.sce())


def excon() -> Recipe:
    """The last stage explains, as at 64 px in the authors' code."""
    recipe = _of(small_images.excon())
    return replace(recipe, method=recipe.method | {"stage": 4})


def contragan() -> Recipe:
    """At 64 px, with the rates of CIFAR-10."""
    recipe = small_images.contragan()
    return replace(recipe, settings=replace(recipe.settings, encoder="biggan32", size=64), method={"width": 32})
