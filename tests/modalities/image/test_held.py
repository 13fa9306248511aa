"""Images that Python holds: lists, datasets of torch, datasets of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nearfar
from nearfar.modalities.image.samples import Images, open_images
from tests.tiny import SETTINGS, tiny_images

from .images import encoded, folder, noise, smooth

SIZES = [(12, 12), (10, 20), (30, 15)]


def images_of(mode: str = "RGB") -> list[Image.Image]:
    return [noise(*size, seed=i, mode=mode) for i, size in enumerate(SIZES)]


def as_files(root: Path, images: list[Image.Image], **options: Any) -> Images:
    root.mkdir()
    for i, image in enumerate(images):
        image.save(root / f"{i}.png")
    return open_images(root, **options)


def same(one: Images, other: Images) -> bool:
    every = torch.arange(len(one))
    originals = [(np.asarray(one.original(i)), np.asarray(other.original(i))) for i in range(len(one))]
    return (
        torch.equal(one.pixels(every), other.pixels(every))
        and torch.equal(one.aspect, other.aspect)
        and all(np.array_equal(a, b) for a, b in originals)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_a_list_of_images_is_as_the_folder_of_them(tmp_path, mode):
    images = images_of(mode) if mode != "I;16" else [Image.fromarray(deep(i)) for i in range(3)]
    files = as_files(tmp_path / "files", images)
    assert same(open_images(images), files)
    assert same(open_images(images, memory=0), files)
    assert open_images(images).names == ["0", "1", "2"]


def deep(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, SIZES[seed], dtype=np.uint16)


def test_an_image_of_a_list_is_turned_upright_and_left_as_it_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth(40, 80).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        listed = open_images([image], side=8)
        assert image.size == (80, 40)
    assert listed.original(0).size == (40, 80)
    assert listed.aspect.tolist() == [0.5]


def test_a_list_of_arrays_or_tensors_of_different_sizes(tmp_path):
    files = as_files(tmp_path / "files", images_of())
    arrays = [np.asarray(image) for image in images_of()]
    tensors = [torch.tensor(array).permute(2, 0, 1) for array in arrays]
    for data in (arrays, [a.transpose(2, 0, 1) for a in arrays], tensors, [t / 255 for t in tensors]):
        assert same(open_images(data), files)
    gray = [array[..., 0] for array in arrays]
    assert open_images(gray).channels == 1
    assert same(open_images(gray), open_images([torch.tensor(array) for array in gray]))
    many = [np.concatenate([array, array], axis=2) for array in arrays]
    assert open_images(many).channels == 6


def test_a_list_of_paths(tmp_path):
    folder(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    paths = [tmp_path / "dog/3.png", str(tmp_path / "cat/1.png"), tmp_path / "cat/../cat/1.png", tmp_path / "no.png"]
    images = open_images(paths, labels="folders", max_bad=0.5)
    assert images.names == ["dog/3.png", "cat/1.png"]
    assert [images.classes[i] for i in images.label.tolist()] == ["dog", "cat"]
    assert [name for name, _ in images.skipped] == ["no.png"]
    assert images.notes[0] == "Ignored 1 repeated path in the list."
    with pytest.raises(ValueError, match="None of the 1 paths of the list exists"):
        open_images(["nowhere.png"])


def test_a_pair_of_a_list_and_labels():
    images = open_images((images_of(), ["dog", None, "cat"]))
    assert (images.classes, images.label.tolist()) == (["cat", "dog"], [1, -1, 0])


class Pairs(torch.utils.data.Dataset):
    """A dataset of (input, label), which counts how often it is asked."""

    def __init__(self, inputs: list[Any], labels: list[Any]) -> None:
        self.inputs, self.labels, self.asked = inputs, labels, 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.asked += 1
        return self.inputs[index], self.labels[index]


@pytest.mark.parametrize("kind", ["image", "array", "tensor", "float tensor"])
def test_a_torch_dataset(tmp_path, kind):
    arrays = [np.asarray(image) for image in images_of()]
    tensors = [torch.tensor(array).permute(2, 0, 1) for array in arrays]
    inputs = {"image": images_of(), "array": arrays, "tensor": tensors, "float tensor": [t / 255 for t in tensors]}
    images = open_images(Pairs(inputs[kind], [1, torch.tensor(0), np.int64(1)]))
    assert same(images, as_files(tmp_path / "files", images_of()))
    assert (images.classes, images.label.tolist()) == (["0", "1"], [1, 0, 1])


def test_targets_and_classes_of_a_torch_dataset_are_its_labels():
    """As torchvision's have them: no sample is made for its label, but the first, to see whether they agree."""
    data = Pairs(images_of(), [2, 0, 2])
    plain = open_images(data)
    asked, data.asked = data.asked, 0
    data.targets, data.classes = [2, 0, 2], ["zebra", "ant", "bee"]  # type: ignore[attr-defined]
    images = open_images(data)
    assert images.classes == ["zebra", "ant", "bee"]
    assert images.label.tolist() == [2, 0, 2]
    assert plain.label.tolist() == [1, 0, 1]
    assert data.asked == asked - 3
    data.targets = [0, 0, 0]  # type: ignore[attr-defined]
    assert open_images(data).label.tolist() == [2, 0, 2]


