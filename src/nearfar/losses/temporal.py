"""Losses between moments of videos.

With W ranks, a rank compares its own rows with those of all ranks and returns its share of the mean (see
`nearfar.distributed`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import products
from nearfar.distributed import columns, gather, total, world
from nearfar.losses.groups import equal_ids


def time_contrast(
    views: list[Tensor], *, margin: float, near: int = 0, far: int = 0, group: Tensor | None = None
) -> Tensor:
    """Triplets of moments: the mean of  max(0, margin + d_ap - d_an)  over ordered pairs of an anchor and a positive.

    views: V tensors, N x T x D: T moments of N videos, each seen V times. d is the squared distance. Positives are rows
    of one video that are `near` moments apart at most, such as the same moment of two views; negatives are more than
    `far` apart, or of another video. Of a pair the negative is the nearest that is farther than the positive, or, where
    there is none, the farthest. A pair without a negative does not count.  group: N, or MISSING: moments of other
    videos of one's group are neither. Equal rows give the margin, without a negative 0.
    Sermanet et al. 2018, arXiv 1704.06888; the mining is that of the released code.
    """
    n, t = views[0].shape[:2]
    z = torch.cat([view.flatten(0, 1) for view in views])  # VNT x D
    keys, own = gather(z), columns(z)
    # Of the rows of all ranks, in their order: rank by rank, view by view, video by video.
    place = torch.arange(world() * n, device=z.device).view(world(), 1, n, 1).expand(-1, len(views), -1, t)
    videos, moments = place.flatten(), torch.arange(t, device=z.device).expand_as(place).flatten()
    d = z.square().sum(1)[:, None] + keys.square().sum(1) - 2 * products(z, keys)  # VNT x WVNT
    same, apart = videos[own][:, None] == videos, (moments[own][:, None] - moments).abs()
    positive = (same & (apart <= near)).scatter(1, own[:, None], False)
    negative = ~same
    if group is not None:
        of = group.repeat_interleave(t).repeat(len(views))
        negative &= ~equal_ids(of[:, None], gather(of))
    negative |= same & (apart > far)
    anchor, other = positive.nonzero().unbind(1)
    pull, rows, able = d[anchor, other], d[anchor], negative[anchor]  # P, P x WVNT
    beyond = able & (rows > pull[:, None])
    nearest = rows.masked_fill(~beyond, torch.inf).argmin(1)
    farthest = rows.masked_fill(~able, -torch.inf).argmax(1)
    push = rows.gather(1, torch.where(beyond.any(1), nearest, farthest)[:, None])[:, 0]
    loss = torch.where(able.any(1), (margin + pull - push).clamp(min=0), 0)
    return loss.sum() * world() / total(able.any(1).sum().to(loss.dtype)).clamp(min=1)
