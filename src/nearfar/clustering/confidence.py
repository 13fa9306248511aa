"""How clearly each row belongs to its own cluster and to no other."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.clustering.kmeans import Clusters
from nearfar.contrast import far, near
from nearfar.distributed import normalize


@torch.no_grad()
def confidence(x: Tensor, clusters: Clusters, temperature: float) -> Tensor:
    """The share of its own centroid in a softmax over all centroids: N, above 0 and at most 1.

        kappa_i = exp(x_i . c_own / temperature) / sum_k exp(x_i . c_k / temperature)

    x: N x D, unit rows; centroids are scaled to unit length. Chen et al. 2021, arXiv 2106.03719 (unverified).
    """
    c, q = normalize(clusters.centroids).to(x.dtype), x / temperature
    return (near(q, c, clusters.assigned) - far(q, c)).exp()
