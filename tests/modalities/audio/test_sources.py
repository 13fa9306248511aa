from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nearfar import modalities
from nearfar.modalities.audio.samples import open_audio

from .small import RATE, folder, soundfile, tones


def npz(path: Path, **more: Any) -> Path:
    waves = [(wave * 32767).astype(np.int16) for wave in tones(6)]
    offsets = np.cumsum([0, *map(len, waves)])
    np.savez(path, audio=np.concatenate(waves), offsets=offsets, **more)
    return path


def forms(path: Path) -> dict[str, Any]:
    """The same eight recordings in every form."""
    data = folder(path / "data", 8)
    files = sorted(file.relative_to(data).as_posix() for file in data.rglob("*.wav"))
    (data / "notes.doc").touch()
    lists = {name: path / "data" / name for name in ("list.txt", "list.csv", "list.parquet")}
    lists["list.txt"].write_text("\n".join(files) + "\n")
    lists["list.csv"].write_text("\n".join(["Path,label", *(f"{name},{name[5]}" for name in files)]) + "\n")
    pq.write_table(pa.table({"path": files}), lists["list.parquet"])
    whole = [str(data / name) for name in files]
    return {"folder": data, **lists, "paths": whole, "columns": {"path": whole}}


@pytest.mark.parametrize("form", ["folder", "list.txt", "list.csv", "list.parquet", "paths", "columns"])
def test_every_form_is_recognized_and_holds_the_same(form: str, tmp_path: Path) -> None:
    data = forms(tmp_path)[form]
    assert modalities.kind_of(data) == "audio"
    samples = open_audio(data)
    assert len(samples) == 8
    assert [Path(name).name for name in samples.names] == [
        "000.wav",
        "004.wav",
        *(f"00{i}.wav" for i in (1, 5, 2, 6, 3, 7)),
    ]
    assert samples.rate == RATE
    np.testing.assert_allclose(samples.heard(2, 0, 500), tones(8)[1][:500], atol=1e-4)
    assert samples.digest == open_audio(forms(tmp_path)["folder"]).digest


def test_what_other_kinds_take_is_left_to_them(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 2)
    for i in range(3):
        (photos / f"{i}.png").touch()
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8))
    assert modalities.kind_of(photos) == "image"
    assert modalities.kind_of(tmp_path / "rows.csv") == "table"
    assert modalities.kind_of(tmp_path / "images.npz") == "image"
    assert modalities.kind_of(["a.png"]) == "image"
    assert modalities.kind_of(["a.wav"]) == "audio"
    assert modalities.kind_of(tones(2)) == "audio"
    assert modalities.kind_of(pa.table({"path": ["a.wav"]})) == "audio"
    assert modalities.kind_of(pa.table({"a": [1]})) == "table"
    assert modalities.kind_of(tmp_path / "one.flac") == "audio"


def test_labels_come_from_folders_tables_and_columns(tmp_path: Path) -> None:
    known = forms(tmp_path)
    assert open_audio(known["folder"], labels="folders").classes == ["class0", "class1", "class2", "class3"]
    assert open_audio(known["list.csv"]).label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    named = open_audio(known["folder"], labels=str(known["list.csv"]))
    assert named.label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="no column 'digit'"):
        open_audio(known["list.csv"], label_column="digit")


def test_a_row_may_be_a_part_of_a_recording(tmp_path: Path) -> None:
    wave = np.arange(800, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 100)
    soundfile.write(tmp_path / "b.wav", wave[:90], 100)
    rows = ["path,start,end,label", "a.wav,0,2.5,x", "a.wav,2.5,,y", "b.wav,,,z", "a.wav,9,10,x"]
    (tmp_path / "parts.csv").write_text("\n".join(rows) + "\n")
    samples = open_audio(tmp_path / "parts.csv", max_bad=0.5)
    assert samples.names == ["a.wav@0-2.5", "a.wav@2.5-", "b.wav@0-"]
    assert samples.lengths.tolist() == [250, 550, 90]
    assert samples.group.tolist()[0] == samples.group.tolist()[1] != samples.group.tolist()[2]
    np.testing.assert_array_equal(samples.heard(1, -1, 3) * 32768, [0, 250, 251])
    assert [name for name, _ in samples.skipped] == ["a.wav@9-10"]
    assert "8.00 s" in samples.skipped[0][1]


def test_arrays_end_to_end_with_what_is_known_of_them(tmp_path: Path) -> None:
    more = {"digit": [0, 1] * 3, "speaker": np.arange(6) % 3, "speaker_names": ["ann", "bob", "eve"]}
    data = npz(tmp_path / "a.npz", sample_rate=RATE, split=["train"] * 4 + ["test"] * 2, **more)
    assert modalities.kind_of(data) == "audio"
    samples = open_audio(data, label_column="speaker")
    assert (samples.classes, samples.label.tolist()) == (["ann", "bob", "eve"], [0, 1, 2, 0, 1, 2])
    assert samples.split == ["train"] * 4 + ["test"] * 2
    np.testing.assert_allclose(samples.heard(3, 10, 100), tones(6)[3][10:110], atol=1e-4)
    assert open_audio(npz(tmp_path / "b.npz", labels=[1, 1, 2, 2, 3, 3]), array_rate=8000).classes == ["1", "2", "3"]
    with pytest.raises(ValueError, match="--array-rate"):
        open_audio(npz(tmp_path / "c.npz"))
    mapped = [{"array": wave, "sampling_rate": RATE} for wave in tones(6)]
    assert open_audio((mapped, list("aabbcc"))).classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("nothing", "nothing at 'nothing'"),
        ([np.zeros((2, 3))], "2 x 3 of float64; wanted: numbers of one dimension"),
        (["a.wav", "b.wav"], "None of the 2 paths of the list exists, for example 'a.wav'"),
        (3, "a int holds no recordings"),
        ({"path": ["x.wav", None]}, "row 1 names no path"),
        ({"file": ["x.wav"]}, "no column 'path'; it has 'file'"),
    ],
)
def test_what_holds_no_recordings_is_refused(
    data: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        open_audio(data, array_rate=8000)


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", audio=np.zeros(10), offsets=[0, 5, 11])
    with pytest.raises(ValueError, match="offsets must rise"):
        open_audio(tmp_path / "a.npz", array_rate=8000)
    assert torch.equal(open_audio([np.zeros(4)], array_rate=8000).lengths, torch.tensor([4]))
