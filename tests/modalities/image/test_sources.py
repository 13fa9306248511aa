from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.files import replace_csv
from nearfar.modalities.image.samples import open_images
from nearfar.modalities.image.sources import find

from .images import encoded, folder, noise, smooth


def test_a_folder_gives_its_images_at_any_depth_in_natural_order(tmp_path):
    folder(tmp_path, "img10.png", "img2.png", "b/c/deep1.png", "B/img1.png", "img2/x.png")
    images = open_images(tmp_path)
    assert images.names == ["b/c/deep1.png", "B/img1.png", "img2/x.png", "img2.png", "img10.png"]
    assert len(images) == 5
    assert images.label.tolist() == [-1] * 5
    assert images.split == [""] * 5


def test_one_image_is_enough(tmp_path):
    images = open_images(folder(tmp_path, "a.png"))
    assert images.pixels(torch.tensor([0])).shape == (1, 3, 12, 12)


def test_names_with_spaces_newlines_and_unicode(tmp_path):
    names = ["a b.png", "é.png", "line\nbreak.png", "日本/図 1.png", "'\".png"]
    images = open_images(folder(tmp_path, *names))
    assert set(images.names) == set(names)
    assert not images.skipped


HOSTILE = [
    b"=1+2.png",
    b"-x.png",
    b"a\nb.png",
    b"a\rb.png",
    b" a.png",
    b"\x1b[31mred.png",
    b"caf\xe9/1.png",
    b"<b>.png",
]


@pytest.mark.skipif(sys.platform != "linux", reason="names there must be text")
def test_hostile_names_are_text_and_are_found_again_by_the_tables_that_are_written(tmp_path):
    for i, name in enumerate(HOSTILE):
        path = tmp_path / "data" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=i).save(path)
    paths = [tmp_path / "data" / os.fsdecode(name) for name in HOSTILE]
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        for path in paths:
            tar.add(path, path.relative_to(tmp_path / "data").as_posix())
    for data in (tmp_path / "data", tmp_path / "data.tar", paths):
        images = open_images(data)
        assert len(images) == len(HOSTILE)
        assert "caf\\xe9/1.png" in images.names
        assert "1 of 8 file names are not UTF-8 (caf\\xe9/1.png)" in " ".join(images.notes)
        table = replace_csv(
            tmp_path / "labels.csv", [("path", "label"), *((name, f"of {name}") for name in images.names)]
        )
        labeled = open_images(data, labels=table)
        assert [labeled.classes[i] for i in labeled.label.tolist()] == [f"of {name}" for name in images.names]


def test_hidden_files_and_folders_are_ignored(tmp_path):
    images = open_images(folder(tmp_path, "a.png", ".b.png", "._a.png", ".git/c.png"))
    assert images.names == ["a.png"]
    assert images.notes == []


def test_other_files_are_ignored_and_counted(tmp_path):
    folder(tmp_path, *(f"{i}.png" for i in range(3)))
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "README").write_text("hello")
    images = open_images(tmp_path)
    assert len(images) == 3
    assert images.skipped == []
    assert images.notes == ["Ignored 2 files that are no images (labels.csv, README)."]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_an_image_without_a_suffix_is_known_by_its_first_bytes(tmp_path, kind):
    (tmp_path / "image").write_bytes(encoded(noise(), kind))
    assert open_images(tmp_path).names == ["image"]


def test_a_folder_with_the_name_of_a_image_is_a_folder(tmp_path):
    assert open_images(folder(tmp_path, "x.jpg/1.png")).names == ["x.jpg/1.png"]


def test_link_loops_end_and_linked_images_count_once(tmp_path):
    folder(tmp_path, "data/z/1.png", "data/z/2.png", "elsewhere/3.png", "elsewhere/4.png")
    data = tmp_path / "data"
    (data / "z/up").symlink_to(data)
    (data / "again").symlink_to(data / "z")
    (data / "self").symlink_to(data / "self")
    (data / "a.png").symlink_to(data / "z/1.png")
    (data / "b.png").symlink_to(tmp_path / "elsewhere/3.png")
    (data / "out").symlink_to(tmp_path / "elsewhere")
    images = open_images(data)
    assert images.names == ["b.png", "out/3.png", "out/4.png", "z/1.png", "z/2.png"]
    assert "Ignored 1 link to files that are there already." in images.notes


