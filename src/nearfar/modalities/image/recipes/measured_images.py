"""Images, trained for minutes to hours: what was chosen by measurement on nine data sets (docs/results.md).

What is set follows from the number of steps that will be made, and views from what the images are. Recipes of papers,
which are for long runs, stay by name: --recipe paper.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from nearfar.modalities.image.recipes import small_images
from nearfar.modalities.image.settings import Facts, Settings
from nearfar.settings import Recipe

STEPS = 2000
"""Of a run whose epochs are not given."""


def _recipe(facts: Facts, method: dict[str, Any], *, most: int = 128) -> Recipe:
    """AdamW, and eight steps an epoch or more; the peak rate is 0.0015 for 128 samples, and grows with their root.

    most: samples in a step.
    """
    batch = facts.batch_of(most)
    epochs = _epochs(facts, batch)
    small = facts.device == "cpu" and facts.size <= 64
    settings = Settings(
        encoder="conv4" if small else "resnet18",
        views=facts.views,
        optimizer="adamw",
        lr=round(3e-3 * math.sqrt(128 / batch), 5),  # for 256: settings scale it in proportion to the batch
        weight_decay=1e-2,
        warmup=epochs / 10,
        batch=batch,
        epochs=epochs,
    )
    reasons = {"views": facts.why_views} if facts.why_views else {}
    if small:
        reasons["encoder"] = "a network that trains in minutes on a CPU"
    return Recipe(settings=settings, method=method, reasons=reasons)


def _epochs(facts: Facts, batch: int) -> int:
    return facts.epochs_of(STEPS, batch, fewest=10, most=300)


def _momentum(facts: Facts, highest: float, *, most: int = 128) -> float:
    batch = facts.batch_of(most)
    return facts.momentum(_epochs(facts, batch) * facts.per_epoch(batch), highest=highest)


def simclr(facts: Facts) -> Recipe:
    """The default: chosen on nine data sets. Here for 5,000 photographs; views are by what images are."""
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    """The default, as simclr; tried on two data sets. In half a minute it loses where it gains in five."""
    return _recipe(facts, {"queue": facts.queue(), "momentum": _momentum(facts, 0.999), "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    """The default, as simclr, in batches of 64; tried on four data sets. It loses in half a minute, gains in five."""
    return _recipe(facts, {"hidden": 1024, "momentum": _momentum(facts, 0.996, most=64)}, most=64)


def swav(facts: Facts) -> Recipe:
    """The default, as simclr; tried on four data sets."""
    return _recipe(facts, {"prototypes": 100, "hidden": 512, "epsilon": 0.03})


def barlow(facts: Facts) -> Recipe:
    """The default, as simclr; tried on four data sets."""
    return _recipe(facts, {"dim": 1024})


def supcon(facts: Facts) -> Recipe:
    """The default, as simclr, with batch norm in the projector, so that classes which look alike do not draw all
    embeddings into one point; tried on four data sets."""
    return _recipe(facts, {"temperature": 0.1, "norm": True})


def diet(facts: Facts) -> Recipe:
    """The default, as simclr, with two views, which a sample's row of the classifier learns from; not compared."""
    return _recipe(facts, {})


def contragan(facts: Facts) -> Recipe:
    """The paper's rates for CIFAR-10, narrow networks, and at least 10,000 steps; views are the image, mirrored where
    mirror images are natural."""
    batch = facts.batch or min(64, max(8, facts.samples))
    epochs = facts.epochs or max(1, -(-10_000 // max(1, facts.samples // batch)))
    small, upright = facts.device == "cpu", facts.views in ("drawing", "ink_drawing", "sign", "spectrogram")
    settings = replace(
        small_images.contragan().settings,
        encoder="biggan16" if small else "biggan64",
        views="plain" if upright else "mirrored",
        batch=batch,
        epochs=epochs,
        lr=0.0512 / batch,  # whatever the batch is, 2e-4
    )
    method = {"width": 16 if small else 64, "dim": 128 if small else 512}
    return Recipe(settings=settings, method=method, reasons={"views": facts.why_views} if facts.why_views else {})
