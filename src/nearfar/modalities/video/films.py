"""Videos as they lie: a file, a folder of frames, an array. Each gives the frames that are asked for, and no others.

A file is never decoded as a whole. When it is opened its packets are read through without decoding, for the time of
each frame and which of them are key frames; to read a frame, the decoder begins at the last key frame before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from nearfar.data.archives import Stamp, file_stamp
from nearfar.data.digests import stream_digest
from nearfar.errors import UserError
from nearfar.files import digest
from nearfar.modalities.image import decode


class Film(Protocol):
    """A video of so many frames."""

    @property
    def length(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height as it is to be shown, in pixels."""
        ...

    def frames(self, which: Sequence[int], side: int) -> np.ndarray:
        """Some frames, squashed to squares: n x 3 x side x side, uint8.

        Raises ValueError where they cannot be read any more, or are others than they were.
        """
        ...

    def identity(self) -> str:
        """The digest by which the video is known again."""
        ...


@dataclass(slots=True)
class Held:
    """A video in memory.  array: T x H x W x 3, uint8."""

    array: np.ndarray

    @property
    def length(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[2], self.array.shape[1]

    def frames(self, which: Sequence[int], side: int) -> np.ndarray:
        some = np.ascontiguousarray(self.array[list(which)].transpose(0, 3, 1, 2))
        if some.shape[2:] == (side, side):
            return some
        small = F.interpolate(torch.from_numpy(some).float(), (side, side), mode="bicubic", antialias=True)
        return small.round_().clamp_(0, 255).byte().numpy()

    def identity(self) -> str:
        return digest(repr(self.array.shape).encode(), np.ascontiguousarray(self.array).tobytes())


@dataclass(slots=True)
class Stills:
    """A video whose frames are images, in the order of their names."""

    paths: list[Path]
    shape: tuple[int, int] = (0, 0)
    stamps: list[Stamp] = field(default_factory=list)
    known: str = ""

    @property
    def length(self) -> int:
        return len(self.paths)

    def open(self) -> Stills:
        """Look at every file, and at the first as an image."""
        self.stamps = [file_stamp(path) for path in self.paths]
        self.known = self._digest()
        _, aspect = decode.square(self.paths[0].read_bytes(), 8, 3)
        with self.paths[0].open("rb") as file:
            short = decode.head(file).short
        self.shape = (round(short * max(aspect, 1)), round(short / min(aspect, 1)))
        return self

    def frames(self, which: Sequence[int], side: int) -> np.ndarray:
        made: dict[int, np.ndarray] = {}
        for i in set(which):
            if file_stamp(self.paths[i]) != self.stamps[i]:
                if self._digest() != self.known:
                    raise UserError(f"the bytes of its frame {self.paths[i].name!r} have changed")
                self.stamps = [file_stamp(path) for path in self.paths]
            made[i] = decode.square(self.paths[i].read_bytes(), side, 3)[0]
        return np.stack([made[i] for i in which])

    def _digest(self) -> str:
        return digest(*(digest(path.read_bytes()).encode() for path in self.paths))

    def identity(self) -> str:
        return self.known


@dataclass(slots=True)
class Coded:
    """A file of video.

    times: of each frame in the order in which they are shown, in units of the stream; None in a file that tells none,
    whose frames are counted from the first each time.  keys: which of them are key frames.  origin: where decoding
    begins.  shown: which frame of the file each frame of the video is.  uneven: whether frames last unequally long.
    """

    path: Path
    times: np.ndarray | None = None
    keys: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    origin: int = 0
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shape: tuple[int, int] = (0, 0)
    stamp: Stamp = None
    known: str = ""
    uneven: bool = False

    @property
    def length(self) -> int:
        return len(self.shown)

    def identity(self) -> str:
        return self.known

    def open(self, fps: float = 0.0) -> Coded:
        """Read the index of the file and decode its first frame.

        fps: frames a second to take, by their times; 0 for all.  Raises ValueError where it cannot be read.
        """
        self.stamp = file_stamp(self.path)
        with self.path.open("rb") as file:
            self.known = stream_digest(file)
        with self._opened() as (container, stream):
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            if any(p.is_corrupt for p in packets):
                raise UserError("it is damaged or cut off")
            if stream.frames and len(packets) < stream.frames:
                raise UserError(f"it ends after {len(packets):,} of its {stream.frames:,} frames")
            unit, told = stream.time_base, [p.pts for p in packets]
        if told and all(time is not None for time in told) and len(set(told)) == len(told):
            keys = np.sort(np.array([p.pts for p in packets if p.is_keyframe], np.int64))
            times = np.sort(np.array(told, np.int64))
            # What lies before the first key frame cannot be decoded. A stream may do without: see `_from`.
            self.times = times[times >= keys[0]] if len(keys) else times
            self.keys = np.searchsorted(self.times, keys) if len(keys) else self.keys
            self.origin = min(told if p.dts is None else p.dts for p, told in zip(packets, told, strict=True))
        first, count = None, 0
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                first, count = first or frame, count + 1
                if self.times is not None:
                    break
            ratio = stream.sample_aspect_ratio
        if first is None:
            raise UserError("none of its frames can be decoded")
        count = count if self.times is None else len(self.times)
        width = round(first.width * float(ratio or 1))
        self.shape = (first.height, width) if first.rotation % 180 else (width, first.height)
        self.shown = np.arange(count)
        if self.times is not None and count > 1:
            gaps = np.diff(self.times)
            self.uneven = bool(gaps.max() > 1.5 * np.median(gaps) or gaps.min() < 0.5 * np.median(gaps))
        if fps:
            if self.times is None:
                raise UserError("it tells no times of its frames, by which --fps could take some")
            seconds = (self.times - self.times[0]) * float(unit)
            last = seconds[-1] + (np.median(np.diff(seconds)) if count > 1 else 0)
            ticks = np.arange(max(1, math.floor(last * fps + 1e-6))) / fps
            self.shown = np.searchsorted(seconds, ticks + 1e-6, side="right") - 1
        return self

    def frames(self, which: Sequence[int], side: int) -> np.ndarray:
        if file_stamp(self.path) != self.stamp:
            with self.path.open("rb") as file:
                if stream_digest(file) != self.known:
                    raise UserError("its bytes have changed")
            self.stamp = file_stamp(self.path)
        wanted = self.shown[list(which)].tolist()
        made = {i: _square(frame, side) for i, frame in self._decoded(sorted(set(wanted)))}
        return np.stack([made[i] for i in wanted])

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Some frames, by their numbers in rising order."""
        with self._opened() as (container, stream):
            if self.times is None:
                rest = set(wanted)
                for number, frame in enumerate(container.decode(stream)):
                    if number in rest:
                        rest.discard(number)
                        yield number, frame
                    if not rest:
                        return
                raise UserError(f"its frame {min(rest)} cannot be decoded any more")
            run, at = None, -1  # frames as they come, and the number of the last
            for number in wanted:
                place = int(np.searchsorted(self.keys, number, side="right")) - 1
                back, found = 0, None
                while found is None:
                    key = int(self.keys[place - back]) if place >= back else -1
                    if run is None or key > at or back:
                        begin = self.origin if key < 0 else int(self.times[key])
                        container.seek(begin, stream=stream, backward=True)
                        run = container.decode(stream)
                    found = next((f for f in run if f.pts is not None and f.pts >= self.times[number]), None)
                    if found is None or found.pts != self.times[number]:
                        # Containers seek by the time of decoding, which may lie a key frame too far.
                        if place < back:
                            raise UserError(f"its frame {number} cannot be decoded any more")
                        back, found = 2 * back + 1, None
                at = number
                yield number, found

    def _opened(self) -> _Opened:
        return _Opened(self.path)


class _Opened:
    """A file and its first stream of video, opened; errors of the reader are errors of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[Any, Any]:
        av = _av()
        av.logging.set_level(None)
        try:
            self.container = av.open(str(self.path))
        except av.error.FFmpegError as error:
            raise UserError(f"it cannot be read as a video ({error.strerror or error})") from error
        streams = [s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            self.container.close()
            raise UserError("it has no video stream")
        streams[0].codec_context.thread_count = 1  # videos are read side by side
        return self.container, streams[0]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.container.close()
        if error is not None and isinstance(error, _av().error.FFmpegError):
            raise UserError(f"it is damaged or cut off ({getattr(error, 'strerror', '') or error})") from error


def _av() -> Any:
    """PyAV, which may not be installed: see `nearfar.modalities.video.settings.insist_av`."""
    return import_module("av")


def _square(frame: Any, side: int) -> np.ndarray:
    """A decoded frame as 3 x side x side, uint8, turned as it is to be shown."""
    small = frame.to_ndarray(format="rgb24", width=side, height=side, interpolation="AREA")
    return np.rot90(small, frame.rotation // 90 % 4).transpose(2, 0, 1)
