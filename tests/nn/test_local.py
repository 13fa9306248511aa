from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.nn.local import at_once
from nearfar.precision import network, networks_alone


def parts(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(3, 4).to(dtype), nn.Linear(4, 2).to(dtype), torch.randn(5, 3, dtype=dtype)


def test_gradients_are_those_of_the_graph_times_what_comes_from_above_and_add_up() -> None:
    one, two, x = parts()
    every = [*one.parameters(), *two.parameters()]
    losses = [one(x).square().mean(), two(one(x)).sin().mean()]
    want = torch.autograd.grad(3 * losses[0] - losses[1] ** 2, every)

    first, h = at_once(lambda: ((out := one(x)).square().mean(), out.detach()), one.parameters())
    second, nothing = at_once(lambda: (two(one(x)).sin().mean(), None), every)
    torch.testing.assert_close([first, second], losses)
    torch.testing.assert_close(h, one(x).detach())
    assert nothing is None
    assert all(p.grad is None for p in every)  # they are handed over in the backward pass, where hooks see them
    seen: list[Tensor] = []
    one.weight.register_hook(seen.append)
    (3 * first - second**2).backward()
    torch.testing.assert_close([p.grad for p in every], list(want))
    torch.testing.assert_close(sum(seen), want[0])


def test_the_graph_is_gone() -> None:
    one, two, x = parts()
    kept: list[Tensor] = []

    def compute() -> tuple[Tensor, None]:
        kept.append(two(one(x)).sin().mean())
        return kept[0], None

    at_once(compute, [*one.parameters(), *two.parameters()])
    with pytest.raises(RuntimeError, match="second time"):
        kept[0].backward()


def test_what_is_not_trained_gets_nothing() -> None:
    one, two, x = parts()
    one.requires_grad_(False)
    loss, _ = at_once(lambda: (two(one(x)).sum(), None), [*one.parameters(), *two.parameters()])
    loss.backward()
    assert one.weight.grad is None
    assert two.weight.grad is not None
    two.requires_grad_(False)
    assert not at_once(lambda: (two(one(x)).sum(), None), two.parameters())[0].requires_grad
    with torch.no_grad():
        assert not at_once(lambda: (two(one(x)).sum(), None), two.requires_grad_().parameters())[0].requires_grad


@pytest.mark.parametrize(("dtype", "kept"), [(torch.bfloat16, False), (torch.float16, True)])
def test_half_precision(dtype: torch.dtype, kept: bool) -> None:
    one, _, x = parts(torch.float32)
    inner: list[Tensor] = []

    def compute() -> tuple[Tensor, None]:
        inner.append(network(one)(x).square().mean())
        return inner[0], None

    with torch.autocast("cpu", dtype=dtype), networks_alone(torch.device("cpu")):
        loss, _ = at_once(compute, one.parameters())
    assert (loss is inner[0]) == kept
    loss.backward()
    assert one.weight.grad is not None
    assert one.weight.grad.dtype == torch.float32
    torch.testing.assert_close(
        one.weight.grad, torch.autograd.grad(one(x).square().mean(), one.weight)[0], atol=0.02, rtol=0.05
    )
