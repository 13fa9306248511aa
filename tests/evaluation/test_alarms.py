from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import distributed
from nearfar.batch import Batch
from nearfar.evaluation.alarms import USUAL, Alarm, Judge, alarms, readings
from nearfar.losses.distance import align
from nearfar.method import Method, Step
from nearfar.training.journal import Journal
from nearfar.training.log import OWN
from nearfar.training.loop import fit
from tests.training.test_loop import Encoder, Noise, Vectors, loop, make, optimizer


def healthy(steps: int = 1000) -> list[dict[str, float]]:
    """The journal of a run that learns."""
    lines = []
    for step in range(10, steps + 1, 10):
        fade = math.exp(-step / 200)
        line = {"step": step, "epoch": step / 100, "loss": 3 + 3 * fade, "chance": 6.2, "gradient_norm": 1 + fade}
        line |= {"input_share": 0.1, "lr": 0.1, "with_positive": 0.4, "margin": 0.2}
        if step % 50 == 0:
            line |= {"spread": 0.6 - 0.3 * fade, "effective_rank": 60 - 20 * fade, "accuracy": 90 - 60 * fade}
            line["candidates"] = 255
        lines.append(line)
    return lines


def names(found: list[Alarm]) -> list[str]:
    return [alarm.name for alarm in found]


def begun(found: float, candidates: int) -> dict[str, float]:
    """The readings before the first step."""
    return {"step": 0, "epoch": 0, "spread": 0.6, "effective_rank": 60, "accuracy": found, "candidates": candidates}


@pytest.mark.parametrize(
    ("found", "candidates", "told"),
    [
        (99.2, 255, True),  # views that hardly change: measured with conv4 untrained
        (67.2, 255, True),  # crops of 0.85 to 1 of CIFAR's images
        (40.2, 255, False),  # handwritten digits, views `drawing`
        (96.9, 63, True),
        (75.0, 63, False),  # 0.31 of 255
        (100.0, 7, False),  # eight rows are too few to tell
    ],
)
def test_a_task_that_an_untrained_network_solves_is_too_easy(found: float, candidates: int, told: bool) -> None:
    lines = [begun(found, candidates), *healthy()]
    assert [names(alarms(lines[:n])) for n in (1, 30)] == [["too easy"] if told else []] * 2


@pytest.mark.parametrize(
    ("step", "epoch", "found", "candidates", "told"),
    [
        (50, 2.5, 96.5, 255, True),
        (195, 1.0, 96.5, 255, True),
        (195, 2.0, 96.5, 255, False),  # after so many steps it is what training is for
        (3900, 1.0, 99.0, 255, False),
        (100, 2.0, 92.0, 255, False),  # alignuniform on the drawings
        (50, 2.5, 96.5, 63, False),  # 0.85 of 255
        (50, 2.5, 100.0, 31, False),
        (50, 2.5, 100.0, 127, True),
    ],
)
def test_other_views_found_too_well_are_an_alarm_by_step_and_number(
    step: int, epoch: float, found: float, candidates: int, told: bool
) -> None:
    reading = begun(found, candidates) | {"step": step, "epoch": epoch, "loss": 3.0}
    assert names(alarms([begun(10.0, candidates), reading])) == (["too easy"] if told else [])
    assert names(alarms([begun(10.0, candidates), reading, *healthy()])) == (["too easy"] if told else [])
    unknown = {name: value for name, value in reading.items() if name != "candidates"}
    assert alarms([unknown]) == []


def at_chance(steps: int, *, off: float = 1e-4, rate: float = 0.1, rises: float = 0.0) -> list[dict[str, float]]:
    """A run whose loss stays at that of equal representations, but for a share of it."""
    chance = math.log(100)
    return [
        {"step": step, "epoch": step / 40, "loss": chance * (1 + off), "chance": chance, "lr": rate + rises * step}
        for step in range(10, steps + 1, 10)
    ]


def test_a_loss_that_stays_at_chance_is_told_before_the_run_is_over() -> None:
    told = [names(alarms(at_chance(steps))) for steps in range(10, 200, 10)]
    assert told == [[]] * 4 + [["stuck at chance"]] * 15
    assert names(alarms([*healthy(100), *at_chance(160)[10:]])) == ["stuck at chance"]


def test_swav_that_collapsed_is_told_after_eighty_steps() -> None:
    """As it went: CIFAR's images, batch 128, the paper's optimizer, 100 prototypes."""
    losses = [4.8627, 4.6938, 4.6266, 4.6161, 4.6103, 4.6086, 4.6082, 4.6078, 4.6076]
    rates = [0.0171, 0.03, 0.0294, 0.0281, 0.0262, 0.0238, 0.021, 0.0179, 0.0146]
    lines = [
        {"step": 9 * i, "loss": loss, "chance": 4.6052, "lr": rate}
        for i, (loss, rate) in enumerate(zip(losses, rates, strict=True), 1)
    ]
    assert [names(alarms(lines[:n])) for n in range(10)] == [[]] * 9 + [["stuck at chance"]]


