from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import nearfar
from nearfar.cli import main
from nearfar.errors import NotInstalled, UserError
from nearfar.files import read_json
from nearfar.training.journal import Journal
from nearfar.training.loggers import LOGGERS, asked_for, telling
from tests.tiny import SETTINGS, array_file

QUIET = {"say": lambda text: None, **SETTINGS}
Calls = list[tuple[str, Any, Any]]


class StandIns:
    """The packages wandb, mlflow and trackio, as far as they are called; what they are called with is kept.

    failing: the one of them that fails whenever it is told a number.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, Calls] = {"wandb": [], "mlflow": [], "trackio": []}
        self.failing = ""
        self.runs: dict[str, str] = {}  # of mlflow, by key
        for name in self.calls:
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None, origin="a stand-in")
            monkeypatch.setitem(sys.modules, name, module)
        sys.modules["wandb"].init = lambda **given: self.began("wandb", given)  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules["trackio"].init = lambda **given: self.began("trackio", given)  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules["mlflow"].MlflowClient = lambda tracking_uri: self.client(tracking_uri)  # pyright: ignore[reportAttributeAccessIssue]

    def tell(self, name: str, act: str, value: Any) -> None:
        if name == self.failing and act not in ("begin", "end"):
            raise ConnectionError(f"{name} is not there\nmore")
        self.calls[name].append((act, *value) if isinstance(value, tuple) else (act, value, None))

    def began(self, name: str, given: dict[str, Any]) -> SimpleNamespace:
        self.tell(name, "begin", (given, None))
        return SimpleNamespace(
            define_metric=lambda *words, **named: None,
            log=lambda numbers, step=None: self.tell(name, "log", (numbers.get("step", step), numbers)),
            finish=lambda **given: self.tell(name, "end", (given, None)),
        )

    def client(self, uri: str) -> SimpleNamespace:
        def create(experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
            self.runs[tags["nearfar"]] = f"run {len(self.runs)}"
            return found(self.runs[tags["nearfar"]])

        def found(number: str) -> SimpleNamespace:
            return SimpleNamespace(info=SimpleNamespace(run_id=number))

        self.tell("mlflow", "begin", ({"uri": uri}, None))
        return SimpleNamespace(
            get_experiment_by_name=lambda name: None,
            create_experiment=lambda name: name,
            search_runs=lambda which, of: [found(run) for key, run in self.runs.items() if f"'{key}'" in of],
            create_run=create,
            update_run=lambda run, status: self.tell("mlflow", "again", (run, status)),
            log_param=lambda run, name, value: self.tell("mlflow", "setting", (name, value)),
            log_metric=lambda run, name, value, step: self.tell("mlflow", "log", (step, {name: value})),
            set_terminated=lambda run, status: self.tell("mlflow", "end", (status, run)),
        )

    def steps(self, name: str, number: str) -> list[tuple[int, float]]:
        return [(a, b[number]) for act, a, b in self.calls[name] if act == "log" and number in b]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(monkeypatch)


def told(run: Path, number: str) -> list[tuple[int, float]]:
    """Steps and values of a number, by the journal."""
    return [(int(line["step"]), line[number]) for line in Journal(run / "metrics.jsonl").read() if number in line]


def shown(run: Path, number: str) -> list[tuple[int, float]]:
    """The same as TensorBoard's own reader has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        read = events.EventAccumulator(str(run / "tensorboard")).Reload()
    return [(event.step, event.value) for event in read.Scalars(number)]


class Stopped(Exception):
    pass


