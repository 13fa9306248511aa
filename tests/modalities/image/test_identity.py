from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image

from nearfar.data.digests import digests
from nearfar.errors import Lost
from nearfar.modalities.image.identity import identity
from nearfar.modalities.image.samples import open_images
from tests.tiny import folder, tiny_images


def forms(root: Path, out: Path) -> dict[str, Any]:
    """The files of a folder in every form that holds files."""
    files = sorted(root.iterdir())
    content = [file.read_bytes() for file in files]
    with tarfile.open(out / "p.tar", "w") as tar:
        for file in files:
            tar.add(file, f"elsewhere/{file.name}")
    (out / "p.txt").write_text("\n".join(str(file) for file in files))
    pq.write_table(pa.table({"image": content}), out / "p.parquet")
    pq.write_table(pa.table({"path": [str(file) for file in files]}), out / "paths.parquet")
    offsets = np.cumsum([0, *map(len, content)])
    np.savez(out / "p.npz", jpeg=np.frombuffer(b"".join(content), np.uint8), offsets=offsets)
    names = [shutil.copyfile(file, out / f"{i:02}-renamed.png") for i, file in enumerate(files)]
    return {
        **{str(path.name): path for path in (out / "p.tar", out / "p.txt", out / "p.parquet", out / "p.npz")},
        "paths.parquet": out / "paths.parquet",
        "list": [str(name) for name in names],
    }


def test_equal_files_have_one_digest_in_every_form_and_however_they_are_decoded(tmp_path: Path) -> None:
    root = folder(tmp_path / "p", 6)
    (tmp_path / "out").mkdir()
    first = digests(open_images(root))
    assert len(set(first)) == 6
    assert first == [identity((root / f"{i:03d}.png").read_bytes()) for i in range(6)]
    for name, data in forms(root, tmp_path / "out").items():
        for how in ({}, {"memory": 0}, {"side": 8}, {"white": 100.0, "memory": 0}, {"size": 4}):
            assert digests(open_images(data, **how)) == first, (name, how)


def test_the_same_array_has_one_digest_in_every_form(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array)
    tensor = torch.from_numpy(array)
    pictures = [Image.fromarray(image) for image in array]
    forms = [array, tensor, tensor.permute(0, 3, 1, 2), tmp_path / "a.npy", tmp_path / "a.npz", list(array), pictures]
    first = digests(open_images(array))
    assert len(set(first)) == 5
    for form in [*forms, [image.permute(2, 0, 1) for image in tensor]]:
        for how in ({}, {"side": 6}):
            assert digests(open_images(form, **how)) == first, type(form)
    assert digests(open_images(array.reshape(5, 36, 12))) != first  # the same bytes in another shape
    gray = tiny_images(3)
    assert digests(open_images(gray)) == digests(open_images([Image.fromarray(image) for image in gray]))


def test_a_picture_in_memory_is_more_than_its_bytes() -> None:
    index = np.arange(16, dtype=np.uint8).reshape(4, 4)
    one, other = Image.fromarray(index, "P"), Image.fromarray(index, "P")
    one.putpalette(range(48))
    other.putpalette(range(48, 96))
    turned = Image.fromarray(index)
    turned.info["exif"] = b"Exif\0\0"
    assert len({identity(image) for image in (one, other, turned, Image.fromarray(index))}) == 4


@pytest.mark.parametrize("memory", [None, 0])
def test_a_page_is_known_by_its_file_and_its_number(tmp_path: Path, memory: float | None) -> None:
    pages = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    pages[2] = pages[0]
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pages, photometric="minisblack")
    tifffile.imwrite(tmp_path / "c.tif", pages[:2], photometric="minisblack")
    known = digests(open_images(tmp_path, memory=memory))
    assert known[:3] == known[3:6]
    assert len(set(known)) == 5


def replaced(file: Path) -> None:
    shutil.copyfile(file.with_name("005.png"), file)


def shrunk(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def same_size_and_time(file: Path) -> None:
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (Path.unlink, "No such file"),
        (replaced, "its bytes have changed"),
        (shrunk, "its bytes have changed"),
        (same_size_and_time, "its bytes have changed"),
    ],
)
def test_an_image_that_is_another_now_is_lost(tmp_path: Path, spoil: Any, why: str) -> None:
    root = folder(tmp_path / "p", 6)
    images = open_images(root, memory=0).subset([5, 4, 3, 2])
    spoil(root / "003.png")
    with pytest.raises(Lost, match=r"1 sample .*'003\.png'") as lost:
        images.pixels(torch.arange(4))
    assert list(lost.value.at) == [2]
    assert why in lost.value.at[2][1]
    assert images.pixels(torch.tensor([0, 1, 3])).shape[0] == 3


def test_an_image_that_was_only_touched_or_lies_in_a_tar_that_grew_is_the_same(tmp_path: Path) -> None:
    root = folder(tmp_path / "p", 4)
    (tmp_path / "out").mkdir()
    tar = forms(root, tmp_path / "out")["p.tar"]
    held, packed = open_images(root, memory=0), open_images(tar, memory=0)
    before = held.pixels(torch.arange(4))
    for file in root.iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("more.txt"), io.BytesIO())
    assert torch.equal(held.pixels(torch.arange(4)), before)
    assert torch.equal(packed.pixels(torch.arange(4)), before)
