from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.errors import Lost
from nearfar.modalities.video.samples import open_videos
from tests.modalities.video.small import array_file, files, moving, numbered, stills, write


def test_files_folders_of_frames_and_arrays_hold_the_same_videos(tmp_path: Path) -> None:
    coded = open_videos(files(tmp_path / "files", 8), labels="folders", size=16)
    frames = open_videos(stills(tmp_path / "stills", 8), size=16)
    held = open_videos(array_file(tmp_path / "a.npz", 8), size=16)
    assert (coded.classes, coded.names[0]) == (["class0", "class1", "class2", "class3"], "class0/00.mp4")
    assert (frames.names, held.names) == ([f"{i:02d}" for i in range(8)], list(map(str, range(8))))
    assert held.classes == ["down", "left", "right", "up"]
    assert coded.lengths.tolist() == frames.lengths.tolist() == held.lengths.tolist() == [8] * 8
    assert coded.side == frames.side == held.side == 16
    order = [int(name[7:9]) for name in coded.names]
    for k in range(8):
        seen = [s.read([(i, [5, 2])]).float() for s, i in ((frames, order[k]), (held, order[k]), (coded, k))]
        assert torch.equal(seen[0], seen[1])
        assert (seen[0] - seen[2]).abs().mean() < 12  # what coding loses
    assert len(set(digests(coded))) == len(set(digests(frames))) == len(set(digests(held))) == 8


def test_lists_in_memory_may_differ_in_length_and_shape() -> None:
    videos = open_videos([np.zeros((3, 8, 12, 3), np.uint8), np.zeros((1, 20, 10, 1), np.uint8)])
    assert videos.lengths.tolist() == [3, 1]
    torch.testing.assert_close(videos.aspect, torch.tensor([1.5, 0.5]))
    assert videos.side == 9
    for wrong in (np.zeros((3, 8, 12, 3)), np.zeros((3, 8, 12, 2), np.uint8)):
        with pytest.raises(TypeError, match="8 bits"):
            open_videos([wrong])
    with pytest.raises(ValueError, match="4 x 8 x 8"):
        open_videos((np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]))


def test_a_list_names_sequences_and_cameras(tmp_path: Path) -> None:
    for i, video in enumerate(moving(5)):
        write(tmp_path / f"{i}.mp4", video)
    rows = ["0.mp4,s,a,x,train", "1.mp4,s,b,x,train", "2.mp4,t,a,y,test", "3.mp4,t,b,y,test", "4.mp4,,a,,"]
    (tmp_path / "list.csv").write_text("path,sequence,camera,label,split\n" + "\n".join(rows) + "\n")
    videos = open_videos(tmp_path / "list.csv")
    assert videos.sequence.tolist() == [0, 0, 1, 1, MISSING]
    assert videos.group.tolist() == videos.sequence.tolist()
    assert (videos.classes, videos.split) == (["x", "y"], ["train", "train", "test", "test", ""])
    some = videos.subset([3, 0])
    assert (some.sequence.tolist(), some.lengths.tolist(), some.names) == ([1, 0], [8, 8], ["3.mp4", "0.mp4"])


def test_bad_videos_are_counted_and_left_out_up_to_a_share(tmp_path: Path) -> None:
    folder = files(tmp_path / "v", 8)
    (folder / "class0" / "04.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"1 of 8 videos.*class0/04.mp4.*--max-bad"):
        open_videos(folder)
    videos = open_videos(folder, max_bad=0.2, labels="folders")
    assert len(videos) == 7
    assert [name for name, _ in videos.skipped] == ["class0/04.mp4"]
    assert any("notes.txt" in note for note in videos.notes)
    (folder / videos.names[2]).unlink()
    with pytest.raises(Lost) as lost:
        videos.read([(0, [0]), (2, [1]), (3, [0])])
    assert {k: name for k, (name, _) in lost.value.at.items()} == {1: videos.names[2]}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "nothing at"),
        (lambda p: p, "holds no videos|is empty"),
        (lambda p: array_file(p / "a.npz", 4), "--fps 5.*no files"),
    ],
)
def test_what_holds_no_videos_says_so(make: object, words: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        open_videos(make(tmp_path), fps=5)  # pyright: ignore[reportCallIssue]


def test_without_av_files_name_the_extra_and_arrays_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files(tmp_path / "v", 2)
    found = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "av" else found(name, *rest)
    monkeypatch.setattr("nearfar.modalities.video.settings.find_spec", hidden)
    with pytest.raises(ModuleNotFoundError, match=r"nearfar\[video\]"):
        open_videos(folder)
    assert len(open_videos(array_file(tmp_path / "a.npz", 2))) == 2


def test_fps_takes_frames_by_their_times(tmp_path: Path) -> None:
    write(tmp_path / "v" / "slow.mp4", numbered(10, 32), rate=10)
    write(tmp_path / "v" / "fast.mp4", numbered(40, 32), rate=40)
    videos = open_videos(tmp_path / "v", fps=10)
    assert videos.lengths.tolist() == [10, 10]
    write(tmp_path / "w" / "uneven.mp4", numbered(4, 32), times=[0, 1, 2, 30])
    assert any("uneven times" in note for note in open_videos(tmp_path / "w").notes)