def test_a_torch_dataset_of_images_alone_has_no_labels():
    data = torch.utils.data.Subset(images_of(), [2, 0])  # type: ignore[arg-type]
    images = open_images(data)
    assert images.label.tolist() == [-1, -1]
    assert images.aspect.tolist() == [0.5, 1]


def test_a_dataset_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["zebra", "ant"]),
            "photo": datasets.Image(),
            "split": datasets.Value("string"),
        }
    )
    cells = [{"bytes": encoded(image), "path": None} for image in images_of()]
    columns = {"label": [1, -1, 0], "photo": cells, "split": ["train", "test", "train"]}
    data = datasets.Dataset.from_dict(columns, features=features)
    images = open_images(data)
    assert same(images, as_files(tmp_path / "files", images_of()))
    assert (images.classes, images.label.tolist()) == (["zebra", "ant"], [1, -1, 0])
    assert images.split == ["train", "test", "train"]
    assert same(open_images(data.select([2, 1])), open_images([images_of()[2], images_of()[1]]))
    with pytest.raises(ValueError, match=r"wanted: one of the type datasets\.Image"):
        open_images(data.remove_columns("photo"))
    assert open_images(data.remove_columns("label")).classes == []
    with pytest.raises(ValueError, match="the dataset has no column 'label'; it has 'photo', 'split'"):
        open_images(data.remove_columns("label"), label_column="label")
    with pytest.raises(TypeError, match="give one of them"):
        open_images(datasets.DatasetDict({"train": data}))


@pytest.mark.parametrize("data", [3, {"a": [1]}, object(), [object()], [{"image": 1}], (1, 2, 3), iter([1])])
def test_what_is_not_understood_is_an_error_that_lists_what_is(data):
    with pytest.raises(TypeError, match=r"torch Dataset.*datasets\.Dataset"):
        open_images(data)


def test_bad_items_are_skipped_and_wrong_labels_are_an_error(tmp_path):
    normalized = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = open_images([np.zeros((8, 8, 3), np.uint8)] * 3 + [normalized], max_bad=0.5)
    assert len(images) == 3
    assert "wanted: 0 to 1, or 0 to 255" in images.skipped[0][1]
    with pytest.raises(ValueError, match="is empty"):
        open_images([])
    with pytest.raises(TypeError, match="a label of type dict"):
        open_images(Pairs(images_of(), [0, {}, 1]))


def test_a_run_learns_from_a_list_of_images(tmp_path):
    images = [Image.fromarray(image).resize((16 + i % 3, 16)) for i, image in enumerate(tiny_images(32))]
    settings = SETTINGS | {"epochs": 1, "size": 16, "labels": "none"}
    run = nearfar.fit(images, method="simclr", out=tmp_path / "run", **settings)
    assert run.embed(images[:5]).shape[0] == 5
