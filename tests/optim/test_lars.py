from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nearfar.nn.heads import byol_head, simclr_head
from nearfar.optim import LARS, adam, adamw, larc, lars, parameter_groups, scale_rates, sgd, warmup_cosine

STEPS = 6


def rate(step: int) -> float:
    return 2.0 * warmup_cosine(step, steps=STEPS, warmup=2, start=0.1)  # it changes, or both forms of LARS are one


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), byol_head(4, hidden=6, out=3)).double()


def gradients(module: nn.Module, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in module.parameters()]


def run(module: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for p, grad in zip(module.parameters(), gradients(module, step), strict=True):
            p.grad = grad
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()


def norm(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def slow(module: nn.Module, *, form: str, decay: float, exclude: bool) -> None:
    """The sheets' formulas, one number at a time."""
    memory: dict[int, list[float]] = {}
    for step in range(STEPS):
        for i, (p, grad) in enumerate(zip(module.parameters(), gradients(module, step), strict=True)):
            w, g = p.detach().flatten().tolist(), grad.flatten().tolist()
            v = memory.get(i, [0.0] * len(w))
            free = exclude and p.ndim <= 1
            wd = 0.0 if free else decay
            u = [gi + wd * wi for gi, wi in zip(g, w, strict=True)]
            if form == "larc":
                trust = 0.001 * norm(w) / (norm(g) + wd * norm(w)) if norm(w) and norm(g) else 1.0
                if not norm(g):
                    u = g
            else:
                trust = 0.001 * norm(w) / norm(u) if norm(w) and norm(u) and not free else 1.0
            lr = rate(step)
            if form == "inside":
                v = [0.9 * vi + lr * trust * ui for vi, ui in zip(v, u, strict=True)]
                w = [wi - vi for wi, vi in zip(w, v, strict=True)]
            else:
                v = [0.9 * vi + trust * ui for vi, ui in zip(v, u, strict=True)]
                w = [wi - lr * vi for wi, vi in zip(w, v, strict=True)]
            memory[i] = v
            with torch.no_grad():
                p.copy_(torch.tensor(w, dtype=p.dtype).view_as(p))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("form", ["inside", "outside", "larc"])
def test_lars_equals_the_slow_loop(form: str, decay: float) -> None:
    ours, expected = net(), net()
    with torch.no_grad():
        for module in (ours, expected):
            next(module.parameters()).zero_()  # length 0: rate 1
    exclude = form != "larc"
    groups = parameter_groups(ours, decay, exclude_1d=exclude)
    optimizer = larc(groups, 1.0) if form == "larc" else lars(groups, 1.0, rate_in_momentum=form == "inside")
    run(ours, optimizer, range(STEPS))
    slow(expected, form=form, decay=decay, exclude=exclude)
    for a, b in zip(ours.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_two_forms_are_one_while_the_rate_is_constant() -> None:
    results = []
    for inside in (True, False):
        module = net()
        optimizer = lars(parameter_groups(module, 1e-3), 0.5, rate_in_momentum=inside)
        for step in range(4):
            for p, grad in zip(module.parameters(), gradients(module, step), strict=True):
                p.grad = grad
            optimizer.step()
        results.append(list(module.parameters()))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("larc_form", [False, True])
@pytest.mark.parametrize(("w", "g"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_zero_weights_and_zero_gradients(w: float, g: float, larc_form: bool) -> None:
    p = nn.Parameter(torch.full((2, 2), w))
    optimizer = LARS([p], lr=0.1, rate_in_momentum=False, weight_decay=0.5, larc=larc_form)
    p.grad = torch.full((2, 2), g)
    optimizer.step()
    # |u| = 1 and |w| = 2 for w = 1, g = 0: LARS still shrinks by trust |w|, LARC leaves the weight alone.
    moved = {(0.0, 0.0): 0.0, (0.0, 1.0): -0.1, (1.0, 0.0): 1.0 if larc_form else 1 - 0.1 * 0.001 * 2 * 0.5}[w, g]
    torch.testing.assert_close(p.detach(), torch.full((2, 2), moved))


def test_no_gradient_leaves_weight_and_momentum_alone() -> None:
    a, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([a, b], lr=0.1, rate_in_momentum=False)
    a.grad = b.grad = torch.ones(2, 2)
    optimizer.step()
    kept, memory = b.detach().clone(), optimizer.state[b]["momentum"].clone()
    b.grad = None
    optimizer.step()
    torch.testing.assert_close(b.detach(), kept, rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state[b]["momentum"], memory, rtol=0, atol=0)
    assert not a.equal(b)


BUILDERS: dict[str, Callable[[list[dict[str, Any]]], Optimizer]] = {
    "sgd": lambda groups: sgd(groups, 0.1),
    "adam": lambda groups: adam(groups, 0.1),
    "adamw": lambda groups: adamw(groups, 0.1),
    "lars inside": lambda groups: lars(groups, 0.1, rate_in_momentum=True),
    "lars outside": lambda groups: lars(groups, 0.1, rate_in_momentum=False),
    "larc": lambda groups: larc(groups, 0.1),
}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_resumed_steps_are_the_same_steps(name: str) -> None:
    whole = net()
    run(whole, BUILDERS[name](parameter_groups(whole, 1e-3)), range(STEPS))

    first = net()
    optimizer = BUILDERS[name](parameter_groups(first, 1e-3))
    run(first, optimizer, range(3))
    saved = copy.deepcopy(first.state_dict()), copy.deepcopy(optimizer.state_dict())
    second = net()
    optimizer = BUILDERS[name](parameter_groups(second, 1e-3))
    second.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    run(second, optimizer, range(3, STEPS))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_rates_are_scaled_from_where_they_began(name: str) -> None:
    optimizer = BUILDERS[name](parameter_groups(net(), 1e-3, lr_1d=0.02))
    scale_rates(optimizer, 0.5)
    scale_rates(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.005])


def test_groups_hold_every_trained_parameter_once() -> None:
    module = simclr_head(8, out=4)
    matrices, vectors = parameter_groups(module, 0.3)
    assert (matrices["weight_decay"], matrices["adapt"]) == (0.3, True)
    assert (vectors["weight_decay"], vectors["adapt"]) == (0.0, False)
    assert [p.ndim for p in matrices["params"]] == [2, 2]
    assert [p.ndim for p in vectors["params"]] == [1, 1, 1]  # the last offset is not trained
    (everything,) = parameter_groups(module, 0.3, exclude_1d=False)
    assert len(everything["params"]) == 5


def test_wrong_uses_are_named() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(nn.ReLU(), 0.1)
    with pytest.raises(ValueError, match="exclude_1d"):
        parameter_groups(net(), 0.1, exclude_1d=False, lr_1d=0.1)
    with pytest.raises(ValueError, match=r"momentum .* 1\.0"):
        LARS(net().parameters(), lr=0.1, rate_in_momentum=True, momentum=1.0)
    with pytest.raises(ValueError, match=r"lr .* -1"):
        LARS(net().parameters(), lr=-1, rate_in_momentum=True)
