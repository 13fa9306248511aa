from __future__ import annotations

import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import distributed, optim
from nearfar.batch import MISSING, Batch
from nearfar.errors import Diverged
from nearfar.evaluation.alarms import alarms
from nearfar.method import Look, Method, Step
from nearfar.methods.moco import MoCo
from nearfar.methods.simclr import SimCLR
from nearfar.nn.norms import synchronize_norms
from nearfar.training.checkpoints import Checkpoints, read
from nearfar.training.feeder import Feeder
from nearfar.training.journal import Journal
from nearfar.training.log import Log, is_told
from nearfar.training.loop import fit
from nearfar.training.optimization import pull
from nearfar.training.options import Loop, Precision, StepResult
from tests.two_ranks import Pool

N, BATCH, EPOCHS = 44, 8, 4
PER_EPOCH = N // BATCH
STEPS = EPOCHS * PER_EPOCH


class Vectors:
    """Samples of six numbers."""

    def __init__(self) -> None:
        self.input = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
        self.label = torch.arange(N) % 4
        self.group = self.attribute = torch.full((N,), MISSING)
        self.seen: list[list[int]] = []

    def __len__(self) -> int:
        return N

    def fetch(self, index: Tensor) -> tuple[Tensor]:
        self.seen.append(index.tolist())
        return (self.input[index],)


@dataclass
class Draws:
    noise: Tensor  # V x N x 6

    def rows(self, which: slice) -> Draws:
        return Draws(self.noise[:, which])


class Noise:
    """Two views that differ by noise. `at` is called with the number of the step before its views are made."""

    def __init__(self, at: Callable[[int], None] = lambda step: None, start: int = 0) -> None:
        self.at, self.step = at, start

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        self.at(self.step)
        self.step += 1
        return Draws(0.3 * torch.randn(2, n, 6, generator=generator))

    def __call__(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return [x + noise for noise in draws.noise]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8))
        self.dim = 8

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def make(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return SimCLR(Encoder(), dim=4) if name == "simclr" else MoCo(Encoder(), dim=4, queue=32, momentum=0.9, splits=2)


def optimizer(name: str, method: Method, lr: float = 0.1) -> torch.optim.Optimizer:
    groups = optim.parameter_groups(method, 1e-4)
    match name:
        case "sgd":
            return optim.sgd(groups, lr)
        case "lars":
            return optim.lars(groups, lr, rate_in_momentum=True)
    return optim.adamw(groups, lr / 10)


def loop(folder: Path | None, **options: Any) -> Loop:
    files = {} if folder is None else {"checkpoints": Checkpoints(folder), "journal": Journal(folder / "metrics.jsonl")}
    settings = {
        "epochs": EPOCHS,
        "batch": BATCH,
        "schedule": lambda step, steps: 1 - step / steps,
        "say": lambda text: None,
    }
    return Loop(**settings | files | options)


def train(
    folder: Path | None,
    name: str = "simclr",
    rule: str = "sgd",
    *,
    seed: int = 0,
    at: Callable[[int], None] = lambda step: None,
    start: int = 0,
    **options: Any,
) -> tuple[bool, dict[str, Any]]:
    method = make(name, seed)
    rate = optimizer(rule, method)
    done = fit(method, Vectors(), Noise(at, start), rate, loop(folder, **options))
    return done, {"method": method.state_dict(), "optimizer": rate.state_dict()}


def equal(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def send(number: signal.Signals, step: int) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), number) if now == step else None


def fail(step: int) -> Callable[[int], None]:
    def at(now: int) -> None:
        if now == step:
            raise OSError("the disk went away")

    return at


