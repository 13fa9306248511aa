"""Checkpoints: written whole or not at all, checked when read, newest first; and those of some epochs, which stay.

They are written by a thread, from a copy, while training goes on.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import Damaged, UserError, out_of_memory
from nearfar.files import clear_leftovers, replace

DIGEST = hashlib.sha256().digest_size
"""Bytes behind the state: its checksum. (Those inside torch's format leave a part of the file unchecked.)"""


class Checkpoints:
    """The checkpoints of one run, in `folder`, of which the newest `keep` stay. `best.pt` is kept beside them, and
    those of some epochs, `epoch-NNNNNN.pt`, which hold the method alone: they can be used, and not gone on from.

    As a context, it is left when the last of them is written.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"keep = {keep} checkpoints: at least 1 is needed to resume from")
        self.folder = folder
        self.keep = keep
        self.writer: ThreadPoolExecutor | None = None
        self.writing: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            if self.writer is not None:
                self.writer.shutdown()
                self.writer = None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def all(self) -> list[Path]:
        """Every checkpoint but `best`, oldest first."""
        self.wait()
        return self._there()

    def kept(self) -> dict[int, Path]:
        """Those that stay, by their epoch, in order."""
        self.wait()
        return self._kept()

    def save(self, step: int, state: dict[str, Any], *, best: bool = False, epoch: int = 0) -> None:
        """Write the state of a step; with `best`, also as the best so far; with `epoch`, as that epoch's, which stays.

        The state may change as soon as this returns. An error of the write comes from the next call that must know of
        it: `save`, `wait`, `all`, `newest`.
        """
        self.wait()
        if self.writer is None:
            self.writer = ThreadPoolExecutor(1, thread_name_prefix="nearfar-checkpoints")
        self.writing = self.writer.submit(self._write, step, copied(state), best, epoch)

    def wait(self) -> None:
        """Return when the last state is on the disk, or raise what kept it from getting there."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def _there(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _kept(self) -> dict[int, Path]:
        return {int(path.stem.partition("-")[2]): path for path in sorted(self.folder.glob("epoch-*.pt"))}

    def _write(self, step: int, state: dict[str, Any], best: bool, epoch: int) -> None:
        clear_leftovers(self.folder)
        path, top = self.path(step), self.folder / "best.pt"
        # That from which training goes on comes last: were it there first, a kill would leave the others unwritten.
        if epoch:
            alone = {"step": step, "epoch": epoch, "method": state["method"]}
            replace(self.folder / f"epoch-{epoch:06d}.pt", lambda temporary: write(temporary, alone))
        if best:
            replace(top, lambda temporary: write(temporary, state))
        replace(path, lambda temporary: shutil.copyfile(top, temporary) if best else write(temporary, state))
        # One of a later step was damaged, or training would have gone on from it: it must not count as kept.
        older = [other for other in self._there() if other < path]
        later = [other for other in self._there() if other > path]
        later += [other for own, other in self._kept().items() if own > epoch > 0]
        for other in [*older[: max(0, len(older) + 1 - self.keep)], *later]:
            other.unlink()

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that is undamaged (None where nothing was saved), and a sentence for each damaged one.

        Raises ValueError where there are checkpoints and all of them are damaged.
        """
        notes = []
        for path in reversed(self.all()):
            try:
                return read(path), notes
            except FileNotFoundError:  # the process that trains has removed it, and written a newer one
                return self.newest()
            except Damaged as error:
                notes.append(f"{error}; going back to the checkpoint before it")
        if notes:
            raise UserError(
                f"all {len(notes)} checkpoints in {str(self.folder)!r} are damaged: there is nothing to go on from. "
                "Start a new run with another --out"
            )
        return None, notes


def copied(state: Any) -> Any:
    """The same with its tensors copied to memory of their own, beside the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state and its checksum."""
    # By way of memory: torch's own writer hides why it could not write.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with open(path, "wb") as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).digest())


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a checkpoint file. Every byte is checked; nothing in it can run code.

    Raises ValueError if the file is damaged, FileNotFoundError if it is not there.
    """
    content = memoryview(path.read_bytes())
    state, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(state).digest() != digest:
        raise Damaged(f"the checkpoint {str(path)!r} is damaged, or no checkpoint of nearfar: its checksum is wrong")
    try:
        saved = torch.load(io.BytesIO(state), map_location=device, weights_only=True)
    except Exception as error:  # torch raises pickle's own errors for a file that holds more than plain types
        if out_of_memory(error):
            raise
        raise Damaged(f"the checkpoint {str(path)!r} was not written by nearfar ({type(error).__name__})") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("method"), dict):
        raise Damaged(f"the checkpoint {str(path)!r} was not written by nearfar: it holds no state of a method")
    return saved


@contextmanager
def fits(source: Path) -> Iterator[None]:
    """Within: the error of a state that belongs to another network or method names where it came from."""
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()
        raise UserError(
            f"the weights in {str(source)!r} are not of the method and encoder that the config.yaml beside them names "
            f"({reason[1 if len(reason) > 1 else 0].strip()}): they are of another run, or the code of either "
            "has changed. Bring that run's own files back, or start a new run with another --out"
        ) from error
