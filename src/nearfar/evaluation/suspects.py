"""Labels that are probably wrong: confident learning, where neighbors and a linear classifier agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.splits import folds
from nearfar.evaluation.calibration import fit_temperature
from nearfar.evaluation.knn import knn_chosen
from nearfar.evaluation.linear import RIDGE_STRENGTHS, linear_scores, ridge
from nearfar.evaluation.protocol import labeled

NOISE = 0.1
"""The share of wrong labels that is reckoned with, at most, evenly spread over the other classes."""


@dataclass(frozen=True)
class Suspects:
    """Samples whose label is probably wrong, the surest first. index: S, positions.  given, proposed: S, classes.
    margin: S, 0 to 1, by how much the proposed class is likelier than the given one, on the mean of both.
    judged: how many labels were looked at.  confirmed: the share of these that are the likeliest class: where it is
    low, classes overlap, and a suspect may well be right."""

    index: Tensor
    given: Tensor
    proposed: Tensor
    margin: Tensor
    judged: int
    confirmed: float


def suspects(features: Tensor, label: Tensor, *, group: Tensor | None = None, seed: int = 0) -> Suspects:
    """The labels that both a linear classifier and nearest neighbors contradict, neither of which learned from them.

    Each label is judged by models of the other folds, five or as many as the labels allow. Their mean gives each class
    a probability, and its threshold is the mean of that over the samples labeled so (confident learning, Northcutt et
    al. 2019, arXiv 1911.00068). A label is a suspect where the likeliest class above its own threshold is another one,
    and is what each of the models names for itself, while the given one is so unlikely that chance explains it better
    than the sample: less likely than 2 NOISE / (C - 1), twice what wrong labels alone would give it.
    features: N x D.  label: N, int64, or MISSING.  group: N, of which no group is learned from and judged at once.
    Raises ValueError where not even two folds can be made.
    """
    x, y, index = labeled(features, label, "labeled")
    own = None if group is None else group[index]
    classes = int(y.max()) + 1
    scores = torch.full((len(x), classes), -torch.inf, dtype=torch.float64)
    votes = torch.zeros(len(x), classes, dtype=torch.float64)
    for learned, judged in folds(y, own, seed=seed):
        apart = None if own is None else own[learned]
        if len(y[learned].unique()) < 2:
            continue
        known = {"group": apart, "seed": seed}
        made, *_ = linear_scores(x[learned], y[learned], x[judged], solver=ridge, strengths=RIDGE_STRENGTHS, **known)
        scores[judged, : made.shape[1]] = made.double()
        made, *_ = knn_chosen(x[learned], y[learned], x[judged], **known)
        votes[judged, : made.shape[1]] = made.double()
    possible = scores.gather(1, y[:, None])[:, 0] > -torch.inf
    if not bool(possible.any()):
        return _none(len(x))
    temperature = fit_temperature(scores[possible], y[possible])
    linear = torch.where(possible[:, None], scores / temperature, 0).softmax(1)
    mean = (linear + votes) / 2
    named = _named(mean, y, possible)
    agreed = (linear.argmax(1) == named) & (votes.argmax(1) == named)
    own = mean.gather(1, y[:, None])[:, 0]
    floor = 2 * NOISE / max(1, len(y.unique()) - 1)  # the temperature was fitted to labels of which some are wrong
    rows = (possible & agreed & (named != y) & (own < floor)).nonzero()[:, 0]
    margin = (mean[rows].gather(1, named[rows, None]) - mean[rows].gather(1, y[rows, None]))[:, 0]
    confirmed = float((mean.argmax(1) == y)[possible].double().mean())
    order = margin.argsort(descending=True, stable=True)
    rows = rows[order]
    return Suspects(index[rows], y[rows], named[rows], margin[order], int(possible.sum()), confirmed)


def _named(p: Tensor, y: Tensor, judged: Tensor) -> Tensor:
    """The likeliest class of each row among those whose probability is at least the mean over the rows labeled so:
    N, int64, or MISSING."""
    count = torch.bincount(y[judged], minlength=p.shape[1])
    total = torch.zeros(p.shape[1], dtype=p.dtype).index_add_(0, y[judged], p[judged].gather(1, y[judged, None])[:, 0])
    threshold = torch.where(count > 0, total / count.clamp(min=1), torch.inf)
    above = torch.where(p >= threshold, p, -torch.inf)
    value, best = above.max(1)
    return torch.where(value > -torch.inf, best, MISSING)


def _none(judged: int) -> Suspects:
    empty = torch.empty(0, dtype=torch.int64)
    return Suspects(empty, empty, empty, torch.empty(0, dtype=torch.float64), judged, 0.0)