@pytest.mark.parametrize("change", [{"off": 0.005}, {"off": -0.005}, {"rises": 1e-3}])
def test_a_loss_near_chance_is_not_told_early(change: dict[str, float]) -> None:
    """One that is half a per cent away moves, and while the rate rises training has hardly begun."""
    assert not any(alarms(at_chance(steps, **change)) for steps in range(10, 200, 10))


def test_a_loss_that_was_at_chance_and_leaves_it_is_told_no_more() -> None:
    assert alarms([*at_chance(50), *healthy()[5:]]) == []


def test_nothing_is_said_of_a_healthy_run_at_any_time() -> None:
    lines = healthy()
    assert not any(alarms(lines[:n]) for n in range(len(lines) + 1))


@pytest.mark.parametrize(
    ("name", "change", "remedy"),
    [
        ("collapse", {"spread": 0.001, "effective_rank": 1.0}, "--lr at a third"),
        ("dimensional collapse", {"effective_rank": 3.0}, "milder --views"),
        ("stuck at chance", {"loss": 6.19}, "nearfar views"),
        ("exploding gradient", {"gradient_norm": 1e4}, "--clip 1"),
        ("input starvation", {"input_share": 0.8}, "smaller --size"),
        ("stuck at the margin", {"loss": 0.2015}, "milder mining"),
        ("too easy", {"accuracy": 96.0}, "nearfar views"),
        ("few positives", {"with_positive": 0.03}, "larger --batch"),
    ],
)
def test_each_alarm_has_its_sign(name: str, change: dict[str, float], remedy: str) -> None:
    lines = healthy()
    from_step = 800 if name in ("collapse", "dimensional collapse", "exploding gradient") else 0
    ill = [line | {k: v for k, v in change.items() if k in line and line["step"] > from_step} for line in lines]
    if name == "exploding gradient":
        ill = ill[:83]  # it has just begun
    assert names(alarms(ill)) == [name]
    assert remedy in alarms(ill)[0].text


@pytest.mark.parametrize("name", ["step", "loss", "spread", "effective_rank", "gradient_norm", "chance", "margin"])
def test_numbers_that_are_none_are_passed_over(name: str) -> None:
    """The journal writes null where a number was not finite, at any time of a run."""
    lines: list[dict[str, Any]] = [dict(line) for line in healthy()]
    for i in (0, 3, 40, len(lines) - 1):
        lines[i][name] = None if i % 2 else math.nan
    assert alarms(lines) == []
    assert alarms([line | {name: None} for line in lines]) == []


def test_a_gradient_that_was_zero_has_not_exploded() -> None:
    lines = [line | {"gradient_norm": 0.0 if line["step"] < 500 else 1.0} for line in healthy()]
    assert not any(alarms(lines[:n]) for n in range(len(lines) + 1))


def test_a_network_that_was_narrow_from_the_start_has_not_collapsed() -> None:
    lines = [line | ({"spread": 0.015} if "spread" in line else {}) for line in healthy()]
    assert alarms(lines) == []


def test_a_loss_that_only_passes_the_margin_is_not_stuck_there() -> None:
    lines = [line | {"loss": 0.2 + 0.05 * math.sin(line["step"] / 50)} for line in healthy()]
    assert not any(alarms(lines[:n]) for n in range(len(lines) + 1))
    fallen = [line | {"loss": 0.2 if line["step"] < 500 else 0.19} for line in healthy()]
    assert names(alarms(fallen[:40])) == ["stuck at the margin"]
    assert alarms(fallen) == []


def test_a_judge_of_a_long_run_keeps_no_more_than_of_a_short_one() -> None:
    judge = Judge()
    for step in range(10, 200_000, 10):
        judge.see({"step": step, "loss": 1.0, "gradient_norm": 1.0, "input_share": 0.1, "spread": 0.5})
    assert len(judge.norms) == USUAL
    assert len(judge.ends) == 2
    assert len(judge.shares) == 5


def test_readings_of_known_representations() -> None:
    z = torch.eye(8).repeat(2, 1)  # two equal views of 8 samples, all at right angles
    numbers = readings([z], 8)
    assert numbers["effective_rank"] == pytest.approx(8)
    assert numbers["accuracy"] == 100
    assert numbers["alignment"] == 0
    assert numbers["uniformity"] == pytest.approx(-4)  # all squared distances are 2
    same = readings([torch.ones(8, 5), torch.ones(8, 5)], 8)
    assert (same["spread"], same["uniformity"]) == pytest.approx((0, 0), abs=1e-6)
    assert same["effective_rank"] == pytest.approx(1)


def test_readings_do_not_mind_how_the_views_came() -> None:
    a, b = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    assert readings([torch.cat([a, b])], 16) == readings([a, b], 16)
    assert "accuracy" not in readings([a], 16)
    assert "accuracy" not in readings([a, torch.randn(16, 4)], 16)
    assert readings([], 16) == readings([a[:5]], 16) == {}
    assert readings([a / 0, b], 16) == {}