def test_a_run_that_goes_on_goes_on_in_the_same_logs(tmp_path: Path, stand_ins: StandIns) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install nearfar[dev])")
    names = [*LOGGERS]
    data, out, heard = array_file(tmp_path / "data.npz"), tmp_path / "run", []

    def stop(step: int, numbers: dict[str, Any]) -> None:
        heard.append((step, numbers))
        if step == 6 and "knn" in numbers:  # behind the last checkpoint, which is of step 3
            raise Stopped

    with pytest.raises(Stopped):
        nearfar.fit(str(data), out=out, log=",".join(names), callback=stop, **QUIET)
    lines = [({k: v for k, v in line.items() if k != "step"}) for line in Journal(out / "metrics.jsonl").read()]
    assert [numbers for _, numbers in heard] == lines
    assert heard[0][0] == 0
    heard.clear()
    nearfar.fit(str(data), out=out, log=names, resume=True, callback=lambda *given: heard.append(given), **QUIET)
    assert [step for step, _ in heard] == [6, 6]
    for number in ("loss", "knn"):
        assert [step for step, _ in shown(out, number)] == [step for step, _ in told(out, number)]
        values = [value for _, value in told(out, number)]
        assert [value for _, value in shown(out, number)] == pytest.approx(values, rel=1e-6)  # float32
        again = [one for one in told(out, number) if one[0] > 3]
        for name in ("wandb", "mlflow", "trackio"):  # which are told the steps since the checkpoint twice
            assert [step for step, _ in stand_ins.steps(name, number)] == [s for s, _ in told(out, number) + again]
            assert stand_ins.steps(name, number)[-1] == again[-1]
    first, second = (given for act, given, _ in stand_ins.calls["wandb"] if act == "begin")
    assert first["id"] == second["id"]
    assert (first["mode"], first["resume"], first["dir"]) == ("offline", "allow", str(out))
    assert first["config"]["method"] == "simclr"
    assert first["config"]["temperature"] == second["config"]["temperature"]
    assert [given for act, given, _ in stand_ins.calls["wandb"] if act == "end"] == [{"exit_code": 1}, {"exit_code": 0}]
    assert list(stand_ins.runs.values()) == ["run 0"]
    assert [given for act, given, _ in stand_ins.calls["mlflow"] if act == "end"] == ["KILLED", "FINISHED"]
    assert stand_ins.calls["mlflow"][0][1] == {"uri": (out / "mlruns").as_uri()}
    assert len({given["name"] for act, given, _ in stand_ins.calls["trackio"] if act == "begin"}) == 1
    texts = [b for calls in stand_ins.calls.values() for act, _, b in calls if act == "log"]
    assert all(isinstance(value, float) for numbers in texts for name, value in numbers.items() if name != "step")


def test_a_program_that_fails_is_named_once_and_changes_nothing(tmp_path: Path, stand_ins: StandIns) -> None:
    data, said = array_file(tmp_path / "data.npz"), []
    stand_ins.failing = "wandb"
    how = QUIET | {"say": said.append}
    run = nearfar.fit(str(data), out=tmp_path / "a", log="wandb,trackio", **how)
    assert [text for text in said if "--log wandb failed (ConnectionError: wandb is not there)" in text] != []
    assert sum("--log" in text for text in said) == 1
    assert stand_ins.steps("trackio", "loss") == told(run.path, "loss")
    plain = nearfar.fit(str(data), out=tmp_path / "b", **QUIET)
    wanted, known = (one.encoder.state_dict() for one in (plain, run))
    assert all(known[name].equal(value) for name, value in wanted.items())
    assert read_json(run.path / "environment.json", "")["finished"]


def test_what_is_not_a_number_is_told_to_no_program(stand_ins: StandIns, tmp_path: Path) -> None:
    out = nearfar.fit(str(array_file(tmp_path / "data.npz")), out=tmp_path / "run", **QUIET).path
    heard: list[Any] = []
    with telling(["trackio"], lambda *given: heard.append(given), out, 0, print) as tell:
        tell(3, {"loss": math.nan, "lr": 0.5, "knn_right": "1x4:8", "count": 2})
    assert stand_ins.calls["trackio"][1] == ("log", 3, {"lr": 0.5, "count": 2.0})
    assert heard[0][0] == 3
    assert set(heard[0][1]) == {"loss", "lr", "knn_right", "count"}
    stand_ins.calls["mlflow"].clear()
    sys.modules["mlflow"].MlflowClient = lambda tracking_uri: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match="--log mlflow cannot begin"), telling(["mlflow"], None, out, 0, print):
        pass


def test_what_is_missing_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = array_file(tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()  # as wandb leaves one where it ran
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("nearfar.training.loggers.find_spec", lambda name: ModuleSpec(name, None, origin=None))
    for name in LOGGERS:
        with pytest.raises(NotInstalled, match=f"pip install {name}"):
            asked_for(name)
    assert main(["train", "simclr", str(data), "--log", "tensorboard,wandb", "--out", "run"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match=r"'tensorbord' is none of .*did you mean tensorboard"):
        asked_for("tensorbord")
    assert asked_for(" , ") == []


def test_a_real_store_of_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow)")
    out = nearfar.fit(str(array_file(tmp_path / "data.npz")), out=tmp_path / "run", log="mlflow", **QUIET).path
    client = mlflow.MlflowClient(tracking_uri=(out / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("nearfar").experiment_id])
    assert run.info.status == "FINISHED"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == told(out, "loss")


def test_a_real_offline_run_of_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (pip install wandb)")
    out = nearfar.fit(str(array_file(tmp_path / "data.npz")), out=tmp_path / "run", log="wandb", **QUIET).path
    (file,) = (out / "wandb").glob("offline-run-*/*.wandb")
    written = file.read_bytes()  # in which numbers stand as text
    assert [json.dumps(value).encode() in written for _, value in told(out, "loss")] == [True, True]
