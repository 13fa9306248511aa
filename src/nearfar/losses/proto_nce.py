"""Contrast with the centroids of clusters, each of which has its own temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, near
from nearfar.distributed import gather, local, share


def proto_nce(
    q: Tensor, centroids: Tensor, phi: Tensor, cluster: Tensor, negatives: Tensor, *, repeat: bool = False
) -> Tensor:
    """ProtoNCE, one clustering of it: each query finds the centroid c of its cluster s among those of the others.

        loss_i = -q_i . c_s / phi_s + log sum_{j in P} exp(q_i . c_j / phi_j)

    q: N x D; centroids: K x D and phi: K, concentrations, the same on all ranks; cluster: N, int64, that of each query;
    negatives: int64, clusters of no query of any rank. P are the clusters of all queries, each once, and `negatives`.
    repeat: once for each of its queries, as in the released code, where a query is so pushed from the centroid that
    others share with it. Only q learns. Equal centroids and phi give log |P|. Li et al. 2020, arXiv 2005.04966.
    """
    every = gather(cluster)  # WN
    if repeat:
        clusters, place = every, torch.arange(len(every), device=every.device)
    else:
        clusters, place = torch.unique(every, return_inverse=True)
    columns = torch.cat([clusters, negatives])
    c = centroids[columns] / phi[columns, None]  # |P| x D
    return share(far(q, c) - near(q, c, local(place)))
