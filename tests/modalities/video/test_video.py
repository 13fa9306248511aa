"""Videos from the command line to a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import nearfar
from nearfar import across, modalities
from nearfar.cli import main
from nearfar.methods.dpc import DPC
from nearfar.modalities.kind import plain_view
from tests.modalities.video.small import FLAGS, array_file, files, moving, stills, write
from tests.tiny import evaluated


def test_a_folder_of_files_trains_evaluates_embeds_and_reports(tmp_path: Path) -> None:
    data, out = files(tmp_path / "videos"), tmp_path / "run"
    words = ["--labels", "folders"]
    assert main(["train", "cvrl", str(data), "--hidden", "32", "--out", str(out), *words, *FLAGS]) == 0
    assert main(["evaluate", str(out), str(data), *words, "--retrieval"]) == 0
    table = json.loads(evaluated(out).read_text())
    assert {row["name"] for row in table["rows"]} == {"raw pixels", "untrained encoder", "trained encoder"}
    assert {"recall@1 (%)", "recall@5 (%)"} <= set(table["columns"])
    run = nearfar.load(out)
    features = run.embed(str(data))
    assert features.shape == (16, 32)
    assert torch.allclose(run.embed(str(data / "class0" / "00.mp4")), features[:1], atol=1e-5)
    assert main(["report", str(out), "--data", str(data)]) == 0
    assert main(["export", str(out)]) == 0
    assert "nearfar" not in (out / "export" / "encoder.py").read_text()
    assert main(["views", str(data), "--method", "cvrl", "--size", "16", "--out", str(tmp_path / "v.png")]) == 0
    assert main(["doctor", str(data), "--encoder", "slow18x4", "--size", "16", "--minutes", "0.01"]) == 0


def test_files_that_go_missing_are_stood_in_for(tmp_path: Path) -> None:
    data, out = files(tmp_path / "videos"), tmp_path / "run"
    words = ["train", "arrowoftime", str(data), *FLAGS, "--max-bad", "0.2", "--out", str(out)]
    assert main([*words, "--epochs", "1"]) == 0
    (data / "class1" / "05.mp4").unlink()
    assert main([*words, "--epochs", "2", "--resume"]) == 0
    assert main([*words, "--epochs", "3", "--resume", "--max-bad", "0.01"]) == 2


@pytest.mark.parametrize("method", ["moco", "supcon"])
def test_image_methods_run_on_clips(method: str, tmp_path: Path) -> None:
    data = array_file(tmp_path / "a.npz")
    sizes = {"moco": ["--queue", "8"], "supcon": []}[method]
    words = ["train", method, str(data), "--out", str(tmp_path / "run"), "--no-consistent", *FLAGS, *sizes]
    assert main(words) == 0


def test_folders_of_frames_are_videos_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stills(tmp_path / "stills", 8)
    assert modalities.kind_of(data) == "image"
    assert modalities.kind_of(data, ["clip_frames"]) == "video"
    assert main(["train", "framesorting", str(data), "--out", str(tmp_path / "no")]) == 2
    assert "--kind video" in capsys.readouterr().err
    words = ["train", "framesorting", str(data), "--parts", "3", "--out", str(tmp_path / "run"), *FLAGS]
    assert main(words) == 0
    assert nearfar.load(tmp_path / "run").kind.name == "video"


def test_two_cameras_are_trained_on_and_aligned(tmp_path: Path) -> None:
    rows = ["path,sequence,camera"]
    for i, video in enumerate(moving(8, 12)):
        for camera, shown in (("a", video), ("b", video[:, ::-1])):
            write(tmp_path / f"{i}{camera}.mp4", np.ascontiguousarray(shown))
            rows.append(f"{i}{camera}.mp4,{i},{camera}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    out, data = tmp_path / "run", str(tmp_path / "list.csv")
    flags = ["--encoder", "conv4", "--pooling", "softargmax", "--size", "16", "--clip-frames", "6", "--stride", "1"]
    flags += ["--epochs", "2", "--batch", "8", "--hidden", "8", "--lr", "0.01"]
    assert main(["train", "tcn", data, "--out", str(out), *flags]) == 0
    assert main(["evaluate", str(out), data, "--align"]) == 0
    (path,) = (out / "results").glob("moments-*.json")
    table = json.loads(path.read_text())
    assert [row["name"] for row in table["rows"]] == ["raw pixels", "untrained encoder", "trained encoder"]
    assert all(0 <= row["values"]["aligned (%)"]["value"] <= 100 for row in table["rows"])
    assert table["picture"] in (out / "report.html").read_text()
    with pytest.raises(ValueError, match="nothing to align"):
        across.align(nearfar.load(out), str(tmp_path / "0a.mp4"))


def test_what_comes_next_is_looked_for_among_all_cells_of_some_videos(tmp_path: Path) -> None:
    data, out = array_file(tmp_path / "a.npz"), tmp_path / "run"
    sizes = ["--blocks", "2", "--steps", "1", "--cells", "2", "--width", "8"]
    assert main(["train", "dpc", str(data), "--out", str(out), *sizes, *FLAGS]) == 0
    assert main(["evaluate", str(out), str(data), "--future"]) == 0
    assert "what comes next" in (out / "report.html").read_text()
    run = nearfar.load(out)
    table = across.future(run, str(data), among=8)
    rows = {row["name"]: row["values"]["next, R@5 (%)"]["value"] for row in table["rows"]}
    assert list(rows) == ["the block before", "untrained encoder", "trained encoder"]
    method, right = run.method, []
    assert isinstance(method, DPC)
    for index in torch.arange(16).split(8):
        view = plain_view(run.kind.plain(run.encoder), run.open(str(data)), index, torch.device("cpu"))
        seen, z = method.look(view).split([1, 1], 1)
        p = method.forecast(seen)
        p, z = p.flatten(0, 2).tolist(), z.flatten(0, 2).tolist()
        assert len(p) == 8 * 4
        for i, row in enumerate(p):
            scores = [sum(a * b for a, b in zip(row, key, strict=True)) for key in z]
            right.append(sum(score > scores[i] for score in scores) < 5)
    assert rows["trained encoder"] == pytest.approx(100 * sum(right) / 64)
    assert table["chance"]["next, R@5 (%)"] == pytest.approx(100 * 5 / 32)
    assert main(["train", "cvrl", str(data), "--hidden", "8", "--out", str(tmp_path / "other"), *FLAGS]) == 0
    with pytest.raises(ValueError, match="run of cvrl"):
        across.future(nearfar.load(tmp_path / "other"), str(data))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder", "slow18x4", "--over-time", "conv"], "--over-time and --pooling"),
        (["--encoder", "mobilenetv3_small_050", "--pooling", "softargmax", "--size", "32"], "in stages"),
        (["--views", "simclr"], "cvrl, cvrl_released, motion, tcn"),
        (["--fps", "5"], "--fps 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = array_file(tmp_path / "a.npz", 4)
    assert main(["train", "cvrl", str(data), "--out", str(tmp_path / "run"), *flags]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
