"""A linear classifier on frozen features, with a temperature from rows that it has not learned from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.data.splits import folds
from nearfar.evaluation.linear import LinearFit, linear_fit
from nearfar.fewlabels.temperature import Calibration, calibrate


def frozen(
    features: Tensor,
    label: Tensor,
    *,
    group: Tensor | None = None,
    held: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> tuple[nn.Linear, Calibration, dict[str, Any]]:
    """A linear classifier on cached features: the layer, its calibration, and what was chosen.

    features: N x D.
    label: N, each of 0 to C - 1 at least once.
    group: N, rows that stay together.
    held: features and labels of other rows, which fit the temperature. Without them it is fitted on what classifiers of
        the other folds say of each row, at the strength that was chosen, and all rows are learned from.
    """
    fit = linear_fit(features, label, group=group, scales=("one",), seed=seed)
    layer = _layer(fit)
    if held is not None and len(held[1]):
        logits, truth = held[0] @ layer.weight.T.detach() + layer.bias.detach(), held[1]
    else:
        logits, truth = _across_folds(features, label, group, fit, seed)
    facts = {key: fit.config[key] for key in ("strength", "held_out_accuracy", "held_out_parts")}
    return layer, calibrate(logits, truth), facts | {"notes": fit.notes}


def _layer(fit: LinearFit) -> nn.Linear:
    weight, bias = fit.folded()
    layer = nn.Linear(weight.shape[0], weight.shape[1])
    layer.load_state_dict({"weight": weight.T.contiguous(), "bias": bias})
    return layer


def _across_folds(
    features: Tensor, label: Tensor, group: Tensor | None, fit: LinearFit, seed: int
) -> tuple[Tensor, Tensor]:
    """What is said of each row by a classifier that has not learned from it: logits n x C, and labels n."""
    nothing = features.new_empty(0, len(fit.present)), label[:0]
    most = int(torch.bincount(label).max())
    try:
        parts = folds(label, group, folds=min(5, most), seed=seed)
    except ValueError:  # one row a class, or all rows of one group
        return nothing
    strength = float(str(fit.config["strength"]))
    logits = []
    for learn, rest in parts:
        if len(label[learn].unique()) < 2:
            return nothing
        own = None if group is None else group[learn]
        part = linear_fit(features[learn], label[learn], group=own, strengths=[strength], scales=("one",))
        scores = part.scores(features[rest])
        logits.append(F.pad(scores, (0, len(fit.present) - scores.shape[1]), value=-torch.inf))
    return torch.cat(logits), label[torch.cat([rest for _, rest in parts])]