@pytest.mark.parametrize("rule", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("name", ["simclr", "moco"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "an exception"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, name: str, rule: str, how: str) -> None:
    _, whole = train(tmp_path / "whole", name, rule)
    step = {"SIGTERM": 7, "SIGINT": 0, "an exception": 12}[how]
    if how == "an exception":
        with pytest.raises(OSError, match="went away"):
            train(tmp_path / "cut", name, rule, at=fail(step))
        saved = step // PER_EPOCH * PER_EPOCH
    else:
        done, _ = train(tmp_path / "cut", name, rule, at=send(signal.Signals[how], step))
        assert not done
        saved = step + 1
    newest, _ = Checkpoints(tmp_path / "cut").newest()
    assert newest is not None
    assert newest["step"] == saved

    said: list[str] = []
    # Another seed for the new objects: all that they hold must come out of the checkpoint.
    done, resumed = train(tmp_path / "cut", name, rule, seed=9, start=saved, say=said.append)
    assert done
    assert said[0] == f"Going on from step {saved} of {STEPS}."
    assert equal(resumed, whole)


def test_another_seed_or_optimizer_gives_other_bits(tmp_path: Path) -> None:
    _, a = train(None)
    assert equal(train(None)[1], a)
    assert not equal(train(None, seed=1)[1]["method"], a["method"])
    assert not equal(train(None, rule="lars")[1]["method"], a["method"])


def test_the_journal_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    def spoil(step: int) -> None:
        if step == 12:  # a probe of step 11 was written, and then the power failed
            Journal(tmp_path / "metrics.jsonl").write({"step": 11, "loss": 0.0})
            raise OSError

    with pytest.raises(OSError):
        train(tmp_path, at=spoil)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 12, "lo')
    train(tmp_path)
    lines = Journal(tmp_path / "metrics.jsonl").read()
    assert [line["step"] for line in lines] == [PER_EPOCH * epoch for epoch in range(EPOCHS + 1)]
    assert [line["epoch"] for line in lines] == [0.0, 1.0, 2.0, 3.0, 4.0]
    _, *lines = lines
    assert lines[0]["chance"] == pytest.approx(math.log(2 * BATCH - 1))
    assert all(line["loss"] > 0 and line["samples_per_second"] > 0 and "gradient_norm" in line for line in lines)


def test_going_on_with_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    _, whole = train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    done, again = train(tmp_path, seed=3)
    assert done
    assert equal(again, whole)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_damaged_checkpoint_costs_only_what_came_after_the_one_before(tmp_path: Path) -> None:
    _, whole = train(tmp_path / "whole")
    done, _ = train(tmp_path / "cut", at=send(signal.SIGTERM, 12))
    newest = Checkpoints(tmp_path / "cut").all()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    done, resumed = train(tmp_path / "cut", seed=3, say=said.append)
    assert done
    assert "is damaged" in said[0]
    assert said[1] == "Going on from step 10 of 20."
    assert equal(resumed, whole)


def test_where_all_checkpoints_are_damaged_nothing_starts(tmp_path: Path) -> None:
    train(tmp_path)
    for path in Checkpoints(tmp_path).all():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="are damaged"):
        train(tmp_path)


def test_there_is_a_checkpoint_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        train(tmp_path, at=fail(0))
    saved, _ = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert saved["step"] == 0
    assert equal(saved["method"], make("simclr").state_dict())


def test_checkpoints_come_when_asked_for(tmp_path: Path) -> None:
    method = make("simclr")
    saved: list[int] = []

    class Listening(Checkpoints):
        def save(self, step: int, state: dict[str, Any], *, best: bool = False, epoch: int = 0) -> None:
            saved.append(step)
            super().save(step, state, best=best, epoch=epoch)

    scores = iter([{"knn": 3.0}, {"knn": 5.0}, {"knn": 4.0}])
    how = loop(
        None,
        epochs=5,
        checkpoints=Listening(tmp_path, 2),
        save_every=3,
        probe=lambda: next(scores),
        probe_after={2, 4, 5},
    )
    assert fit(method, Vectors(), Noise(), optimizer("sgd", method), how)
    assert saved == [0, 10, 15, 20, 25]  # the first; two bests; the third epoch's; the last
    assert read(tmp_path / "best.pt")["step"] == 20
    assert [read(path)["step"] for path in how.checkpoints.all()] == [20, 25] if how.checkpoints else False


@pytest.mark.parametrize("before", [9.0, 1.0])
def test_step_0_is_measured_once_and_is_no_checkpoint(before: float, tmp_path: Path) -> None:
    scores = iter([{"knn": before}, {"knn": 5.0}, {"knn": 4.0}])

    class Killed(Exception):
        pass

    def watch(step: int, steps: int, numbers: dict[str, float]) -> None:
        if step > 0:
            raise Killed

    options: dict[str, Any] = {"epochs": 2, "probe": lambda: next(scores), "probe_after": {0, 1, 2}}
    method = make("simclr")
    with pytest.raises(Killed):  # before any checkpoint but the first
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, watch=watch, **options))
    method = make("simclr")
    first = method.encoder.net[0].weight.detach().clone()  # pyright: ignore[reportIndexIssue]
    assert fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, **options))
    lines = Journal(tmp_path / "metrics.jsonl").read()
    zero, *later = [line for line in lines if "knn" in line]
    assert [line["step"] for line in lines].count(0) == 1
    assert zero["step"] == zero["epoch"] == 0
    assert [line["knn"] for line in (zero, *later)] == [before, 5.0, 4.0]
    assert {"spread", "effective_rank", "accuracy", "alignment", "uniformity", "effective_negatives"} < set(zero)
    assert "loss" not in zero
    assert zero["spread"] != next(line["spread"] for line in lines[1:] if "spread" in line)
    assert read(tmp_path / "best.pt")["step"] == later[0]["step"]
    assert not torch.equal(read(tmp_path / "best.pt")["method"]["encoder.net.0.weight"], first)


