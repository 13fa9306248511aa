"""Images of 32 to 64 pixels, such as CIFAR-10: what the papers, or their authors' code, do at that size.

The encoder is ResNet-18 and epochs are 100 where a recipe names no others, whatever the papers have; a warm-up begins
at a rate of 0.
"""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image.settings import Settings
from nearfar.settings import Recipe


def default() -> Recipe:
    return Recipe(settings=Settings(views="simclr", optimizer="sgd", lr=0.06, weight_decay=5e-4))


def simclr() -> Recipe:
    """The repository's command for CIFAR-10 (google-research/simclr): LARS, temperature 0.5, no blur."""
    return Recipe(
        settings=Settings(views="simclr", optimizer="lars", lr=1.0, weight_decay=1e-4, batch=512),
        method={"temperature": 0.5},
    )


def moco() -> Recipe:
    """The authors' CIFAR-10 demonstration, with the MLP head of version 2."""
    return Recipe(
        settings=Settings(
            views="moco_v2", optimizer="sgd", lr=0.03, weight_decay=5e-4, decay_1d=True, warmup=0, batch=512
        ),
        method={"queue": 4096, "momentum": 0.99, "temperature": 0.1},
    )


def byol() -> Recipe:
    """The paper has no such data; smaller heads and a faster target suit it (unverified)."""
    return Recipe(
        settings=Settings(views="byol", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"hidden": 1024, "momentum": 0.99},
    )


def swav() -> Recipe:
    """The paper has no such data; two crops, and prototypes ten times the classes of CIFAR-10 (unverified)."""
    return Recipe(
        settings=Settings(views="swav", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"prototypes": 100, "hidden": 512},
    )


def barlow() -> Recipe:
    """The paper has no such data; a narrower embedding (unverified)."""
    return Recipe(
        settings=Settings(views="barlow", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"dim": 1024},
    )


def supcon() -> Recipe:
    """The authors' CIFAR recipe."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.125, weight_decay=1e-4, decay_1d=True, batch=512, floor=0.001
        ),
        method={"temperature": 0.1, "base_temperature": 0.07},
    )


def supinfonce() -> Recipe:
    """SupCon's recipe, as the authors have it for CIFAR."""
    return supcon()


def triplet() -> Recipe:
    """SupCon's recipe with a batch of 64 classes of 4, half its rate, and fewer epochs (unverified)."""
    settings = replace(supcon().settings, lr=0.06, batch=256, epochs=200)
    return Recipe(settings=settings)


def margin() -> Recipe:
    """As triplet."""
    return triplet()


def npairs() -> Recipe:
    """As triplet, with 128 classes of 2 in a batch."""
    return triplet()


def crossentropy() -> Recipe:
    """The authors' baseline of SupCon's CIFAR recipe, with one view."""
    return Recipe(
        settings=Settings(
            views="supcon", view_count=1, optimizer="sgd", lr=0.2, weight_decay=1e-4, decay_1d=True, floor=0.001
        ),
    )


def opencon() -> Recipe:
    """The authors' CIFAR-10 command, with a cosine where it has steps; they train SimCLR's last stage."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.01, weight_decay=5e-4, decay_1d=True, warmup=0, batch=512, epochs=200
        )
    )


def pcl() -> Recipe:
    """MoCo's recipe; the paper has no such data. Clusters from 2.5 to 10 times the classes of CIFAR-10 (unverified)."""
    return replace(moco(), method=moco().method | {"clusters": 25})


def spcl() -> Recipe:
    """The paper has no such data; its optimizer, with a cosine for steps, its batch and its one view (unverified)."""
    return Recipe(
        settings=Settings(
            views="simclr",
            view_count=1,
            optimizer="adam",
            lr=1.4e-3,  # 3.5e-4 for a batch of 64
            weight_decay=5e-4,
            decay_1d=True,
            batch=64,
            epochs=50,
            warmup=0,
        )
    )


