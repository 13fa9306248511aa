from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from nearfar.modalities.audio.recordings import Arrays, Files, examined, heard

from .small import soundfile, tones

WAVE = (np.arange(-400, 400) / 512).astype(np.float32)  # exact in 16 bits


def write(path: Path, wave: np.ndarray, rate: int = 8000, subtype: str | None = None) -> Path:
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_24"), ("wav", "FLOAT")])
def test_parts_of_files_are_parts_of_what_was_written(tmp_path: Path, suffix: str, subtype: str) -> None:
    store = Files([write(tmp_path / f"a.{suffix}", WAVE, 8000, subtype)])
    known = store.examine(0)
    assert (known.rate, known.channels, known.frames, known.form) == (8000, 1, 800, subtype)
    np.testing.assert_allclose(store.read(0, 100, 50)[:, 0], WAVE[100:150], atol=1e-7)
    assert known.peak == pytest.approx(400 / 512)
    assert known.power == pytest.approx(float((WAVE.astype(float) ** 2).mean()))


def test_several_channels_are_averaged_and_beyond_the_ends_is_silence(tmp_path: Path) -> None:
    store = Files([write(tmp_path / "a.wav", np.stack([WAVE, WAVE / 2, 0 * WAVE], 1))])
    known = store.examine(0)
    assert known.channels == 3
    part = heard(store, 0, known, 0, 800, -5, 12, 8000)
    np.testing.assert_allclose(part, [*[0] * 5, *WAVE[:7] / 2], atol=1e-4)
    np.testing.assert_allclose(heard(store, 0, known, 100, 110, 8, 4, 8000), [*WAVE[108:110] / 2, 0, 0], atol=1e-4)


@pytest.mark.parametrize(("own", "rate"), [(8000, 16000), (44100, 16000), (16000, 8000), (11025, 8000)])
def test_a_part_is_heard_as_in_the_whole_resampled(own: int, rate: int) -> None:
    time = np.arange(own // 4) / own
    wave = (np.sin(2 * math.pi * 440 * time) * np.hanning(len(time))).astype(np.float32)
    store = Arrays([wave], [own])
    known = store.examine(0)
    common = math.gcd(own, rate)
    whole = resample_poly(wave, rate // common, own // common)
    for start, count in ((0, 200), (137, 501), (len(whole) - 300, 300)):
        part = heard(store, 0, known, 0, len(wave), start, count, rate)
        np.testing.assert_allclose(part, whole[start : start + count], atol=1e-5)
    there = np.arange(len(whole)) / rate
    np.testing.assert_allclose(whole, np.sin(2 * math.pi * 440 * there) * np.hanning(len(whole)), atol=0.01)


@pytest.mark.parametrize("kind", ["<i2", "<i4", "u1", "<f8"])
def test_whole_numbers_are_scaled_by_the_largest_of_their_type(kind: str) -> None:
    full = {"<i2": 32768, "<i4": 2**31, "u1": 128, "<f8": 1}[kind]
    zero = 128 if kind == "u1" else 0
    store = Arrays([(np.array([0.5, -0.25, 0]) * full + zero).astype(kind)], [8000])
    np.testing.assert_allclose(store.read(0, 0, 3)[:, 0], [0.5, -0.25, 0])


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    long = np.concatenate(tones(20)) * 0.9
    paths = [write(tmp_path / name, long, 8000) for name in ("cut.flac", "good.wav", "noise.wav", "nan.wav")]
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[: len(content) // 2])
    paths[2].write_bytes(b"RIFF" + bytes(100))
    soundfile.write(paths[3], np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    paths += [write(tmp_path / "empty.wav", np.zeros(0)), tmp_path / "gone.wav"]
    good, why = examined(Files(paths))
    assert list(good) == [1]
    assert "breaks off after" in why[0]
    assert why[2]
    assert "NaN" in why[3]
    assert "empty" in why[4]
    assert "no such file" in why[5]


def test_clipping_and_changes_are_seen(tmp_path: Path) -> None:
    store = Files([write(tmp_path / "a.wav", np.clip(3 * WAVE, -1, 1))])
    known = store.examine(0)
    assert known.full == pytest.approx(float((np.abs(3 * WAVE) >= 0.999).mean()), abs=0.01)
    assert store.changed(0, known) == ""
    content = store.paths[0].read_bytes()
    store.paths[0].unlink()
    store.paths[0].write_bytes(content)
    assert store.changed(0, known) == ""
    store.paths[0].write_bytes(content[:-2] + b"\1\1")
    assert "changed" in store.changed(0, known)
