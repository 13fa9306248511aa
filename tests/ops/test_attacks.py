from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.ops.attacks import Norm, ascend, random_start

every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def curved(x: Tensor) -> Tensor:
    """A loss with slopes of all signs, none of them 0."""
    return (3 * x).sin().sum() + (x.flatten(1) @ numbers(x[0].numel(), 2, seed=1)).square().sum()


def length(x: Tensor, norm: Norm) -> Tensor:
    return x.flatten(1).norm(dim=1, p=2.0 if norm == "l2" else torch.inf)


@every_norm
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.5)])
def test_nothing_leaves_the_ball_or_the_bounds(norm: Norm, steps: int, bounds: tuple[float, float] | None) -> None:
    x = numbers(6, 2, 3, 3).clamp(-0.5, 0.5)
    start = random_start(x.shape, 0.3, torch.Generator().manual_seed(2), norm=norm).double()
    found = ascend(curved, x, epsilon=0.3, stride=0.2, steps=steps, norm=norm, start=start, bounds=bounds)
    assert not found.requires_grad
    assert (length(found - x, norm) <= 0.3 + 1e-12).all()
    assert (length(found - x, norm) > 0.1).all()
    if bounds is not None:
        assert (bounds[0] <= found).all()
        assert (found <= bounds[1]).all()


@every_norm
def test_a_ball_of_no_size_holds_the_input_alone(norm: Norm) -> None:
    x = numbers(4, 3)
    start = random_start(x.shape, 0.0, torch.Generator(), norm=norm).double()
    assert torch.equal(ascend(curved, x, epsilon=0.0, stride=0.1, steps=3, norm=norm, start=start), x)
    assert torch.equal(ascend(curved, x, epsilon=0.5, steps=0, norm=norm), x)


def test_one_step_of_the_whole_radius_is_the_sign_of_the_slope() -> None:
    x = numbers(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(curved(x), x)
    found = ascend(curved, x, epsilon=0.2)
    torch.testing.assert_close(found, x.detach() + 0.2 * slope.sign(), rtol=0, atol=1e-15)
    assert torch.equal(ascend(curved, x, epsilon=0.2, stride=0.2, steps=1, norm="linf"), found)


def test_one_step_of_euclid_goes_along_the_slope() -> None:
    x = numbers(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(curved(x), x)
    found = ascend(curved, x, epsilon=0.2, norm="l2")
    torch.testing.assert_close(found - x, 0.2 * slope / slope.norm(dim=1, keepdim=True))
    flat = ascend(lambda at: 0 * at.sum(), x, epsilon=0.2, norm="l2")
    assert torch.equal(flat, x)  # without a slope there is nowhere to go


@every_norm
def test_steps_are_those_of_a_slow_loop(norm: Norm) -> None:
    x = numbers(3, 4)
    start = random_start(x.shape, 0.1, torch.Generator().manual_seed(3), norm=norm).double()
    found = ascend(curved, x, epsilon=0.1, stride=0.04, steps=5, norm=norm, start=start, bounds=(-1, 1))
    for i in range(len(x)):
        at = (x[i] + start[i]).clamp(-1, 1)
        for _ in range(5):
            at.requires_grad_()
            (slope,) = torch.autograd.grad(curved(at[None]), at)
            change = at.detach() + 0.04 * (slope.sign() if norm == "linf" else slope / slope.norm()) - x[i]
            size = float(length(change[None], norm))
            if norm == "linf":
                change = torch.tensor([min(max(float(c), -0.1), 0.1) for c in change], dtype=x.dtype)
            elif size > 0.1:
                change = change * 0.1 / size
            at = (x[i] + change).clamp(-1, 1)
        torch.testing.assert_close(found[i], at)


@every_norm
def test_more_steps_of_a_line_end_on_its_edge(norm: Norm) -> None:
    """Of a linear loss the largest value in the ball is known: that of the dual norm."""
    x, slope = numbers(5, 6), numbers(6, seed=4)
    found = ascend(lambda at: (at @ slope).sum(), x, epsilon=0.3, stride=0.05, steps=20, norm=norm)
    gain = slope.abs().sum() if norm == "linf" else slope.norm()
    torch.testing.assert_close(found @ slope, x @ slope + 0.3 * gain)


@every_norm
def test_starts_fill_the_ball_evenly(norm: Norm) -> None:
    drawn = random_start((4000, 3), 0.5, torch.Generator().manual_seed(0), norm=norm)
    sizes = length(drawn, norm)
    assert (sizes <= 0.5 + 1e-6).all()
    # Half the radius holds an eighth of a ball, and of a cube.
    assert float((sizes < 0.25).double().mean()) == pytest.approx(1 / 8, abs=0.02)
    assert drawn.mean(0).abs().max() < 0.02
    again = random_start((4000, 3), 0.5, torch.Generator().manual_seed(0), norm=norm)
    assert torch.equal(drawn, again)
