"""Holds the steps of a method on two ranks to the same steps on one process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from nearfar.batch import Batch
from nearfar.method import Method
from nearfar.nn.norms import SplitBatchNorm, synchronize_norms
from nearfar.training.parallel import parallel
from tests.two_ranks import RANKS, Pool

from .small import Form, clock, copied_state, freeze_norms, norms, rows_of_rank, sgd, step


@dataclass
class Trace:
    """What some steps did: the loss, the chance level and the gradients of each, and the state at the end."""

    loss: list[float]
    chance: list[float | None]
    gradient: list[dict[str, Tensor]]
    state: dict[str, Tensor]


def trace(form: Form, state: dict[str, Tensor], batches: list[Batch], start: int, *, live: bool) -> Trace:
    """Some steps of a method from a saved state, on this rank's rows of each batch, in DDP as `fit` has it."""
    method = form.build().to(next(value.dtype for value in state.values() if value.is_floating_point()))
    method.load_state_dict(state)
    if live:
        synchronize_norms(method, torch.device("cpu"))
    else:
        freeze_norms(method)
    several = distributed.world() > 1
    net = parallel(method) if several else method
    optimizer = sgd(method)
    losses, levels, gradients = [], [], []
    for number, batch in enumerate(batches):
        method.clock = clock(start + number)
        with torch.no_grad():
            share = method.chance(rows_of_rank(batch))
        levels.append(None if share is None else float(distributed.total(torch.as_tensor(share))) / distributed.world())
        out = step(method, optimizer, rows_of_rank(batch), net)
        losses.append(float(distributed.total(out.loss.detach())) / distributed.world())
        gradients.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
    return Trace(losses, levels, gradients, copied_state(method))


def hold_two_ranks_to_one(
    pool: Pool, form: Form, method: Method, batches: list[Batch], *, tolerance: float, live: bool = False
) -> None:
    """Losses, gradients and state after steps from where `method` stands, relative to the largest number.

    live: batch norms use the rows of all ranks; without it they stand still.
    """
    arguments = form, copied_state(method), batches, method.clock.step
    want = trace(*arguments, live=live)
    first, second = pool.run(_trace, *arguments, live)
    for got in (first, second):
        torch.testing.assert_close(got.loss, want.loss, rtol=tolerance, atol=tolerance)
        for level, expected in zip(got.chance, want.chance, strict=True):
            assert level == (expected if expected is None else pytest.approx(expected, rel=1e-5))
        assert [list(g) for g in got.gradient] == [list(g) for g in want.gradient]
        for these, those in zip(got.gradient, want.gradient, strict=True):
            largest = max(float(g.abs().max()) for g in those.values())
            for name, gradient in those.items():
                _close(these[name], gradient, tolerance, floor=largest, what=f"the gradient of {name}")
    # Split norms keep statistics of the rows of their rank alone, which is what they are for.
    split = {f"{path}.{name}" for path, m in norms(method).items() if isinstance(m, SplitBatchNorm) for name in NAMES}
    for name, value in want.state.items():
        if not (live and name in split):
            assert torch.equal(first.state[name], second.state[name]), f"{name} is not the same on both ranks"
            _close(first.state[name], value, tolerance, floor=1.0, what=name)


NAMES = ("running_mean", "running_var", "num_batches_tracked")


def _trace(form: Form, state: dict[str, Tensor], batches: list[Batch], start: int, live: bool) -> Trace:
    assert distributed.world() == RANKS
    return trace(form, state, batches, start, live=live)


def _close(got: Tensor, want: Tensor, tolerance: float, *, floor: float, what: str) -> None:
    if want.dtype == torch.bool:
        got, want = got.long(), want.long()
    scale = max(float(want.abs().max()), floor)
    torch.testing.assert_close(
        got, want, rtol=tolerance, atol=tolerance * scale, msg=lambda text: f"{what} is not that of one process\n{text}"
    )