@pytest.mark.parametrize("learns", ["views", "labels", "beside what is kept"])
def test_views_that_are_found_are_judged_where_they_are_what_is_learned(learns: str, tmp_path: Path) -> None:
    method = make("simclr")
    if learns == "labels":
        method.needs_labels = True  # pyright: ignore[reportAttributeAccessIssue]
    elif learns != "views":
        method.encoder.keeps_inputs = True  # pyright: ignore[reportAttributeAccessIssue]
    fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, epochs=1))
    zero, *_ = Journal(tmp_path / "metrics.jsonl").read()
    assert "accuracy" in zero
    assert ("candidates" in zero) == (learns == "views")


def test_a_run_that_makes_neighbors_worse_may_stop_and_go_on(tmp_path: Path) -> None:
    """By default it says so, once, and goes on; a run that goes on says nothing again, and stops at the next probe."""

    def run(folder: Path, *knn: float, **options: Any) -> tuple[bool, list[str], list[float]]:
        said: list[str] = []
        scores = iter([{"knn": score, "knn_samples": 400} for score in knn])
        how = loop(folder, probe=lambda: next(scores), probe_after=set(range(5)), say=said.append, **options)
        method = make("simclr")
        done = fit(method, Vectors(), Noise(), optimizer("sgd", method), how)
        probes = [line["step"] / PER_EPOCH for line in Journal(folder / "metrics.jsonl").read() if "knn" in line]
        return done, [text for text in said if "worse" in text], probes

    done, said, probes = run(tmp_path / "on", 60, 40, 40, 40, 40)
    assert (done, len(said), probes) == (True, 1, [0, 1, 2, 3, 4])
    done, said, probes = run(tmp_path / "stop", 60, 40, 40, stop_if_worse=True)
    assert (done, len(said), probes) == (False, 2, [0, 1, 2])
    done, said, probes = run(tmp_path / "stop", 40, stop_if_worse=True)
    assert (done, len(said), probes) == (False, 1, [0, 1, 2, 3])
    assert run(tmp_path / "stop", 70, stop_if_worse=True) == (True, [], [0, 1, 2, 3, 4])
    assert run(tmp_path / "better", 60, 40, 60, 70, 40, stop_if_worse=True)[0]  # the last probe ends no run


def test_only_epochs_that_were_probed_say_so() -> None:
    scores = iter([{"knn": 1.0}, {"knn": 5.0}, {"knn": 7.0}])
    said: list[str] = []
    how = loop(None, epochs=4, probe=lambda: next(scores), probe_after={0, 2, 4}, say=said.append)
    method = make("simclr")
    fit(method, Vectors(), Noise(), optimizer("sgd", method), how)
    heads = [line.partition(":")[0] for line in said if line.startswith(("Before training", "Epoch"))]
    assert heads == ["Before training", "Epoch 1", "Epoch 2", "Epoch 3", "Epoch 4"]
    assert [line.partition("kNN ")[2] for line in said if line.partition(":")[0] in heads] == [
        *("1.0 %.", "", "5.0 %.", "", "7.0 %.")
    ]


