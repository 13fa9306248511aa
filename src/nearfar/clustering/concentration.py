"""How tightly the members of each cluster lie about its centroid, as a temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.clustering.kmeans import Clusters

LEAST = 0.01
"""Of the largest concentration: clusters of copies of one sample would have none, and infinite logits."""


def concentration(clusters: Clusters, temperature: float) -> Tensor:
    """phi of each cluster, larger for looser and for smaller ones, with `temperature` as mean: K.

        phi = mean distance of the members to the centroid / log(members + 10)

    Clusters of fewer than 2 members take the largest phi; then all are clipped to the 10th and 90th percentile, and
    scaled. All are equal where no cluster has any spread. Li et al. 2020, arXiv 2005.04966, and its released code.
    """
    count = torch.bincount(clusters.assigned, minlength=len(clusters.centroids))  # K
    apart = clusters.distance.new_zeros(len(count)).index_add(0, clusters.assigned, clusters.distance)
    phi = apart / count.clamp(min=1) / (count + 10).log()
    phi = torch.where(count > 1, phi, torch.where(count > 1, phi, 0).max())
    phi = phi.clamp(phi.quantile(0.1), phi.quantile(0.9))
    phi = torch.where(phi.max() > 0, phi.clamp(min=LEAST * phi.max()), 1)
    return temperature * phi / phi.mean()
