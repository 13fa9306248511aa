"""Images that Python holds: lists of images or arrays, and datasets of torch or of Hugging Face."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from nearfar.data import csv
from nearfar.data.archives import Stamp, file_stamp
from nearfar.data.labels import LabelColumn, Labels, array_labels, no_labels, some, split_names
from nearfar.errors import UserError, WrongType
from nearfar.modalities.image.decode import Item, array_shape

UNDERSTOOD = (
    "the path of a folder, list, archive, table or NumPy file; a list of paths, PIL images, arrays or tensors; an "
    "array or tensor of all images; a pair (images, labels); a torch Dataset of images or of (image, label); a "
    "datasets.Dataset with a column of images"
)
"""What `open_images` takes, for messages."""

COLUMNS = ("group", "attribute", "split")
"""What a table may say of an image beside its label."""


@dataclass(slots=True)
class Held:
    """Images that `get` gives, one at a time: few datasets of torch may be asked by several threads at once."""

    get: Callable[[int], Any]
    lock: Any = field(default_factory=threading.Lock)

    def stream(self, row: int) -> Item:
        return self.read(row)

    def read(self, row: int) -> Item:
        with self.lock:
            return as_item(self.get(row))

    def stamp(self, row: int) -> Stamp:
        return None


@dataclass(slots=True)
class Rows:
    """Images of one size in an array, N x H x W x C, whose numbers are no bytes yet."""

    array: np.ndarray

    def stream(self, row: int) -> np.ndarray:
        return self.array[row]

    read = stream

    def stamp(self, row: int) -> Stamp:
        return None


@dataclass(slots=True)
class Column:
    """A column of images of a datasets.Dataset, encoded as they lie in it, or in files that it names."""

    rows: Any
    name: str

    def stream(self, row: int) -> BinaryIO:
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        cell = self.rows[row][self.name]
        if cell is None:
            raise UserError("the row has no image")
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()

    def stamp(self, row: int) -> Stamp:
        cell = self.rows[row][self.name]
        return file_stamp(Path(cell["path"])) if cell is not None and cell["bytes"] is None else None


def held(data: Any, label: LabelColumn, keep: Sequence[str] = ()) -> tuple[Held | Column, int, Labels | None]:
    """The images that an object holds, their number, and their labels, where it has any.

    Raises TypeError where it is nothing that is understood, ValueError where it is empty or has no images.
    """
    if isinstance(data, Mapping) and any(hasattr(part, "features") for part in data.values()):
        raise WrongType(f"a DatasetDict of the splits {some([str(name) for name in data])}: give one of them")
    if isinstance(data, Mapping) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise WrongType(f"{_type(data)} holds no images that are understood here; wanted: {UNDERSTOOD}")
    if len(data) == 0:
        raise UserError(f"the {_type(data)} is empty; wanted: {UNDERSTOOD}")
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return _column(data, label, keep)
    label.find((), f"the {_type(data)}")
    first = data[0]
    if isinstance(data, list) or not isinstance(first, tuple | list):
        as_item(first, asked=data)
        return Held(data.__getitem__), len(data), None
    as_item(first[0], asked=data)
    labels = _labels(data, first[1], keep) if len(first) > 1 else None
    return Held(lambda row: data[row][0]), len(data), labels


def as_item(value: Any, asked: Any = None) -> Item:
    """An image as `nearfar.modalities.image.decode` takes it.

    A tensor is C x H x W or H x W; an array H x W, H x W x C, or C x H x W where C is the smallest of the three.
    asked: what it came from, for the message.
    """
    if isinstance(value, Image.Image):
        value.load()
        return value
    if isinstance(value, bytes):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
        if value.ndim == 3:
            value = value.transpose(1, 2, 0)
        array_shape(value.shape, value.dtype)
        return value if value.ndim == 3 else value[..., None]
    if isinstance(value, np.ndarray):
        shape = array_shape(value.shape, value.dtype)
        return value.transpose(1, 2, 0) if value.ndim == 3 and value.shape != shape else value.reshape(shape)
    source = "" if asked is None else f" in the {_type(asked)}"
    raise WrongType(f"{_type(value)}{source} is no image that is understood here; wanted: {UNDERSTOOD}")


def known_columns(
    columns: Mapping[str, Sequence[Any]], label: str, names: list[str], classes: Any, keep: Sequence[str] = ()
) -> Labels | None:
    """Labels from the columns of a table, `label` and `COLUMNS`, as far as there are any.

    classes: the names of numbered labels, or None.
    """
    if not columns:
        return None
    n = len(names)
    if label in columns:
        labels = array_labels(columns[label], n, names=classes, noun="image", keep=keep)
    else:
        labels = no_labels(names, noun="image")
    if "group" in columns:
        labels.group = array_labels(columns["group"], n).label
    if "attribute" in columns:
        labels.attribute = array_labels(columns["attribute"], n).label
    split = split_names(columns.get("split", ()))
    labels.split = split if any(split) else no_labels(names, noun="image").split
    return labels


def _labels(data: Any, first: Any, keep: Sequence[str]) -> Labels:
    """The labels of a dataset of (image, label): its `targets`, if it has them as torchvision's do; else every sample
    is made once to ask it. Where it names its `classes`, labels are numbers of these.

    first: the label of the first sample.
    """
    n = len(data)
    values = getattr(data, "targets", None)
    changed = getattr(data, "target_transform", None) is not None
    if values is None or changed or len(values) != n or _plain(values[0]) != _plain(first):
        values = [data[row][1] for row in range(n)]
    values = [_plain(value) for value in values]
    for value in values:
        if not isinstance(value, int | float | str | None):
            raise WrongType(f"a label of type {_type(value)}; wanted: a number, a text, or None where it is unknown")
    classes = getattr(data, "classes", None)
    names = list(map(str, classes)) if isinstance(classes, list | tuple) else None
    if names is not None and not all(isinstance(value, int) and 0 <= value < len(names) for value in values):
        names = None
    return array_labels(np.array(values, dtype=object), n, names=names, noun="image", keep=keep)


def _plain(value: Any) -> Any:
    """A label as a plain number or text."""
    single = isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and value.shape in ((), (1,)))
    return value.item() if single else value


def _column(data: Any, label: LabelColumn, keep: Sequence[str]) -> tuple[Column, int, Labels | None]:
    kinds = {name: type(feature).__name__ for name, feature in data.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if not images:
        columns = some([f"{name} ({kind})" for name, kind in kinds.items()])
        raise UserError(f"the dataset has the columns {columns}; wanted: one of the type datasets.Image")
    plain = data.with_format(None)
    rows = plain.select_columns(images[:1]).cast_column(images[0], type(data.features[images[0]])(decode=False))
    there = {label.name: label.find(list(kinds), "the dataset")}
    there |= {name: csv.column(list(kinds), name) for name in COLUMNS}
    present = {name: found for name, found in there.items() if found}
    read = plain.select_columns(list(present.values()))[:] if present else {}
    columns = {name: read[found] for name, found in present.items()}
    classes = getattr(data.features.get(present.get(label.name, "")), "names", None)
    if classes is not None:  # a test split without labels has -1
        columns[label.name] = [None if value == -1 else value for value in columns[label.name]]
    labels = known_columns(columns, label.name, list(map(str, range(len(data)))), classes, keep)
    return Column(rows, images[0]), len(data), labels


def _type(value: Any) -> str:
    return type(value).__name__