def fnc() -> Recipe:
    """SimCLR's recipe; the paper has no such data. Two further views to find by (unverified)."""
    return replace(simclr(), settings=replace(simclr().settings, views="swav", crops=(4, 0)))


def robust() -> Recipe:
    """SimCLR's recipe, for ten classes; what the paper has is not known (unverified)."""
    return replace(simclr(), method=simclr().method | {"rho": 0.1})


def ifnd() -> Recipe:
    """MoCo's recipe; clusters from 2.5 to 10 times the classes of CIFAR-10 (unverified)."""
    return replace(moco(), method=moco().method | {"clusters": 25})


def interclr() -> Recipe:
    """MoCo's recipe; the paper has no such data. Clusters five times the classes of CIFAR-10 (unverified)."""
    return replace(moco(), method=moco().method | {"clusters": 50, "negatives": 1024, "pool": 5000})


def mice() -> Recipe:
    """The authors' CIFAR-10 recipe, with a cosine where it has steps, and two views where it has three."""
    return Recipe(
        settings=Settings(
            encoder="resnet34", views="moco_v1", optimizer="sgd", lr=1.0, weight_decay=1e-4, decay_1d=True, batch=256
        )
    )


def instdisc() -> Recipe:
    """The authors' CIFAR-10 command, with a cosine where it has steps; its loss has no proximal term."""
    return Recipe(
        settings=Settings(
            views="moco_v1", optimizer="sgd", lr=0.06, weight_decay=5e-4, decay_1d=True, warmup=0, batch=128, epochs=200
        ),
        method={"temperature": 0.1, "proximal": 0.0},
    )


def alignuniform() -> Recipe:
    """The authors' STL-10 recipe, with a cosine for steps and SimCLR's jitter for one of 0.4 that is always applied."""
    return Recipe(
        settings=Settings(
            views="simclr", optimizer="sgd", lr=0.12, weight_decay=1e-4, decay_1d=True, warmup=0, batch=768, epochs=200
        )
    )


def debiased() -> Recipe:
    """The authors' recipe for STL-10 and CIFAR-10, a constant rate of Adam, without its blur of 3 pixels."""
    return Recipe(
        settings=Settings(
            views="simclr",
            optimizer="adam",
            lr=1e-3,
            weight_decay=1e-6,
            decay_1d=True,
            warmup=0,
            floor=1.0,
            batch=256,
            epochs=400,
        ),
        method={"temperature": 0.5, "tau_plus": 0.1},
    )


def hcl() -> Recipe:
    """The authors' recipe, which is that of the debiased loss."""
    return replace(debiased(), method=debiased().method | {"beta": 1.0})


def dcl() -> Recipe:
    """As the paper has CIFAR-10, but for the rate (unverified)."""
    return Recipe(
        settings=Settings(views="simclr", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256, epochs=200),
        method={"temperature": 0.07},
    )


def renyicl() -> Recipe:
    """Smaller heads, and BYOL's views for its stronger ones, which have RandAugment and erasing (unverified)."""
    return Recipe(
        settings=Settings(views="byol", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"hidden": 1024},
    )


def imix() -> Recipe:
    """The paper's CIFAR recipe, with as many epochs as the others here, where it has 1000 to 4000."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.125, weight_decay=1e-4, decay_1d=True, warmup=5, batch=256
        ),
        method={"queue": 4096},
    )


def mochi() -> Recipe:
    """The paper has no such data; as MoCo, with fewer of fewer keys, as another's code has them (unverified)."""
    return replace(moco(), method=moco().method | {"hardest": 256, "mixed": 128, "mixed_query": 64})


def densecl() -> Recipe:
    """The paper has no such data; as MoCo. Maps of a few cells (unverified)."""
    return moco()


def pixpro() -> Recipe:
    """The paper has no such data; as BYOL, with a smaller head and a faster target (unverified)."""
    return replace(byol(), method={"hidden": 1024, "momentum": 0.97})


