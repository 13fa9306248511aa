"""ImageNet with a ResNet-50, as the papers train it. Built and stepped once in the tests; NOT RUN to the end.

A warm-up begins at a rate of 0, where SwAV's begins at 0.3.
"""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image.settings import Settings
from nearfar.settings import Recipe


def simclr() -> Recipe:
    """arXiv 2002.05709: batch 4096, LARS 0.3, 100 epochs. 64.5 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="simclr", batch=4096, epochs=100, optimizer="lars", lr=0.3,
            weight_decay=1e-6, warmup=10,
        ),
        method={"temperature": 0.1},
    )  # fmt: skip


def moco() -> Recipe:
    """arXiv 2003.04297 (v2): batch 256, SGD 0.03, cosine, 200 epochs. 67.5 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="moco_v2", batch=256, epochs=200, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        )
    )  # fmt: skip


def moco_v1() -> Recipe:
    """arXiv 1911.05722 (v1), with a cosine where the paper has steps. 60.6 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="moco_v1", batch=256, epochs=200, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        ),
        method={"head": "linear", "temperature": 0.07},
    )  # fmt: skip


def byol() -> Recipe:
    """arXiv 2006.07733: batch 4096, LARS 0.3, 300 epochs. 72.5 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="byol", batch=4096, epochs=300, optimizer="lars_outside", lr=0.3,
            weight_decay=1e-6, warmup=10,
        ),
        method={"momentum": 0.99},
    )  # fmt: skip


def swav() -> Recipe:
    """arXiv 2006.09882: 2 x 224 + 6 x 96, batch 4096, LARC 0.3, 100 epochs. 72.1 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="swav", crops=(2, 6), batch=4096, epochs=100, optimizer="larc", lr=0.3,
            weight_decay=1e-6, decay_1d=True, warmup=10, floor=0.001,
        ),
        method={"prototypes": 3000},
    )  # fmt: skip


def barlow() -> Recipe:
    """arXiv 2103.03230: batch 2048, LARS 0.2 (biases 0.0048), 1000 epochs. 73.2 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="barlow", batch=2048, epochs=1000, optimizer="lars_outside", lr=0.2,
            lr_1d=0.0048, weight_decay=1.5e-6, warmup=10, floor=0.001,
        )
    )  # fmt: skip


def supcon() -> Recipe:
    """arXiv 2004.11362: batch 6144, LARS 0.4, 350 epochs; views of SimCLR, not AutoAugment. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="simclr", batch=6144, epochs=350, optimizer="lars", lr=0.4,
            weight_decay=1e-3, warmup=10,
        ),
        method={"temperature": 0.1},
    )  # fmt: skip


def opencon() -> Recipe:
    """arXiv 2208.02764: 100 classes, 50 with labels, batch 512, SGD 0.01, 120 epochs, cosine for steps. Not run."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="supcon", batch=512, epochs=120, optimizer="sgd", lr=0.005,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        ),
        method={"novel": 50, "tau_u": 0.6},
    )  # fmt: skip


def instdisc() -> Recipe:
    """arXiv 1805.01978: batch 256, SGD 0.03, 200 epochs, cosine for steps. 54.0 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="moco_v1", batch=256, epochs=200, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        )
    )  # fmt: skip


def dcl() -> Recipe:
    """arXiv 2110.06848: batch 256, SGD 0.03 (unverified), 200 epochs. 68.2 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="simclr", batch=256, epochs=200, optimizer="sgd", lr=0.03,
            weight_decay=1e-4,
        ),
        method={"temperature": 0.1},
    )  # fmt: skip


def renyicl() -> Recipe:
    """arXiv 2208.06270: batch 1024, LARS 0.8, 100 epochs; views of BYOL, without RandAugment. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="byol", batch=1024, epochs=100, optimizer="lars_outside", lr=0.8,
            weight_decay=1e-6, warmup=5,
        )
    )  # fmt: skip


def imix() -> Recipe:
    """arXiv 2010.08887: MoCo v2 with CutMix, batch 512, SGD 0.03 (per 256), 800 epochs, no norm in the projector. The
    authors' command has MixUp with alpha 0.2. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="moco_v2", batch=512, epochs=800, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=10,
        ),
        method={"base": "moco", "mix": "cutmix", "norm": False},
    )  # fmt: skip


def mochi() -> Recipe:
    """arXiv 2010.01028: as MoCo v2, mixtures from epoch 15 (from memory, unverified). Not run here."""
    return replace(moco(), method={"start": 15})


def densecl() -> Recipe:
    """arXiv 2011.09157: as MoCo v2. Not run here."""
    return moco()


def pixpro() -> Recipe:
    """arXiv 2011.10043: batch 1024, LARS 1.0, 100 epochs, BYOL's views. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="byol", batch=1024, epochs=100, optimizer="lars", lr=1.0,
            weight_decay=1e-5, warmup=5,
        )
    )  # fmt: skip


def looc() -> Recipe:
    """arXiv 2008.05659 on ImageNet-100: batch 256, SGD 0.03, 500 epochs, with a cosine for steps. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="looc", batch=256, epochs=500, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        )
    )  # fmt: skip


def relicv2() -> Recipe:
    """arXiv 2201.05119: batch 4096, LARS 0.3, 1000 epochs (unverified). 77.1 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="relicv2", crops=(4, 2), batch=4096, epochs=1000,
            optimizer="lars_outside", lr=0.3, weight_decay=1e-6, warmup=10,
        )
    )  # fmt: skip


def simclrv2() -> Recipe:
    """arXiv 2006.10029: batch 4096, LARS 0.1 x sqrt(batch), 800 epochs. 71.7 % linear (repository, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="simclr", batch=4096, epochs=800, optimizer="lars", lr=0.4,
            weight_decay=1e-4, warmup=40,
        ),
        method={"temperature": 0.1},
    )  # fmt: skip


def loco() -> Recipe:
    """arXiv 2008.01342: batch 4096, LARS 0.3, 800 epochs (from memory, unverified). Not run here."""
    return replace(simclr(), settings=replace(simclr().settings, epochs=800))


def pirl() -> Recipe:
    """arXiv 1912.01991: batch 1024, SGD 0.03 (per 256), 800 epochs, cosine. 63.6 % linear (paper, not run here)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="moco_v2", batch=1024, epochs=800, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, warmup=0, floor=0.001,
        ),
        method={"side": 64},
    )  # fmt: skip


def infomin() -> Recipe:
    """arXiv 2005.10243: MoCo, batch 256, SGD 0.03, 200 epochs, no RandAugment. 70.1 % linear (authors, not run)."""
    return Recipe(
        settings=Settings(
            encoder="resnet50", size=224, views="simclr", batch=256, epochs=200, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        ),
        method={"side": 64},
    )  # fmt: skip


def cmc() -> Recipe:
    """arXiv 1906.05849: batch 256, SGD 0.03, 240 epochs, cosine for steps; two whole networks. Not run here."""
    return Recipe(
        settings=Settings(
            encoder="ycbcr:resnet50", size=224, views="cmc", batch=256, epochs=240, optimizer="sgd", lr=0.03,
            weight_decay=1e-4, decay_1d=True, warmup=0,
        )
    )  # fmt: skip
