"""Each loss as one writes it on the first day: ten lines, the whole matrix in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z = torch.cat([z1, z2])
    s = z @ z.T / temperature
    s = s.masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf"))
    return F.cross_entropy(s, torch.arange(len(z)).roll(len(z1)))


def dcl(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z = torch.cat([z1, z2])
    s = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool)
    partner = itself.roll(len(z1), 1)
    return s.masked_fill(itself | partner, float("-inf")).logsumexp(1).mean() - s[partner].mean()


def supcon(z1: Tensor, z2: Tensor, label: Tensor, temperature: float) -> Tensor:
    z, y = torch.cat([z1, z2]), label.repeat(2)
    s = z @ z.T / temperature
    off = ~torch.eye(len(z), dtype=torch.bool)
    positive = ((y[:, None] == y) & off).float()
    s = s - s.max(1, keepdim=True).values.detach()
    log_p = s - (s.exp() * off).sum(1, keepdim=True).log()
    return -((positive * log_p).sum(1) / positive.sum(1)).mean()


def supcon_summed(z1: Tensor, z2: Tensor, label: Tensor, temperature: float) -> Tensor:
    """The form of solo-learn, from its formula: the positives are added up inside the logarithm. Another value."""
    z, y = torch.cat([z1, z2]), label.repeat(2)
    e = (z @ z.T / temperature).exp()
    same = y[:, None] == y
    positive = (e * (same & ~torch.eye(len(z), dtype=torch.bool)).float()).sum(1)
    negative = (e * (~same).float()).sum(1)
    return -(positive / (positive + negative)).log().mean()


def conditional_contrastive(z: Tensor, proxy: Tensor, label: Tensor, temperature: float, *, pairs: bool) -> Tensor:
    """2C by a mask. pairs: cosines of all pairs of rows, side by side, as the paper's authors compute them."""
    off = ~torch.eye(len(z), dtype=torch.bool)
    cosine = F.cosine_similarity(z[:, None], z[None], dim=2) if pairs else F.normalize(z) @ F.normalize(z).T
    e = (cosine / temperature).exp() * off
    p = (F.cosine_similarity(z, proxy) / temperature).exp()
    same = (label[:, None] == label).float()
    return -((p + (e * same).sum(1)) / (p + e.sum(1))).log().mean()


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def clip(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    s, own = q @ k.T / temperature, torch.arange(len(q))
    return (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2


def swav(s1: Tensor, s2: Tensor, epsilon: float, temperature: float) -> Tensor:
    """Of scores N x K, with the codes of the paper's listing."""
    codes = []
    for s in (s1, s2):
        q = (s.detach() / epsilon).exp().T
        q /= q.sum()
        for _ in range(3):
            q /= q.sum(1, keepdim=True)
            q /= len(q)
            q /= q.sum(0, keepdim=True)
            q /= q.shape[1]
        codes.append((q * q.shape[1]).T)
    p1, p2 = ((s / temperature).log_softmax(1) for s in (s1, s2))
    return -((codes[0] * p2).sum(1).mean() + (codes[1] * p1).sum(1).mean()) / 2


def barlow(z1: Tensor, z2: Tensor, lam: float) -> Tensor:
    n, d = z1.shape
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z1, z2))
    c = a.T @ b / n
    diagonal = torch.diagonal(c)
    off = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:]
    return (diagonal - 1).square().sum() + lam * off.square().sum()


def knn(query: Tensor, bank: Tensor, label: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    similarity, index = (query @ bank.T).topk(k, 1)
    votes = torch.zeros(len(query), classes).scatter_add_(1, label[index], (similarity / temperature).exp())
    return votes.argmax(1)