def test_an_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    data = Vectors()
    method = make("simclr")
    fit(method, data, Noise(), optimizer("sgd", method), loop(None))
    epochs = [
        [i for rows in data.seen[start : start + PER_EPOCH] for i in rows] for start in range(0, STEPS, PER_EPOCH)
    ]
    assert len(data.seen) == STEPS
    assert all(len(set(epoch)) == PER_EPOCH * BATCH for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == EPOCHS


class Breaks(SimCLR):
    """The loss is nan from one step on, or a parameter is after it."""

    def __init__(self, step: int, *, loss: bool) -> None:
        super().__init__(Encoder(), dim=4)
        self.step, self.breaks_loss = step, loss

    def forward(self, batch: Batch) -> Step:
        out = super().forward(batch)
        if self.breaks_loss and self.clock.step >= self.step:
            out.loss = out.loss * torch.tensor(math.nan)
        return out

    def after_step(self, step: Step) -> None:
        if not self.breaks_loss and self.clock.step == self.step:
            with torch.no_grad():
                next(self.parameters())[0, 0] = math.inf


class Looking(SimCLR):
    """Notes at which epochs it was shown all samples, and in which mode."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder, dim=4)
        self.looks: list[tuple[int, int, bool, bool]] = []

    def before_epoch(self, look: Callable[..., Tensor]) -> None:
        seen = look(self.encoder)
        self.looks.append((self.clock.step, len(seen), self.encoder.training, seen.requires_grad))


def test_a_method_is_shown_all_samples_before_each_epoch() -> None:
    torch.manual_seed(0)
    data, method = Vectors(), Looking(Encoder())
    fit(method, data, Noise(), optimizer("sgd", method), loop(None, look=Look(lambda network: network(data.input))))
    assert method.looks == [(epoch * PER_EPOCH, N, False, False) for epoch in range(EPOCHS)]
    assert method.training


class Naming(Looking):
    """Draws steps of one class each, by what it writes down before each epoch: low or high, then odd or even."""

    sampler, per_class = "pk", BATCH
    known: Tensor

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder)
        self.register_buffer("known", torch.zeros(N, dtype=torch.int64))
        self.batches: list[Tensor] = []

    def before_epoch(self, look: Callable[..., Tensor]) -> None:
        self.known.copy_(torch.arange(N) % 2 if self.clock.epoch % 2 else torch.arange(N) // (N // 2))

    def identities(self) -> Tensor:
        return self.known

    def forward(self, batch: Batch) -> Step:
        self.batches.append(batch.index)
        return super().forward(batch)


def test_samples_are_drawn_by_what_a_method_has_just_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["nearfar.training.feeder"], "AT_ONCE", -1.0)  # always ahead, where it may
    torch.manual_seed(0)
    data, method = Vectors(), Naming(Encoder())
    fit(method, data, Noise(), optimizer("sgd", method), loop(None, look=Look(lambda network: network(data.input))))
    for step, index in enumerate(method.batches):
        classes = index % 2 if step // PER_EPOCH % 2 else index // (N // 2)
        assert len(torch.unique(classes)) == 1
        assert len(torch.unique(index)) == BATCH


def test_the_user_may_draw_samples_otherwise() -> None:
    torch.manual_seed(0)
    data, method = Vectors(), Naming(Encoder())
    fit(method, data, Noise(), optimizer("sgd", method), loop(None, sampler="shuffled"))
    assert len(torch.unique(torch.cat(method.batches[:PER_EPOCH]))) == PER_EPOCH * BATCH


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    method = Breaks(12, loss=True)
    said = (
        r"the loss became nan in step 13; the last finite checkpoint is '.*step-000000010\.pt'.*lower --lr.*--clip 1$"
    )
    with pytest.raises(Diverged, match=said):
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path))
    steps = [read(path)["step"] for path in Checkpoints(tmp_path).all()]
    assert steps == [5, 10]
    assert all(value.isfinite().all() for value in read(tmp_path / "step-000000010.pt")["method"].values())
    assert Journal(tmp_path / "metrics.jsonl").read()[-1]["step"] == 10


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"clip": 1e6}, "a smaller --clip$"),
        ({"precision": "bf16"}, "or --precision float32$"),
        ({"precision": "fp16"}, "bf16"),
    ],
)
def test_parameters_that_are_no_numbers_are_not_saved(tmp_path: Path, options: dict[str, Any], remedy: str) -> None:
    method = Breaks(PER_EPOCH - 1, loss=False)
    with pytest.raises(
        Diverged,
        match=rf"a parameter is no longer finite at step {PER_EPOCH} \(encoder.*\); .*step-000000000.*{remedy}",
    ):
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, **options))
    assert [path.name for path in Checkpoints(tmp_path).all()] == ["step-000000000.pt"]


class Spoiled(SimCLR):
    """A buffer, or what the optimizer keeps, gets a number that is not finite in step 3."""

    def __init__(self, where: str, value: Any, *, mask: bool = False) -> None:
        super().__init__(Encoder(), dim=4)
        self.register_buffer("mask", torch.tensor([-math.inf if mask else 0.0, 0.0]))
        self.register_buffer("count", torch.zeros(2, dtype=torch.long))
        self.register_buffer("nothing", torch.zeros(0, 4))
        self.register_buffer("reading", torch.tensor(math.nan), persistent=False)
        self.where, self.value = where, value

    def after_step(self, step: Step) -> None:
        if self.clock.step == 3:
            name, _, last = self.where.rpartition(".")
            self.get_submodule(name)._buffers[last].fill_(self.value)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["mask", "projector.1.running_var"])
def test_buffers_that_are_no_numbers_are_not_saved(tmp_path: Path, where: str, value: float) -> None:
    method = Spoiled(where, value)
    with pytest.raises(Diverged, match=rf"a buffer is no longer finite at step {PER_EPOCH} \({where}\); .*step-0+\.pt"):
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path))
    assert [path.name for path in Checkpoints(tmp_path).all()] == ["step-000000000.pt"]


def test_a_buffer_that_was_infinite_from_the_start_is_so_by_design(tmp_path: Path) -> None:
    method = Spoiled("count", 7, mask=True)
    assert fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, epochs=1))
    again = Spoiled("count", 7, mask=True)
    assert fit(again, Vectors(), Noise(), optimizer("sgd", again), loop(tmp_path, epochs=2))  # goes on from there


def test_what_the_optimizer_keeps_is_held_finite(tmp_path: Path) -> None:
    method = Breaks(99, loss=False)
    rate = optimizer("adamw", method)

    def spoil(step: int) -> None:
        if step == 3:
            next(iter(rate.state.values()))["exp_avg_sq"].fill_(math.inf)  # every step from now on is 0

    with pytest.raises(Diverged, match=rf"the optimizer keeps is no longer finite at step {PER_EPOCH} \(0\.exp_avg_sq"):
        fit(method, Vectors(), Noise(spoil, 0), rate, loop(tmp_path))


def test_weights_that_are_no_numbers_are_not_trained(tmp_path: Path) -> None:
    method = make("simclr")
    with torch.no_grad():
        next(method.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match=r"a parameter is no longer finite at step 0 .*before training"):
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path))


def test_views_that_are_no_numbers_are_refused_at_the_first_step() -> None:
    data, method = Vectors(), make("simclr")
    data.input[:] = math.inf
    with pytest.raises(ValueError, match="views of the first batch hold NaN or infinite numbers"):
        fit(method, data, Noise(), optimizer("sgd", method), loop(None))


class Wordy(SimCLR):
    """Logs what a user's own method may: numbers that come and go, that are no tensors, that are not finite."""

    def forward(self, batch: Batch) -> Step:
        out, step = super().forward(batch), self.clock.step
        out.log = {"always": torch.tensor(float(step)), "never_finite": torch.tensor(math.nan)}
        if step >= 12:
            out.log |= {"late": 3, "doubles": torch.tensor([2.0], dtype=torch.float64)}
        elif step % 2:
            out.log["odd"] = torch.tensor(math.inf if step == 1 else 1.0)
        return out


def test_what_a_method_logs_may_come_and_go(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = Wordy(Encoder(), dim=4)
    assert fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path))
    lines = [line for line in Journal(tmp_path / "metrics.jsonl").read() if "loss" in line]
    assert lines[0]["always"] == sum(range(PER_EPOCH)) / PER_EPOCH
    assert [line.get("odd") for line in lines] == [1 if line["step"] <= 15 else None for line in lines]
    assert [line.get("late") for line in lines] == [3 if line["step"] > 12 else None for line in lines]
    assert all(("doubles" in line) == (line["step"] > 12) for line in lines)
    assert {line["never_finite"] for line in lines} <= {None}


