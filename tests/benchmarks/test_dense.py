from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from benchmarks.dense import Dense, fits, path, table, unpacked

from benchmarks import dense
from nearfar.data import csv


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dense, "RESULTS", tmp_path)
    monkeypatch.setattr(dense, "DATA", tmp_path)
    return tmp_path


def test_pictures_of_the_split_val_are_learned_from(tmp_path: Path) -> None:
    boxes = b"path,split,xmin,ymin,xmax,ymax,label\na.jpg,val,1,1,2,2,x\nb.jpg,test,1,1,2,2,x\na.jpg,val,1,1,3,3,x\n"
    with tarfile.open(tmp_path / "bccd.tar", "w") as archive:
        held = tarfile.TarInfo("bccd/boxes.csv")
        held.size = len(boxes)
        archive.addfile(held, io.BytesIO(boxes))
    _, rows = csv.read_records(unpacked("cells", tmp_path))
    assert [row for _, row in rows] == [{"path": "a.jpg", "split": "train"}, {"path": "b.jpg", "split": "test"}]


def test_the_table_has_what_there_is_and_what_was_gained() -> None:
    asked = Dense(methods=("simclr", "byol", "crossentropy"), seeds=2)
    for method, seed, gain in (("simclr", 0, 2.0), ("simclr", 1, 4.0), ("byol", 0, -1.0)):
        rows = {"untrained encoder": 70.0, "trained encoder": 70 + gain}
        result = {
            "source": "another" if method == "byol" else dense.source(method),
            "results": {name: dict.fromkeys(dense.MEASURES["nuclei"], value) for name, value in rows.items()},
            "cpu_seconds": 10.0,
            "evaluation_cpu_seconds": 5.0,
        }
        path("nuclei", method, seed, asked).write_text(json.dumps(result))
    head, _, *lines = table("nuclei", asked).splitlines()
    assert "mIoU (%)" in head
    assert lines[0].startswith("| simclr | 2 | 73.0 | +3.0 [")
    assert lines[1] == "| byol (changed since) | 1 | 69.0 | -1.0 | 69.0 | -1.0 | 15 |"
    assert len(lines) == 2
    assert fits("crossentropy", "nuclei")
    assert not fits("crossentropy", "cells")
