from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import nearfar
from nearfar import choosing
from nearfar.cli import main
from nearfar.evaluation import scores
from nearfar.evaluation.scores import PREFIX, SCORES
from nearfar.report import choice
from nearfar.run import load
from nearfar.training import checkpoints as writing
from nearfar.training.checkpoints import Checkpoints, read
from nearfar.training.journal import Journal
from nearfar.training.probe import passed
from nearfar.training.saved import by_epoch
from tests.tiny import array_file
from tests.training.test_checkpoints import state
from tests.training.test_job import train
from tests.training.test_loop import equal

KEPT = {"epochs": 5, "keep_every": 2, "keep": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return array_file(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "kept"
    assert train("simclr", data, out, **KEPT)[0]
    return out


def scored(out: Path) -> list[dict[str, Any]]:
    """The scores of each line of the journal that has some, with its epoch."""
    lines = Journal(out / "metrics.jsonl").read()
    named = [{k: v for k, v in line.items() if k.startswith(PREFIX) or k == "epoch"} for line in lines]
    return [line for line in named if len(line) > 1]


def test_checkpoints_of_some_epochs_stay_and_are_scored(run: Path, data: Path) -> None:
    files = sorted(path.name for path in (run / "checkpoints").glob("*"))
    assert files == ["best.pt", "epoch-000002.pt", "epoch-000004.pt", "step-000000015.pt"]
    assert read(run / "checkpoints" / "epoch-000002.pt").keys() == {"step", "epoch", "method"}
    lines = scored(run)
    assert [line["epoch"] for line in lines] == [0, 2, 4, 5]
    names = {f"{PREFIX}{name}" for name in SCORES} - {f"{PREFIX}stability"}
    assert all(names <= line.keys() for line in lines)
    assert [f"{PREFIX}stability" in line for line in lines] == [False, False, True, True]
    opened = load(run, 4)
    kept = read(run / "checkpoints" / "epoch-000004.pt")["method"]
    assert all(torch.equal(value, kept[f"encoder.{name}"]) for name, value in opened.encoder.state_dict().items())
    # All 48 samples were scored, in some order, which RankMe does not depend on.
    rows = passed(opened.encoder, opened.kind.plain(opened.encoder), opened.open(data))
    assert lines[2][f"{PREFIX}rankme"] == pytest.approx(scores.of_rows(rows)["rankme"], rel=1e-4)
    assert type(opened.method).__name__ == "SimCLR"  # with its heads


def test_what_is_kept_changes_no_training_and_a_resumed_run_scores_the_same(
    data: Path, run: Path, tmp_path: Path
) -> None:
    assert not train("simclr", data, tmp_path / "cut", stop=8, **KEPT)[0]
    assert train("simclr", data, tmp_path / "cut", resume=True, **KEPT)[0]
    assert scored(tmp_path / "cut") == scored(run)
    for name in ("epoch-000002.pt", "epoch-000004.pt"):
        assert equal(*(read(out / "checkpoints" / name) for out in (run, tmp_path / "cut")))
    assert train("simclr", data, tmp_path / "none", epochs=5)[0]
    last = [(out / "encoder.safetensors").read_bytes() for out in (run, tmp_path / "cut", tmp_path / "none")]
    assert last[0] == last[1] == last[2]


def test_keeping_may_begin_and_change_when_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    assert not train("simclr", data, tmp_path, stop=4, epochs=5)[0]
    finished, said = train("simclr", data, tmp_path, resume=True, epochs=5, keep_every=2)
    assert finished
    assert any(line.startswith("keep_every was 0 and is 2") for line in said)
    assert list(Checkpoints(tmp_path / "checkpoints").kept()) == [2, 4]
    assert [line["epoch"] for line in scored(tmp_path)] == [2, 4, 5]
    with pytest.raises(ValueError, match="--keep-every 9 would keep no checkpoint of --epochs 5"):
        train("simclr", data, tmp_path / "other", epochs=5, keep_every=9)


def test_a_kill_before_the_step_is_written_loses_no_kept_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    saved, written, whole = Checkpoints(tmp_path), [], writing.replace

    def killed(path: Path, write: Any) -> Path:
        written.append(path.name)
        if path.name.startswith("step-"):
            raise KeyboardInterrupt
        return whole(path, write)

    monkeypatch.setattr(writing, "replace", killed)
    saved.save(6, state(6), best=True, epoch=2)
    with pytest.raises(KeyboardInterrupt):
        saved.wait()
    assert written == ["epoch-000002.pt", "best.pt", "step-000000006.pt"]
    assert read(tmp_path / "epoch-000002.pt")["epoch"] == 2
    monkeypatch.setattr(writing, "replace", whole)
    for step, epoch in ((6, 2), (12, 4), (18, 6), (12, 4)):  # the last after the two before it were damaged
        saved.save(step, state(step), epoch=epoch)
    assert list(saved.kept()) == [2, 4]


def test_commands_take_a_kept_checkpoint_and_name_those_that_there_are(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    assert main(["embed", str(copy), str(data), "--checkpoint", "3"]) == 2
    assert "no checkpoint of epoch 3: there are those of the epochs 2, 4, 5; and last" in capsys.readouterr().err
    table = load(copy, 2).evaluate(data)
    assert table["protocol"]["checkpoint"] == 2
    assert table["title"].endswith("images.npz, the checkpoint of epoch 2")
    assert list(by_epoch(copy, load(copy).config)) == [2, 4, 5]
    assert torch.equal(load(copy, 5).embed(data), load(copy).embed(data))
    (copy / "checkpoints" / "epoch-000002.pt").write_bytes(b"no")
    assert main(["export", str(copy), "--checkpoint", "2", "--out", str(tmp_path / "out")]) == 2
    assert "epoch-000002.pt' is damaged" in capsys.readouterr().err


def test_auto_is_what_the_validated_score_says(
    run: Path, data: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "validated", lambda: {"measured": False, "scores": []})
    assert load(run, "auto").checkpoint == "last"
    monkeypatch.setattr(choice, "validated", lambda: {"measured": True, "scores": ["rankme"]})
    values = {line["epoch"]: line[f"{PREFIX}rankme"] for line in scored(run)[1:]}
    best = max(values, key=lambda epoch: values[epoch])
    assert load(run, "auto").checkpoint == best
    assert main(["checkpoints", str(run)]) == 0
    shown = capsys.readouterr().out
    assert f"--checkpoint auto is epoch {best:.0f}: RankMe find" in shown
    assert all(f"{value:.3f}" in shown for value in values.values())
    assert "kNN (%)" in shown
    assert main(["checkpoints", str(run), str(data)]) == 0
    assert "'images.npz'" in capsys.readouterr().out
    # Of equals the last is taken.
    lines = [{"step": 3 * e, "epoch": float(e), f"{PREFIX}rankme": r} for e, r in ((1, 2.0), (2, 5.0), (3, 5.0))]
    assert choice.choice(lines, [1, 2, 3]) == choice.Choice(3, ["RankMe"])
    assert choice.choice(lines, [1, 2]) == choice.Choice(2, ["RankMe"])
    assert choice.choice(lines, [1]) is None


def test_a_checkpoint_that_is_no_good_does_not_hide_the_others(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    collapsed = read(copy / "checkpoints" / "epoch-000002.pt")
    for name, value in collapsed["method"].items():
        if name.startswith("encoder.") and value.is_floating_point():
            value.zero_()
    writing.write(copy / "checkpoints" / "epoch-000002.pt", collapsed)
    (copy / "checkpoints" / "epoch-000004.pt").write_bytes(b"no")
    table = choosing.checkpoints(load(copy), str(data))
    known = {row["name"]: "kNN (%)" in row["values"] for row in table["rows"]}
    assert known == {"epoch 2": False, "epoch 4": False, "epoch 5": True}
    assert main(["checkpoints", str(copy), str(data)]) == 0
    shown = capsys.readouterr().out
    assert "epoch 2 is not measured" in shown
    assert "epoch-000004.pt' is damaged" in shown


def test_a_run_without_kept_checkpoints_says_how_to_have_some(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("simclr", data, tmp_path, epochs=1)[0]
    assert main(["checkpoints", str(tmp_path)]) == 2
    assert "--keep-every EPOCHS" in capsys.readouterr().err
    assert load(tmp_path, "auto").checkpoint == "last"


def test_samples_without_maps_or_labels_are_scored_too(tmp_path: Path) -> None:
    rows = {f"c{i}": torch.randn(60, generator=torch.Generator().manual_seed(i)).tolist() for i in range(4)}
    settings = {"epochs": 2, "batch": 16, "keep_every": 1}
    made = nearfar.fit(rows, "simclr", out=tmp_path / "run", kind="table", say=lambda text: None, **settings)
    lines = scored(made.path)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert f"{PREFIX}lidar" in lines[1]
    assert f"{PREFIX}dense" not in lines[1]
