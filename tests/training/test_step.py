"""The one function that makes a step: each of its lines has an effect that is computed here by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import distributed, optim
from nearfar.batch import Batch
from nearfar.contrast import far
from nearfar.evaluation.alarms import Judge
from nearfar.method import Clock, Method, Step, derive_seed
from nearfar.methods.simclr import SimCLR
from nearfar.nn.heads import mlp
from nearfar.nn.wrapped import Wrapped
from nearfar.training import loop as loops
from nearfar.training.journal import Journal
from nearfar.training.log import Log
from nearfar.training.options import Loop, StepOptions, StepResult

LR = 0.5
GRADIENT, PUSH = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])


class Slope(Method):
    """Its loss is w . x, so its gradient is x; before a step `push` is added to that. It notes what it meets."""

    def __init__(self, push: Tensor | None = None) -> None:
        super().__init__(nn.Identity())  # pyright: ignore[reportArgumentType]
        self.weight = nn.Parameter(torch.zeros(3))
        self.push = torch.zeros(3) if push is None else push
        self.clock = Clock(step=3, steps=4, seed=7)
        self.drawn: list[Tensor] = []
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def forward(self, batch: Batch) -> Step:
        self.drawn.append(torch.rand(4))
        return Step((self.weight * batch.views[0]).sum())

    def before_step(self) -> None:
        assert self.weight.grad is not None
        self.before.append(self.weight.grad.clone())
        self.weight.grad += self.push

    def after_step(self, step: Step) -> None:
        self.after.append(self.weight.detach().clone())


def batch_of(x: Tensor) -> Batch:
    return Batch([x], *[torch.arange(len(x))] * 2)


def sgd(method: nn.Module) -> torch.optim.Optimizer:
    return optim.sgd([{"params": list(method.parameters())}], LR, momentum=0.0)


def steps(method: Method, *gradients: Tensor, **given: Any) -> list[StepResult]:
    optimizer = given.pop("optimizer", None) or sgd(method)
    return [loops.step(method, batch_of(x), optimizer, **given) for x in gradients]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_step_draws_follows_from_seed_step_and_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    method = Slope()
    torch.manual_seed(123)
    steps(method, GRADIENT, GRADIENT)
    method.clock.step = 2
    steps(method, GRADIENT)
    want = [torch.rand(4, generator=torch.Generator().manual_seed(derive_seed(7, step, 2, rank))) for step in (3, 3, 2)]
    assert torch.equal(torch.stack(method.drawn), torch.stack(want))


def test_gradients_of_one_step_do_not_add_to_those_of_the_next() -> None:
    method = Slope()
    steps(method, GRADIENT, 2 * GRADIENT)
    assert torch.equal(torch.stack(method.before), torch.stack([GRADIENT, 2 * GRADIENT]))


def test_before_step_changes_gradients_before_they_are_measured_and_clipped() -> None:
    method = Slope(PUSH)
    (result,) = steps(method, GRADIENT, options=StepOptions(clip=1.0))
    assert result.norm == 5
    torch.testing.assert_close(method.weight.detach(), -LR * (GRADIENT + PUSH) / 5)
    torch.testing.assert_close(method.weight.grad, (GRADIENT + PUSH) / 5)


@pytest.mark.parametrize("clip", [None, 6.0])
def test_a_gradient_that_is_short_enough_is_used_as_it_is(clip: float | None) -> None:
    method = Slope(PUSH)
    (result,) = steps(method, GRADIENT, options=StepOptions(clip=clip))
    assert result.norm == 5
    assert torch.equal(method.weight.detach(), -LR * (GRADIENT + PUSH))


def test_rates_are_those_of_the_schedule_at_the_step_that_is_made() -> None:
    method, asked = Slope(), []

    def schedule(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 1 - step / steps

    optimizer = sgd(method)
    for step in (3, 2):  # the factor is on the first rate, not on the last
        method.clock.step = step
        before = method.weight.detach().clone()
        steps(method, GRADIENT, optimizer=optimizer, options=StepOptions(schedule=schedule))
        assert optimizer.param_groups[0]["lr"] == LR * (1 - step / 4)
        torch.testing.assert_close(method.weight.detach() - before, -LR * (1 - step / 4) * GRADIENT)
    assert asked == [(3, 4), (2, 4)]


def test_after_step_comes_once_and_sees_the_new_weights() -> None:
    method = Slope()
    steps(method, GRADIENT, GRADIENT)
    assert torch.equal(torch.stack(method.after), torch.stack([-LR * GRADIENT, -2 * LR * GRADIENT]))


def test_the_forward_pass_goes_through_the_net_that_is_given() -> None:
    method, calls = Slope(), []

    class Net(nn.Module):
        def forward(self, batch: Batch) -> Step:
            calls.append(batch)
            return method(batch)

    steps(method, GRADIENT, net=Net())
    assert len(calls) == len(method.drawn) == 1


class Halves(Slope):
    """An encoder and a head whose arithmetic autocast changes; notes where autocast is on, and what comes out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.projector = nn.Linear(3, 3, bias=False), mlp((3, 3), norm=False, bias=False, last_bias=False)
        self.on: dict[str, bool] = {}
        for name, layer in (("encoder", self.encoder), ("projector", self.projector[0])):
            layer.register_forward_pre_hook(
                lambda *_, name=name: self.on.update({name: torch.is_autocast_enabled("cpu")})
            )

    def forward(self, batch: Batch) -> Step:
        self.on["forward"] = torch.is_autocast_enabled("cpu")
        self.h = self.embed(batch.views[0])
        self.z = self.projector(self.h)
        self.z.register_hook(lambda gradient: self.on.update(backward=torch.is_autocast_enabled("cpu")))
        return Step((self.z @ self.z.T).square().mean() + 0 * self.weight.sum())

    def before_step(self) -> None:
        self.on["before_step"] = torch.is_autocast_enabled("cpu")

    def after_step(self, step: Step) -> None:
        self.on["after_step"] = torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_networks_alone_are_in_half_precision(precision: Any, dtype: torch.dtype) -> None:
    method, x = Halves(), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    (result,) = steps(method, x, options=StepOptions(precision=precision))
    half = precision != "float32"
    elsewhere = dict.fromkeys(("forward", "backward", "before_step", "after_step"), False)
    assert method.on == elsewhere | {"encoder": half, "projector": half}
    twin = Halves()
    h = x.to(dtype) @ twin.encoder.weight.to(dtype).T
    z = (h @ twin.projector[0].weight.to(dtype).T).float()
    assert method.h.dtype == method.z.dtype == torch.float32
    assert torch.equal(method.z, z)
    want = (z @ z.T).square().mean()
    torch.testing.assert_close(result.out.loss, want, rtol=1e-6, atol=0)
    want.backward()
    for layer, other in ((method.encoder, twin.encoder), (method.projector[0], twin.projector[0])):
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32
        torch.testing.assert_close(layer.weight.grad, other.weight.grad)
    exact = x @ twin.encoder.weight.T @ twin.projector[0].weight.T
    assert torch.equal(z, exact) == (not half)


