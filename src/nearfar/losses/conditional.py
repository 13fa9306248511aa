"""Losses of conditional GANs: the hinge between real and generated images, and contrast with the class of each.

Embeddings and proxies are of unit length, all else is as in `supervised`. A row without a label is no anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, products
from nearfar.distributed import columns, gather, share
from nearfar.losses.supervised import identity


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's: mean max(0, 1 - real) + mean max(0, 1 + fake), of logits of N images each.

    Lim and Ye 2017, arXiv 1705.02894. The generator's is -mean(fake).
    """
    return share((1 - real).relu()) + share((1 + fake).relu())


def conditional_contrastive(z: Tensor, proxy: Tensor, label: Tensor, *, temperature: float | Tensor) -> Tensor:
    """2C: each embedding finds the proxy of its class and the others of its class, among all others.

        loss_i = log(exp(p_i) + sum_{j != i} exp(c_ij)) - log(exp(p_i) + sum_{j != i, y_j = y_i} exp(c_ij))

    z: N x D, c_ij = z_i . z_j / temperature; proxy: N x D, that of each row's class, p_i = z_i . proxy_i / temperature;
    label: N, int64, or MISSING. Other proxies are no negatives.  Kang and Park 2020, arXiv 2006.12681.
    """
    own, ids = columns(z), identity(label)
    pull = (z * proxy).sum(1) / temperature
    z = z * temperature**-0.5
    keys, every = gather(z), gather(ids)
    push = torch.logaddexp(pull, far(z, keys, skip=own))
    return share(push - torch.logaddexp(pull, far(z, keys, skip=own, only_same=(ids, every))), label >= 0)


def data_to_data(
    z: Tensor, proxy: Tensor, label: Tensor, *, temperature: float | Tensor, margin: float, released: bool = False
) -> Tensor:
    """D2D-CE: each embedding finds the proxy of its class among the embeddings of other classes, pairs that are easy
    counting alike.

        loss_i = log(exp(p_i) + sum_{y_j != y_i} exp(n_ij)) - p_i
        p_i = min(0, z_i . proxy_i - margin) / temperature,    n_ij = max(0, z_i . z_j - 1 + margin) / temperature

    Arguments as in `conditional_contrastive`.  margin: 0 to 1.  released: take the largest of a row's
    (z_i . z_j - 1 + margin) / temperature off all n_ij without adding it again, as the authors' code does.
    Kang et al. 2021 (ReACGAN), arXiv 2111.01118.
    """
    ids = identity(label)
    pull = ((z * proxy).sum(1) - margin).clamp(max=0) / temperature
    score = (products(z, gather(z)) - 1 + margin) / temperature  # N x WN
    push = score.relu().masked_fill(ids[:, None] == gather(ids), -torch.inf)
    if released:
        others = score.detach().scatter(1, columns(z)[:, None], -torch.inf)
        push = push - others.amax(1, keepdim=True)
    return share(torch.cat([pull[:, None], push], 1).logsumexp(1) - pull, label >= 0)