def clae() -> Recipe:
    """The authors' CIFAR recipe: Adam with a constant rate and no decay, for 100 epochs, temperature 0.5; the jitter of
    the views is SimCLR's for CIFAR, half as strong as theirs."""
    return Recipe(
        settings=Settings(views="simclr", optimizer="adam", lr=3e-4, weight_decay=0.0, warmup=0, floor=1.0, batch=256),
        method={"dim": 64, "temperature": 0.5},
    )


def looc() -> Recipe:
    """The paper has no such data; MoCo's rate and queue (unverified). Colors and turns are what is kept apart."""
    return Recipe(
        settings=Settings(
            views="looc", optimizer="sgd", lr=0.03, weight_decay=5e-4, decay_1d=True, warmup=0, batch=256
        ),
        method={"queue": 4096, "momentum": 0.99},
    )


def relicv2() -> Recipe:
    """The paper has no such data; fewer crops and smaller heads suit it (unverified)."""
    return Recipe(
        settings=Settings(views="relicv2", crops=(2, 2), optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"hidden": 1024, "momentum": 0.99},
    )


def bregman() -> Recipe:
    """The authors' recipe for small data: Adam 0.005, of which they take 500 epochs and more."""
    return Recipe(
        settings=Settings(
            views="simclr", optimizer="adam", lr=5e-3, weight_decay=1e-6, decay_1d=True, warmup=0, batch=256
        ),
        method={"temperature": 0.5},
    )


def rotation() -> Recipe:
    """The authors' CIFAR-10 settings, with a cosine for steps and without Nesterov's momentum; views of MoCo, where
    they crop and flip alone (unverified)."""
    return Recipe(
        settings=Settings(
            views="moco_v2", optimizer="sgd", lr=0.2, weight_decay=5e-4, decay_1d=True, batch=128, epochs=200, warmup=0
        )
    )


def jigsaw() -> Recipe:
    """The paper has no such data; four tiles, and their 24 orders (unverified)."""
    return Recipe(
        settings=Settings(views="moco_v2", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"grid": 2},
    )


def relativeposition() -> Recipe:
    """The paper has no such data; narrower gaps, as patches are so small (unverified)."""
    return Recipe(
        settings=Settings(views="moco_v2", optimizer="sgd", lr=0.06, weight_decay=5e-4, batch=256),
        method={"share": 0.8},
    )


def colorization() -> Recipe:
    """The paper has no such data; the views are those that leave colors alone (unverified)."""
    return Recipe(settings=Settings(views="drawing", optimizer="adamw", lr=1e-3, weight_decay=1e-3, batch=256))


def sce() -> Recipe:
    """The paper's CIFAR-10 recipe: a strong and a weak view, SGD 0.06, a queue of 4,096."""
    return Recipe(
        settings=Settings(
            views="sce", optimizer="sgd", lr=0.06, weight_decay=5e-4, decay_1d=True, warmup=5, batch=256, epochs=200
        ),
        method={"queue": 4096},
    )


def simclrv2() -> Recipe:
    """SimCLR's command for CIFAR-10, with the deeper projector."""
    return simclr()


def loco() -> Recipe:
    """The paper has no such data; as SimCLR (unverified)."""
    return simclr()


def pirl() -> Recipe:
    """The paper has no such data; as many negatives as InstDisc takes on CIFAR-10 (unverified)."""
    return Recipe(
        settings=Settings(
            views="moco_v2", optimizer="sgd", lr=0.03, weight_decay=5e-4, decay_1d=True, warmup=0, batch=256
        ),
        method={"negatives": 4096, "temperature": 0.1, "grid": 2},
    )


def cpc() -> Recipe:
    """The paper has no such data; a grid of 5 x 5, layer norm, and its Adam at a higher rate (unverified)."""
    return Recipe(
        settings=Settings(views="moco_v2", optimizer="adam", lr=1e-3, weight_decay=1e-5, batch=256),
        method={"grid": 5, "norm": True},
    )


