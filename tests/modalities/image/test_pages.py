from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.modalities.image.samples import open_images
from tests.data.test_archives import archive

from .images import noise


def frames(n: int, *, seed: int = 0, mode: str = "L", height: int = 12) -> list[Image.Image]:
    return [noise(height, 20, seed=seed + i, mode=mode) for i in range(n)]


def save(path: Path, pages: list[Image.Image], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:], **options)
    return path


def test_each_page_is_a_image_of_one_group(tmp_path):
    film, other = frames(3), frames(2, seed=9)
    save(tmp_path / "film.tif", film)
    save(tmp_path / "other.TIFF", other)
    noise(12, 20, seed=20, mode="L").save(tmp_path / "single.tif")
    images = open_images(tmp_path, side=12)
    assert images.names == ["film.tif#1", "film.tif#2", "film.tif#3", "other.TIFF#1", "other.TIFF#2", "single.tif"]
    assert images.group.tolist() == [0, 0, 0, 1, 1, -1]
    assert images.notes == [
        "2 files have several pages ('film.tif': 3, 'other.TIFF': 2): each is an image of its own, and those of a "
        "file are one group. Where pages are the channels of one image, save it as a .npy array, C x H x W."
    ]
    assert images.channels == 1
    for i, page in enumerate([*film, *other]):
        assert np.array_equal(np.asarray(images.original(i)), np.asarray(page))
        wanted = page.resize((12, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(images.pixels(torch.tensor([i]))[0, 0], np.asarray(wanted))
    demand = open_images(tmp_path, side=12, memory=0)
    assert torch.equal(demand.pixels(torch.arange(6)), images.pixels(torch.arange(6)))


def test_one_film_alone_is_no_group(tmp_path):
    """No sample of a group is another's negative: of one group, nothing would be pushed apart."""
    save(tmp_path / "film.tif", frames(4))
    images = open_images(tmp_path)
    assert len(images) == 4
    assert images.group.tolist() == [-1] * 4
    assert "one group" not in images.notes[0]


def test_folders_and_tables_name_files_and_pages(tmp_path):
    save(tmp_path / "cat" / "a.tif", frames(2))
    save(tmp_path / "dog" / "b.tif", frames(2, seed=5))
    by_folder = open_images(tmp_path, labels="folders")
    assert by_folder.classes == ["cat", "dog"]
    assert by_folder.label.tolist() == [0, 0, 1, 1]
    table = tmp_path / "labels.csv"
    table.write_text("path,label,group\ncat/a.tif,old,x\ndog/b.tif#2,young,y\n")
    images = open_images(tmp_path, labels=table)
    assert [images.classes[i] if i >= 0 else "" for i in images.label.tolist()] == ["old", "old", "", "young"]
    a, b, c, d = images.group.tolist()
    assert a == b  # the table's own groups stay
    assert len({a, c, d}) == 3
    assert images.group.min() >= 0
    table.write_text("path,label\ncat/a.tif,old\ncat/a.tif#2,young\n")
    with pytest.raises(ValueError, match=r"gives 'cat/a.tif#2' two values of 'label': 'old' in line 2 and 'young'"):
        open_images(tmp_path, labels=table)


def test_pages_of_an_archive(tmp_path):
    save(tmp_path / "in" / "film.tif", film := frames(3, mode="RGB"))
    images = open_images(archive(tmp_path / "a.tar", {"film.tif": (tmp_path / "in" / "film.tif").read_bytes()}))
    assert images.names == ["film.tif#1", "film.tif#2", "film.tif#3"]
    assert np.array_equal(np.asarray(images.original(2)), np.asarray(film[2]))


def test_a_file_whose_pages_cannot_all_be_found_is_bad(tmp_path):
    for i in range(20):
        noise(12, 20, seed=i, mode="L").save(tmp_path / f"{i}.png")
    cut = save(tmp_path / "cut.tif", frames(3))
    data = cut.read_bytes()
    second = data.index(np.asarray(frames(3)[1]).tobytes())
    cut.write_bytes(data[: second + 100])
    images = open_images(tmp_path)
    assert [name for name, _ in images.skipped] == ["cut.tif"]
    assert images.skipped[0][1] == "page 3 of it cannot be found: it is cut off or damaged"


def test_pages_of_a_file_of_a_microscope(tmp_path):
    """Known by its first bytes: BigTIFF, under a name of its own."""
    save(tmp_path / "cells.stk", frames(3), big_tiff=True)
    assert open_images(tmp_path).names == ["cells.stk#1", "cells.stk#2", "cells.stk#3"]


def test_under_another_name_pages_are_no_silent_first_page(tmp_path):
    save(tmp_path / "film.png", frames(3))
    with pytest.raises(ValueError, match=r"a TIFF file of 3 images under another name: let it end in .tif"):
        open_images(tmp_path)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "jpg", "avif"])
def test_frames_are_taken_as_asked(tmp_path, ending):
    colors = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    first, *others = [Image.new("RGB", (16, 16), color) for color in colors]
    first.save(tmp_path / f"a.{ending}", "MPO" if ending == "jpg" else None, save_all=True, append_images=others)
    Image.new("RGB", (16, 16)).save(tmp_path / "b.png")
    save(tmp_path / "c.tif", frames(2, height=20))
    for asked, count in (("auto", 4), ("first", 3), ("all", 6)):
        for memory in (None, 0):
            images = open_images(tmp_path, frames=asked, memory=memory)
            assert len(images) == count
            found = images.pixels(torch.arange(3))[:, :, 8, 8].numpy().astype(int)
            wanted = colors if asked == "all" else [colors[0], (0, 0, 0)]
            assert np.abs(found[: len(wanted)] - wanted).max() <= 6
    assert images.names[:3] == [f"a.{ending}#{k}" for k in (1, 2, 3)]
    assert images.group.tolist() == [0, 0, 0, -1, 1, 1]
    assert f"'a.{ending}': 3" in images.notes[0]


def test_channels_that_imagej_tells_of_make_a_image(tmp_path):
    """ImageJ counts channels first, then slices: two images of three channels."""
    pages = frames(6)
    save(tmp_path / "cells.tif", pages, tiffinfo={270: "ImageJ=1.54\nimages=6\nchannels=3\nslices=2\n"})
    images = open_images(tmp_path, side=12)
    assert images.names == ["cells.tif#1", "cells.tif#2"]
    assert images.channels == 3
    assert images.notes == [
        "1 file has a page for each channel, by the description in it ('cells.tif': 2 of 3 channels)."
    ]
    for i in range(6):
        wanted = pages[i].resize((12, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(images.pixels(torch.tensor([i // 3]))[0, i % 3], np.asarray(wanted))


def test_one_image_of_channels_keeps_its_name(tmp_path):
    for k in range(2):
        save(tmp_path / f"{k}.tif", frames(5, seed=9 * k), tiffinfo={270: "ImageJ=1.54\nimages=5\nchannels=5\n"})
    images = open_images(tmp_path)
    assert images.names == ["0.tif", "1.tif"]
    assert (images.channels, images.group.tolist()) == (5, [-1, -1])