def _logged_by_ranks() -> tuple[dict[str, float], list[int]]:
    told: list[int] = []
    log = Log(loop(None, tell=lambda step, numbers: told.append(step)), make("simclr"), PER_EPOCH, STEPS)
    mine = {"each": torch.tensor(float(distributed.rank())), f"only_{distributed.rank()}": 5.0}
    for step in range(2):
        log.add(StepResult(Step(torch.tensor(1.0 + distributed.rank()), mine if step else {}), torch.tensor(2.0)), 0.1)
    log.drain(2)
    return log.newest[-1], told


def test_ranks_may_log_different_numbers_and_the_first_one_tells(two_ranks: Pool) -> None:
    (one, told), (other, nothing) = two_ranks.run(_logged_by_ranks)
    assert (told, nothing) == ([2], [])
    numbers = ("loss", "gradient_norm", "each", "only_0", "only_1")
    assert [one[name] for name in numbers] == [other[name] for name in numbers] == [1.5, 2, 0.5, 5, 5]


def test_a_method_logs_single_numbers(tmp_path: Path) -> None:
    class Wide(SimCLR):
        def forward(self, batch: Batch) -> Step:
            return Step(super().forward(batch).loss, {"wide": torch.zeros(3)})

    method = Wide(Encoder(), dim=4)
    with pytest.raises(ValueError, match=r"Wide logs 'wide' of the shape \(3,\): log one number"):
        fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path))


