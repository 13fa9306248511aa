"""How well cosines agree with scores that people gave to pairs, as on the STS tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.evaluation.geometry import alignment, uniformity
from nearfar.evaluation.protocol import finite

DRAWS = 1000
"""Of the bootstrap over pairs."""

ALIKE = 0.8
"""Of the range of scores: pairs above it count as positives for alignment, as above 4 of 5 (arXiv 2104.08821)."""


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of each pair: N, float64; 0 where a row is all zeros. a, b: N x D."""
    if a.shape != b.shape:
        raise UserError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted the same N x D, one row of each pair")
    return F.cosine_similarity(finite(a, "first").double(), finite(b, "second").double(), eps=1e-12)


def ranks(x: Tensor) -> Tensor:
    """The rank of each value, from 1; of equal values the mean. x: N."""
    _, place, count = x.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0).double() - (count - 1) / 2)[place]


def pearson(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Pearson's correlation, -1 to 1; 0 where one of them does not vary. x, y: N.

    weight: B x N, of pairs; then B correlations, else one.
    """
    weight = torch.ones(1, len(x), dtype=torch.float64) if weight is None else weight
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    sums = weight @ torch.stack([x, y, x * x, y * y, x * y], 1) / weight.sum(1, keepdim=True).clamp(min=1e-12)
    mx, my, xx, yy, xy = sums.unbind(1)
    spread = ((xx - mx * mx).clamp(min=0) * (yy - my * my).clamp(min=0)).sqrt()
    return torch.where(spread > 1e-12, (xy - mx * my) / spread.clamp(min=1e-12), 0.0)


def spearman(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Spearman's correlation: Pearson's of the ranks, which stay those among all pairs, whatever these weigh."""
    return pearson(ranks(x), ranks(y), weight)


def correlations(x: Tensor, y: Tensor, part: Sequence[str] = (), weight: Tensor | None = None) -> dict[str, Tensor]:
    """Spearman's and Pearson's correlation, times 100: over all pairs, as the mean over subsets, and as their
    mean weighted by sizes, each B by its name: "Spearman, all" and so on. Without subsets there is "all" alone.

    x, y: N.  part: N, the subset of each pair; one of fewer than two pairs does not count.  weight: B x N.
    """
    names = dict.fromkeys(part)
    subsets = [torch.tensor([i for i, own in enumerate(part) if own == name]) for name in names]
    subsets = [rows for rows in subsets if len(rows) > 1] if len(names) > 1 else []
    made: dict[str, Tensor] = {}
    for title, of in (("Spearman", spearman), ("Pearson", pearson)):
        made[f"{title}, all"] = 100 * of(x, y, weight)
        if subsets:
            each = torch.stack([of(x[k], y[k], None if weight is None else weight[:, k]) for k in subsets])
            sizes = torch.tensor([len(k) for k in subsets], dtype=torch.float64)
            made[f"{title}, mean"] = 100 * each.mean(0)
            made[f"{title}, wmean"] = 100 * (sizes @ each) / sizes.sum()
    return made


def similarity(
    cosine: Tensor, score: Tensor, part: Sequence[str] = (), *, over: Tensor | None = None, seed: int = 0
) -> dict[str, dict[str, float]]:
    """What `correlations` gives of cosines and scores, each as value, low and high: the 95 % interval of a bootstrap
    over pairs.

    cosine, score: N.  over: N, the cosines of another representation of the same pairs: the gain over it.
    Raises ValueError for fewer than three pairs, or equal scores.
    """
    if len(score) < 3 or bool((score == score[0]).all()):
        raise UserError(f"{len(score)} pairs, whose scores do not differ: three pairs or more, of several scores")
    rows = torch.randint(len(score), (DRAWS, len(score)), generator=torch.Generator().manual_seed(seed))
    weight = torch.zeros(DRAWS, len(score), dtype=torch.float64).scatter_add_(1, rows, torch.ones_like(rows).double())
    value, drawn = correlations(cosine, score, part), correlations(cosine, score, part, weight)
    if over is not None:
        value = {name: x - correlations(over, score, part)[name] for name, x in value.items()}
        drawn = {name: x - correlations(over, score, part, weight)[name] for name, x in drawn.items()}
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    made = {}
    for name, x in value.items():
        low, high = drawn[name].quantile(ends).tolist()
        made[name] = {"value": float(x), "low": low, "high": high}
    return made


def closeness(a: Tensor, b: Tensor, score: Tensor) -> dict[str, float | None]:
    """alignment of the pairs that score above `ALIKE` of the range, and uniformity of all rows (arXiv 2005.10242).

    a, b: N x D; score: N. None where no pair scores so high, or all rows are one.
    """
    alike = score > score.min() + ALIKE * (score.max() - score.min())
    rows = torch.cat([a, b]).unique(dim=0)
    return {
        "alignment": alignment(a[alike], b[alike]) if alike.any() else None,
        "uniformity": uniformity(rows) if len(rows) > 1 else None,
    }
