"""The files below a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nearfar.data.labels import natural


def files_below(root: Path) -> tuple[list[str], list[str]]:
    """Paths of the files below root, in natural order, and notes. Hidden files and folders are left out.

    Links are followed after everything that is really there, and only to what was not yet seen: a loop ends, and a
    file that is linked to twice counts once.
    """
    names, links, notes = [], [], []
    seen: set[tuple[int, int]] = set()

    def scan(folder: str) -> None:
        pending = [folder]
        while pending:
            folder = pending.pop()
            try:
                here = os.stat(root / folder)
                if (here.st_dev, here.st_ino) in seen:
                    continue
                seen.add((here.st_dev, here.st_ino))
                entries = list(os.scandir(root / folder))
            except OSError as error:
                notes.append(f"The folder '{folder}' cannot be read ({error.strerror}).")
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir():
                    pending.append(name)
                else:
                    names.append(name)
                    seen.add((here.st_dev, entry.inode()))

    scan("")
    again = 0
    while links:
        pending, links = sorted(links, key=natural), []
        for name in pending:
            try:
                target = os.stat(root / name)
            except OSError:  # a link to nothing, or to itself
                names.append(name)
                continue
            if stat.S_ISDIR(target.st_mode):
                scan(name)
            elif (target.st_dev, target.st_ino) in seen:
                again += 1
            else:
                seen.add((target.st_dev, target.st_ino))
                names.append(name)
    if again:
        notes.append(f"Ignored {again} link{'s' if again > 1 else ''} to files that are there already.")
    return sorted(names, key=natural), notes
