from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar.training import checkpoints
from nearfar.training.checkpoints import Checkpoints, read, write


def state(step: int) -> dict[str, Any]:
    return {"step": step, "best": None, "method": {"weight": torch.arange(6.0) + step}, "optimizer": {"state": {}}}


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    match how:
        case "empty":
            content.clear()
        case "truncated":
            del content[len(content) // 2 :]
        case "one byte":
            content[len(content) // 3] ^= 1
        case "end":
            content[-1] ^= 128
        case "one byte more":
            content.append(0)
    path.write_bytes(content)


DAMAGES = ["empty", "truncated", "one byte", "end", "one byte more"]


def test_the_newest_comes_back_and_the_last_ones_stay(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep=2)
    assert saved.newest() == (None, [])
    for step in (0, 5, 10, 15):
        saved.save(step, state(step))
    assert [path.name for path in saved.all()] == ["step-000000010.pt", "step-000000015.pt"]
    found, notes = saved.newest()
    assert found is not None
    assert (found["step"], notes) == (15, [])
    assert torch.equal(found["method"]["weight"], torch.arange(6.0) + 15)


def test_the_best_is_kept_beside_them(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3):
        saved.save(step, state(step), best=step == 2)
    saved.wait()
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "step-000000003.pt"]
    assert read(tmp_path / "best.pt")["step"] == 2


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, how: str) -> None:
    saved = Checkpoints(tmp_path)
    for step in (5, 10):
        saved.save(step, state(step))
    saved.wait()
    damage(saved.path(10), how)
    found, notes = saved.newest()
    assert found is not None
    assert found["step"] == 5
    assert len(notes) == 1
    assert "step-000000010.pt' is damaged" in notes[0]
    assert "going back to the checkpoint before it" in notes[0]


def test_no_byte_goes_unchecked(tmp_path: Path) -> None:
    write(tmp_path / "c.pt", state(1))
    content = bytearray((tmp_path / "c.pt").read_bytes())
    for at in range(len(content)):
        content[at] ^= 1 << at % 8
        (tmp_path / "c.pt").write_bytes(content)
        content[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="is damaged"):
            read(tmp_path / "c.pt")


def test_only_damaged_ones_are_an_error_not_a_new_beginning(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path)
    for step, how in ((5, "empty"), (10, "truncated")):
        saved.save(step, state(step))
        damage(saved.all()[-1], how)
    with pytest.raises(ValueError, match=r"all 2 checkpoints in '.*' are damaged.*another --out"):
        saved.newest()


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_one_neither_stays_nor_counts_as_kept(tmp_path: Path, keep: int) -> None:
    saved = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        saved.save(step, state(step))
    saved.wait()
    damage(saved.path(20), "one byte")
    saved.keep = keep
    saved.save(15, state(15))
    assert [read(path)["step"] for path in saved.all()] == [10, 15][-keep:]


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "step-000000001.pt")


def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    write(tmp_path / "c.pt", {"step": Evil()})
    write(tmp_path / "d.pt", {"step": 3})
    for name in "cd":
        with pytest.raises(ValueError, match=rf"{name}\.pt' was not written by nearfar"):
            read(tmp_path / f"{name}.pt")
    assert not (tmp_path / "ran").exists()


def test_leftovers_of_killed_writers_are_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-000000005.pt.4711.tmp"
    leftover.write_bytes(b"half")
    saved = Checkpoints(tmp_path)
    assert saved.newest() == (None, [])
    with saved:
        saved.save(10, state(10))
    assert os.listdir(tmp_path) == ["step-000000010.pt"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Checkpoints(tmp_path, keep=1)
    saved.save(5, state(5))
    saved.wait()

    def full(path: Path, state: dict[str, Any]) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write", full)
    saved.save(10, state(10))
    with pytest.raises(OSError, match=r"disk is full: '.*step-000000010\.pt'.*Free some space"):
        saved.wait()
    assert os.listdir(tmp_path) == ["step-000000005.pt"]
    found, _ = saved.newest()
    assert found is not None
    assert found["step"] == 5


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_the_writer_passes_on_why_it_could_not_write() -> None:
    with pytest.raises(OSError) as caught:
        write(Path("/dev/full"), state(1))
    assert caught.value.errno == errno.ENOSPC


def test_a_checkpoint_that_goes_while_it_is_read_gives_way_to_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, trains = Checkpoints(tmp_path, keep=1), Checkpoints(tmp_path, keep=1)
    saved.save(5, state(5))
    saved.wait()

    def late(path: Path) -> dict[str, Any]:
        if path == saved.path(5):
            trains.save(10, state(10))
            trains.wait()
        return read(path)

    monkeypatch.setattr(checkpoints, "read", late)
    found, notes = saved.newest()
    assert found is not None
    assert (found["step"], notes) == (10, [])


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep = 0"):
        Checkpoints(tmp_path, keep=0)


def test_training_may_go_on_while_the_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()

    def slow(path: Path, state: dict[str, Any]) -> None:
        assert may_write.wait(60)
        write(path, state)

    monkeypatch.setattr(checkpoints, "write", slow)
    live = state(5)
    with Checkpoints(tmp_path) as saved:
        saved.save(5, live)
        live["method"]["weight"] += 1  # the next step
        assert not os.listdir(tmp_path)
        may_write.set()
    assert torch.equal(read(tmp_path / "step-000000005.pt")["method"]["weight"], torch.arange(6.0) + 5)


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"step": step, "method": {}})

    def load(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="allocate"):
        checkpoints.newest()
