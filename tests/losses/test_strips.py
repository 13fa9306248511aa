from __future__ import annotations

import torch
from torch import Tensor

from nearfar.losses import strips as module
from nearfar.losses.strips import strips
from tests.losses.ranks import unit


def summed(z: Tensor, tall: int, seen: list[int] | None = None) -> Tensor:
    def part(where: slice) -> Tensor:
        if seen is not None:
            seen.append(where.stop - where.start)
        return (z[where] @ z.T).square().sum(1)

    module.ENTRIES, before = tall * len(z), module.ENTRIES
    try:
        return torch.cat(strips(part, len(z), len(z)))
    finally:
        module.ENTRIES = before


def test_strips_are_the_whole_with_its_gradient() -> None:
    z, weight = unit(7, 3, 0), torch.linspace(-1, 2, 7, dtype=torch.float64)
    want = (z @ z.T).square().sum(1)
    mine, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    seen: list[int] = []
    got = summed(mine, 3, seen)
    assert seen == [3, 3, 1]
    torch.testing.assert_close(got.detach(), want)
    (got @ weight).backward()
    assert seen == [3, 3, 1] * 2 or sorted(seen) == [1, 1, 3, 3, 3, 3]
    ((other @ other.T).square().sum(1) @ weight).backward()
    torch.testing.assert_close(mine.grad, other.grad)


def test_one_strip_is_computed_once_and_a_row_is_the_least() -> None:
    seen: list[int] = []
    z = unit(4, 3, 0).requires_grad_()
    summed(z, 4, seen).sum().backward()
    assert seen == [4]
    seen.clear()
    summed(z.detach(), 0, seen)
    assert seen == [1, 1, 1, 1]


def test_autocast_is_off_within() -> None:
    z = unit(4, 3, 0).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (out,) = strips(lambda where: z[where] @ z.T, 4, 4)
    assert out.dtype == torch.float32
