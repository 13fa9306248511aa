"""Scores of a representation that need no labels, for telling which checkpoint of a run to take.

Each is a pure function of embeddings, of some views of each sample, or of maps. What they say of a run is seen by
comparing its checkpoints: no score has a value that is good in itself. How far each can be trusted is measured by
`benchmarks/checkpoints.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.clustering.kmeans import kmeans
from nearfar.errors import UserError
from nearfar.evaluation.geometry import alignment, effective_rank, found, uniformity
from nearfar.evaluation.knn import neighbors
from nearfar.evaluation.protocol import finite
from nearfar.evaluation.similarity import ranks

NEAREST = 10
"""Neighbors of a sample whose stability is measured."""

FIRST, LAST = 3, 100
"""The eigenvalues whose decay is fitted: the first two seldom lie on the power law."""


class Score(NamedTuple):
    """title, gloss: for readers.  best: the value that is best; inf where higher is better, -inf where lower is."""

    title: str
    gloss: str
    best: float = math.inf


PREFIX = "scored_"
"""What the names of scores begin with in the journal of a run."""

SCORES = {
    "rankme": Score("RankMe", "How many dimensions the embeddings fill (effective rank of all rows)."),
    "alpha": Score("Decay of the spectrum", "The exponent by which eigenvalues fall (alpha-ReQ). Near 1 is good.", 1.0),
    "nesum": Score("NESum", "The eigenvalues, as shares of the largest, summed. 1: collapse to a line."),
    "lidar": Score("LiDAR", "How many dimensions tell samples apart better than they tell views of one sample apart."),
    "learnability": Score("Cluster learnability", "How soon nearest neighbors learn k-means clusters, 0 to 1 (CLID)."),
    "dimension": Score("Intrinsic dimension", "The dimension of the surface that samples lie on (TwoNN; CLID)."),
    "uniformity": Score("Uniformity", "How evenly samples cover the sphere. 0: collapse; -4: evenly.", -math.inf),
    "alignment": Score("Alignment", "The mean squared distance of two views of a sample, 0 to 4.", -math.inf),
    "consistency": Score("View consistency", "The share of samples whose other view is the nearest of all, 0 to 1."),
    "stability": Score("Stability", "The share of the 10 nearest neighbors that stayed since the checkpoint before."),
    "dense": Score("Structure of cells", "How far clusters of cells of the maps lie apart (DSE), for dense use."),
}
"""Each number that is measured, by name."""

CLID = ("learnability", "dimension")
"""The two that CLID adds up, each standardized over the checkpoints that are compared."""


def eigenvalues(x: Tensor) -> Tensor:
    """Those of the covariance of x, N x D, falling: min(N, D), float64."""
    x = finite(x, "given").double()
    x = x - x.mean(0)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram / max(1, len(x) - 1)).flip(0).clamp(min=0)


def decay(x: Tensor) -> float:
    """The exponent a of the power law j^-a that the eigenvalues of the covariance follow: nan where fewer than three of
    those that are fitted are above 0, as after a collapse.

    x: N x D.  Least squares over logarithms, of eigenvalues FIRST to LAST, weighted by 1 / j, so that each octave
    counts alike. Of good encoders it is near 1 (alpha-ReQ, Agrawal et al., NeurIPS 2022).
    """
    values = eigenvalues(x)
    values = values[values > 1e-10 * values[0]][FIRST - 1 : LAST]
    if len(values) < 3:
        return math.nan
    j = torch.arange(FIRST, FIRST + len(values), dtype=torch.float64)
    weight, at, height = 1 / j / (1 / j).sum(), j.log(), values.log()
    at, height = at - weight @ at, height - weight @ height
    return -float((weight * at) @ height / ((weight * at) @ at))


def nesum(x: Tensor) -> float:
    """The sum of the eigenvalues of the covariance over the largest of them, 1 (a line) to D (white): of x, N x D.

    He and Ozay, "Exploring the gap between collapsed and whitened features in self-supervised learning", ICML 2022.
    """
    values = eigenvalues(x)
    return float(values.sum() / values[0]) if values[0] > 0 else math.nan


def lidar(views: Tensor, delta: float = 1e-4, eps: float = 1e-7) -> float:
    """The effective rank of the LDA matrix whose classes are samples, 1 to D (LiDAR, arXiv 2312.04000).

    views: N x Q x D, Q views of each of N samples; published with 1,000 x 50, and the rank is N - 1 at most.
    delta: is added to the covariance within samples.
    """
    if views.dim() != 3 or min(views.shape[:2]) < 2:
        raise UserError(f"views of shape {tuple(views.shape)}; wanted N x Q x D: two views or more of two samples")
    n, q, d = views.shape
    x = finite(views.flatten(0, 1), "given").double().view(n, q, d)
    means = x.mean(1)
    apart, within = means - means.mean(0), (x - means[:, None]).flatten(0, 1)
    own, basis = torch.linalg.eigh(within.T @ within / (n * (q - 1)) + delta * torch.eye(d, dtype=x.dtype))
    whitened = apart @ (basis * own.rsqrt())  # up to a rotation, which leaves eigenvalues as they are
    values = torch.linalg.eigvalsh(whitened.T @ whitened / (n - 1)).clamp(min=0)
    share = values / values.sum().clamp(min=torch.finfo(x.dtype).tiny) + eps
    return float(torch.special.entr(share).sum().exp())


def learnability(x: Tensor, seed: int = 0) -> float:
    """How soon a 1-NN classifier by cosine learns the clusters of k-means, 0 to 1: the share of samples, in a random
    order, that are of the cluster of the nearest one before them (CLID, arXiv 2206.01251).

    x: N x D, of which there are sqrt(N) clusters.
    """
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(finite(x, "given"), dim=1)[torch.randperm(len(x), generator=generator)]
    label = kmeans(z, max(1, math.isqrt(len(z))), seed=seed).assigned
    before = torch.ones(len(z), len(z), dtype=torch.bool).tril(-1)
    nearest = (z @ z.T).masked_fill(~before, -math.inf).argmax(1)
    return float((label[nearest] == label)[1:].float().mean())


def dimension(x: Tensor) -> float:
    """The intrinsic dimension by the ratio of the distances to the two nearest: nan where samples are equal.

    x: N x D.  The most likely one (TwoNN, Facco et al. 2017, arXiv 1803.06992); samples with an equal are left out.
    """
    x = finite(x, "given").double()
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    first, second = near.topk(2, largest=False).values.T
    ratio = (second / first)[first > 0]
    total = float(ratio.log().sum())
    return (len(ratio) - 1) / total if len(ratio) > 1 and total > 0 else math.nan


def stability(before: Tensor, now: Tensor) -> float:
    """The share of the nearest neighbors that stayed, 0 to 1.  before, now: N x k, those of each sample, by index."""
    if before.shape != now.shape:
        raise UserError(f"neighbors of shape {tuple(before.shape)} and {tuple(now.shape)}; wanted the same N x k")
    return float((before[:, :, None] == now[:, None]).any(2).float().mean())


def dense(maps: Tensor, seed: int = 0, *, together: int = 8, local: int = 3, shared: int = 24) -> float:
    """How far apart clusters of cells lie, how narrow they are, and how many dimensions cells fill.

    maps: N x C x H x W, of one depth.  M_inter + M_dim - M_intra, the dense representation structure estimator (DSE,
    arXiv 2510.17299) as its authors' code has it: k-means over the cells of `together` images (`shared` clusters) and
    of each image (`local`). M_inter: the mean distance of a cell to the nearest centroid of another cluster. M_intra:
    the sum of the singular values of a centered cluster over sqrt(max(n - 1, C)), mean over clusters and both ways.
    Both are divided by the mean distance of a cell to the mean of all. M_dim: the effective rank of one cell of each
    image over its bound, mean over 8 places. With few cells there are fewer clusters: one for three cells.
    """
    cells = finite(maps.flatten(2).transpose(1, 2).flatten(0, 1), "given").view(len(maps), -1, maps.shape[1])
    scale = float((cells - cells.mean((0, 1))).norm(dim=2).mean())
    if scale == 0:
        return math.nan
    apart, alone, joint = [], [], []
    for part in cells.split(together):
        rows = part.flatten(0, 1)
        made = kmeans(rows, max(2, min(shared, len(rows) // 3)), seed=seed)
        other = torch.cdist(rows, made.centroids).scatter(1, made.assigned[:, None], math.inf)
        apart.append(float(other.amin(1).mean()))
        joint += _radii(rows, made.assigned)
        for one in part:
            alone += _radii(one, kmeans(one, max(1, min(local, len(one) // 3)), seed=seed).assigned)
    order = torch.rand(cells.shape[:2], generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :8]
    drawn = cells[torch.arange(len(cells))[:, None], order]  # N x 8 x C, each place of another order
    bound = min(len(cells), cells.shape[2])
    filled = [effective_rank(rows) / bound for rows in drawn.unbind(1)]
    narrow = [sum(radii) / max(1, len(radii)) / scale for radii in (alone, joint)]
    return sum(apart) / len(apart) / scale + sum(filled) / len(filled) - sum(narrow) / 2


def _radii(rows: Tensor, cluster: Tensor) -> list[float]:
    """Of each cluster of two cells or more, the sum of its singular values over sqrt(max(n - 1, C))."""
    members = [rows[cluster == k] for k in cluster.unique()]
    return [
        float(torch.linalg.svdvals(own - own.mean(0)).sum()) / math.sqrt(max(len(own) - 1, own.shape[1]))
        for own in members
        if len(own) > 1
    ]


def nearest(x: Tensor) -> Tensor:
    """The nearest neighbors of each row among the others: N x k, int32, k is NEAREST or what there is."""
    return neighbors(x, x, min(NEAREST, len(x) - 1), exclude_self=True)[1].int()


def of_rows(x: Tensor, seed: int = 0) -> dict[str, float]:
    """The scores that embeddings alone give, by name. x: N x D, of plain views."""
    return {
        "rankme": effective_rank(x),
        "alpha": decay(x),
        "nesum": nesum(x),
        "learnability": learnability(x, seed),
        "dimension": dimension(x),
        "uniformity": uniformity(x),
    }


def of_views(views: Tensor) -> dict[str, float]:
    """The scores that take several views of a sample, by name. views: N x Q x D."""
    first, second = views[:, 0], views[:, 1]
    return {"lidar": lidar(views), "alignment": alignment(first, second), "consistency": found(first, second)}


def worth(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """By the name of a score, and by "clid", how good it finds each checkpoint: higher is better, -inf where it was not
    measured. Only to be compared within these checkpoints.

    measured: of each checkpoint, the numbers of SCORES that are known.
    """
    found: dict[str, list[float]] = {}
    for name, score in SCORES.items():
        numbers = [one.get(name, math.nan) for one in measured]
        if any(map(math.isfinite, numbers)):
            found[name] = [_worth(number, score.best) for number in numbers]
    if all(name in found for name in CLID):
        parts = torch.tensor([found[name] for name in CLID], dtype=torch.float64)
        known = parts.isfinite().all(0)
        deviation = parts[:, known].std(1, correction=0, keepdim=True).clamp(min=1e-12) if known.any() else 1
        mean = parts[:, known].mean(1, keepdim=True)
        found["clid"] = ((parts - mean) / deviation).sum(0).masked_fill(~known, -math.inf).tolist()
    return found


def _worth(number: float, best: float) -> float:
    if not math.isfinite(number):
        return -math.inf
    return -abs(number - best) if math.isfinite(best) else math.copysign(1, best) * number


def together(worths: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[float]:
    """The mean rank of each checkpoint by some scores, from 1, the worst. Raises KeyError for one that is not there."""
    each = [ranks(torch.tensor(worths[name], dtype=torch.float64)) for name in names]
    return torch.stack(each).mean(0).tolist()