def test_scaling_changes_neither_the_gradients_that_are_seen_nor_the_update() -> None:
    method, scaler = Slope(PUSH), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    (result,) = steps(method, GRADIENT, scaler=scaler, options=StepOptions(clip=1.0))
    assert torch.equal(method.before[0], GRADIENT)
    assert result.norm == 5
    torch.testing.assert_close(method.weight.detach(), -LR * (GRADIENT + PUSH) / 5)


def test_a_loss_is_scaled_before_its_gradient_is_taken() -> None:
    method, scaler, scaled = Slope(), torch.amp.GradScaler("cpu", init_scale=2.0**10), []
    method.weight.register_hook(scaled.append)
    steps(method, GRADIENT, scaler=scaler)
    assert torch.equal(scaled[0], 2**10 * GRADIENT)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_step_whose_gradient_overflows_moves_nothing_and_the_next_one_goes_on(clip: float | None) -> None:
    method, scaler, optimizer = Slope(), torch.amp.GradScaler("cpu", init_scale=2.0**16), None
    optimizer = sgd(method)
    given = {"optimizer": optimizer, "scaler": scaler, "options": StepOptions(clip=clip)}
    (lost,) = steps(method, 1e38 * GRADIENT, **given)
    assert torch.equal(method.weight.detach(), torch.zeros(3))
    assert math.isinf(lost.norm)
    assert len(method.after) == 1
    assert scaler.get_scale() == 2.0**15
    (made,) = steps(method, GRADIENT, **given)
    assert made.norm == 3
    torch.testing.assert_close(method.weight.detach(), -LR * GRADIENT / (1 if clip is None else 3))


