"""How many answers survive: accuracy of a classifier of images under attacks in the space of pixels.

A model is all that lies between pixels in [0, 1] and logits, an encoder and a classifier, in eval mode:

    fit = linear_fit(features, label)
    model = lambda x: fit.scores(encoder(x))
    accuracy_under(partial(pgd, epsilon=2 / 255), model, images, label)

An attack that finds nothing proves nothing: the accuracies are upper bounds of what a stronger one would leave. How
strong the classifier is fitted changes them, so that encoders are compared by the same kind of fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.ops.attacks import Norm, ascend, random_start

Model = Callable[[Tensor], Tensor]
"""Images N x C x H x W in [0, 1] -> logits N x classes, with gradient."""
Attack = Callable[[Model, Tensor, Tensor], Tensor]
"""(model, images, label) -> images that the model is to get wrong."""


def fgsm(model: Model, x: Tensor, label: Tensor, *, epsilon: float) -> Tensor:
    """The fast gradient sign method: every number of an image moves by epsilon, toward a larger cross-entropy.

    x: N x C x H x W in [0, 1].  label: N, or MISSING.  epsilon: in the same unit, 8 / 255 and less.
    Goodfellow et al. 2014, arXiv 1412.6572.
    """
    return ascend(lambda at: _wrongness(model, at, label), x, epsilon=epsilon, bounds=(0, 1))


def pgd(
    model: Model,
    x: Tensor,
    label: Tensor,
    *,
    epsilon: float,
    stride: float | None = None,
    steps: int = 20,
    norm: Norm = "linf",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy: the images after the last step.

    epsilon: the largest change of a number ("linf"), or the Euclidean length of an image's change ("l2").
    stride: of a step; a quarter of epsilon if none is given.  generator: starts at random points of the ball if given,
    else at the image (BIM). Madry et al. 2017, arXiv 1706.06083.
    """
    start = None if generator is None else random_start(x.shape, epsilon, generator, norm=norm).to(x)
    stride = epsilon / 4 if stride is None else stride
    return ascend(
        lambda at: _wrongness(model, at, label),
        x, epsilon=epsilon, stride=stride, steps=steps, norm=norm, start=start, bounds=(0, 1),
    )  # fmt: skip


def accuracy_under(attack: Attack | None, model: Model, x: Tensor, label: Tensor, *, batch: int = 250) -> float:
    """The accuracy on images that were attacked, in per cent; as they are, if there is no attack.

    x: N x C x H x W in [0, 1].  label: N; rows that are MISSING take no part.  batch: images at a time.
    """
    known = label != MISSING
    x, label = x[known], label[known]
    if not len(label):
        raise UserError(f"none of the {len(known)} images has a label; give labels")
    hits = 0
    for part, truth in zip(x.split(batch), label.split(batch), strict=True):
        seen = part if attack is None else attack(model, part, truth)
        with torch.no_grad():
            hits += int(model(seen).argmax(1).eq(truth).sum())
    return 100 * hits / len(label)


def corruption_error(errors: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]]) -> float:
    """mCE: the error under each corruption, over its severities, relative to that of a baseline, in per cent.

        mean over corruptions c of  sum_s errors[c][s] / sum_s baseline[c][s]

    The baseline of ImageNet-C is AlexNet; name yours. Hendrycks and Dietterich 2019, arXiv 1903.12261.
    """
    if errors.keys() != baseline.keys():
        raise UserError(f"errors under {sorted(errors)} and of the baseline under {sorted(baseline)}; wanted the same")
    return 100 * sum(sum(of) / sum(baseline[name]) for name, of in errors.items()) / len(errors)


def _wrongness(model: Model, x: Tensor, label: Tensor) -> Tensor:
    # A sum, so that no sample's slope depends on how many there are.
    return F.cross_entropy(model(x), label, ignore_index=MISSING, reduction="sum")