class Pull(Method):
    """Positives are drawn together and nothing keeps the rest apart: what all methods are there to avoid."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Step:
        a, b = (distributed.normalize(h) for h in self.each(self.embed, batch.views))
        return Step(align(a, b) + align(a, b.roll(1, 0)))

    def chance(self, batch: Batch) -> float | None:
        return None


class Plain(nn.Module):
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def run(method: Method, folder: Path, **options: Any) -> list[str]:
    said: list[str] = []
    lr = options.pop("lr", 0.1)
    fit(method, Vectors(), Noise(), optimizer("sgd", method, lr), loop(folder, say=said.append, **options))
    return said


def warnings(said: list[str]) -> list[str]:
    return [line.removeprefix("Warning, ").split(":")[0] for line in said if line.startswith("Warning")]


def test_a_method_without_negatives_collapses_and_is_caught(tmp_path: Path) -> None:
    torch.manual_seed(0)
    said = run(Pull(Plain()), tmp_path, epochs=60)  # pyright: ignore[reportArgumentType]
    assert warnings(said) == ["collapse"], "told once, not every epoch"


def test_a_rate_of_nothing_is_stuck_at_chance(tmp_path: Path) -> None:
    method = make("simclr")
    method.temperature = 1e3  # every candidate is as near as every other
    said = run(method, tmp_path, epochs=60, lr=1e-9)
    assert warnings(said) == ["stuck at chance"]


class Triplet(Method):
    """The other view is to be nearer than the hardest other sample, by a margin."""

    margin = 0.5

    def __init__(self, encoder: Any, *, alike: float) -> None:
        super().__init__(encoder)
        self.alike = alike

    def forward(self, batch: Batch) -> Step:
        # What all samples share drowns what tells them apart: where mining of the hardest leads.
        a, b = (distributed.normalize(h + self.alike) for h in self.each(self.embed, batch.views))
        hardest = (2 - 2 * a @ b.T + 9 * torch.eye(len(a))).amin(1)
        return Step(((a - b).square().sum(1) - hardest + self.margin).clamp(min=0).mean())


@pytest.mark.parametrize(("alike", "told"), [(1e3, ["stuck at the margin"]), (0.0, [])])
def test_a_loss_that_equals_the_margin_is_caught(alike: float, told: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    said = run(Triplet(Plain(), alike=alike), tmp_path, epochs=60, lr=0.02)  # pyright: ignore[reportArgumentType]
    assert warnings(said) == told
    assert {line["margin"] for line in Journal(tmp_path / "metrics.jsonl").read() if "loss" in line} == {0.5}


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_healthy_runs_raise_nothing(name: str, tmp_path: Path) -> None:
    said = run(make(name), tmp_path, epochs=50, lr=0.05)
    assert warnings(said) == []
    assert any(line.startswith("Epoch 50:") for line in said)
    looks = [line for line in Journal(tmp_path / "metrics.jsonl").read() if "spread" in line]
    assert [line["epoch"] for line in looks] == list(range(51))
    most = 32 if name == "moco" else 14
    assert all(1 <= line["effective_negatives"] <= most for line in looks)
    if name == "simclr":  # MoCo's second view passes the slow copy
        assert looks[-1]["accuracy"] > looks[0]["accuracy"]
        assert not any("drift" in line for line in looks)
    else:
        assert all("drift" in line for line in looks[1:])
    assert {name for line in looks for name in line} <= OWN


class Shadow(Triplet):
    """It gives a number of its own the name of a reading."""

    def forward(self, batch: Batch) -> Step:
        return Step(super().forward(batch).loss, {"accuracy": torch.ones(())})


def test_a_number_with_the_name_of_a_reading_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Shadow logs 'accuracy'"):
        run(Shadow(Plain(), alike=0.0), tmp_path, epochs=1)  # pyright: ignore[reportArgumentType]


def test_looking_changes_nothing() -> None:
    method = make("simclr")
    batch = Batch(list(torch.randn(2, 8, 6)), *[torch.arange(8)] * 3)
    method.eval()
    unseen = method(batch).loss
    method.representations = []
    assert torch.equal(method(batch).loss, unseen)
    assert [tuple(h.shape) for h in method.representations] == [(16, Encoder().dim)]
    assert not method.representations[0].requires_grad


def probed(*values: float, knn: bool = True) -> list[dict[str, float]]:
    """Step 0 and later ones, with a probe of 400 samples, or else the share of other views that are found."""
    if knn:
        return [{"step": 100 * i, "knn": value, "knn_samples": 400} for i, value in enumerate(values)]
    return [{"step": 100 * i, "accuracy": value, "candidates": 255} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (probed(80, 60), True),
        (probed(80, 60, 80), False),  # it has come back
        (probed(80, 79), False),
        (probed(80, 90), False),
        (probed(60, 20, knn=False), True),
        (probed(60, 50, knn=False), False),
        ([*probed(80, 85), *probed(60, 20, knn=False)], False),  # labels say that neighbors are better
        (probed(80, 60)[1:], False),  # nothing to compare with
    ],
)
def test_training_that_takes_from_given_weights_is_told(lines: list[dict[str, float]], told: bool) -> None:
    found = alarms(lines, given=True)
    assert names(found) == (["below the given weights"] if told else [])
    assert not alarms(lines)
    assert all(word in found[0].text for word in ("--recipe continue", "--frozen", "--start-pull") if told)
