"""Masks are found, read as they are written, and refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.batch import MISSING
from nearfar.data.masks import insist_sizes, open_masks, read_mask
from nearfar.errors import NotFound, UserError

NONE: list[dict[str, str]] = [{}, {}]


def save(path: Path, numbers: list[list[int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(numbers, dtype=np.uint8)).save(path)
    return path


def test_masks_are_found_by_path_stem_or_column(tmp_path: Path) -> None:
    one, two = save(tmp_path / "m/a/x.png", [[0, 7]]), save(tmp_path / "m/y.png", [[3, 0]])
    found = open_masks(tmp_path / "m", ["a/x.jpg", "b/y.jpg", "z.jpg"], [{}] * 3, None)
    assert found.paths == [one, two, None]
    assert found.classes == ["0", "3", "7"]
    assert found.classed(0).tolist() == [[0, 2]]
    assert found.there.tolist() == [True, True, False]
    cells = [{"mask": "m/y.png"}, {"mask": ""}]
    named = open_masks("mask", ["x", "y"], cells, tmp_path, instances=True)
    assert named.paths == [two, None]
    assert named.classed(0).tolist() == [[1, 0]]
    ignored = open_masks(tmp_path / "m", ["a/x.jpg", "y.jpg"], NONE, None, ignored=7)
    assert ignored.classes == ["0", "3"]
    assert ignored.classed(0).tolist() == [[0, MISSING]]


def test_a_mask_is_never_that_of_two_images_of_one_stem(tmp_path: Path) -> None:
    own = save(tmp_path / "m/train/1.png", [[0, 7]])
    assert open_masks(tmp_path / "m", ["test/1.jpg", "train/1.jpg"], NONE, None).paths == [None, own]
    with pytest.raises(UserError, match=r"'test/1.jpg' or 'dev/1.jpg' cannot be told"):
        open_masks(tmp_path / "m", ["test/1.jpg", "dev/1.jpg"], NONE, None)


def test_a_palette_is_its_indices_and_16_bits_are_whole(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 2]], dtype=np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png").tolist() == [[0, 2]]
    Image.fromarray(np.array([[0, 60000]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_mask(tmp_path / "deep.png").tolist() == [[0, 60000]]
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 1]]


def test_what_is_no_mask_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "color.png")
    Image.new("L", (2, 2)).save(tmp_path / "gray.jpg")
    (tmp_path / "text.png").write_text("no")
    for name, words in (("color.png", "RGB.*palette"), ("gray.jpg", "JPEG.*PNG"), ("text.png", "cannot be read")):
        with pytest.raises(UserError, match=rf"{name}.*{words}"):
            read_mask(tmp_path / name)
    with pytest.raises(NotFound, match=r"no mask .*gone.png"):
        open_masks("mask", ["x"], [{"mask": "gone.png"}], tmp_path)
    with pytest.raises(NotFound, match="'nothing' is neither a folder nor a column: the columns are label, mask"):
        open_masks("nothing", ["x"], [{"mask": "", "label": ""}], tmp_path)
    with pytest.raises(UserError, match=r"2 images has a mask.*stem 'x'"):
        open_masks(tmp_path, ["x", "z"], NONE, None)
    one = save(tmp_path / "one/x.png", [[4, 4]])
    with pytest.raises(UserError, match="one class only"):
        open_masks(one.parent, ["x"], [{}], None)
    for folder in ("a", "b"):
        save(tmp_path / "twice" / folder / "x.png", [[0, 1]])
    with pytest.raises(UserError, match="2 files of the stem 'x'"):
        open_masks(tmp_path / "twice", ["x.png"], [{}], None)
    with pytest.raises(UserError, match=r"1 mask .* among the images of DATA, such as 'm/x.png'"):
        open_masks(save(tmp_path / "all/m/x.png", [[0, 1]]).parent, ["i/x.png", "m/x.png"], NONE, tmp_path / "all")
    Image.fromarray(np.arange(300, dtype=np.uint16)[None]).save(tmp_path / "one/y.png")
    with pytest.raises(UserError, match=r"more than 256 numbers.*--instances"):
        open_masks(tmp_path / "one", ["y"], [{}], None)


def test_a_mask_of_another_size_is_named_with_both(tmp_path: Path) -> None:
    save(tmp_path / "x.png", [[0, 1]])
    masks = open_masks(tmp_path, ["x", "other"], NONE, None)
    insist_sizes(masks, ["x", "other"], lambda i: (2, 1))
    with pytest.raises(UserError, match=r"1 mask of 1 .*'x' is 3 x 1 and its mask 2 x 1"):
        insist_sizes(masks, ["x", "other"], lambda i: (3, 1))
    assert torch.equal(masks.numbers(0), torch.tensor([[0, 1]]))
