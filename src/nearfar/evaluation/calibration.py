"""Whether a classifier is right as often as it says: calibration error, Brier score, likelihood, and temperature.

All take N rows and leave out those whose label is MISSING. A temperature is fitted on validation rows, never on those
that are then measured; it changes how sure a classifier is, and nothing of what it says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError

COLDEST, HOTTEST = 0.01, 100.0
"""The temperatures between which one is looked for: a classifier that is always right would have none at all."""


def calibration_error(probabilities: Tensor, label: Tensor, bins: int = 15) -> float:
    """By how far confidence misses accuracy, 0 to 1: the sum over bins of (n_b / n) |accuracy_b - confidence_b|.

    probabilities: N x C.  label: N, or MISSING.  bins: of equal width, each with its upper edge, by the confidence,
    the largest probability of a row; of equal ones the lowest class is what the classifier says. Empty bins count for
    nothing. Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    p, y = _known(probabilities, label)
    confidence = p.amax(1)
    gap = (p.argmax(1) == y).double() - confidence  # N
    row_bin = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    return float(p.new_zeros(bins).index_add_(0, row_bin, gap).abs().sum() / len(y))


def brier(probabilities: Tensor, label: Tensor) -> float:
    """The mean squared distance of the probabilities from the truth, 0 to 2: the mean over rows of |p - onehot(y)|^2.

    probabilities: N x C.  label: N, or MISSING. With two classes it is twice the score of the probability of one.
    """
    p, y = _known(probabilities, label)
    own = p.gather(1, y[:, None])[:, 0]
    return float((p.square().sum(1) - 2 * own + 1).mean())


def nll(logits: Tensor, label: Tensor) -> float:
    """The mean of -log p(y), in nats, with p = softmax(logits); infinite where the truth was held to be impossible.

    logits: N x C; logarithms of probabilities are logits too.  label: N, or MISSING.
    """
    z, y = _known(logits, label)
    return float(torch.nn.functional.cross_entropy(z, y))


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature T, 0.01 to 100, for which softmax(logits / T) has the least nll on these rows.

    logits: N x C, of validation rows.  label: N, or MISSING; rows whose class has a logit of -inf say nothing of T and
    are left out. In 1 / T the nll is convex, and its slope, mean E_p[z] - z_y, changes sign once.
    """
    z, y = _known(logits, label)
    possible = z.gather(1, y[:, None])[:, 0] > -torch.inf
    z, y = z[possible], y[possible]
    if not len(y):
        raise UserError("every row is of a class with a logit of -inf; fit a temperature on rows of known classes")
    own, level = z.gather(1, y[:, None])[:, 0], z.masked_fill(z == -torch.inf, 0)
    cold, hot = (torch.tensor(edge, dtype=torch.float64).log() for edge in (COLDEST, HOTTEST))
    for _ in range(60):
        middle = (cold + hot) / 2
        expected = ((z / middle.exp()).softmax(1) * level).sum(1)
        too_sure = bool((expected - own).mean() > 0)
        cold, hot = (middle, hot) if too_sure else (cold, middle)
    return float(((cold + hot) / 2).exp())


def _known(rows: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a label, in float64 on the CPU: n x C, and n."""
    if rows.ndim != 2 or label.shape != rows.shape[:1]:
        raise UserError(f"{tuple(rows.shape)} and {tuple(label.shape)}; wanted N x C and N: one row and one label each")
    rows, label = rows.detach().cpu().double(), label.cpu()
    known = label != MISSING
    rows, label = rows[known], label[known]
    if not len(label):
        raise UserError(f"none of the {len(known)} rows has a label; give labels")
    if int(label.max()) >= rows.shape[1]:
        raise UserError(
            f"a label is {int(label.max())}, and there are {rows.shape[1]} columns; wanted one for each class"
        )
    if rows.isnan().any():
        raise UserError(f"{int(rows.isnan().any(1).sum())} of {len(rows)} rows hold a number that is not one (NaN)")
    return rows, label
