"""Recordings as they lie in files or arrays: looked through once, then read in parts, each from its place alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearfar.data.archives import Stamp, file_stamp
from nearfar.errors import UserError
from nearfar.files import digest, file_digest
from nearfar.machine import cores

BLOCK = 1 << 18
"""Frames that are looked through at a time, so that memory does not grow with a recording."""

FULL = 0.999
"""Of the largest number: a sample from there on counts as clipped."""


@dataclass(slots=True)
class Recording:
    """A recording as it was when it was first read.

    rate: samples a second.  frames: samples of each channel.  peak: the largest of all, of 1.  power: their mean
    square.  full: the share of them at full scale.  form: how it is written, such as PCM_16.
    """

    rate: int
    channels: int
    frames: int
    digest: str
    stamp: Stamp
    peak: float
    power: float
    full: float
    form: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


class Store(Protocol):
    """Where recordings lie, known by position."""

    def __len__(self) -> int: ...

    def examine(self, row: int) -> Recording:
        """Look through a whole recording. Raises ValueError or OSError where it cannot be read to its end."""
        ...

    def read(self, row: int, start: int, frames: int) -> np.ndarray:
        """Some frames, all of which are there: frames x channels, float32."""
        ...

    def changed(self, row: int, known: Recording) -> str:
        """Why a recording is another one than the one known; "" where it is that one."""
        ...


@dataclass(slots=True)
class Files:
    """Recordings in files that libsndfile reads."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def examine(self, row: int) -> Recording:
        path = self.paths[row]
        if not path.is_file():
            raise UserError("there is no such file" if not path.exists() else "not a regular file")
        stamp = file_stamp(path)
        with _sound(path) as file:
            return _examined(_blocks(file), file.samplerate, file.frames, stamp, path, file.subtype)

    def read(self, row: int, start: int, frames: int) -> np.ndarray:
        with _sound(self.paths[row]) as file:
            file.seek(start)
            return file.read(frames, dtype="float32", always_2d=True)

    def changed(self, row: int, known: Recording) -> str:
        stamp = file_stamp(self.paths[row])
        if stamp != known.stamp:
            if file_digest(self.paths[row])[:16] != known.digest:
                return "its bytes have changed"
            known.stamp = stamp
        return ""


@dataclass(slots=True)
class Arrays:
    """Recordings in memory, of one channel each; whole numbers are scaled by the largest of their type."""

    waves: list[np.ndarray]
    rates: list[int]

    def __len__(self) -> int:
        return len(self.waves)

    def examine(self, row: int) -> Recording:
        wave = self.waves[row]
        blocks = (self.read(row, start, BLOCK) for start in range(0, len(wave), BLOCK))
        return _examined(blocks, self.rates[row], len(wave), None, wave, str(wave.dtype))

    def read(self, row: int, start: int, frames: int) -> np.ndarray:
        part = self.waves[row][start : start + frames]
        if part.dtype.kind == "f":
            return part.astype(np.float32)[:, None]
        zero, scale = (0, np.iinfo(part.dtype).max + 1) if part.dtype.kind == "i" else (128, 128)
        return ((part.astype(np.float32) - zero) / scale)[:, None]

    def changed(self, row: int, known: Recording) -> str:
        return ""


def _sound(path: Path) -> Any:
    import soundfile

    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise UserError(error.error_string.rstrip(".") or "it cannot be read") from error


def _blocks(file: Any) -> Iterator[np.ndarray]:
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block


def _examined(
    blocks: Iterator[np.ndarray], rate: int, told: int, stamp: Stamp, source: Path | np.ndarray, form: str
) -> Recording:
    """What goes through a recording block by block.  told: how many frames its head tells."""
    frames = channels = full = 0
    peak = power = 0.0
    try:
        for block in blocks:
            size = np.abs(block)
            if not np.isfinite(top := float(size.max())):
                raise UserError("it holds NaN or infinite numbers")
            frames, channels, peak = frames + len(block), block.shape[1], max(peak, top)
            full += int((size >= FULL).sum())
            power += float(np.square(block, dtype=np.float64).sum())
    except RuntimeError as error:  # of libsndfile, in the middle of a file
        raise UserError(f"it breaks off after {frames / rate:.2f} of {told / rate:.2f} s ({error})") from error
    if frames < told:
        raise UserError(f"it breaks off after {frames / rate:.2f} of {told / rate:.2f} s")
    if not frames:
        raise UserError("it is empty: no sample is in it")
    known = file_digest(source)[:16] if isinstance(source, Path) else digest(f"{form}".encode(), source.tobytes())
    total = frames * channels
    return Recording(rate, channels, frames, known, stamp, peak, power / total, full / total, form)


def examined(store: Store) -> tuple[dict[int, Recording], dict[int, str]]:
    """Every recording, looked through once, so that no broken file ends a run hours later; and why others are none."""

    def attempt(row: int) -> Recording | str:
        try:
            return store.examine(row)
        except MemoryError:
            raise
        except Exception as error:  # decoders of broken files raise nearly everything
            return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__

    with ThreadPoolExecutor(cores()) as pool:
        results = list(pool.map(attempt, range(len(store))))
    good = {row: result for row, result in enumerate(results) if isinstance(result, Recording)}
    return good, {row: result for row, result in enumerate(results) if isinstance(result, str)}


@cache
def _filter(up: int, down: int) -> np.ndarray:
    """The low-pass of `scipy.signal.resample_poly`: a Kaiser window on a sinc, ten zeros to each side."""
    from scipy.signal import firwin

    widest = max(up, down)
    taps: Any = firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))  # pyright: ignore[reportArgumentType]
    return taps.astype(np.float32)


def heard(store: Store, row: int, known: Recording, first: int, last: int, start: int, count: int, rate: int) -> Any:
    """`count` samples from `start` on, of one channel at `rate`: float32. Nothing but what they take is read.

    first, last: frames of the recording at its own rate, of which the sample is; beyond them all is 0.
    start: in samples at `rate` from `first` on; may be negative.
    The channels are averaged. What is heard does not depend on where a part begins: it is a part of the whole,
    resampled.
    """
    common = math.gcd(rate, known.rate)
    up, down = rate // common, known.rate // common
    # Output begins at a multiple of `up`, and input at the same multiple of `down`, some before what is wanted.
    spare = 0 if up == down else 1 + math.ceil(10 * max(up, down) / (up * down))
    block = start // up - spare
    begin, end = first + block * down, first + (-(-(start + count) // up) + spare) * down
    low, high = max(begin, first), min(end, last)
    whole = np.zeros(end - begin, np.float32)
    if high > low:
        part = store.read(row, low, high - low)
        if len(part) < high - low:
            raise UserError("it is shorter than it was")
        whole[low - begin : high - begin] = part.mean(1)
    if up != down:
        from scipy.signal import resample_poly

        whole = resample_poly(whole, up, down, window=_filter(up, down))
    offset = start - block * up
    return whole[offset : offset + count].astype(np.float32, copy=False)