class Overflows(SimCLR):
    """The gradient is infinite in the first six steps."""

    def __init__(self) -> None:
        super().__init__(Encoder(), dim=4)
        last = next(p for p in reversed(list(self.parameters())) if p.requires_grad)
        last.register_hook(lambda gradient: gradient * (math.inf if self.clock.step < PER_EPOCH + 1 else 1))


def test_a_gradient_that_overflowed_is_journaled_and_passed_over(tmp_path: Path) -> None:
    for epochs in (2, EPOCHS):  # at first, and by a run that goes on and reads what was journaled
        torch.manual_seed(0)
        method = Overflows()
        assert fit(
            method, Vectors(), Noise(), optimizer("sgd", method), loop(tmp_path, precision="fp16", epochs=epochs)
        )
    lines = [line for line in Journal(tmp_path / "metrics.jsonl").read() if "loss" in line]
    assert [line.get("overflowed") for line in lines] == [PER_EPOCH, 1, None, None]
    assert [line["gradient_norm"] is None for line in lines] == [True, False, False, False]
    assert alarms(lines) == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "rule"), [("simclr", "sgd"), ("moco", "sgd"), ("simclr", "adamw"), ("simclr", "lars")]
)
def test_half_precision_trains_and_resumes_on_a_cpu(tmp_path: Path, name: str, rule: str, precision: Precision) -> None:
    done, whole = train(tmp_path / "whole", name, rule, precision=precision)
    assert done
    assert not train(tmp_path / "cut", name, rule, at=send(signal.SIGTERM, 8), precision=precision)[0]
    _, resumed = train(tmp_path / "cut", name, rule, seed=5, start=9, precision=precision)
    assert equal(resumed, whole)
    assert not equal(whole["method"], make(name).state_dict())
    assert not equal(whole["method"], train(None, name, rule)[1]["method"])
    assert all(value.isfinite().all() for value in whole["method"].values())
    scaler = read(Checkpoints(tmp_path / "cut").path(STEPS))["scaler"]
    assert (scaler.get("_growth_tracker", 0) > 0) == (precision == "fp16")


