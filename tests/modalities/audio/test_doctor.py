from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nearfar.modalities import kind as kinds
from nearfar.modalities.audio.doctor import copies
from nearfar.modalities.audio.samples import open_audio
from nearfar.modalities.audio.settings import Settings

from .small import RATE, folder, soundfile, tones


def odd(path: Path) -> Path:
    """A folder of sound recordings beside a few of every fault."""
    folder(path, 12)
    waves = tones(12)
    soundfile.write(path / "same.flac", soundfile.read(path / "class0" / "000.wav", dtype="int16")[0], RATE)
    (path / "twin.wav").write_bytes((path / "class1" / "001.wav").read_bytes())
    soundfile.write(path / "silent.wav", np.zeros(900), RATE)
    soundfile.write(path / "loud.wav", np.clip(8 * waves[2], -1, 1), RATE)
    soundfile.write(path / "coarse.wav", waves[3], RATE, subtype="PCM_U8")
    soundfile.write(path / "seven.wav", np.stack([waves[4] / k for k in range(1, 8)], 1), 2 * RATE)
    soundfile.write(path / "empty.wav", np.zeros(0), RATE)
    long = np.concatenate(tones(20))
    soundfile.write(path / "cut.flac", long, RATE)
    content = (path / "cut.flac").read_bytes()
    (path / "cut.flac").write_bytes(content[: len(content) // 2])
    return path


def test_every_fault_is_counted_and_named(tmp_path: Path) -> None:
    samples = open_audio(odd(tmp_path / "a"), max_bad=1.0)
    found = kinds.of("audio").examine(samples, Settings())
    said = "\n".join(found.warnings)
    for words in (
        r"2 files cannot be read: 'cut.flac' \(it breaks off after .*'empty.wav' \(it is empty",
        r"1 recording is silent.*'silent.wav'",
        r"1 recording is clipped.*'loud.wav'",
        r"1 recording is of 8 bits.*'coarse.wav'",
        r"2 recordings are copies, in 2 sets",
    ):
        assert re.search(words, said), words
    assert [(one.name, one.value) for one in found.flags] == [("max_bad", 0.1)]
    facts = dict(found.facts)
    assert facts["rates"] == "4,000 Hz (17), 8,000 Hz (1)"
    assert facts["channels"] == "1 (17), 7 (1)"
    assert "1 the same, 1 the same in another format" in facts["copies"]


def test_the_same_sound_in_another_format_is_a_copy(tmp_path: Path) -> None:
    samples = open_audio(odd(tmp_path / "a"), max_bad=1.0)
    found, place = copies(samples), {name: i for i, name in enumerate(samples.names)}
    for one, other, exact in (("same.flac", "class0/000.wav", False), ("twin.wav", "class1/001.wav", True)):
        a, b = place[one], place[other]
        assert found.group[a] == found.group[b] >= 0
        assert bool(found.same[a] == found.same[b] >= 0) == exact
    assert (found.group >= 0).sum() == 4


def test_long_recordings_are_to_be_cut(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(size=60 * 1000) / 10
    samples = open_audio([wave + i / 100 for i in range(3)], array_rate=1000)
    found = kinds.of("audio").examine(samples, Settings())
    assert [(one.name, one.value) for one in found.flags] == [("cut", 8.0)]
