from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.settings import Settings
from nearfar.training.optimization import make_optimizer, make_schedule, pull


def rates(**flags: Any) -> dict[float, float]:
    """The learning rate of each group of a linear layer and a norm, by its weight decay."""
    method = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    groups = make_optimizer(method, Settings(lr=0.5, weight_decay=0.1, **flags), 128).param_groups
    return {group["weight_decay"]: group["initial_lr"] for group in groups}


@pytest.mark.parametrize("name", ["sgd", "lars", "lars_outside", "larc", "adam", "adamw"])
def test_optimizers_get_the_rates_that_were_asked_for(name: str) -> None:
    assert rates(optimizer=name) == {0.1: 0.25, 0.0: 0.25}
    assert rates(optimizer=name, lr_1d=0.1) == {0.1: 0.25, 0.0: 0.05}
    assert rates(optimizer=name, decay_1d=True) == {0.1: 0.25}


def test_adam_gets_its_mean_of_gradients() -> None:
    names: tuple[Any, ...] = ("adam", "adamw")
    for name in names:
        groups = make_optimizer(torch.nn.Linear(3, 3), Settings(optimizer=name, beta1=0.5), 128).param_groups
        assert {group["betas"] for group in groups} == {(0.5, 0.999)}


def test_warmup_takes_at_most_a_tenth() -> None:
    factor = make_schedule(Settings(epochs=50, warmup=10.0), 10)
    assert [factor(step, 500) for step in (0, 25, 50, 500)] == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=0.02)
    assert make_schedule(Settings(epochs=500, warmup=10.0), 10)(100, 5000) == pytest.approx(1.0)


def test_the_pull_is_the_gradient_of_its_penalty() -> None:
    """L2-SP: strength / 2 |w - w0|^2, of the weights that have a gradient."""
    encoder: Any = torch.nn.Sequential(torch.nn.Linear(3, 2).double(), torch.nn.Linear(2, 1).double())
    add, began = pull(encoder, 0.3), [p.detach().clone() for p in encoder.parameters()]
    with torch.no_grad():
        for p in encoder.parameters():
            p += torch.rand_like(p)
    loss = encoder[0](torch.ones(1, 3, dtype=torch.float64)).sum()
    loss.backward()
    add()
    pulled = list(encoder[0].parameters())
    penalty = 0.15 * sum((p - w).square().sum() for p, w in zip(pulled, began, strict=False))
    want = torch.autograd.grad(encoder[0](torch.ones(1, 3, dtype=torch.float64)).sum() + penalty, pulled)
    torch.testing.assert_close([p.grad for p in pulled], list(want))
    assert all(p.grad is None for p in encoder[1].parameters())


def test_what_is_pulled_to_its_start_does_not_decay() -> None:
    method: Any = torch.nn.Module()
    method.encoder, method.projector = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    groups = make_optimizer(method, Settings(weight_decay=0.1, start_pull=0.5), 256).param_groups
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert (decay[method.encoder.weight], decay[method.projector.weight]) == (0.0, 0.1)
