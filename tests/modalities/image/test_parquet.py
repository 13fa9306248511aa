"""Images in a Parquet table."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nearfar.cli import main
from nearfar.modalities.image.samples import open_images
from tests.data.test_archives import png
from tests.tiny import FLAGS, folder, tiny_images


def table(path: Path, /, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_of_bytes(tmp_path: Path) -> None:
    data = table(
        tmp_path / "p.parquet",
        image=[png(i) for i in range(12)],
        label=["cat", "dog", None] * 4,
        group=["x", None] * 6,
        split=["train"] * 9 + ["test"] * 3,
        other=list(range(12)),
    )
    images = open_images(data)
    assert images.classes == ["cat", "dog"]
    assert images.label.tolist() == [0, 1, -1] * 4
    assert images.group.tolist() == [0, -1] * 6
    assert images.split == ["train"] * 9 + ["test"] * 3
    assert torch.equal(images.pixels(torch.arange(12))[:, 0], torch.tensor(tiny_images(12)))


def test_a_table_as_the_datasets_library_writes_it(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": png(i), "path": f"{i}.png"} for i in range(12)])
    noted = {"info": {"features": {"label": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}}}
    made = pa.table({"image": rows, "label": [0, 1] * 6})
    pq.write_table(made.replace_schema_metadata({"huggingface": json.dumps(noted)}), tmp_path / "p.parquet")
    images = open_images(tmp_path / "p.parquet")
    assert images.names[:2] == ["0.png", "1.png"]
    assert (images.classes, images.label[:2].tolist()) == (["zebra", "ant"], [0, 1])
    assert torch.equal(images.pixels(torch.arange(12))[:, 0], torch.tensor(tiny_images(12)))


def test_a_table_of_paths(tmp_path: Path) -> None:
    folder(tmp_path / "p", 4)
    images = open_images(
        table(tmp_path / "t.parquet", path=[f"p/{i:03d}.png" for i in range(4)], kind=["a", "b"] * 2),
        label_column="kind",
    )
    assert images.names == [f"p/{i:03d}.png" for i in range(4)]
    assert images.classes == ["a", "b"]


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has the columns .*wanted: one of image"):
        open_images(table(tmp_path / "a.parquet", number=[1, 2]))
    with pytest.raises(ValueError, match="1 of 2 rows of 'image' have no bytes"):
        open_images(table(tmp_path / "b.parquet", image=[png(0), None]))
    with pytest.raises(ValueError, match="1 rows have no path, the first of them row 1"):
        open_images(table(tmp_path / "c.parquet", path=["x.png", ""]))
    (tmp_path / "d.parquet").write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read as a Parquet table"):
        open_images(tmp_path / "d.parquet")


def test_training_takes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = table(tmp_path / "p.parquet", image=[png(i % 12) for i in range(24)]), tmp_path / "run"
    assert main(["train", "simclr", str(data), *FLAGS, "--size", "16", "--epochs", "1", "--out", str(out)]) == 0
    assert (out / "encoder.safetensors").exists()
