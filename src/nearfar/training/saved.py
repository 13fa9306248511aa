"""The checkpoints of a run directory, as those who use them ask for them: the last, the best, or one of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nearfar.errors import Damaged, NotFound
from nearfar.settings import Which
from nearfar.training.checkpoints import Checkpoints, read


def by_epoch(run: Path, config: Mapping[str, Any]) -> dict[int, Path]:
    """The checkpoints that can be asked for by their epoch, in order: those that were kept, and the newest ones."""
    saved = Checkpoints(run / "checkpoints")
    there = {path.name: path for path in (*saved.all(), *saved.kept().values())}
    return {epoch: there[name] for epoch, name in epochs(there, config).items()}


def epochs(names: Iterable[str], config: Mapping[str, Any]) -> dict[int, str]:
    """The same of the names of a run's checkpoints: that of each epoch, in order; of one that stays, that one.

    config: of the run. Where it does not say how many steps an epoch has, the newest ones are of no epoch.
    """
    made, settings = config.get("made") or {}, config.get("settings") or {}
    per_epoch = made.get("steps", 0) // (settings.get("epochs") or 1)
    found: dict[int, str] = {}
    for name in sorted(names):  # epoch-... before step-...
        which, _, number = name.removesuffix(".pt").partition("-")
        if which not in ("epoch", "step") or not number.isdecimal():
            continue
        epoch, rest = (int(number), 0) if which == "epoch" else divmod(int(number), per_epoch or int(number) + 1)
        if epoch and not rest:
            found.setdefault(epoch, name)
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
