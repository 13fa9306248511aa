"""What can be set about training on recordings, and which data are recordings. Free of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from nearfar import settings
from nearfar.data import csv
from nearfar.errors import NotInstalled, UserError
from nearfar.modalities.recognize import LISTS
from nearfar.modalities.timm_names import insist_network
from nearfar.ranges import AtLeastTwo, NonNegativeFloat, NonNegativeInt, PositiveFloat, Range, UnitInterval

SUFFIXES = frozenset(
    f".{name}"
    for name in ("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd", "caf", "w64")
)
"""A file with such a suffix is a recording; if it cannot be read, it is a bad one."""

VIEWS = ("sound", "mixed", "speech", "masks", "crop")
"""The names that `nearfar.modalities.audio.views.NAMED` knows."""

OWN = {"melconv": 64, "melgru": 256, "wavegru": 512}
"""Networks of ours, each with its usual width; all others are those of timm."""


def own_network(name: str) -> tuple[str, int] | None:
    """Which network of ours is called so, and its width, such as 32 of melconv-32; None for any other name."""
    found = re.fullmatch(rf"({'|'.join(OWN)})(?:-0*([1-9][0-9]*))?", name)
    return (found[1], int(found[2] or OWN[found[1]])) if found else None


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "melconv"
    """melconv (convolutions on log-mel, 64 wide), melgru (a GRU over log-mel frames, 256 wide), wavegru (convolutions
    on the wave and a GRU, 512 wide, as in CPC), of another width by a number, such as melconv-128; or the name of any
    timm model, which sees log-mel as an image of one channel."""
    views: str = "sound"
    """What random views are made of each recording: sound (crop, shift, gain, noise), mixed (the same with another
    recording mixed in, and masks), speech (the same with changes of speed and masks), masks (crop, masks), crop, or
    FILE.py:FUNCTION.
    `nearfar views DATA` shows them."""
    rate: Annotated[int, Range(ge=0, le=384_000)] = 0
    """Samples a second that the encoder hears; recordings of other rates are resampled. 0 takes that of most
    recordings, 16,000 at most."""
    array_rate: NonNegativeInt = 0
    """Samples a second of recordings that are arrays and do not tell."""
    seconds: NonNegativeFloat = 0.0
    """Length of the views. 0 takes that which nine in ten recordings do not exceed, 4 seconds at most."""
    cut: NonNegativeFloat = 0.0
    """Longer recordings are cut into pieces of so many seconds: each is a sample, and those of one recording are one
    group. 0 leaves them whole: a view is a crop at a random place, and only that is read."""
    bands: AtLeastTwo = 40
    """Bands of the mel scale."""
    window: PositiveFloat = 0.04
    """Seconds that a frame of the spectrogram sees."""
    hop: PositiveFloat = 0.016
    """Seconds from one frame of the spectrogram to the next."""
    max_bad: UnitInterval = 0.05
    """Share of files that may be unreadable, or be lost while training reads them; --resume may change it."""

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, VIEWS)


def insist_installed() -> None:
    """Raise ModuleNotFoundError where soundfile is missing."""
    if find_spec("soundfile") is None:
        raise NotInstalled("files of recordings take soundfile, which is not installed: pip install 'nearfar[audio]'")


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so."""
    own = own_network(name)
    if own is None:
        insist_network(name, list(OWN))
    elif own[1] % 4:
        raise UserError(f"--encoder {name!r}: the width must be a multiple of 4")


def is_recording(name: str | os.PathLike[str]) -> bool:
    """Whether a file is called as recordings are."""
    return Path(name).suffix.lower() in SUFFIXES


def recognizes(data: Any) -> bool:
    """Whether data are recordings, open or not: a file, or a folder of which most files are some; a list of paths, as
    text, a table or a column; a .npz file of audio and offsets; a list of arrays of one dimension."""
    if hasattr(data, "recordings"):
        return True
    if isinstance(data, tuple) and len(data) == 2:
        return recognizes(data[0])
    if isinstance(data, str | os.PathLike):
        return _is_source(Path(data))
    if isinstance(data, list):
        some = data[:100]
        if all(isinstance(item, str | os.PathLike) for item in some):
            return bool(some) and all(map(is_recording, some))
        return all(_is_wave(item) for item in some)
    columns: Any = data if isinstance(data, Mapping) or hasattr(data, "columns") else {}
    there = getattr(columns, "column_names", getattr(columns, "columns", columns))  # of Arrow, of a frame, of a mapping
    if not isinstance(there, Iterable):  # samples that are open have columns of another make
        return False
    names = {str(name).strip().casefold(): name for name in there}
    some = list(columns[names["path"]][:100]) if "path" in names else []
    return bool(some) and all(map(is_recording, map(str, some)))


def _is_wave(item: Any) -> bool:
    if isinstance(item, Mapping):
        return "array" in item and "sampling_rate" in item
    return getattr(item, "ndim", 0) == 1


def _is_source(path: Path) -> bool:
    name = path.name.lower()
    if path.is_dir():
        held = list(islice(_files(path), 100))
        return 2 * sum(map(is_recording, held)) > len(held)
    if is_recording(path):
        return True
    if not path.is_file():
        return False
    if name.endswith((".txt", ".csv", ".tsv", ".csv.gz")):
        listed = name.endswith(".txt")
        rows = [["path"], *([line.strip()] for line in csv.first_lines(path) if line.strip())] if listed else []
        rows = rows or [row.cells for row in csv.first_rows(path, 2)]
        place = next((i for i, cell in enumerate(rows[0]) if cell.strip().casefold() == "path"), None) if rows else None
        return place is not None and len(rows) > 1 and len(rows[1]) > place and is_recording(rows[1][place])
    if name.endswith((".parquet", ".pq")):
        return _lists_recordings(path)
    if name.endswith(".npz"):
        import zipfile

        try:
            with zipfile.ZipFile(path) as file:
                return {"audio.npy", "offsets.npy"} <= set(file.namelist())
        except (OSError, zipfile.BadZipFile):
            return False
    return False


def _files(folder: Path) -> Iterator[str]:
    """The names of the files below a folder, hidden ones left out, without listing it whole."""
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        yield entry.name
        except OSError:
            continue


def _lists_recordings(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            name = csv.column(file.schema_arrow.names, "path")
            if name is None or name not in LISTS:
                return False
            first = next(file.iter_batches(batch_size=2, columns=[name]), None)
    except (pa.ArrowException, OSError):
        return False
    return first is not None and all(is_recording(str(value)) for value in first.column(0).to_pylist())


@dataclass(frozen=True, kw_only=True)
class Facts(settings.Facts):
    """What a recipe for recordings may go by. seconds: length of the views.  rate: samples a second."""

    seconds: float = 1.0
    rate: int = 16_000


def study_encoder() -> str:
    """The network on which methods are compared, where none is named: one that is quick on a CPU."""
    return "melconv"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "recordings"


def measured_for(data: Any) -> Literal[""]:
    """The recipes that were chosen by measurement: there are none yet."""
    return ""
