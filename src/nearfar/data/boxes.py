"""Boxes of objects in images, as tables, VOC and COCO write them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor

from nearfar.data import csv
from nearfar.data.labels import natural, plain_path, some, split_names
from nearfar.errors import NotFound, UserError, counted

EDGES = ("xmin", "ymin", "xmax", "ymax")


class Entry(NamedTuple):
    """A box as it is written, its edges counted from 0. where: it stands.  split: of its image, where that is said."""

    image: str
    edges: tuple[float, float, float, float]
    label: str
    where: str
    split: str = ""


@dataclass(frozen=True)
class Boxes:
    """Boxes of N images. boxes: of each, m x 4: left, top, right and bottom, in pixels of the image.  label: m, int64.
    split: N, what the boxes say of their images, or "".  notes: sentences for the user."""

    boxes: list[Tensor]
    label: list[Tensor]
    classes: list[str]
    split: list[str]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Written:
    """Boxes as a file or folder has them. given: it.  notes: sentences for the user."""

    given: str
    entries: list[Entry]
    notes: list[str]


def read_boxes(given: str | Path, origin: int = 0) -> Written:
    """Boxes as they are written.

    given: a .csv of the columns path, xmin, ymin, xmax, ymax and label, and perhaps split; a folder of VOC's .xml
    files; or a COCO .json file.
    origin: of a table 0, where edges are counted from 0 and right and bottom lie behind the box; or 1, where pixels are
    counted from 1 and right and bottom are in it. VOC's files are read as of 1, and COCO's as of 0.
    Raises ValueError where a file cannot be understood, or holds no boxes.
    """
    entries, notes = _entries(Path(given), origin)
    if not entries:
        raise UserError(f"--boxes {str(given)!r} holds no boxes")
    return Written(str(given), entries, notes)


def place_boxes(
    written: Written, names: Sequence[str], size: Callable[[int], tuple[int, int]], root: Path | None = None
) -> Boxes:
    """The boxes of images; those that reach beyond their image are cut there.

    names: of the N images.  size: of image i, (width, height).  root: the folder that paths may begin with.
    Raises ValueError where none of the boxes can be used, or which image they are of cannot be told.
    """
    given, entries, notes = written.given, written.entries, list(written.notes)
    place = _places(names, root, given, {entry.image for entry in entries})
    known, strange, lost = [], Counter[str](), []
    clipped: list[str] = []
    sizes: dict[int, tuple[int, int]] = {}
    split = [""] * len(names)
    for entry in entries:
        i = place(entry.image)
        if i is None:
            strange[entry.image] += 1
            continue
        split[i] = entry.split or split[i]
        left, top, right, bottom = entry.edges
        if not all(map(math.isfinite, entry.edges)) or right <= left or bottom <= top:
            lost.append(f"{entry.where}: {_shown(entry.edges)}, without area, or swapped")
            continue
        width, height = sizes.setdefault(i, size(i))
        cut = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            lost.append(f"{entry.where}: {_shown(entry.edges)}, outside its image of {width} x {height}")
            continue
        if cut != entry.edges:
            clipped.append(f"{entry.where}: {_shown(entry.edges)} in {width} x {height}")
        known.append((i, cut, entry.label))
    if not known:
        why = some([*lost, *(f"no image is called {name!r}" for name in strange)])
        raise UserError(
            f"none of {counted(len(entries), 'boxes')} in {given!r} can be used: {why}. The images are called "
            f"{some(list(map(repr, names)))}"
        )
    said = (("Cut at the edges of their images", clipped), ("Left out", lost))
    notes += [f"{what}: {counted(len(part), 'boxes')}, such as {some(part)}." for what, part in said if part]
    if strange:
        who = some(list(map(repr, strange)))
        notes.append(f"Left out: {counted(strange.total(), 'boxes')} of images that DATA do not hold, such as {who}.")
    classes = sorted({label for _, _, label in known}, key=natural)
    rows: list[list[tuple[tuple[float, ...], int]]] = [[] for _ in names]
    for i, edges, label in known:
        rows[i].append((edges, classes.index(label)))
    return Boxes(
        [torch.tensor([edges for edges, _ in own]).reshape(-1, 4) for own in rows],
        [torch.tensor([c for _, c in own], dtype=torch.int64) for own in rows],
        classes,
        split_names(split, where=f"the column split of {given!r}"),
        notes,
    )


def _entries(path: Path, origin: int) -> tuple[list[Entry], list[str]]:
    if path.is_dir():
        files = sorted(path.rglob("*.xml"))
        if not files:
            raise UserError(f"--boxes {str(path)!r} is a folder without .xml files, as VOC has them")
        return [entry for file in files for entry in _voc(file)], []
    if not path.is_file():
        raise NotFound(f"--boxes {str(path)!r}: there is no such file or folder")
    if path.suffix.lower() == ".json":
        return _coco(path)
    return _table(path, origin), []


def _table(path: Path, origin: int) -> list[Entry]:
    header, records = csv.read_records(path)
    found = {name: csv.column(header.cells, name) for name in ("path", *EDGES, "label")}
    if lacking := [name for name, own in found.items() if own is None]:
        raise UserError(
            f"'{path}', line {header.line}: no column {some(list(map(repr, lacking)))}. Wanted: path, "
            f"{', '.join(EDGES)} and label, one box a line; there are {', '.join(header.cells) or 'none'}"
        )
    called = {name: str(own) for name, own in found.items()}
    split = csv.column(header.cells, "split")
    made = []
    for line, row in records:
        where = f"'{path}', line {line}"
        edges = tuple(_number(row[called[name]], name, where) for name in EDGES)
        if not (label := csv.known(row[called["label"]])):
            raise UserError(f"{where}: the label is empty. Name the class of the box")
        made.append(Entry(row[called["path"]], _from_zero(edges, origin), label, where, row[split] if split else ""))
    return made


def _voc(path: Path) -> list[Entry]:
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"'{path}', line {error.position[0]}: no XML ({error}). Write it anew") from error
    image = (tree.findtext("filename") or path.stem).strip()
    made = []
    for k, each in enumerate(tree.iter("object"), 1):
        where = f"'{path}', object {k}"
        label, box = (each.findtext("name") or "").strip(), each.find("bndbox")
        if not label or box is None:
            raise UserError(f"{where}: no {'bndbox' if label else 'name'}, as VOC has it")
        edges = tuple(_number(box.findtext(name) or "", name, where) for name in EDGES)
        made.append(Entry(image, _from_zero(edges, 1), label, where))
    return made


def _coco(path: Path) -> tuple[list[Entry], list[str]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        images = {one["id"]: str(one["file_name"]) for one in held["images"]}
        classes = {one["id"]: str(one["name"]) for one in held["categories"]}
        annotations = held["annotations"]
    except json.JSONDecodeError as error:
        raise UserError(f"'{path}', line {error.lineno}: no JSON ({error.msg})") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' lacks {error}: wanted, as COCO has them: images (id, file_name), annotations (image_id, bbox, "
            "category_id) and categories (id, name)"
        ) from error
    made, crowds = [], 0
    for k, one in enumerate(annotations):
        where = f"'{path}', annotation {one.get('id', k) if isinstance(one, dict) else k}"
        try:
            image, label, bbox = images[one["image_id"]], classes[one["category_id"]], one["bbox"]
            left, top, width, height = (_number(str(v), "bbox", where) for v in bbox)
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: {error} is not there") from error
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{where}: bbox {one['bbox']} is not left, top, width and height") from error
        if one.get("iscrowd"):
            crowds += 1
        else:
            made.append(Entry(image, (left, top, left + width, top + height), label, where))
    return made, [f"Left out: {counted(crowds, 'boxes')} of crowds."] if crowds else []


def _from_zero(edges: Sequence[float], origin: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = edges
    return left - origin, top - origin, right, bottom


def _number(text: str, name: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}: {name} is {text.strip()!r}, and a number is wanted") from None


def _shown(edges: Sequence[float]) -> str:
    return f"({', '.join(f'{edge:g}' for edge in edges)})"


def _places(
    names: Sequence[str], root: Path | None, given: str, called: Collection[str]
) -> Callable[[str], int | None]:
    """Which image is called so: by its path, else by its last part, where only one ends so.

    called: all names that are asked for. Where two of them, such as train/1.jpg and test/1.jpg, would be one image,
    only that which the image's full path ends with is.
    Raises ValueError where that is none of them, or several images end so.
    """
    whole = {plain_path(name, root): i for i, name in enumerate(names)}
    count = Counter(PurePosixPath(name).name for name in whole)
    last = {PurePosixPath(name).name: i for name, i in whole.items()}
    known: dict[int, list[str]] = {}
    for name in sorted(called):
        own = plain_path(name, root)
        i = whole.get(own)
        if i is None:
            end = PurePosixPath(own).name
            if count[end] > 1:
                raise UserError(
                    f"{count[end]} images are called {end!r}, and which one {name!r} is cannot be told: give its path"
                )
            i = last.get(end)
        if i is not None:
            known.setdefault(i, []).append(name)
    made: dict[str, int] = {}
    for i, several in known.items():
        longest = max(several, key=lambda name: len(PurePosixPath(name).parts))
        if not all(_ends_alike(name, longest) for name in several):
            full = Path(root or "", names[i]).absolute().as_posix()
            if not (own := [name for name in several if _ends_alike(plain_path(name, root), full)]):
                raise UserError(
                    f"{given!r} holds {some(list(map(repr, several)))}, and which of them the image {names[i]!r} is "
                    "cannot be told: write there the paths of DATA"
                )
            several = own
        made |= dict.fromkeys(several, i)
    return made.get


def _ends_alike(one: str, other: str) -> bool:
    """Whether the shorter of two paths is the end of the longer one."""
    pairs = zip(reversed(PurePosixPath(one).parts), reversed(PurePosixPath(other).parts), strict=False)
    return all(a == b for a, b in pairs)
