"""What one does with a run: embed, evaluate, report, export."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.cli import main
from nearfar.evaluation import attentive
from nearfar.owner import owned
from nearfar.run import load
from tests.tiny import FLAGS, array_file, contents, evaluated, folder, tiny_images


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that a test may write to."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_embed_writes_a_row_a_sample(copy: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "embeddings.npz"
    assert main(["embed", str(copy), str(data)]) == 0
    dim = load(copy).encoder.dim
    assert capsys.readouterr().out == f"48 samples x {dim} numbers (features, names, label, classes): {path}\n"
    with np.load(path, allow_pickle=False) as held:
        assert held["features"].shape == (48, dim)
        assert held["features"].dtype == np.float32
        np.testing.assert_array_equal(held["features"], load(copy).embed(data).numpy())
        assert held["names"].tolist() == [str(i) for i in range(48)]
        assert held["label"].tolist() == [i % 4 for i in range(48)]
        assert held["classes"].tolist() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("half", [False, True])
def test_patches_writes_the_map_behind_each_row(
    copy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], half: bool
) -> None:
    out, run = tmp_path / "maps.npz", load(copy)
    assert main(["embed", str(copy), str(data), "--patches", "--out", str(out), *(["--half"] if half else [])]) == 0
    maps = run.maps(data)
    size = maps.numel() * (2 if half else 4)
    assert f"float{16 if half else 32}: {size / 2**20:.1f} MiB" in capsys.readouterr().out.splitlines()[0]
    assert 0 <= out.stat().st_size - size < 48 * run.encoder.dim * 4 + 20_000
    with np.load(out, allow_pickle=False) as held:
        assert held.files == ["features", "names", "label", "classes", "maps"]
        assert held["maps"].dtype == (np.float16 if half else np.float32)
        np.testing.assert_array_equal(held["maps"], maps.permute(0, 2, 3, 1).numpy().astype(held["maps"].dtype))
        np.testing.assert_array_equal(held["features"], run.embed(data).numpy())


def test_patches_without_maps_are_refused_before_data_are_opened(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--encoder", "0+0:conv4", "--epochs", "1", "--batch", "48", "--probe-every", "0", "--views", "drawing")
    out = tmp_path / "two"
    assert main(["train", "simclr", str(data), *few, "--out", str(out)]) == 0
    for flags, why in ((["--patches"], "0+0:conv4 has no maps"), (["--half"], "--patches")):
        capsys.readouterr()
        assert main(["embed", str(out), "nowhere", *flags]) == 2
        assert why in capsys.readouterr().err
    assert main(["train", "densecl", "nowhere.npz", "--encoder", "0+0:conv4", "--kind", "image"]) == 2
    assert "'densecl' learns what is where" in capsys.readouterr().err


def test_embed_overwrites_nothing(copy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.npz"
    out.write_text("precious")
    assert main(["embed", str(copy), str(data), "--out", str(out)]) == 2
    assert f"{str(out)!r} is there already: name another --out" in capsys.readouterr().err
    assert out.read_text() == "precious"


def test_embed_of_the_best_checkpoint(copy: Path, data: Path, tmp_path: Path) -> None:
    last, best = tmp_path / "last.npz", tmp_path / "best.npz"
    for path in (last, best):
        assert main(["embed", str(copy), str(data), "--checkpoint", path.stem, "--out", str(path)]) == 0
    assert np.load(last)["features"].shape == np.load(best)["features"].shape
    (copy / "checkpoints" / "best.pt").unlink()
    assert main(["embed", str(copy), str(data), "--checkpoint", "best", "--out", str(tmp_path / "new.npz")]) == 2


def test_embed_leaves_out_what_cannot_be_read(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 30, bad=1)
    assert main(["embed", str(copy), str(photos)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("29 samples")
    assert "1 file could not be read: no row, such as of '000.png'" in said


def test_evaluate_writes_and_prints_a_table(copy: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(copy), str(data)]) == 0
    said = capsys.readouterr().out
    assert str(evaluated(copy)) in said
    assert str(copy / "report.html") in said
    for name in ("raw pixels", "untrained encoder", "trained encoder"):
        assert name in said
    table = json.loads((evaluated(copy)).read_text())
    assert [row["name"] for row in table["rows"]] == ["raw pixels", "untrained encoder", "trained encoder"]
    assert "48 of the 48 tested samples were in pre-training" in " ".join(table["note"].split())
    assert table["title"] in (copy / "report.html").read_text()


def test_evaluate_on_a_test_split(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.npz"
    split = np.array(["test"] * 20 + ["train"] * 40)
    np.savez(path, images=255 - tiny_images(60), labels=np.arange(60) % 4, split=split)
    assert main(["evaluate", str(copy), str(path)]) == 0
    table = json.loads((evaluated(copy)).read_text())
    assert "the test split of 20 samples" in table["note"]
    assert "No tested sample was in pre-training." in table["note"]


def test_evaluate_asks_for_labels(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(copy), str(array_file(tmp_path / "bare.npz", labeled=False))]) == 2
    assert "give --labels FILE, or --labels folders" in capsys.readouterr().err


def test_report_with_and_without_data(copy: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out == f"Report: {copy / 'report.html'}\n"
    assert (copy / "report.html").exists()
    assert main(["report", str(copy), "--data", str(data)]) == 0
    made = {path.stem for path in (copy / "results").iterdir()}
    assert made == {"map", "neighbors", "copies", "outliers", "look"}
    for flag in (["--labels", "x.csv"], ["--label-column", "y"], ["--device", "cpu"], ["--batch", "9"]):
        assert main(["report", str(copy), *flag]) == 2
        assert f"{flag[0]} {flag[1] if flag[1] == '9' else repr(flag[1])} is of --data" in capsys.readouterr().err


def test_look_writes_a_page_and_says_what_it_could_not(
    copy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["look", str(copy), str(data), "--kind", "kernels", "attention"]) == 0
    said = capsys.readouterr().out
    assert "attention is not possible here: its network has no attention" in said
    assert f"Page: {copy / 'look.html'}" in said
    page = (copy / "look.html").read_text(encoding="utf-8")
    assert 'id="look-kernels"' in page
    assert "<script" not in page
    assert (copy / "results" / "look.json").exists()
    out = tmp_path / "mine.html"
    out.write_text("precious")
    assert main(["look", str(copy), str(data), "--out", str(out)]) == 2
    assert out.read_text() == "precious"
    assert main(["look", str(copy), str(data), "--kind", "clusters", "--out", str(out), "--force"]) == 0
    assert 'id="look-clusters"' in out.read_text(encoding="utf-8")
    kept = json.loads((copy / "results" / "look.json").read_text())["sections"]
    assert [section["kind"] for section in kept] == ["kernels", "attention"]


def test_the_attentive_probe_stands_beside_the_linear_one(
    copy: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attentive, "FEWEST", 2)
    monkeypatch.setattr(attentive, "EPOCHS", 1)
    assert main(["evaluate", str(copy), str(data), "--attentive"]) == 0
    assert "attentive (%)" in capsys.readouterr().out
    (path,) = (copy / "results").glob("attentive-*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["kNN (%)", "linear (%)", "attentive (%)"]
    assert [row["name"] for row in table["rows"]] == ["untrained encoder", "trained encoder"]
    assert main(["evaluate", str(copy), str(data), "--attentive", "--test", str(data)]) == 2
    assert "--test" in capsys.readouterr().err


def test_export_loads_without_the_library(copy: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(copy)]) == 0
    said = capsys.readouterr().out
    for name in ("encoder.safetensors", "encoder.json", "encoder.py"):
        assert str(copy / "export" / name) in said
    encode = runpy.run_path(str(copy / "export" / "encoder.py"))["encode"]
    x = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(encode(x), load(copy).encoder(x))


@pytest.mark.parametrize(
    "argv", [["embed", "{}", "drawings"], ["evaluate", "{}", "drawings"], ["report", "{}"], ["export", "{}"]]
)
def test_what_is_no_run_is_told(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format(tmp_path) for word in argv]) == 2
    heard = capsys.readouterr()
    assert f"{str(tmp_path)!r} is not a run directory" in heard.err
    assert heard.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["embed", "evaluate", "report", "export"])
def test_a_missing_run_is_a_mistake_in_the_call(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name])
    assert end.value.code == 2
    assert "RUN" in capsys.readouterr().err


def test_images_of_other_channels_are_refused(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "five.npz", images=np.repeat(tiny_images(4)[..., None], 5, axis=3))
    assert main(["embed", str(copy), str(tmp_path / "five.npz")]) == 2
    assert "channel" in capsys.readouterr().err


def test_looking_changes_no_weight(copy: Path, data: Path) -> None:
    before = contents(copy)
    for argv in (["embed"], ["evaluate"], ["report", "--data"]):
        assert main([argv[0], str(copy), *argv[1:], str(data)]) == 0
    after = contents(copy)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"report.html"}


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within: another thread owns the directory, as another process would."""
    ready, over = threading.Event(), threading.Event()

    def own() -> None:
        with owned(folder):
            ready.set()
            over.wait(60)

    thread = threading.Thread(target=own)
    thread.start()
    assert ready.wait(60)
    yield
    over.set()
    thread.join()


