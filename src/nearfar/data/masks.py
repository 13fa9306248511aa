"""Label maps of images: a number for each pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import some
from nearfar.errors import NotFound, UserError, counted

PLAIN = ("1", "P", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""The modes of Pillow's that hold one number for each pixel; of a palette its indices."""

MOST = 256
"""Classes beyond which the numbers of masks are taken to be those of instances."""


@dataclass(frozen=True)
class Masks:
    """The masks of N images. paths: of each, or None.  classes: their names.  value: of each class the number in the
    files, rising.  instances: whether every number above 0 is the second class.  ignored: the number of pixels that
    count for nothing, or None.
    """

    paths: list[Path | None]
    classes: list[str]
    value: Tensor
    instances: bool
    ignored: int | None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def there(self) -> Tensor:
        """Which images have a mask: N, bool."""
        return torch.tensor([path is not None for path in self.paths], dtype=torch.bool)

    def numbers(self, i: int) -> Tensor:
        """The mask of image i as it is written: H x W, int64."""
        path = self.paths[i]
        assert path is not None
        return read_mask(path)

    def classed(self, i: int) -> Tensor:
        """The class of each pixel of image i, MISSING where it counts for nothing: H x W, int64."""
        numbers = self.numbers(i)
        if self.instances:
            made = (numbers > 0).long()
        else:
            made = torch.searchsorted(self.value, numbers)
        return made if self.ignored is None else torch.where(numbers == self.ignored, MISSING, made)


def read_mask(path: Path) -> Tensor:
    """The numbers of a mask: H x W, int64; of a palette its indices. Raises ValueError where it holds colors."""
    try:
        with Image.open(path) as image:
            if image.format in ("JPEG", "WEBP", "AVIF"):
                raise UserError(
                    f"the mask {str(path)!r} is a {image.format} file, which may change numbers: save it as PNG"
                )
            if image.mode not in PLAIN:
                raise UserError(
                    f"the mask {str(path)!r} holds colors ({image.mode}), and one number for each pixel is wanted: "
                    "save it as a gray or palette PNG, such as by Image.fromarray(numbers.astype('uint8'))"
                )
            return torch.from_numpy(np.array(image, dtype=np.int64))
    except FileNotFoundError as error:
        raise NotFound(f"there is no mask {str(path)!r}") from error
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"the mask {str(path)!r} cannot be read ({error}): save it as PNG") from error


def open_masks(
    given: str | Path,
    names: Sequence[str],
    cells: Sequence[Mapping[str, str]],
    root: Path | None,
    *,
    instances: bool = False,
    ignored: int | None = None,
) -> Masks:
    """The masks of images, each of which is read once, for the numbers that it holds.

    given: a folder, in which a mask has the path or the stem of its image; or a column that names the mask of each.
    names: of the images.  cells: what a table says of each, or nothing.  root: the folder that paths are relative to.
    instances: numbers above 0 are those of single objects of one class.  ignored: a number that stands for no class.
    Raises ValueError where no image has a mask, one cannot be read, or there are too many classes.
    """
    columns = sorted({name for row in cells for name in row})
    insist_masks(given, columns)
    if str(given) in columns:
        paths = [Path(root or "", row[str(given)]) if row.get(str(given)) else None for row in cells]
    else:
        paths = _in_folder(Path(given), names)
    if not any(paths):
        raise UserError(
            f"none of {counted(len(names), 'images')} has a mask in {str(given)!r}: {names[0]!r}, for one, wants "
            f"a file of that path or of the stem {PurePosixPath(names[0]).stem!r} there"
        )
    mistaken = [
        name
        for name, path in zip(names, paths, strict=True)
        if path is not None and root is not None and Path(root, name).resolve() == path.resolve()
    ]
    if mistaken:
        raise UserError(
            f"{counted(len(mistaken), 'masks')} in {str(given)!r} are among the images of DATA, such as "
            f"{mistaken[0]!r}: give the folder of the images alone, or a list of them"
        )
    if str(given) not in columns:
        _insist_one_each(given, names, paths)
    found: set[int] = set()
    for path in paths:
        if path is not None:
            found |= set(read_mask(path).unique().tolist())
            if len(found) > MOST and not instances:
                raise UserError(
                    f"the masks in {str(given)!r} hold more than {MOST} numbers: where they number single objects, "
                    "give --instances; else merge classes"
                )
    value = sorted(found - {ignored})
    if instances:
        return Masks(paths, ["background", "object"], torch.tensor([0, 1]), True, ignored)
    if len(value) < 2:
        raise UserError(f"the masks in {str(given)!r} hold one class only, {value}: two or more are wanted")
    return Masks(paths, list(map(str, value)), torch.tensor(value), False, ignored)


def insist_masks(given: str | Path, columns: Sequence[str]) -> None:
    """Raise FileNotFoundError where masks are neither in a folder nor in one of the columns of a list."""
    if str(given) not in columns and not Path(given).is_dir():
        held = f"the columns are {', '.join(columns)}" if columns else "DATA have no columns"
        raise NotFound(f"--masks {str(given)!r} is neither a folder nor a column: {held}")


def insist_sizes(masks: Masks, names: Sequence[str], size: Any) -> None:
    """Raise ValueError where masks have another size than their images. size: of image i, (width, height)."""
    wrong = []
    for i, path in enumerate(masks.paths):
        if path is not None:
            with Image.open(path) as mask:
                if mask.size != (own := size(i)):
                    wrong.append(f"{names[i]!r} is {own[0]} x {own[1]} and its mask {mask.width} x {mask.height}")
    if wrong:
        raise UserError(
            f"{counted(len(wrong), 'masks')} of {int(masks.there.sum()):,} have another size than their image: "
            f"{some(wrong)}. Make them anew, or scale them by nearest neighbor"
        )


def _insist_one_each(given: str | Path, names: Sequence[str], paths: Sequence[Path | None]) -> None:
    """Raise ValueError where a mask would be that of several images."""
    taken: dict[Path, str] = {}
    for name, path in zip(names, paths, strict=True):
        if path is not None and taken.setdefault(path, name) != name:
            raise UserError(
                f"--masks {str(given)!r} holds one file of the stem {path.stem!r}, and whether it is that of "
                f"{taken[path]!r} or {name!r} cannot be told: give masks the paths of the images"
            )


def _in_folder(folder: Path, names: Sequence[str]) -> list[Path | None]:
    """Of each image the file of the same path, else of the same path but for the suffix, else of the same stem."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    whole = {path.relative_to(folder).as_posix(): path for path in files}
    bare = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    count = Counter(path.stem for path in files)
    stems = {path.stem: path for path in files}
    paths = [whole.get(own.as_posix()) or bare.get(own.with_suffix("").as_posix()) for own in map(PurePosixPath, names)]
    by_path = {path for path in paths if path is not None}
    for i, name in enumerate(names):
        stem = PurePosixPath(name).stem
        if paths[i] is not None or stem not in stems:
            continue
        if count[stem] > 1:
            raise UserError(
                f"--masks {str(folder)!r} holds {count[stem]} files of the stem {stem!r}, and which is "
                f"that of {name!r} cannot be told: give them the paths of the images"
            )
        if stems[stem] not in by_path:  # else of another image, as test/1.jpg is where there is a mask train/1.png
            paths[i] = stems[stem]
    return paths