def test_the_norm_of_a_step_that_was_left_out_is_left_out_of_the_log(tmp_path: Any) -> None:
    lines: list[dict[str, float]] = []
    journal = Journal(tmp_path / "metrics.jsonl")
    options = Loop(epochs=1, batch=1, journal=journal, watch=lambda step, steps, numbers: lines.append(numbers))
    log = Log(options, Slope(), per_epoch=30, steps=30)
    norms = [math.inf, 2.0, 4.0] + [1.0] * 7 + [math.inf] * 10 + [5.0] * 10
    for norm in norms:
        log.add(StepResult(Step(torch.tensor(1.0)), torch.tensor(norm)), LR)
    log.drain(30)
    assert [line["gradient_norm"] for line in lines] == pytest.approx([13 / 9, math.nan, 5.0], nan_ok=True)
    assert [line["gradient_norm"] for line in journal.read()] == pytest.approx([13 / 9, None, 5.0])
    judge = Judge()
    for line in [*lines, *journal.read()]:
        judge.see({"step": 10} | line)
    assert list(judge.norms) == pytest.approx([13 / 9, 5.0] * 2)


class Looks(Slope):
    """Embeds its view, and pushes every row from the others."""

    def forward(self, batch: Batch) -> Step:
        h = self.embed(batch.views[0]) + self.weight
        return Step(far(h, h, skip=torch.arange(len(h))).mean())

    def after_step(self, step: Step) -> None:
        assert self.representations is None or len(self.representations) == 1


def test_an_inspected_step_tells_what_was_embedded_and_how_many_negatives_push() -> None:
    method, x = Looks(), torch.zeros(5, 3)
    plain, inspected = steps(method, x)[0], steps(method, x, inspect=True)[0]
    assert (plain.representations, plain.negatives) == (None, None)
    assert inspected.representations is not None
    assert [h.tolist() for h in inspected.representations] == [x.tolist()]
    assert inspected.negatives == pytest.approx(4)
    assert method.representations is None
    method.embed(x)  # a later look at all samples is not kept
    assert len(inspected.representations) == 1


class Headed(nn.Module):
    """An encoder with a head of the library's inside, and a layer that keeps its inputs for backward."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = mlp((3, 8, 4), norm=False, bias=True, last_bias=True), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.head(x)).relu()


def test_a_head_inside_an_encoder_may_be_computed_again_in_half_precision() -> None:
    method = SimCLR(Wrapped(Headed(), {"kind": "own"}))
    method.micro_batch, method.clock = 4, Clock(0, 1, 0, 1, 0)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    index = torch.arange(8)
    batch = Batch([x, x + 0.1], index, index)
    optimizer = optim.sgd(optim.parameter_groups(method, 0.0), lr=0.1)
    assert loops.step(method.train(), batch, optimizer, StepOptions(precision="bf16")).norm > 0
