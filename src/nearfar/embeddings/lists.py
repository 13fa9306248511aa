"""Rows of embeddings, as a list or table that training takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from nearfar.data.samples import LEARNED
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import UserError
from nearfar.files import replace_csv


def candidates(held: Embeddings) -> Tensor:
    """The rows that training may learn from: those of the split train, or of none.

    Raises ValueError where there are none.
    """
    rows = torch.tensor([i for i, split in enumerate(held.rows["split"]) if split in LEARNED])
    if not len(rows):
        raise UserError(f"all of {str(held.path)!r} are of the splits val and test: there is nothing to choose from")
    return rows


def write_list(held: Embeddings, kept: Tensor, path: Path) -> bool:
    """Write which rows to train on; rows of other splits stay in theirs. Gives whether it is a list of files.

    Samples that are files: a list of path, relative to the list's folder, split, label and group, the last two where
    some are known, that training takes as DATA.
    Others: a table for --labels, in which rows that are not kept are of the split val.
    """
    names, known, root = held.names, held.rows, held.root()
    chosen = set(kept.tolist())
    learned = [split in LEARNED for split in known["split"]]
    stays = [i for i in range(len(names)) if i in chosen or not learned[i]]
    is_list = root is not None and all((root / names[i]).is_file() for i in stays)
    beside = path.absolute().parent

    def row(i: int) -> list[str]:
        name = Path(os.path.relpath(root / names[i], beside)).as_posix() if is_list and root else names[i]
        split = "train" if i in chosen else known["split"][i] if not learned[i] else "val"
        group = "" if known["group"][i] is None else f"group-{known['group'][i]}"
        return [name, split, *([known["label"][i] or ""] if held.classes else []), *([group] if grouped else [])]

    grouped = any(group is not None for group in known["group"])
    key = "index" if names == [str(i) for i in range(len(names))] and not is_list else "path"
    rows = stays if is_list else range(len(names))
    head = [key, "split", *(["label"] if held.classes else []), *(["group"] if grouped else [])]
    replace_csv(path, [head, *(row(i) for i in rows)])
    return is_list