def test_steps_are_made_with_the_options_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    module, calls = sys.modules["nearfar.training.loop"], []
    make_step = module.step

    def spy(method: Method, batch: Batch, optimizer: Any, options: Any, **how: Any) -> Any:
        clock = method.clock
        calls.append((clock.step, clock.epoch, options, how["scaler"].is_enabled(), how["inspect"]))
        assert (clock.steps, clock.epochs, clock.seed) == (STEPS, EPOCHS, 3)
        return make_step(method, batch, optimizer, options, **how)

    monkeypatch.setattr(module, "step", spy)
    method, options = make("simclr"), loop(None, seed=3, clip=0.1, precision="fp16")
    fit(method, Vectors(), Noise(), optimizer("sgd", method), options)
    assert calls == [
        (step, step // PER_EPOCH, options, True, step == 0 or step % PER_EPOCH == PER_EPOCH - 1)
        for step in range(STEPS)
    ]
    calls.clear()
    monkeypatch.setattr(sys.modules["nearfar.training.log"], "DRAIN", 2)
    fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(None, seed=3))
    assert [step for step, *_, inspected in calls if inspected][:7] == [0, 1, 3, 4, 6, 8, 9]
    assert not any(scaled for *_, scaled, _ in calls)


def test_clip_bounds_the_gradient_and_any_optimizer_follows_the_schedule() -> None:
    method = make("simclr")
    before = [p.detach().clone() for p in method.parameters()]
    rate = torch.optim.SGD(method.parameters(), lr=1.0)  # torch's own, which keeps no first rate
    fit(method, Vectors(), Noise(), rate, loop(None, epochs=1, clip=1e-3, schedule=lambda step, steps: 0.5))
    moved = torch.stack([(p - b).square().sum() for p, b in zip(method.parameters(), before, strict=True)]).sum().sqrt()
    assert 0 < moved <= PER_EPOCH * 0.5e-3 * 1.01
    assert rate.param_groups[0]["lr"] == 0.5


