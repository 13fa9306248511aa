"""The border between the networks of a method and its loss: looked at, and other rows put in the place of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from nearfar import precision
from nearfar.batch import Batch
from nearfar.memory.bank import Bank
from nearfar.method import Method, start_epoch
from nearfar.training import loop
from nearfar.training.options import StepOptions

from .small import OLD, Form, clock, grown, sgd, step


class Passed(torch.autograd.Function):
    """Another value in the place of a network's, without a gradient for the network: what a loss feels is apart."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(grads[0]), None


class Border:
    """What networks give, kept, or put in the place of what others give; and the gradients that arrive there."""

    def __init__(self, values: list[Tensor] | None = None) -> None:
        self.given, self.own, self.gradients = values, list[Tensor](), list[Tensor]()

    def __call__(self, out: Tensor) -> Tensor:
        value = out.detach() if self.given is None else self.given[len(self.own)]
        self.own.append(out.detach())
        if not out.requires_grad:
            return value
        passed = Passed.apply(out, value)
        passed.register_hook(self.gradients.append)
        return passed


def hold_half_precision_to_float32(form: Form, batch: Batch, half: Any = "bf16") -> None:
    """Loss, and its gradient in what networks give: of a step in half precision, and of one in float32 in which what
    the networks gave in the first stands in for what they give."""
    method, twin, one = grown(form), grown(form), Border()
    with patch.object(precision, "_leaving", one):
        loss = loop.step(method, batch, sgd(method), StepOptions(precision=half)).out.loss
    two = Border(one.own)
    with patch.object(precision, "_leaving", two):
        want = loop.step(twin, batch, sgd(twin)).out.loss
    assert [x.dtype for x in one.own] == [x.dtype for x in two.own] == [torch.float32] * len(one.own)
    assert not all(map(torch.equal, one.own, two.own)), "no network was in half precision"
    torch.testing.assert_close(loss, want, rtol=1e-6, atol=1e-6)
    assert len(one.gradients) == len(two.gradients) > 0
    for got, expected in zip(one.gradients, two.gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6 * max(1.0, float(expected.abs().max())))


@contextmanager
def constant(form: Form) -> Iterator[Method]:
    """The method some steps on; within, each of its networks gives the same unit row for every sample.

    All that it holds is what such networks leave behind, and its classifiers give all classes the same logit.
    """
    method = form.build()
    with patch.object(precision, "_leaving", lambda out: 0 * out + out.shape[1] ** -0.5):
        for time in (0, OLD, OLD + 1):  # enough to fill a queue
            method.clock = clock(time)
            start_epoch(method, form.look(method))
            step(method, sgd(method, lr=0.0), form.batch(32, seed=time))
        with torch.no_grad():
            for name, p in method.named_parameters():
                p.fill_(1.0 if name.endswith(("prototypes", "prototypes.weight")) else 0.0)
            for bank in method.modules():
                if isinstance(bank, Bank):
                    bank.rows.fill_(bank.rows.shape[1] ** -0.5)
        method.clock = clock(OLD + 2)
        yield method


def loss_and_chance(method: Method, batch: Batch, views: int) -> tuple[float, float | None] | None:
    """Both, for so many views, those of the batch in turn; 0 for as many as it has. None where that many are no views
    for this method."""
    seen = [batch.views[v % len(batch.views)] for v in range(views or len(batch.views))]
    changed = replace(batch, views=seen)
    try:
        loss = float(method(changed).loss.detach())
    except (ValueError, TypeError, IndexError, RuntimeError):
        if len(seen) == len(batch.views):
            raise
        return None
    with torch.no_grad():
        chance = method.chance(changed)
    return loss, None if chance is None else float(chance)
