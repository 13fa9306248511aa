from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.cli import main
from nearfar.run import Run, fit
from nearfar.studies import transfer
from nearfar.studies.across_sets import KNN, LINEAR, TUNED
from nearfar.studies.asked import Transfer
from nearfar.studies.transfer import Transferred
from tests.tiny import array_file, evaluated, tiny_images

SETTINGS: dict[str, Any] = {"encoder": "conv4", "epochs": 1, "batch": 16, "views": "drawing", "probe_every": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/a and runs/b, of two seeds on gray images, runs/c on color ones; sets/ of which not all can be measured."""
    root = tmp_path_factory.mktemp("transfer")
    (root / "sets").mkdir()
    gray, label = tiny_images(48), np.arange(48) % 4
    array_file(root / "sets" / "bars.npz", 48)
    np.savez(root / "sets" / "color.npz", images=np.stack([gray, 255 - gray, gray // 2], -1), labels=label)
    np.savez(root / "sets" / "one.npz", images=gray, labels=np.zeros(48, int))
    np.savez(root / "sets" / "unlabeled.npz", images=gray)
    rows = "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20))
    (root / "sets" / "table.csv").write_text("a,b,label\n" + rows)
    for name, data, seed in (("a", "bars", 0), ("b", "bars", 1), ("c", "color", 0)):
        path = root / "sets" / f"{data}.npz"
        fit(str(path), out=root / "runs" / name, seed=seed, say=lambda text: None, **SETTINGS)
    return root


def study(place: Path, out: Path, *runs: str, to: str = "sets", **given: Any) -> tuple[Transferred, list[str]]:
    said: list[str] = []
    asked: dict[str, Any] = {"shots": ()} | given
    ask = Transfer(runs=tuple(str(place / "runs" / run) for run in runs), to=str(place / to), **asked)
    return Transferred(ask, out, say=said.append), said


def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What evaluations are of, as they come."""
    done, real = [], transfer.on_features

    def counted(features: Any, data: Any, ask: Any) -> Any:
        done.append(data.digest)
        return real(features, data, ask)

    monkeypatch.setattr(transfer, "on_features", counted)
    return done


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of one measure, by one strength."""
    real = transfer.evaluate
    monkeypatch.setattr(transfer, "RIDGE_STRENGTHS", (1.0,))
    monkeypatch.setattr(transfer, "evaluate", lambda *given, **options: real(*given, **options | {"scaled": (False,)}))


def test_what_cannot_be_measured_is_said_and_the_rest_is(place: Path, tmp_path: Path) -> None:
    made, said = study(place, tmp_path, "a", "c")
    assert made.answer()
    summary = made.summary
    assert set(summary["cells"]["a"]) == set(summary["cells"]["raw pixels"]) == {"bars", "color"}
    assert summary["baselines"] == ["raw pixels", "untrained conv4 of a", "untrained conv4 of c"]
    assert summary["ranked_sets"] == ["bars", "color"]
    refused = summary["refused"]
    assert set(refused) == {"one", "table", "unlabeled"}
    assert "every label is '0'" in refused["one"]["a"]
    assert "is of the kind image" in refused["table"]["c"]
    assert "no labels are known" in refused["unlabeled"]["a"]
    assert sum("on unlabeled" in text for text in said) == 1
    notes = [text for text in said if "read as" in text]
    assert [text.split(":")[0] for text in notes] == ["bars", "color", "one"]
    assert "as color" in notes[0]
    assert "as gray" in notes[1]
    assert summary["seen"] == {"bars": {"a": [48, 48, ""]}, "color": {"c": [48, 48, ""]}}
    page = (tmp_path / "transfer.html").read_text(encoding="utf-8")
    assert all(f">{text}<" in page for text in ("a", "untrained conv4 of c", "raw pixels", "linear (%)"))
    assert page.count('class="number best"') == 4  # of two data sets by two measures
    with open(tmp_path / "transfer.csv", encoding="utf-8") as file:
        assert len(file.readlines()) == 1 + 5 * 2 * 2  # rows by data sets by measures


def test_numbers_are_those_of_evaluate(place: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text(f"bars: {place}/sets/bars.npz\n")
    made, _ = study(place, tmp_path / "out", "a", to=str(sets), shots=(5,))
    assert made.answer()
    run = Run(place / "runs" / "a")
    table = {row["name"]: row["values"] for row in run.evaluate(str(place / "sets" / "bars.npz"))["rows"]}
    own = transfer.own_result(run)
    assert own == {
        "data": "bars.npz",
        "values": {name: cell["value"] for name, cell in table["trained encoder"].items()},
    }
    evaluated(run.path).unlink()
    assert transfer.own_result(run) is None
    for ours, theirs in (("a", "trained encoder"), ("untrained conv4", "untrained encoder"), ("raw pixels",) * 2):
        cells = made.summary["cells"][ours]["bars"]
        for title, name in ((LINEAR, LINEAR), (KNN, KNN), ("5 labels a class (%)", "5 labels (%)")):
            assert [cells[title][end] for end in ("mean", "low", "high")] == [
                table[theirs][name][end] for end in ("value", "low", "high")
            ]


def test_what_is_tested_is_known_by_name(place: Path) -> None:
    """Two runs that cannot read different files of a class have other samples at the same positions."""
    run = Run(place / "runs" / "a")
    whole = run.open((tiny_images(48), np.arange(48) // 12))
    parts = [whole.subset([i for i in range(48) if i != left]) for left in (0, 4, 0)]
    first, second, again = (transfer.opened(run, some, labels=None, label_column="", seed=0) for some in parts)
    assert torch.equal(first.tested, second.tested)
    assert torch.equal(first.samples.label, second.samples.label)
    assert first.tests == again.tests != second.tests


def test_own_results_are_of_the_checkpoint_that_is_asked_for(place: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(place / "runs" / "a", tmp_path / "a"))
    table = run.evaluate(str(place / "sets" / "bars.npz"))
    assert transfer.own_result(run) is not None
    table["protocol"]["checkpoint"] = 1
    run.write(table["name"], table)
    assert transfer.own_result(run) is None


def test_a_cell_is_measured_once(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, out = measured(monkeypatch), tmp_path / "out"
    quick(monkeypatch)
    sets = tmp_path / "sets.csv"
    sets.write_text(f"name,data,labels\nbars,{place}/sets/bars.npz,\ncolor,{place}/sets/color.npz,\n")
    call = ["transfer", str(place / "runs" / "a"), "--to", str(sets), "--out", str(out), "--shots", "1"]
    real = transfer.replace_json

    def stopped(path: Path, *given: Any, **options: Any) -> Path:
        if len(done) == 3:
            raise KeyboardInterrupt
        return real(path, *given, **options)

    monkeypatch.setattr(transfer, "replace_json", stopped)
    assert main(call) == 130
    assert "Go on with: nearfar transfer" in capsys.readouterr().out
    assert len(list((out / "cells").iterdir())) == 2
    monkeypatch.setattr(transfer, "replace_json", real)
    assert main(call) == 0
    first = capsys.readouterr().out
    assert len(done) == 3 + 4  # three rows of two data sets, the one that was stopped again
    whole = json.loads((out / "transfer.json").read_text())["summary"]
    assert main(call) == 0
    assert len(done) == 7
    assert json.loads((out / "transfer.json").read_text())["summary"] == whole
    assert capsys.readouterr().out.partition("run ")[2] == first.partition("run ")[2]

    call.insert(1, str(place / "runs" / "b"))  # another run: its own cells, and another seed's random weights
    assert main(call) == 0
    assert len(done) == 7 + 2 + 2  # untrained is that of the first run
    labels = tmp_path / "labels.csv"
    labels.write_text("index,label\n" + "".join(f"{i},{i % 2}\n" for i in range(48)))
    sets.write_text(f"name,data,labels\nbars,{place}/sets/bars.npz,{labels}\ncolor,{place}/sets/color.npz,\n")
    assert main(call) == 0
    assert len(done) == 11 + 4  # all rows of the data set whose labels are others
    damaged = next(iter((out / "cells").iterdir()))
    damaged.write_text(damaged.read_text()[:-9])
    assert main(call) == 0
    assert "is damaged" in capsys.readouterr().out
    assert len(list((out / "cells").iterdir())) == 6 + 4 + 4


def test_cells_are_known_by_weights_and_not_by_names(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = measured(monkeypatch)
    sets = tmp_path / "sets.yaml"
    sets.write_text(f"bars: {place}/sets/bars.npz\n")
    assert study(place, tmp_path / "out", "a", to=str(sets))[0].answer()
    assert len(done) == 3
    shutil.copytree(place / "runs" / "a", tmp_path / "renamed")
    ask = Transfer(runs=(str(tmp_path / "renamed"),), to=str(sets), shots=())
    made = Transferred(ask, tmp_path / "out", say=lambda text: None)
    assert made.answer()
    assert len(done) == 3
    assert list(made.summary["cells"]["renamed"]) == ["bars"]


def test_networks_are_tuned_where_it_is_asked_for(place: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text(f"bars: {place}/sets/bars.npz\n")
    made, _ = study(place, tmp_path / "out", "a", to=str(sets), finetune=True, tuning=2)
    assert made.answer()
    assert made.summary["titles"] == [LINEAR, KNN, TUNED]
    tuned = made.cells["a"]["bars"][TUNED]
    assert tuned["protocol"]["test"] == 10  # the first of five folds
    assert tuned["protocol"]["epochs"] == 2
    assert TUNED in made.cells["untrained conv4"]["bars"]
    assert TUNED not in made.cells["raw pixels"]["bars"]


def test_splits_of_a_list_are_kept_and_labels_of_other_names_are_found(place: Path, tmp_path: Path) -> None:
    labels = tmp_path / "l.csv"
    rows = "".join(f"{i},{i % 4},{'test' if i < 16 else ''}\n" for i in range(48))
    labels.write_text(f"index,kind,split\n{rows}")
    sets = tmp_path / "sets.csv"
    sets.write_text(f"name,data,labels,label_column\nbars,{place}/sets/bars.npz,{labels},kind\n")
    made, _ = study(place, tmp_path / "out", "a", to=str(sets))
    assert made.answer()
    assert made.cells["a"]["bars"][LINEAR]["protocol"]["test"] == 16
    assert made.summary["seen"] == {"bars": {"a": [16, 16, ""]}}


def test_nothing_that_can_be_measured_is_an_error(place: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.csv"
    sets.write_text(f"data\n{place}/sets/one.npz\n")
    made, said = study(place, tmp_path / "out", "a", to=str(sets))
    with pytest.raises(ValueError, match="no run could be measured"):
        made.answer()
    assert "every label is '0'" in said[-1]


EARLY = {
    "no run": (["nowhere"], "sets", "is not a run directory"),
    "twice": (["a", "a"], "sets", "is named twice"),
    "no data": (["a"], "nowhere", "there is nothing at"),
    "nothing fits": (["a"], "table.csv", "no run can be measured on any data set"),
    "tower": (["a"], "sets", "no run has an encoder of several towers"),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_is_wrong_is_said_before_anything_is_opened(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: Any, **given: Any) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(Run, "open", opened)
    runs, to, said = EARLY[name]
    (tmp_path / "table.csv").write_text(f"name,data\ntable,{place}/sets/table.csv\n")
    to = str(tmp_path / to) if to == "table.csv" else to
    made, _ = study(place, tmp_path / "out", *runs, to=to, tower="image" if name == "tower" else "")
    with pytest.raises(ValueError, match=said):
        made.answer()
    assert not list((tmp_path / "out").glob("*"))