def test_a_second_interrupt_stops_at_once() -> None:
    def at(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(None, at=at)


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(None, epochs=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_it_runs_in_a_thread_where_no_signal_can_be_caught() -> None:
    result: list[bool] = []
    thread = threading.Thread(target=lambda: result.append(train(None, epochs=1)[0]))
    thread.start()
    thread.join()
    assert result == [True]


@pytest.mark.parametrize("batch", [0, N + 1])
def test_batches_that_cannot_be(batch: int) -> None:
    with pytest.raises(ValueError, match=f"a batch of {batch} of {N} samples cannot be shared by 1 processes"):
        train(None, batch=batch)


class Plain(Encoder):
    """Without dropout, whose masks are each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net[3] = nn.Identity()


def _curve(
    name: str, folder: str | None, stop: int = -1, breaks: int = -1
) -> tuple[bool, list[float], dict[str, Tensor]]:
    """Train in float64; `stop` is the step at which the last rank gets SIGTERM, `breaks` that of its first nan."""
    torch.manual_seed(0)
    method: Method = (
        SimCLR(Plain(), dim=4) if name != "moco" else MoCo(Plain(), dim=4, queue=32, momentum=0.9, splits=2)
    )
    if breaks >= 0:
        method = Breaks(breaks, loss=distributed.rank() == 1)
        method.step = breaks if distributed.rank() == 1 else 10**9
    if distributed.world() > 1:
        synchronize_norms(method, torch.device("cpu"))
    method.double()
    data = Vectors()
    data.input = data.input.double()
    mine = stop if distributed.rank() == distributed.world() - 1 else -1
    losses: list[float] = []
    where = None if folder is None else Path(folder)
    kept = {"frozen": 0.3, "pull": pull(method.encoder, 0.1)} if name == "kept" else {}
    how = loop(where, watch=lambda step, steps, numbers: losses.extend([numbers["loss"]] if step else []), **kept)
    done = fit(method, data, Noise(send(signal.SIGTERM, mine)), optimizer("sgd", method), how)
    return done, losses, method.state_dict()


@pytest.mark.parametrize("name", ["simclr", "moco", "kept"])
def test_two_ranks_learn_what_one_does(two_ranks: Pool, name: str) -> None:
    _, losses, state = _curve(name, None)
    for _, theirs, weights in two_ranks.run(_curve, name, None):
        assert theirs == pytest.approx(losses, rel=1e-6)  # the numbers of the log are float32
        for key, value in state.items():
            if name != "moco" or "running" not in key:  # split norms track the groups of their own rank
                torch.testing.assert_close(weights[key], value, rtol=1e-8, atol=1e-10)


def test_ranks_agree_on_the_step_at_which_to_stop(two_ranks: Pool, tmp_path: Path) -> None:
    answers = two_ranks.run(_curve, "simclr", str(tmp_path), 3)
    assert [done for done, *_ in answers] == [False, False]
    saved, _ = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert saved["step"] == 10  # ranks ask each other every ten steps
    for _, _, weights in answers:
        assert equal(weights, saved["method"])
    (done, _, first), (_, _, second) = two_ranks.run(_curve, "simclr", str(tmp_path))
    _, _, whole = two_ranks.run(_curve, "simclr", None)[0]
    assert done
    assert equal(first, second)
    assert equal(first, whole)


class Late(Checkpoints):
    """Rank 1 looks for checkpoints only when rank 0 has long looked."""

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        for _ in range(100 * distributed.rank()):
            if self.path(0).exists():
                break
            time.sleep(0.005)
        return super().newest()


def _late(folder: str) -> bool:
    method = make("simclr")
    how = loop(None, checkpoints=Late(Path(folder)), epochs=1)
    return fit(method, Vectors(), Noise(), optimizer("sgd", method), how)


def test_a_rank_that_is_late_finds_what_the_first_found(two_ranks: Pool, tmp_path: Path) -> None:
    assert two_ranks.run(_late, str(tmp_path)) == [True, True]


def _apart(folder: str) -> None:
    method = make("simclr")
    fit(method, Vectors(), Noise(), optimizer("sgd", method), loop(Path(folder) / str(distributed.rank())))


def test_ranks_that_do_not_share_a_disk_are_told(two_ranks: Pool, tmp_path: Path) -> None:
    train(tmp_path / "0", epochs=1)
    with pytest.raises(RuntimeError, match=r"checkpoints of the steps \[5, -1\]: all need the same disk for --out"):
        two_ranks.run(_apart, str(tmp_path))


def test_ranks_give_up_together(two_ranks: Pool, tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)rank 0:.*loss became nan in step 4.*rank 1:.*loss became nan in step 4"
    ):
        two_ranks.run(_curve, "simclr", str(tmp_path), -1, 3)
    assert [path.name for path in Checkpoints(tmp_path).all()] == ["step-000000000.pt"]


@pytest.mark.parametrize(("seconds", "words"), [(1.0, "Compute-bound: 10% of"), (7.5, "Input-bound: 75% of.*--size")])
def test_what_the_speed_depended_on_is_said(monkeypatch: pytest.MonkeyPatch, seconds: float, words: str) -> None:
    module = sys.modules["nearfar.training.log"]
    now = iter([100.0, 110.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    log = Log(loop(None), make("simclr"), PER_EPOCH, STEPS)
    log.input_seconds = seconds
    assert re.match(words, log.bound())


def test_quick_inputs_are_taken_at_once_and_slow_ones_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["nearfar.training.feeder"]
    orders = []
    for bound, ahead in ((3600.0, False), (-1.0, True)):
        monkeypatch.setattr(module, "AT_ONCE", bound)
        data = Vectors()
        cpu, order = torch.device("cpu"), lambda generator: torch.randperm(N, generator=generator)
        with Feeder(data, batch=BATCH, seed=0, mine=slice(0, BATCH), device=cpu, order=order) as feed:
            for step in range(STEPS):
                feed(step, more=step + 1 < STEPS)
                assert (feed.ahead is not None) == ahead
        orders.append(data.seen)
    assert orders[0] == orders[1]


def test_the_journal_is_on_the_disk_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    monkeypatch.setattr(Journal, "sync", lambda self: happened.append("journal"))
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, state, **which: happened.append("checkpoint"))
    train(tmp_path)
    assert happened == ["journal", "checkpoint"] * (len(happened) // 2)
    assert len(happened) >= 4


@pytest.mark.parametrize("total", [1, 40, 41, 100, 1000, 100_000])
def test_long_runs_are_told_in_some_forty_lines(total: int) -> None:
    told = [number for number in range(1, total + 1) if is_told(number, total)]
    assert told[0] == 1
    assert told[-1] == total
    assert len(told) <= 42
    assert len(told) == total if total <= 40 else len(told) >= 25
    gaps = [after - before for before, after in pairwise(told)][:-1]
    assert max(gaps, default=1) <= max(1, 0.2 * total)
