"""Images in one file: archives and tables."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nearfar.cli import main
from nearfar.modalities.image.samples import open_images
from tests.tiny import FLAGS, folder, tiny_images


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tiny_images(12)[number]).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("memory", [None, 0.0], ids=["kept", "decoded each time"])
def test_a_tar_is_as_the_folder_that_it_was_made_of(tmp_path: Path, memory: float | None) -> None:
    root = folder(tmp_path / "p", 24, nested=True)
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        tar.add(root, arcname=".")
    one, other = (open_images(d, labels="folders", memory=memory) for d in (root, tmp_path / "p.tar"))
    assert one.names == other.names
    assert one.classes == other.classes
    assert torch.equal(one.label, other.label)
    assert torch.equal(one.pixels(torch.arange(24)), other.pixels(torch.arange(24)))
    assert np.array_equal(np.asarray(one.original(5)), np.asarray(other.original(5)))


def test_what_else_is_in_a_tar(tmp_path: Path) -> None:
    files = {"b2.png": png(1), "b10.png": png(2), "a/1.png": png(0), "read.me": b"hello", ".hidden.png": png(3)}
    files |= {"broken.png": png(4)[:40]}
    images = open_images(archive(tmp_path / "p.tar", files), max_bad=0.5)
    assert images.names == ["a/1.png", "b2.png", "b10.png"]
    assert [name for name, _ in images.skipped] == ["broken.png"]
    assert any("Ignored 1 file that is no image" in note for note in images.notes)
    again = {"x.png": png(0)}
    with tarfile.open(archive(tmp_path / "twice.tar", again), "a") as tar:
        info = tarfile.TarInfo("x.png")
        info.size = len(png(5))
        tar.addfile(info, io.BytesIO(png(5)))
    assert torch.equal(
        open_images(tmp_path / "twice.tar").pixels(torch.arange(1))[0, 0], torch.tensor(tiny_images(12)[5])
    )


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"compressed.*plain \.tar"):
        open_images(archive(tmp_path / "zipped.tar", {"a.png": png(0)}, "w:gz"))
    with pytest.raises(ValueError, match="holds no images, only 1 other file"):
        open_images(archive(tmp_path / "text.tar", {"a.txt": b"x"}))
    (tmp_path / "junk.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(ValueError, match=r"cannot be read as a \.tar archive"):
        open_images(tmp_path / "junk.tar")


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


def test_training_takes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [
        archive(tmp_path / "p.tar", {f"{i % 2}/{i}.png": png(i % 12) for i in range(24)}),
        table(tmp_path / "p.parquet", image=[png(i % 12) for i in range(24)]),
    ]
    for number, path in enumerate(data):
        out = tmp_path / f"run{number}"
        assert main(["train", "simclr", str(path), *FLAGS, "--size", "16", "--epochs", "1", "--out", str(out)]) == 0
        assert (out / "encoder.safetensors").exists()
