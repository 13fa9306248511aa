"""Videos as samples: files, folders of frames, arrays. What is read of one is said by the views."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.archives import Files, ignored, nothing_wanted
from nearfar.data.folders import files_below
from nearfar.data.labels import LabelColumn, array_labels, given_labels, natural, no_labels
from nearfar.data.samples import Samples, insist_few_bad
from nearfar.errors import Lost, UserError, WrongType
from nearfar.files import name_text
from nearfar.machine import cores
from nearfar.modalities.image import sources
from nearfar.modalities.image.sources import Opened
from nearfar.modalities.recognize import VIDEOS
from nearfar.modalities.video.films import Coded, Film, Held, Stills
from nearfar.modalities.video.settings import insist_av

T = TypeVar("T")

WANTED = (
    "a folder of files of video, or of folders of which each holds the frames of one; a .txt or .csv with one path a "
    "line; an array N x T x H x W x 3, a .npz file with one, or a list of arrays T x H x W x 3"
)


@dataclass(frozen=True)
class Unread:
    """Some videos of which views are yet to say what is read.  index: N, int64, positions in `samples`."""

    samples: Videos
    index: Tensor

    def count(self) -> int:
        return len(self.index)

    def select(self, index: Tensor) -> Unread:
        return replace(self, index=self.index[index])

    def to(self, device: torch.device) -> Unread:
        return self

    def pin(self) -> Unread:
        return self


@dataclass(slots=True, eq=False, kw_only=True)
class Videos(Samples):
    """N videos, each of any length and shape, in color.

    side: of the squares to which frames are squashed, in pixels.  sequence: N, int64: cameras that saw the same at the
    same time have one number, or MISSING.
    """

    PER_SAMPLE = ("films", "sequence")
    FINITE = True  # pixels are whole numbers

    films: list[Film]
    sequence: Tensor
    side: int

    @property
    def lengths(self) -> Tensor:
        """Frames of each: N, int64."""
        return torch.tensor([film.length for film in self.films], dtype=torch.int64)

    @property
    def aspect(self) -> Tensor:
        """Width over height of each: N."""
        return torch.tensor([film.shape[0] / film.shape[1] for film in self.films])

    def fetch(self, index: Tensor) -> tuple[Unread]:
        """The videos, of which views read what they show."""
        return (Unread(self, index.cpu()),)

    def to(self, device: torch.device | str) -> Self:
        return self

    def read(self, wanted: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """Frames of some videos, which may be named twice: n x T x 3 x side x side, uint8, on the CPU.

        wanted: of each the position and the numbers of T frames.  Raises Lost where some can be read no more, by their
        places among those that are wanted.
        """
        made = _threaded(lambda one: _attempt(lambda: self.films[one[0]].frames(one[1], self.side)), wanted)
        if lost := {k: (self.names[wanted[k][0]], why) for k, (_, why) in enumerate(made) if why}:
            raise Lost(lost)
        return torch.from_numpy(np.stack([frames for frames, _ in made if frames is not None]))

    def middle(self, index: Tensor) -> Tensor:
        """The frame in the middle of some videos: n x 3 x side x side."""
        return self.read([(i, [self.films[i].length // 2]) for i in index.tolist()])[:, 0]


def open_videos(
    data: Any,
    *,
    labels: Any = None,
    label_column: str | LabelColumn = "",
    side: int | None = None,
    size: int = 64,
    max_bad: float = 0.05,
    fps: float = 0.0,
    keep: Sequence[str] = (),
) -> Videos:
    """Open videos for training.

    data: see `WANTED`. A list (.csv) may have columns label, group, attribute, split, and sequence and camera: videos
    of one sequence were taken at the same time, and are one group. A .npz file may have labels as one of images may.
    labels: the word folders, a table, an array, or None for those that the data bring.  label_column: of these.
    side: S of the squares that frames become. Default: the median short side, at most 2 x size.
    size: of the views to be cut from them.  max_bad: the share of videos that may fail to be read; they are skipped and
    listed.  fps: frames a second to take of files.  keep: words that are labels, though they say that none is known.

    Raises FileNotFoundError where there is nothing, ValueError where there are no videos, too many bad ones, or labels
    do not fit, ModuleNotFoundError where files are to be read and PyAV is not installed.
    """
    if isinstance(data, Videos):
        return data
    column = LabelColumn.of(label_column)
    opened, films, sequence = _found(data, column if labels is None else LabelColumn(column.name), keep)
    known = opened.labels or no_labels(opened.names, noun="video")
    if labels is not None:
        own = given_labels(labels, opened.names, column=column, root=opened.root, noun="video", keep=keep)
        known = own.beside(known.group, known.attribute, known.split)
    if any(isinstance(film, Coded) for film in films):
        insist_av()
    elif fps:
        raise UserError(f"--fps {fps:g} goes by the times of frames, and these videos are no files that tell them")
    why = [why for _, why in _threaded(lambda film: _attempt(lambda: _ready(film, fps)), films)]
    skipped = [(opened.names[i], reason) for i, reason in enumerate(why) if reason]
    insist_few_bad(skipped, len(films), max_bad, f"videos of '{opened.given}'")
    notes = [*opened.notes, *known.notes]
    kept = [i for i, reason in enumerate(why) if not reason]
    if uneven := sum(film.uneven for i in kept if isinstance(film := films[i], Coded)):
        notes.append(f"{uneven} of {len(kept)} videos have frames at uneven times: --fps takes them at even ones.")
    videos = Videos(
        names=opened.names,
        label=known.label,
        classes=known.classes,
        group=torch.where(known.group == MISSING, sequence, known.group) if (sequence >= 0).any() else known.group,
        attribute=known.attribute,
        split=known.split,
        films=films,
        sequence=sequence,
        side=side or min(2 * size, round(statistics.median(min(films[i].shape) for i in kept))),
        skipped=skipped,
        notes=notes,
        digest=[film.identity() for film in films],
        max_bad=None if all(isinstance(film, Held) for film in films) else max_bad,
        label_column=column.name,
    )
    return videos.subset(kept) if skipped else videos


def _ready(film: Film, fps: float) -> None:
    if isinstance(film, Coded):
        film.open(fps)
    elif isinstance(film, Stills):
        film.open()


def _found(data: Any, column: LabelColumn, keep: Sequence[str]) -> tuple[Opened, list[Film], Tensor]:
    """What there is at DATA, a film for each, not yet opened, and which were taken at the same time."""
    films: list[Film]
    if isinstance(data, str | os.PathLike) and Path(data).is_dir():
        column.find((), f"'{data}'")
        opened, films = _folder(Path(data))
    elif isinstance(data, str | os.PathLike) and Path(data).suffix.lower() in VIDEOS:
        opened = sources.find([data], column, keep)
        films = [Coded(Path(data))]
    elif isinstance(data, list) and data and not isinstance(data[0], str | os.PathLike):
        films = [Held(_frames(array, f"array {i} of the list")) for i, array in enumerate(data)]
        opened = Opened("the list", np.empty(0), list(map(str, range(len(films)))))
    else:
        opened = sources.find(data, column, keep, array=_clips)
        if isinstance(opened.source, np.ndarray):
            films = [Held(_frames(array, opened.given)) for array in opened.source]
        elif isinstance(opened.source, Files):
            films = [_film(path) for path in opened.source.paths]
        else:
            raise UserError(f"{opened.given} holds no videos; wanted: {WANTED}")
    return opened, films, _sequences(data, opened.names)


def _film(path: Path) -> Film:
    """A file, or a folder of frames; what is neither says so when it is opened."""
    if not path.is_dir():
        return Coded(path)
    stills = [path / name for name in sorted(os.listdir(path), key=natural) if _is_still(name)]
    return Stills(stills)


def _is_still(name: str) -> bool:
    return Path(name).suffix.lower() in sources.SUFFIXES and not name.startswith(".")


def _folder(root: Path) -> tuple[Opened, list[Film]]:
    """The files of video below a folder; or, where there are none, its folders of images."""
    below, notes = files_below(root)
    names = [name for name in below if Path(name).suffix.lower() in VIDEOS]
    if names:
        films: list[Film] = [Coded(root / name) for name in names]
        others = [name for name in below if name not in set(names)]
    else:
        stills = [name for name in below if _is_still(name)]
        folders: dict[str, list[Path]] = {}
        for name in stills:
            folders.setdefault(str(PurePosixPath(name).parent), []).append(root / name)
        loose = folders.pop(".", [])
        names = list(folders)
        films = [Stills(paths) for paths in folders.values()]
        others = [*(path.name for path in loose), *(name for name in below if not _is_still(name))]
    if not names:
        raise UserError(f"'{root}' {nothing_wanted(others, 'video')}. Wanted: {WANTED}.")
    notes = [*notes, *ignored(others, "video")]
    shown = [name_text(name) for name in names]
    return Opened(str(root), Files([root / name for name in names]), shown, root, notes=notes), films


def _sequences(data: Any, names: list[str]) -> Tensor:
    """By the column sequence of a list of videos."""
    none = torch.full((len(names),), MISSING)
    if not isinstance(data, str | os.PathLike) or Path(data).suffix.lower() != ".csv":
        return none
    header, records = csv.read_records(data if isinstance(data, Path) else Path(data))
    found, path = csv.column(header.cells, "sequence"), csv.column(header.cells, "path")
    if not found or not path:
        return none
    of = {sources.as_listed(row[path]): row[found] for _, row in records}
    return array_labels([of.get(name, "") for name in names], len(names), noun="video").label


def _clips(data: Any, given: str) -> Opened:
    """An array of videos."""
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.ndim != 5:
        said = " x ".join(map(str, array.shape))
        raise UserError(f"{given} is {said} of {array.dtype}; wanted: {WANTED}")
    return Opened(given, array, list(map(str, range(len(array)))))


def _frames(array: Any, given: str) -> np.ndarray:
    """T x H x W x 3, uint8, of an array of frames; gray ones become color."""
    array = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape or array.shape[3] not in (1, 3):
        said = " x ".join(map(str, array.shape))
        raise WrongType(f"{given} is {said} of {array.dtype}; wanted: frames of 8 bits (uint8), T x H x W x 3")
    return np.broadcast_to(array, (*array.shape[:3], 3))


def _threaded(work: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    """`work` of each, side by side."""
    workers = min(cores(), len(items))
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


def _attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """What it gives, or why it cannot be read."""
    try:
        return work(), ""
    except (OSError, ValueError, SyntaxError) as error:
        return None, str(error) or type(error).__name__
