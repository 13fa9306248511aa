"""Many items in one file, and items in files: what images are read from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.modalities.image.samples import open_images
from tests.tiny import folder, tiny_images


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