def test_a_link_to_nothing_with_the_name_of_a_image_is_bad(tmp_path):
    folder(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    images = open_images(tmp_path, max_bad=0.5)
    assert images.skipped == [("b.png", "No such file or directory")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    folder(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c")
    assert open_images(tmp_path, max_bad=0.5).skipped == [("b.png", "not a regular file")]


def test_an_unreadable_folder_is_noted(tmp_path, monkeypatch):
    folder(tmp_path, "a.png", "closed/b.png")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = open_images(tmp_path)
    assert images.names == ["a.png"]
    assert images.notes == ["The folder 'closed' cannot be read (Permission denied)."]


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"is empty. Wanted: a folder of images"):
        open_images(tmp_path)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"holds no images, only 1 other file \(a.txt\)"):
        open_images(tmp_path)


def test_a_wrong_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is nothing at '.*nowhere'. Wanted: a folder"):
        open_images(tmp_path / "nowhere")


def test_one_image_is_no_source(tmp_path):
    folder(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"no source of images.*Give the folder it lies in"):
        open_images(tmp_path / "a.png")


def test_an_archive_is_no_source(tmp_path):
    folder(tmp_path, "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png")
    with pytest.raises(ValueError, match="archive, unpack it"):
        open_images(tmp_path / "a.zip")


def test_a_list_keeps_its_order_and_is_relative_to_its_folder(tmp_path):
    folder(tmp_path, "z.png", "a/b.png", "unlisted.png")
    (tmp_path / "list.txt").write_text("z.png\n\n./a/b.png\nz.png\n")
    images = open_images(tmp_path / "list.txt")
    assert images.names == ["z.png", "a/b.png"]
    assert images.notes[0].startswith("Ignored 1 repeated path in")


def test_a_csv_list_with_and_without_a_header(tmp_path):
    folder(tmp_path, "a, b.png", "c.png")
    (tmp_path / "with.csv").write_text('label,path\n1,"a, b.png"\n2,c.png\n')
    (tmp_path / "without.csv").write_text('"a, b.png"\nc.png\n')
    assert open_images(tmp_path / "with.csv").names == ["a, b.png", "c.png"]
    assert open_images(tmp_path / "without.csv").names == ["a, b.png", "c.png"]


def test_what_a_list_names_and_cannot_be_read_is_bad(tmp_path):
    folder(tmp_path, "a.png", "x.jpg/inside.png")
    (tmp_path / "list.txt").write_text("a.png\nx.jpg\ngone.png\n")
    images = open_images(tmp_path / "list.txt", max_bad=0.9)
    assert images.names == ["a.png"]
    assert images.skipped == [("x.jpg", "not a regular file"), ("gone.png", "No such file or directory")]


def test_a_list_of_nothing_and_a_list_of_wrong_paths(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="lists no paths"):
        open_images(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("photos/1.png\nphotos/2.png\n")
    with pytest.raises(ValueError, match=r"None of the 2 paths .* exists, for example 'photos/1.png'"):
        open_images(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list.txt', line 1: not UTF-8"):
        open_images(tmp_path / "list.txt")


def test_arrays_of_each_form():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for data in (pixels, torch.from_numpy(pixels), first, first.numpy()):
        images = open_images(data)
        assert (images.channels, images.side) == (3, 8)
        assert torch.equal(images.pixels(torch.arange(5)), first)
    gray = open_images(pixels[..., 0])
    assert gray.channels == 1
    assert torch.equal(gray.pixels(torch.tensor([4, 0])), first[[4, 0], :1])
    assert gray.names == ["0", "1", "2", "3", "4"]
    many = open_images(np.zeros((2, 8, 8, 13), np.uint8))
    assert many.channels == 13


def test_a_read_only_array(tmp_path):
    pixels = np.zeros((2, 8, 8), np.uint8)
    pixels.flags.writeable = False
    assert len(open_images(pixels)) == 2


def test_oblong_arrays_are_squashed_and_keep_their_aspect():
    pixels = np.stack([np.asarray(smooth(12, 27))] * 3)
    images = open_images(pixels)
    assert images.side == 18
    assert images.aspect.tolist() == [27 / 12] * 3
    wanted = np.asarray(smooth(12, 27).resize((18, 18), 3)).transpose(2, 0, 1).astype(int)
    assert np.abs(images.pixels(torch.tensor([1]))[0].numpy().astype(int) - wanted).max() <= 2
    assert np.array_equal(np.asarray(images.original(2)), pixels[2])
    assert open_images(pixels, side=9).side == 9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 8, 8), complex), "is 2 x 8 x 8 of complex128; wanted: numbers, N x H x W"),
        (np.zeros((8, 8), np.uint8), "is 8 x 8 of uint8; wanted: numbers, N x H x W"),
        (np.zeros((0, 8, 8), np.uint8), "is 0 x 8 x 8 of uint8"),
    ],
)
def test_arrays_that_are_no_images(data, message):
    with pytest.raises(ValueError, match=message):
        open_images(data)