def infomin() -> Recipe:
    """MoCo's demonstration with InfoMin's loss; four patches (unverified)."""
    return Recipe(
        settings=Settings(
            views="simclr", optimizer="sgd", lr=0.03, weight_decay=5e-4, decay_1d=True, warmup=0, batch=512
        ),
        method={"queue": 4096, "momentum": 0.99, "grid": 2},
    )


def cmc() -> Recipe:
    """The authors' optimizer and, from STL-10, temperature, with a cosine for steps; fewer negatives (unverified)."""
    return Recipe(
        settings=Settings(
            encoder="ycbcr:resnet18", views="cmc", optimizer="sgd", lr=0.03, weight_decay=1e-4, decay_1d=True, warmup=0
        ),
        method={"temperature": 0.1, "negatives": 4096},
    )


def clip() -> Recipe:
    """No paper has it: lightness and color are the two sides (unverified)."""
    return Recipe(
        settings=Settings(encoder="ycbcr:resnet18", views="cmc", optimizer="sgd", lr=0.03, weight_decay=1e-4, warmup=0)
    )


def excon() -> Recipe:
    """The authors' command for CIFAR-100, without its background (ExConB), on ResNet-18."""
    return Recipe(
        settings=Settings(
            views="excon",
            optimizer="sgd",
            lr=0.5,
            weight_decay=1e-4,
            decay_1d=True,
            warmup=0,
            floor=0.001,
            batch=256,
            epochs=200,
        ),
        method={"temperature": 0.1, "base_temperature": 0.07},
    )


def unicon() -> Recipe:
    """The authors' command for CIFAR-100, with as many epochs as the others here, where it has 1000."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.05, weight_decay=1e-4, decay_1d=True, batch=256, floor=0.001
        )
    )


def kcl() -> Recipe:
    """The paper's rate and decay, which it has for larger images; fewer keys (unverified). Crops and flips alone."""
    return Recipe(
        settings=Settings(
            views="cmc", optimizer="sgd", lr=0.1, weight_decay=5e-4, decay_1d=True, batch=256, epochs=200, warmup=0
        ),
        method={"queue": 4096, "temperature": 0.1},
    )


def paco() -> Recipe:
    """The authors' settings for CIFAR-100 with a long tail, where they have a ResNet-32; a cosine for steps, without
    AutoAugment and Cutout."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.1, weight_decay=5e-4, decay_1d=True, batch=128, epochs=400
        ),
        method={"dim": 32, "queue": 1024, "temperature": 0.05, "alpha": 0.01, "splits": 1},
    )


def gpaco() -> Recipe:
    """As PaCo."""
    recipe = paco()
    return replace(recipe, method={name: value for name, value in recipe.method.items() if name != "splits"})


def rescom() -> Recipe:
    """The authors' file for CIFAR-100 with a long tail, where they have a ResNet-32; a cosine for steps, without
    AutoAugment and Cutout."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.2, weight_decay=5e-4, decay_1d=True, batch=128, epochs=400
        ),
        method={"dim": 32},
    )


def esupcon() -> Recipe:
    """The paper's is not known; as classifiers of CIFAR are trained, on SupCon's views (unverified)."""
    return Recipe(
        settings=Settings(
            views="supcon", optimizer="sgd", lr=0.1, weight_decay=5e-4, decay_1d=True, batch=256, epochs=200
        )
    )


def contragan() -> Recipe:
    """The paper's settings for CIFAR-10: batch 64, Adam 2e-4, five steps of the discriminator for each of 100,000 of
    the generator."""
    return Recipe(
        settings=Settings(
            encoder="biggan96", views="mirrored", batch=64, epochs=768, optimizer="adam", lr=8e-4, beta1=0.5,
            weight_decay=0.0, warmup=0, floor=1.0,
        ),
        method={"width": 96, "discriminator_steps": 5},
    )  # fmt: skip
