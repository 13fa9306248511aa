"""A loss whose anchors are the centers of the classes, and whose candidates are the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import gather
from nearfar.losses.supervised import identity


def centers(w: Tensor, views: list[Tensor], label: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Each center finds the rows of its class among all rows of the batch; the mean over the classes that are in it.

        loss_c = -mean_{i of class c} w_c . z_i / temperature + log sum_j exp(w_c . z_j / temperature)

    w: C x D, the centers, the same on all ranks; views: V tensors, N x D, all of unit length; label: N, int64, or
    MISSING. Every rank holds all centers, and so gives the loss itself; 0 where no row has a label. Equal rows give
    log(WVN). After Aljundi et al. 2022, arXiv 2211.03646.
    """
    w, keys = w / temperature, gather(torch.cat(views))  # C x D, WVN x D
    classes = torch.arange(len(w), device=w.device)
    pull, count = near_mean(w, keys, (classes, gather(identity(label).repeat(len(views)))))
    there = count > 0
    return torch.where(there, far(w, keys) - pull, 0).sum() / there.sum().clamp(min=1)