def test_an_array_with_its_labels():
    images = open_images((np.zeros((3, 8, 8), np.uint8), ["dog", "", "cat"]))
    assert images.classes == ["cat", "dog"]
    assert images.label.tolist() == [1, -1, 0]


@pytest.mark.parametrize("key", ["images", "x", "data"])
def test_an_npz_file_with_an_array(tmp_path, key):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    extra = {"y": [1, 0, 1], "names": ["off", "on"], "group": [7, 7, 8], "split": ["train", "train", "test"]}
    np.savez(tmp_path / "a.npz", **{key: pixels}, **extra)
    images = open_images(tmp_path / "a.npz")
    assert torch.equal(images.pixels(torch.arange(3))[:, 0], torch.from_numpy(pixels))
    assert (images.label.tolist(), images.classes) == ([1, 0, 1], ["off", "on"])
    assert images.group.tolist() == [0, 0, 1]
    assert images.split == ["train", "train", "test"]


def test_an_npy_file(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    assert len(open_images(tmp_path / "a.npy")) == 3


def test_an_npz_file_of_encoded_images(tmp_path):
    images = [encoded(noise(seed=i), "JPEG") for i in range(30)]
    images[7] = images[7][:100]
    offsets = np.cumsum([0, *map(len, images)])
    data = np.frombuffer(b"".join(images), np.uint8)
    np.savez(tmp_path / "a.npz", jpeg=data, offsets=offsets, labels=np.arange(30) % 3, names=list("abc"))
    images = open_images(tmp_path / "a.npz")
    assert len(images) == 29
    assert [name for name, _ in images.skipped] == ["7"]
    assert images.names[7] == "8"
    assert images.label[7] == 8 % 3
    assert np.array_equal(np.asarray(images.original(7)).transpose(2, 0, 1), images.pixels(torch.tensor([7]))[0])


def test_npz_files_that_are_no_images(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot be read as a NumPy file"):
        open_images(path)
    np.savez(path, train=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds 'train'. Wanted: an array named images, x or data"):
        open_images(path)
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="'x' cannot be read"):
        open_images(path)
    np.savez(path, jpeg=np.zeros(10, np.uint8), offsets=[0, 5, 20])
    with pytest.raises(ValueError, match=r"offsets must rise, N \+ 1 for N images"):
        open_images(path)


def test_the_real_sets_open(shared_data):
    images = open_images(shared_data / "cifar10_test.npz")
    assert (len(images), images.channels, images.side, len(images.classes)) == (10_000, 3, 32, 10)
    assert torch.bincount(images.label).tolist() == [1000] * 10


def test_a_list_with_columns_brings_labels_and_splits(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    listed = tmp_path / "list.csv"
    listed.write_text("Path,label,split\na.png,cat,Train\nb.png,dog,TEST\na.png,cat,Train\n", encoding="utf-8")
    labels = find(listed).labels
    assert labels is not None
    assert (labels.classes, labels.split) == (["cat", "dog"], ["train", "test"])
    listed.write_text("path,label\na.png,cat\na.png,dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"lists 'a.png' twice, and says two things of it"):
        find(listed)
