"""The drawings that come with the package: 32 pixels, one channel, a small network, a minute or two on a CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearfar.modalities.image.recipes import small_images
from nearfar.modalities.image.settings import Settings
from nearfar.settings import Recipe


def _of(recipe: Recipe, **method: Any) -> Recipe:
    return replace(recipe, settings=default().settings, method=recipe.method | method)


def default() -> Recipe:
    return Recipe(
        settings=Settings(
            encoder="conv4", views="drawing", epochs=3, batch=256, optimizer="adamw", lr=2e-3, weight_decay=1e-2
        )
    )


def simclr() -> Recipe:
    return _of(small_images.simclr(), temperature=0.2)


def moco() -> Recipe:
    return _of(small_images.moco(), temperature=0.2)


def byol() -> Recipe:
    return _of(small_images.byol(), momentum=0.97)


def swav() -> Recipe:
    return _of(small_images.swav(), prototypes=500)


def barlow() -> Recipe:
    return _of(small_images.barlow())


def supcon() -> Recipe:
    return _of(small_images.supcon())


def supinfonce() -> Recipe:
    return _of(small_images.supinfonce())


def triplet() -> Recipe:
    return _of(small_images.triplet())


def margin() -> Recipe:
    return _of(small_images.margin())


def npairs() -> Recipe:
    return _of(small_images.npairs())


def crossentropy() -> Recipe:
    recipe = _of(small_images.crossentropy())
    return replace(recipe, settings=replace(recipe.settings, view_count=1))


def opencon() -> Recipe:
    return _of(small_images.opencon(), rise=1)


def pcl() -> Recipe:
    return _of(small_images.pcl(), temperature=0.2, clusters=250, start=1, restarts=1)


def spcl() -> Recipe:
    return _of(small_images.spcl())


def fnc() -> Recipe:
    """Few of a batch are of one class, so few are taken for false negatives."""
    return _of(small_images.fnc(), temperature=0.2, top=2, threshold=0.9)


def robust() -> Recipe:
    """Few of a batch are of one class, so two rows of 510 are left out."""
    return _of(small_images.robust(), temperature=0.2, rho=0.004)


def ifnd() -> Recipe:
    return _of(small_images.ifnd(), temperature=0.2, clusters=250)


def interclr() -> Recipe:
    """A pool of a tenth of the drawings, as the paper's is of ImageNet."""
    return _of(small_images.interclr(), temperature=0.2, clusters=500, negatives=512, pool=1300)


def mice() -> Recipe:
    """Twenty clusters, and what MoCo takes on so few samples."""
    return _of(small_images.mice(), experts=20, dim=64, queue=4096, momentum=0.99, temperature=0.2, kappa=1.0)


def instdisc() -> Recipe:
    return _of(small_images.instdisc(), contrast="infonce", temperature=0.2, first="look")


def alignuniform() -> Recipe:
    return _of(small_images.alignuniform())


def debiased() -> Recipe:
    return _of(small_images.debiased())


def hcl() -> Recipe:
    return _of(small_images.hcl())


def dcl() -> Recipe:
    return _of(small_images.dcl(), temperature=0.2)


def renyicl() -> Recipe:
    return _of(small_images.renyicl(), momentum=0.97)


def imix() -> Recipe:
    return _of(small_images.imix())


def mochi() -> Recipe:
    return _of(small_images.mochi(), temperature=0.2, start=1)


def clae() -> Recipe:
    return _of(small_images.clae(), temperature=0.2)


def looc() -> Recipe:
    recipe = _of(small_images.looc())
    return replace(recipe, settings=replace(recipe.settings, views="looc_drawing"))


def relicv2() -> Recipe:
    return _of(small_images.relicv2(), momentum=0.97)


def bregman() -> Recipe:
    return _of(small_images.bregman(), temperature=0.2)


def rotation() -> Recipe:
    return _of(small_images.rotation())


def jigsaw() -> Recipe:
    return _of(small_images.jigsaw(), share=0.7)


def relativeposition() -> Recipe:
    return _of(small_images.relativeposition())


def colorization() -> Recipe:
    return _of(small_images.colorization())


def sce() -> Recipe:
    """Two views that are made alike: a drawing has no weaker one."""
    return _of(small_images.sce(), temperature=0.2, target_temperature=0.1)


def simclrv2() -> Recipe:
    return _of(small_images.simclrv2(), temperature=0.2)


def densecl() -> Recipe:
    return _of(small_images.densecl(), temperature=0.2)


def pixpro() -> Recipe:
    """Crops, as views that show all of a drawing may agree by places alone, and four times the steps in smaller batches
    (unverified)."""
    recipe = _of(small_images.pixpro())
    return replace(recipe, settings=replace(recipe.settings, views="sign", batch=64, lr=4e-3))


def loco() -> Recipe:
    return _of(small_images.loco(), temperature=0.2)


def pirl() -> Recipe:
    """As instdisc."""
    return _of(small_images.pirl(), first="look", contrast="infonce", temperature=0.2)


def cpc() -> Recipe:
    """More and smaller steps than other methods take: with theirs it loses what an untrained network has."""
    recipe = _of(small_images.cpc(), grid=3)
    return replace(recipe, settings=replace(recipe.settings, batch=64, lr=5e-4))


def infomin() -> Recipe:
    return _of(small_images.infomin(), temperature=0.2)


def cmc() -> Recipe:
    """Drawings have one channel: two networks see it, each in a view of its own."""
    recipe = _of(small_images.cmc(), contrast="infonce", temperature=0.2, first="look")
    return replace(recipe, settings=replace(recipe.settings, encoder="0+0:conv4"))


def clip() -> Recipe:
    """As for CMC: two networks, each of which sees a view of its own."""
    recipe = _of(small_images.clip())
    return replace(recipe, settings=replace(recipe.settings, encoder="0+0:conv4"))


def excon() -> Recipe:
    """Two views of a drawing, and the drawing as it is."""
    recipe = _of(small_images.excon())
    return replace(recipe, settings=replace(recipe.settings, views="excon_drawing"))


def unicon() -> Recipe:
    return _of(small_images.unicon())


def kcl() -> Recipe:
    return _of(small_images.kcl(), momentum=0.99)


def paco() -> Recipe:
    """A faster copy, and an embedding as wide as others have: the classes are many."""
    return _of(small_images.paco(), dim=128, momentum=0.99)


def gpaco() -> Recipe:
    return _of(small_images.gpaco(), dim=128)


def rescom() -> Recipe:
    """Fewer keys a class, of which there are a hundred times as many."""
    return _of(small_images.rescom(), dim=128, slots=2)


def esupcon() -> Recipe:
    return _of(small_images.esupcon())


def contragan() -> Recipe:
    """What a minute allows: conv4 learns, and images take a hundred times as many steps."""
    recipe = small_images.contragan()
    settings = replace(recipe.settings, encoder="conv4", views="plain", epochs=3)
    method = {"width": 8, "dim": 128, "temperature": 0.2, "discriminator_steps": 4}
    return replace(recipe, settings=settings, method=method)
