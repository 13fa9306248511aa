"""Mixtures of samples, of any form that can be added: images, rows of a table, spectrograms. N samples come first.

All chance is drawn for the global batch from a generator that is the same on every rank, and partners may lie on any
rank: the mixtures do not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import size, tensors
from nearfar.distributed import gather, local, world
from nearfar.errors import UserError


class Mixed(NamedTuple):
    """x: N x ..., mixtures, or such a view.  partner: N, int64, the other sample, counted over all ranks.  lam: N, the
    own share."""

    x: Any
    partner: Tensor
    lam: Tensor


def mixup(x: Any, *, alpha: float, generator: torch.Generator) -> Mixed:
    """lam_i x_i + (1 - lam_i) x_partner(i), where lam is the larger of b and 1 - b for b of Beta(alpha, alpha).

    x: N x ..., of floats; or a view that mixes itself, by `mixed(partner, lam)`; or a dict of such parts.
    Zhang et al. 2017, arXiv 1710.09412; the maximum is that of i-Mix, arXiv 2010.08887.
    """
    n = world() * size(x)
    partner = local(torch.randperm(n, generator=generator)).to(next(tensors(x)).device)
    lam = local(_larger_shares(n, alpha, generator)).to(partner.device)
    return Mixed(_mixed(x, partner, lam), partner, lam.to(x) if isinstance(x, Tensor) else lam.float())


def _mixed(x: Any, partner: Tensor, lam: Tensor) -> Any:
    if isinstance(x, Mapping):
        return {name: _mixed(part, partner, lam) for name, part in x.items()}
    if isinstance(x, Tensor):
        weight = lam.to(x).view(-1, *[1] * (x.dim() - 1))
        return weight * x + (1 - weight) * gather(x)[partner]
    insist_mixable(x)
    return x.mixed(partner, lam.float())


def insist_fit(view: Any, how: str, who: str) -> None:
    """Raise ValueError where a view is not fit for what a method does with it: see `Method.changes`."""
    if how:
        {"mixed": insist_mixable, "numbers": insist_numbers, "images": insist_images}[how](view, who)


def insist_mixable(view: Any, who: str = "mixup") -> None:
    """Raise ValueError where samples cannot be mixed."""
    if isinstance(view, Mapping):
        for part in view.values():
            insist_mixable(part, who)
    elif not (isinstance(view, Tensor) or callable(getattr(type(view), "mixed", None))):
        raise UserError(
            f"{who!r} mixes samples as numbers, and a {type(view).__name__} is none: give it a method `mixed`"
        )


def insist_images(view: Any, who: str) -> None:
    """Raise ValueError where a view holds no images."""
    if not (isinstance(view, Tensor) and view.dim() == 4):
        given = tuple(view.shape) if isinstance(view, Tensor) else f"a {type(view).__name__}"
        raise UserError(
            f"{who!r} pastes boxes of images, N x C x H x W, into each other, not {given}: give --mix mixup"
        )


def insist_numbers(view: Any, who: str) -> None:
    """Raise ValueError where a view is no single tensor, whose numbers can be changed."""
    if not isinstance(view, Tensor):
        raise UserError(
            f"{who!r} changes the numbers of samples that are one tensor each, such as images or rows, and a "
            f"{type(view).__name__} is none: choose another method"
        )


def cutmix(x: Tensor, *, alpha: float, generator: torch.Generator) -> Mixed:
    """A box of each image is that of its partner; one box for the batch, and lam what of the image is left.

    x: N x C x H x W. The box would hold 1 - lam of the image, lam as in `mixup`, but is cut off at the border.
    Yun et al. 2019, arXiv 1905.04899.
    """
    insist_images(x, "cutmix")
    partner = local(torch.randperm(world() * len(x), generator=generator)).to(x.device)
    side = math.sqrt(1 - float(_larger_shares(1, alpha, generator)))
    box, area = [], 1.0
    for length, middle in zip(x.shape[2:], torch.rand(2, generator=generator).tolist(), strict=True):
        start = int(middle * length) - int(side * length) // 2
        box.append(slice(max(start, 0), min(start + int(side * length), length)))
        area *= (box[-1].stop - box[-1].start) / length
    mixed = x.clone()
    mixed[:, :, box[0], box[1]] = gather(x[:, :, box[0], box[1]])[partner]
    return Mixed(mixed, partner, x.new_full((len(x),), 1 - area))


def input_mix(views: list[Tensor], others: int, *, alpha: float, generator: torch.Generator) -> list[Tensor]:
    """InputMix: every row of every view gets some of `others` other rows (0: none), and stays at least half itself.

    views: V tensors N x ... of one shape; their rows are mixed as one batch, so that two views of a sample get
    different company. With one other its share is that of `mixup`; with more, the shares w are of a Dirichlet
    distribution and the row is (1 + w_0) / 2 itself. Lee et al. 2020, arXiv 2010.08887.
    """
    if not others:
        return views
    insist_numbers(views[0], "InputMix")
    rows = torch.cat([gather(view) for view in views])  # VWN x ...
    if others == 1:
        own = _larger_shares(len(rows), alpha, generator)
        shares = torch.stack([own, 1 - own], 1)
    else:
        drawn = _numpy(generator).dirichlet([alpha] * (others + 1), len(rows))
        shares = torch.from_numpy(drawn) / 2
        shares[:, 0] += 0.5
    shares = shares.to(rows).view(len(rows), -1, *[1] * (rows.dim() - 1))  # VWN x (1 + others) x ...
    mixed = shares[:, 0] * rows
    for other in range(1, others + 1):
        company = torch.randperm(len(rows), generator=generator).to(rows.device)
        mixed = mixed + shares[:, other] * rows[company]
    return [local(view) for view in mixed.chunk(len(views))]


def universum(
    views: list[Tensor], identity: Tensor, *, lam: float, generator: torch.Generator, box: bool = False
) -> tuple[list[Tensor], Tensor] | None:
    """Rows of neither class: (1 - lam) x_i + lam x_partner(i), where the partner is of another class than i.

    views: V tensors N x ... of one shape; each row has a partner of its own, any sample, in its first view.
    identity: N, int64, what partners may not have in common.  box: for images; instead of sums, a box at a random
    place keeps its own 1 - lam of the image, as nearly as whole pixels allow, around it is the partner. Gives V such
    tensors, and the partners, counted over all ranks: VN. None where all of the batch have one identity.
    Han et al. 2022, arXiv 2204.10695.
    """
    partner = strangers(identity, len(views), generator=generator)  # V x N
    if partner is None:
        return None
    other = gather(views[0])
    if not box:
        mixed = [(1 - lam) * view + lam * other[part] for view, part in zip(views, partner, strict=True)]
        return mixed, partner.flatten()
    insist_images(other, "cutmix")
    rows, columns = _box(other.shape[2], other.shape[3], 1 - lam, generator)
    mixed = [other[part] for part in partner]
    for new, view in zip(mixed, views, strict=True):
        new[:, :, rows, columns] = view[:, :, rows, columns]
    return mixed, partner.flatten()


def strangers(identity: Tensor, times: int, *, generator: torch.Generator) -> Tensor | None:
    """For each row of this rank, so many times, a row of another identity, counted over all ranks: times x N.

    identity: N, int64.  None where all of the batch have one identity.
    """
    partner = _strangers(gather(identity), times, generator)
    return None if partner is None else torch.stack([local(part) for part in partner])


def _strangers(identity: Tensor, times: int, generator: torch.Generator) -> Tensor | None:
    """For each of n rows, so many times, a row of another identity, each as likely: times x n."""
    order = identity.argsort(stable=True)
    _, code, count = torch.unique(identity, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return None
    # Those of one identity are neighbors in the order: a place among all others leaps over them.
    alike, start = count[code], (count.cumsum(0) - count)[code]  # n
    drawn = torch.rand(times, len(identity), generator=generator, dtype=torch.float64).to(identity.device)
    place = (drawn * (len(identity) - alike)).long()
    return order[place + alike * (place >= start)]


def _box(height: int, width: int, share: float, generator: torch.Generator) -> tuple[slice, slice]:
    """A box inside an image, of that share of it as nearly as its shape allows, at a random place."""
    tall = min(height, max(1, round(math.sqrt(share) * height)))
    wide = min(width, max(1, round(share * height * width / tall)))
    top, left = (
        int(u * (free + 1))
        for u, free in zip(torch.rand(2, generator=generator).tolist(), (height - tall, width - wide), strict=True)
    )
    return slice(top, top + tall), slice(left, left + wide)


def _larger_shares(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    share = torch.from_numpy(_numpy(generator).beta(alpha, alpha, n))
    return torch.maximum(share, 1 - share)


def _numpy(generator: torch.Generator) -> np.random.Generator:
    # torch draws from the Beta distribution by its global generator alone.
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
