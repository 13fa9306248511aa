"""Penalties on a representation that is arranged by what is known to be a bias.

Pairs of samples are of four kinds: of one class or of two, and aligned (of one attribute, the bias) or conflicting. In
a representation without bias the similarities of aligned pairs are spread as those of conflicting pairs are, for pairs
of one class and for pairs of two. The moments are over the pairs of all ranks, each unordered pair counted twice; a
rank adds up those of its own rows, a strip at a time, and returns the penalty whole, which is the same on every rank.

z: N x D, of unit length.  label, attribute: N, int64; a sample that lacks either (MISSING) is in no pair.
group: N, or MISSING; rows of one group and two classes are no pair.
Barbano et al. 2023, "Unbiased Supervised Contrastive Learning", arXiv 2211.05568.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.distributed import columns, gather, total, world
from nearfar.losses.groups import equal_ids
from nearfar.losses.strips import strips


def fairkl(
    z: Tensor,
    label: Tensor,
    attribute: Tensor,
    *,
    group: Tensor | None = None,
    floor: float = 0.01,
    deviations: bool = True,
) -> Tensor:
    """FairKL: the divergence of aligned from conflicting similarities, both taken to be normal, same class plus other.

        KL = 1/2 [ (v_a + (m_a - m_c)^2) / v_c - log(v_a / v_c) - 1 ]

    m, v: mean and variance of z_i . z_j over the pairs of a kind, a row with itself being none. 0 where they agree.
    floor: is added to both variances, as a batch may hold one conflicting pair, which has none. A class of pairs of
    which the batch holds no aligned or no conflicting one adds nothing.  deviations: if not, the variances are taken to
    be 1, and half the squared difference of the means is left.
    """
    count, first, second = _moments(z, label, attribute, group, itself=False).unbind(1)  # 4 each
    mean = first / count.clamp(min=1)
    variance = (
        (second / count.clamp(min=1) - mean.square()).clamp(min=0) + floor if deviations else torch.ones_like(mean)
    )
    penalty = z.new_zeros(())
    for aligned, conflicting in ((0, 1), (2, 3)):
        v_a, v_c = variance[aligned], variance[conflicting]
        kl = ((v_a + (mean[aligned] - mean[conflicting]).square()) / v_c - (v_a / v_c).log() - 1) / 2
        penalty = penalty + torch.where(count[[aligned, conflicting]].amin() > 0, kl, 0).to(z.dtype)
    return penalty


def fairkl_released(
    z: Tensor, label: Tensor, attribute: Tensor, *, group: Tensor | None = None, deviations: bool = True
) -> Tensor:
    """What the authors' code has for FairKL: differences of means and of deviations, squared, and a pull and a push.

        R = (m_+c - m_+a)^2 + (m_-a - m_-c)^2 + (d_+a - d_+c)^2 + (d_-a - d_-c)^2 - m_+c + m_-a

    +, -: pairs of one class, and of two.  m: means, a row with itself being an aligned pair; 0 where there is none.
    d: standard deviations over the whole N x N matrix with zeros where a pair is of another kind; left out if not
    `deviations`.
    """
    count, first, second = _moments(z, label, attribute, group, itself=True).unbind(1)
    rows = world() * len(label)
    mean = first / count.clamp(min=1)
    spread = (second - first.square() / rows**2) / max(rows**2 - 1, 1)
    deviation = torch.where(spread > 0, spread.clamp(min=torch.finfo(spread.dtype).tiny).sqrt(), 0)
    m, d = mean[[0, 2]] - mean[[1, 3]], deviation[[0, 2]] - deviation[[1, 3]]
    squares = m.square().sum() + (d.square().sum() if deviations else 0)
    return (squares - mean[1] + mean[2]).to(z.dtype)


def _moments(z: Tensor, label: Tensor, attribute: Tensor, group: Tensor | None, *, itself: bool) -> Tensor:
    """Number, sum and sum of squares of the similarities of the pairs of all ranks: 4 x 3, in double precision.

    The kinds: one class and aligned, one class and conflicting, two classes and aligned, two classes and conflicting.
    """
    keys, labels, attributes = gather(z), gather(label), gather(attribute)
    groups = None if group is None else gather(group)
    own, known = columns(z), (labels >= 0) & (attributes >= 0)
    wide = torch.float32 if z.device.type == "mps" else torch.float64

    def part(where: slice) -> Tensor:
        s = z[where] @ keys.T  # n x WN
        counts = known[own[where], None] & known
        if not itself:
            counts = counts.scatter(1, own[where, None], False)
        same = label[where, None] == labels
        other = ~same
        if group is not None and groups is not None:
            other &= ~equal_ids(group[where, None], groups)
        aligned = attribute[where, None] == attributes
        sums = []
        for kind in (same & aligned, same & ~aligned, other & aligned, other & ~aligned):
            these = torch.where(kind & counts, s, 0)
            number = (kind & counts).sum().to(wide)
            sums.append(torch.stack([number, these.sum(dtype=wide), these.square().sum(dtype=wide)]))
        return torch.stack(sums)

    return total(torch.stack(strips(part, len(z), len(keys))).sum(0))
