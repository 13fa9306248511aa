"""Every loss on four processes: value, gradient, and what travels between them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.losses.assignment import swapped_assignment
from nearfar.losses.distance import align, byol, uniform
from nearfar.losses.negatives import hcl, renyi
from nearfar.losses.pairwise import dcl, info_nce, info_nce_batch, nt_xent
from nearfar.losses.redundancy import barlow
from nearfar.losses.supervised import supcon, supcon_in
from nearfar.memory.prototypes import Prototypes
from nearfar.memory.queue import Queue
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, D, W = 8, 4, 4


@pytest.fixture(scope="module")
def four_ranks() -> Iterator[Pool]:
    pool = Pool(W)
    yield pool
    pool.close()


def _label(z: Tensor) -> Tensor:
    """Classes that straddle the ranks; one sample of each rank has none."""
    index = distributed.rank() * len(z) + torch.arange(len(z))
    return torch.where(index % (N // W) == 1, MISSING, index % 3)


def _queue(z: Tensor) -> Tensor:
    return unit(6, D, 9).to(z.dtype)


def _swav(z1: Tensor, z2: Tensor) -> Tensor:
    prototypes = unit(5, D, 8).to(z1.dtype)
    scores = [z1 @ prototypes.T, z2 @ prototypes.T]
    codes = [sinkhorn(part.detach(), epsilon=0.05, iterations=3) for part in scores]
    return swapped_assignment(scores, codes, temperature=0.1)


def _nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(z1, z2, temperature=0.2)


def _dcl(z1: Tensor, z2: Tensor) -> Tensor:
    return dcl(z1, z2, temperature=0.2)


def _dclw(z1: Tensor, z2: Tensor) -> Tensor:
    return dcl(z1, z2, temperature=0.2, sigma=0.5)


def _hcl(z1: Tensor, z2: Tensor) -> Tensor:
    return hcl(z1, z2, temperature=0.2)


def _renyi(z1: Tensor, z2: Tensor) -> Tensor:
    return renyi([z1, z2], z2.detach(), temperature=0.5)


def _info_nce(z1: Tensor, z2: Tensor) -> Tensor:
    return info_nce(z1, z2, _queue(z1), temperature=0.2)


def _info_nce_batch(z1: Tensor, z2: Tensor) -> Tensor:
    return info_nce_batch(z1, z2, temperature=0.2)


def _supcon(z1: Tensor, z2: Tensor) -> Tensor:
    return supcon([z1, z2], _label(z1), temperature=0.2)


def _supcon_in(z1: Tensor, z2: Tensor) -> Tensor:
    return supcon_in([z1, z2], _label(z1), temperature=0.2)


def _align_uniform(z1: Tensor, z2: Tensor) -> Tensor:
    return align(z1, z2) + uniform(z1)


LOSSES = [
    _nt_xent,
    _dcl,
    _dclw,
    _hcl,
    _renyi,
    _info_nce,
    _info_nce_batch,
    _supcon,
    _supcon_in,
    _swav,
    byol,
    _align_uniform,
    barlow,
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__.strip("_"))
def test_four_ranks_have_the_value_and_gradient_of_one(four_ranks: Pool, loss: Callable[..., Tensor]) -> None:
    hold_ranks_to_one(four_ranks, loss, unit(N, D, 0), unit(N, D, 1))


def _memory_after_steps() -> str:
    """A digest of queue and prototypes after steps with other rows on every rank."""
    torch.manual_seed(0)
    memory = nn.ModuleList([Queue(10, D), Prototypes(5, D)])
    for step in range(5):
        z = unit(3, D, 100 * step + distributed.rank()).float()
        memory[0].enqueue(z)
        grad = torch.autograd.grad(distributed.gather(memory[1](z)).square().mean(), memory[1].weight)[0]
        with torch.no_grad():
            memory[1].weight -= distributed.total(grad) / distributed.world()
        memory[1].renormalise()
    whole = b"".join(value.numpy().tobytes() for value in memory.state_dict().values())
    return hashlib.sha256(whole).hexdigest()


def test_memory_is_the_same_on_all_ranks(four_ranks: Pool) -> None:
    assert len(set(four_ranks.run(_memory_after_steps))) == 1


def _sent(loss: Callable[..., Tensor], n: int, d: int) -> tuple[int, int]:
    """Numbers that this rank hands to the collectives, forward and backward."""
    sent: list[int] = []

    def counting(call: Callable[..., None], which: int) -> Callable[..., None]:
        def counted(*args: Tensor, **kwargs: object) -> None:
            sent.append(args[which].numel())
            call(*args, **kwargs)

        return counted

    z1, z2 = (unit(n, d, seed).float().requires_grad_() for seed in (0, 1))
    with (
        patch.object(dist, "all_gather", counting(dist.all_gather, 1)),
        patch.object(dist, "all_reduce", counting(dist.all_reduce, 0)),
    ):
        value = loss(z1, z2)
        forward = sum(sent)
        value.backward()
    return forward, sum(sent) - forward


def test_what_travels_is_what_the_design_page_says(four_ranks: Pool) -> None:
    n, d = 6, 5
    expected = {
        _nt_xent: (2 * n * d, W * 2 * n * d),
        _dcl: (2 * n * d, W * 2 * n * d),
        _hcl: (2 * n * d, W * 2 * n * d),
        _renyi: (n * d + 4 * n, W * 4 * n),
        _info_nce_batch: (n * d, W * n * d),
        _supcon: (2 * n * d + 2 * n + 1, W * 2 * n * d),
        byol: (0, 0),
    }
    for loss, numbers in expected.items():
        for rank in four_ranks.run(_sent, loss, n, d):
            assert rank == numbers, loss.__name__


def _pairs() -> int:
    """Pairs of rows whose logit this rank computes for NT-Xent."""
    seen: list[int] = []
    mm = torch.mm

    def counting(a: Tensor, b: Tensor, **kwargs: Tensor) -> Tensor:
        seen.append(len(a) * b.shape[1])
        return mm(a, b, **kwargs)

    with patch.object(torch, "mm", counting):
        _nt_xent(unit(N // W, D, 0), unit(N // W, D, 1))
    return sum(seen)


def test_no_rank_does_more_than_its_share(four_ranks: Pool) -> None:
    assert four_ranks.run(_pairs) == [math.prod((2 * N // W, 2 * N))] * W