def test_what_writes_into_a_run_is_refused_while_it_is_trained_and_what_reads_is_not(
    copy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    (copy / ".report.html.4711.tmp").write_text("half")
    before = contents(copy)
    with at_work(copy):
        for words in (
            ["evaluate", copy, data],
            ["report", copy],
            ["report", copy, other],
            ["export", copy],
            ["embed", copy, data],
            ["finetune", other, data, "--out", copy],
            ["train", "simclr", data, *FLAGS, "--out", copy, "--resume"],
        ):
            assert main([str(word) for word in words]) == 2, words
            assert f"process {os.getpid()} (" in capsys.readouterr().err, words
        assert main(["embed", str(copy), str(data), "--out", str(tmp_path / "a.npz")]) == 0
        assert main(["export", str(copy), "--out", str(tmp_path / "exported")]) == 0
        assert {name: value for name, value in contents(copy).items() if name != ".lock"} == before


@pytest.mark.parametrize("command", ["embed", "report", "export", "finetune", "label-plan"])
def test_the_next_command_removes_what_a_killed_one_left(copy: Path, data: Path, tmp_path: Path, command: str) -> None:
    mine = tmp_path / ".notes.4711.tmp"
    mine.write_text("of somebody else")
    name = "out.npz" if command == "embed" else "out.csv"
    dead = tmp_path / f".{name}.{2**30}.tmp"  # no process has such a number
    left = [copy / ".config.yaml.4711.tmp", copy / "checkpoints" / ".best.pt.4711.tmp", copy / ".lock", dead]
    for path in left:
        path.write_text("half")
    (copy / "export" / ".export.abc.4711.tmp").mkdir(parents=True)
    given = {"report": [], "export": [], "label-plan": [str(data), "--labels", "none"]}.get(command, [str(data)])
    out = {"report": [], "finetune": ["--out", str(tmp_path / "c")]}.get(command, ["--out", str(tmp_path / name)])
    assert main([command, str(copy), *given, *out]) == 0
    assert not list(copy.rglob(".*"))
    assert dead.exists() == (command in ("report", "finetune", "export"))
    assert mine.exists()
