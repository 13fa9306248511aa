"""Checkpoints: written whole or not at all, checked when read, newest first."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from nearfar.files import replace


class Checkpoints:
    """The checkpoints of one run, in `folder`, of which the newest `keep` stay. `best.pt` is kept beside them."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep} checkpoints: at least 1 is needed to resume from")
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def all(self) -> list[Path]:
        """Every checkpoint but `best`, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, step: int, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write the state of a step; with `best`, also as the best so far."""
        for leftover in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        path = replace(self.path(step), lambda temporary: torch.save(state, temporary))
        if best:
            replace(self.folder / "best.pt", lambda temporary: shutil.copyfile(path, temporary))
        for old in self.all()[: -self.keep]:
            old.unlink()
        return path

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that is undamaged (None where there is none), and a sentence for each that was damaged."""
        notes = []
        for path in reversed(self.all()):
            try:
                return read(path), notes
            except ValueError as error:
                notes.append(f"{error}; going back to the checkpoint before it")
        return None, notes


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a checkpoint file. Every byte is checked; nothing in it can run code.

    Raises ValueError if the file is damaged, FileNotFoundError if it is not there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location=device, weights_only=True)
        reason = f"the record {damaged!r} fails its checksum"
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ValueError(f"the checkpoint {str(path)!r} is damaged ({reason})")
