"""The checkpoints of a run directory, as those who use them ask for them: the last, the best, or one of an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from nearfar.errors import Damaged, NotFound
from nearfar.settings import Which
from nearfar.training.checkpoints import Checkpoints, read


def by_epoch(run: Path, config: dict[str, Any]) -> dict[int, Path]:
    """The checkpoints that can be asked for by their epoch, in order: those that were kept, and the newest ones."""
    saved = Checkpoints(run / "checkpoints")
    found = saved.kept()
    per_epoch = config["made"].get("steps", 0) // config["settings"].get("epochs", 1)
    for path in saved.all() if per_epoch else ():
        epoch, rest = divmod(int(path.stem.partition("-")[2]), per_epoch)
        if epoch and not rest:
            found.setdefault(epoch, path)
    return dict(sorted(found.items()))


def insist_kept(run: Path, config: dict[str, Any], epoch: int) -> None:
    """Raise FileNotFoundError, with those that there are, where an epoch has no checkpoint."""
    if epoch not in (there := by_epoch(run, config)):
        named = f"there are those of the epochs {', '.join(map(str, there))}" if there else "none was kept"
        raise NotFound(
            f"{str(run)!r} has no checkpoint of epoch {epoch}: {named}; and last. `nearfar train` keeps some with "
            "--keep-every"
        )


def state(run: Path, config: dict[str, Any], which: Which) -> dict[str, Tensor]:
    """What a checkpoint holds of the method.  which: not "auto"."""
    folder = run / "checkpoints"
    if which == "best" and not (folder / "best.pt").exists():
        raise NotFound(f"{str(run)!r} has no best checkpoint: choosing one takes labels during training; use last")
    if which != "last":
        try:
            return read(folder / "best.pt" if which == "best" else by_epoch(run, config)[int(which)])["method"]
        except Damaged as error:
            raise Damaged(f"{error}. Take --checkpoint last, or train again") from error
    saved = Checkpoints(folder).all()
    if not saved:
        raise NotFound(f"{str(run)!r} has no checkpoint: train on with --resume")
    try:
        return read(saved[-1])["method"]
    except Damaged as error:
        raise Damaged(
            f"{error}. To make it again from the one before it, remove {str(run / 'environment.json')!r} and give the "
            "command that trained the run again, with --resume"
        ) from error
