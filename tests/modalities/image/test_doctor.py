from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.modalities.image.doctor import examine
from nearfar.modalities.image.samples import open_images
from tests.modalities.image.test_duplicates import planted, scene
from tests.tiny import FLAGS, array_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, a broken file, uneven classes and contradicting labels, all planted."""
    path = tmp_path_factory.mktemp("data") / "p"
    planted(path)
    (path / "broken.png").write_bytes((path / "00.png").read_bytes()[:50])
    with open(path.parent / "labels.csv", "w", encoding="utf-8") as file:
        file.write("path,label\n")
        file.writelines(f"{seed:02d}.png,{'rare' if seed == 39 else 'common'}\n" for seed in range(40))
        file.write("again-0.png,rare\n")
    return path


def test_all_that_was_planted_is_found(folder: Path) -> None:
    images = open_images(folder, labels=folder.parent / "labels.csv", size=64, max_bad=1)
    found = examine(images, encoder="conv4", size=32)
    said = " ".join(found.warnings)
    assert "1 files cannot be read: 'broken.png'" in said
    assert "9 images are copies, in 8 sets" in said
    assert "1 sets of copies have more than one label" in said
    assert "'common' has 39 images, 'rare' 2" in said
    assert dict(found.facts)["images"] == "49"
    command = found.command("p/")
    assert command.startswith("nearfar train supcon p/ ")
    assert "--labels GROUPS" in command
    assert all(advice.reason for advice in found.advice)


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for seed in range(20):
        scene(seed).save(tmp_path / "p" / f"{seed}.png")
    found = examine(open_images(tmp_path / "p", size=64), encoder="conv4", size=32)
    assert found.warnings == []
    assert "--labels" not in found.command("p/")


def test_its_table_of_groups_goes_into_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", str(folder), "--encoder", "conv4", "--size", "32"]) == 0
    said = capsys.readouterr().out
    assert "The sets of copies: groups.csv" in said
    assert "--labels groups.csv" in said
    with open("groups.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17
    assert {row["label"] for row in rows} == {""}
    train = ["train", "simclr", str(folder), *FLAGS, "--size", "16", "--labels", "groups.csv", "--epochs", "1"]
    assert main([*train, "--out", "run"]) == 0
    assert "8 groups: samples of one are not each other's negatives" in capsys.readouterr().out
    assert main(["doctor", str(folder)]) == 2
    assert "'groups.csv' is there already" in capsys.readouterr().err


def test_an_array_is_told_by_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = array_file(tmp_path / "images.npz", 12, labeled=False)
    assert main(["doctor", str(data), "--encoder", "conv4", "--groups", str(tmp_path / "g.csv")]) == 0
    assert "nearfar train moco" in capsys.readouterr().out
