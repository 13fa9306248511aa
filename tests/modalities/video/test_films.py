from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nearfar.modalities.video.films import Coded, Held, Stills
from tests.modalities.video.small import numbered, write

BFRAMES = {"g": "12", "bf": "2", "x264-params": "scenecut=0"}


def whole(path: Path) -> np.ndarray:
    """Every frame as a decoder that begins at the start gives it: T x 3 x H x W."""
    import av

    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", BFRAMES),
        ("a.mkv", "libx264", BFRAMES | {"x264-params": "open-gop=1:scenecut=0"}),
        ("a.mp4", "libx264", {"g": "1000", "x264-params": "scenecut=0"}),  # the first frame is the only key frame
        ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.webm", "libvpx", {"g": "12"}),
        ("a.h264", "libx264", BFRAMES),  # without times: frames are counted
    ],
)
def test_any_frames_are_those_of_the_whole_video(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / name, numbered(50, 32), codec=codec, options=options)
    film, wanted = Coded(path).open(), whole(path)
    assert film.length == len(wanted) == 50
    assert film.shape == (32, 32)
    for which in ([0], [49], [13, 11, 12, 12], list(range(20, 28)), [0, 49, 25]):
        np.testing.assert_array_equal(film.frames(which, 32), wanted[which])


def test_eight_of_three_hundred_frames_take_few_to_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Coded(write(tmp_path / "a.mp4", numbered(300, 32), options=BFRAMES)).open()
    assert len(film.keys) == 25
    decoded = []
    opened = Coded._opened

    def counting(self: Coded) -> Any:
        inner = opened(self)
        enter = inner.__enter__

        class Counting:
            def __enter__(self) -> Any:
                container, stream = enter()

                class Counted:
                    seek = container.seek

                    def decode(self, stream: Any) -> Any:
                        for frame in container.decode(stream):
                            decoded.append(frame.pts)
                            yield frame

                return Counted(), stream

            def __exit__(self, *error: object) -> None:
                inner.__exit__(*error)  # pyright: ignore[reportArgumentType]

        return Counting()

    monkeypatch.setattr(Coded, "_opened", counting)
    film.frames(range(150, 166, 2), 16)
    assert len(decoded) <= 3 * 12


def test_frames_at_uneven_times_are_all_there_or_taken_at_even_ones(tmp_path: Path) -> None:
    times = [0, 1, 2, 10, 11, 12, 13, 14, 30, 31]
    path = write(tmp_path / "a.mp4", numbered(10, 32), times=times, rate=10)
    film = Coded(path).open()
    assert (film.length, film.uneven) == (10, True)
    even = Coded(path).open(fps=5.0)
    ticks = np.arange(even.length) * 2  # in tenths of a second
    assert even.shown.tolist() == [max(i for i, t in enumerate(times) if t <= tick) for tick in ticks]
    assert even.length == 16
    assert Coded(write(tmp_path / "b.mp4", numbered(10, 32))).open().uneven is False


def test_a_video_may_have_one_frame(tmp_path: Path) -> None:
    film = Coded(write(tmp_path / "a.mp4", numbered(2, 32)[:1])).open()
    assert film.length == 1
    assert Coded(tmp_path / "a.mp4").open(fps=4.0).length == 1
    assert film.frames([0, 0], 16).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_rotation_in_the_metadata_is_made(degrees: int, tmp_path: Path) -> None:
    frame = np.full((32, 64, 3), 30, np.uint8)
    frame[:16, :32] = 220  # the upper left quarter is bright
    path = write(tmp_path / "a.mp4", np.stack([frame] * 3), turned=degrees)
    film = Coded(path).open()
    assert film.shape == ((64, 32) if degrees == 180 else (32, 64))
    seen = film.frames([1], 32)[0, 0].astype(int)
    quarters = {(a, b): seen[16 * a : 16 * a + 16, 16 * b : 16 * b + 16].mean() for a in (0, 1) for b in (0, 1)}
    brightest = max(quarters, key=lambda k: quarters[k])
    assert brightest == {90: (1, 0), 180: (1, 1), -90: (0, 1)}[degrees]  # counter-clockwise


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def sound(path: Path) -> Path:
    """A file with a stream of sound alone."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (n, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: cut(write(p / "a.mp4", noise(20)), 0.5), "cannot be read as a video"),  # its index was at the end
        (
            lambda p: cut(write(p / "a.mov", noise(20), faststart=True), 0.5),
            r"it ends after \d+ of its 20 frames|damaged or cut off",
        ),
        (lambda p: sound(p / "a.mp4"), "it has no video stream"),
        (lambda p: cut(write(p / "a.mp4", noise(3)), 0.0), "cannot be read as a video"),
        (lambda p: (p / "a.mp4").write_text("no video") and p / "a.mp4", "cannot be read as a video"),
    ],
)
def test_what_is_no_whole_video_is_refused(make: Any, words: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ValueError, match=words):
        Coded(path).open()


def test_a_file_that_is_another_one_now_is_noticed(tmp_path: Path) -> None:
    film = Coded(write(tmp_path / "a.mp4", numbered(8, 32))).open()
    before = film.frames([3], 16)
    (tmp_path / "a.mp4").touch()
    np.testing.assert_array_equal(film.frames([3], 16), before)
    write(tmp_path / "a.mp4", noise(8))
    with pytest.raises(ValueError, match="bytes have changed"):
        film.frames([3], 16)


def test_stills_and_arrays_give_the_same_frames(tmp_path: Path) -> None:
    frames = noise(5)[:, :24]  # 32 wide, 24 high
    paths = [tmp_path / f"{t}.png" for t in range(5)]
    for frame, path in zip(frames, paths, strict=True):
        Image.fromarray(frame).save(path)
    stills, held = Stills(paths).open(), Held(frames)
    assert stills.shape == held.shape == (32, 24)
    assert stills.frames([4, 0], 16).shape == held.frames([4, 0], 16).shape == (2, 3, 16, 16)
    upright = Held(frames[:, :, :24])
    np.testing.assert_array_equal(upright.frames([4, 0], 24), frames[[4, 0], :, :24].transpose(0, 3, 1, 2))
    assert Held(frames).identity() == held.identity() != Held(frames[:4]).identity()
    Image.fromarray(frames[1]).save(paths[0])
    with pytest.raises(ValueError, match=r"'0.png' have changed"):
        stills.frames([0], 16)
