from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.errors import Lost
from nearfar.modalities.audio import recordings
from nearfar.modalities.audio.samples import open_audio, view_seconds
from nearfar.modalities.audio.views import View, Views, plain

from .small import RATE, folder, samples, soundfile, tones


def test_long_recordings_are_cut_into_pieces_of_one_group(tmp_path: Path) -> None:
    wave = np.arange(1050, dtype=np.int16)
    soundfile.write(tmp_path / "long.wav", wave, 100)
    soundfile.write(tmp_path / "short.wav", wave[:120], 100)
    known = open_audio(tmp_path, cut=1.0)
    assert known.names == [*(f"long.wav@{i}" for i in range(10)), "short.wav"]
    assert known.lengths.tolist() == [*[100] * 9, 150, 120]
    assert len(set(known.group.tolist()[:10])) == 1
    assert known.group.tolist()[10] == -1
    np.testing.assert_array_equal(known.heard(3, -1, 3) * 32768, [0, 300, 301])
    assert len(set(known.digest or [])) == 11
    alone = open_audio(tmp_path / "long.wav", cut=1.0)
    assert alone.group.tolist() == [-1] * 10  # else nothing would be a negative
    assert not alone.notes
    (note,) = open_audio([wave[:900]] * 3, array_rate=10).notes
    assert "longer than 90 s, and each is one sample: --cut" in note


def test_a_crop_reads_its_own_place_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.flac", np.random.default_rng(0).normal(size=200_000) / 10, 8000)
    known, read = open_audio(tmp_path), []
    whole = recordings.Files.read

    def watched(self: recordings.Files, row: int, start: int, frames: int) -> np.ndarray:
        read.append(frames)
        return whole(self, row, start, frames)

    monkeypatch.setattr(recordings.Files, "read", watched)
    make = Views([View(crop=True)] * 2, 400, 8000)
    make(known.fetch(torch.tensor([0, 0]))[0], draws=make.draw(2, torch.Generator()))
    assert read == [400] * 4


def test_the_rate_is_that_of_most_and_others_are_resampled_and_told(tmp_path: Path) -> None:
    folder(tmp_path / "a", 6)
    for i, wave in enumerate(tones(2, seed=9)):
        soundfile.write(tmp_path / "a" / f"other{i}.wav", np.stack([wave] * 7, 1), 2 * RATE)
    known = open_audio(tmp_path / "a")
    assert known.rate == RATE
    at = known.names.index("other1.wav")
    assert known.lengths[at] == -(-len(tones(2, seed=9)[1]) // 2)
    assert any("2 recordings have several channels (7 at most), which are averaged" in note for note in known.notes)
    assert any("2 recordings of another rate (8,000 Hz: 2) are resampled to 4,000 Hz" in note for note in known.notes)
    assert open_audio(tmp_path / "a", rate=1000).rate == 1000
    assert open_audio([np.zeros(9)], array_rate=48_000).rate == 16_000


def test_bad_files_are_counted_and_too_many_are_refused(tmp_path: Path) -> None:
    data = folder(tmp_path / "a", 10)
    (data / "class0" / "000.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"1 of 10 recordings .*'class0/000.wav': .*--max-bad 0.1"):
        open_audio(data)
    known = open_audio(data, max_bad=0.1)
    assert len(known) == 9
    assert known.skipped[0][0] == "class0/000.wav"


def test_files_that_are_gone_or_others_are_lost(tmp_path: Path) -> None:
    known = open_audio(folder(tmp_path / "a", 6))
    (tmp_path / "a" / known.names[1]).unlink()
    soundfile.write(tmp_path / "a" / known.names[4], np.zeros(900), RATE)
    with pytest.raises(Lost) as lost:
        plain(500, RATE)(*known.fetch(torch.arange(6)))
    assert {k: name for k, (name, _) in lost.value.at.items()} == {1: known.names[1], 4: known.names[4]}
    mixing = Views([View(mix=0.5)], 500, RATE, known)
    good = known.subset([0, 2, 3, 5])
    (view,) = mixing(*good.fetch(torch.arange(4)), draws=mixing.draw(4, torch.Generator().manual_seed(0)))
    assert view.isfinite().all()  # what cannot be mixed in is not


def test_views_are_as_long_as_most_recordings() -> None:
    assert view_seconds(samples(40)) == pytest.approx(0.295, abs=0.01)
    assert view_seconds(open_audio([np.zeros(80_000)], array_rate=8000)) == 4
    assert view_seconds(open_audio([np.zeros(3)], array_rate=8000)) == 0.05
