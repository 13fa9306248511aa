from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nearfar.modalities.image.doctor import examine
from nearfar.modalities.image.samples import open_images
from tests.modalities.image.test_duplicates import planted, scene
from tests.tiny import folder as tiny_folder


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
    found = examine(images)
    said = " ".join(found.warnings)
    assert "1 file cannot be read: 'broken.png'" in said
    assert "9 images are copies, in 8 sets" in said
    assert "1 set of copies has more than one label" in said
    assert "'common' has 39 images, 'rare' 2" in said
    assert dict(found.facts)["images"] == "49"
    assert found.flags == []  # 1 of 50 is less than training allows
    assert not found.too_little


def test_copies_across_splits_are_counted_for_each_pair_and_named(tmp_path: Path) -> None:
    for part, seeds in (("train", range(8)), ("val", range(10, 14)), ("test", range(20, 26))):
        (tmp_path / "p" / part).mkdir(parents=True)
        for seed in seeds:
            scene(seed).save(tmp_path / "p" / part / f"{seed}.png")
    shutil.copy(tmp_path / "p/train/1.png", tmp_path / "p/test/same.png")
    shutil.copy(tmp_path / "p/val/11.png", tmp_path / "p/test/seen.png")
    scene(2).save(tmp_path / "p/test/near.jpg", quality=60)
    shutil.copy(tmp_path / "p/test/20.png", tmp_path / "p/test/twin.png")  # within one split
    images = open_images(tmp_path / "p", size=64)
    said = [warning for warning in examine(images).warnings if "of the split" in warning]
    assert len(said) == 2
    assert "2 images of the split test are in train as well (1 the same, 1 nearly)" in said[0]
    assert "'test/same.png' of 'train/1.png'" in said[0]
    assert "'test/near.jpg' of 'train/2.png'" in said[0]
    assert "1 image of the split test is in val as well: 'test/seen.png' of 'val/11.png'" in said[1]
    assert dict(examine(images).facts)["images"] == "22 (10 test, 8 train, 4 val)"


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for seed in range(20):
        scene(seed).save(tmp_path / "p" / f"{seed}.png")
    found = examine(open_images(tmp_path / "p", size=64))
    assert found.warnings == []
    assert found.flags == []


def test_more_broken_files_than_training_allows_want_a_flag(tmp_path: Path) -> None:
    found = examine(open_images(tiny_folder(tmp_path / "p", 28, bad=2), size=16, max_bad=1))
    assert [(flag.name, flag.value) for flag in found.flags] == [("max_bad", 0.08)]


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.zeros((1, 8, 8), np.uint8), "1 image to train on"),
        (np.full((5, 8, 8), 7, np.uint8), "All 5 images to train on are copies of one another"),
        (np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8), ""),
    ],
)
def test_too_little_is_said(pixels: np.ndarray, why: str) -> None:
    found = examine(open_images(pixels))
    assert found.too_little.startswith(why) if why else found.too_little == ""
