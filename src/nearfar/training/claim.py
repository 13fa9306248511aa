"""Whose is a directory? A run gets one of its own, or that of the run it continues; nothing is overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearfar import distributed
from nearfar.errors import AlreadyThere, UserError
from nearfar.files import clear_leftovers, code_digests, is_leftover
from nearfar.training.directory import UNTRAINED, read_config, read_environment
from nearfar.training.plan import Plan

BEFORE_CONFIG = ("environment.json", "samples.parquet", "skipped.csv", "views.png", UNTRAINED)
"""What a run writes before its config.yaml: a directory with nothing else is of a run that was killed early."""


def claim(plan: Plan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Make the directory `out` ours: the config of the run to continue there, or None for a new one.

    Raises FileExistsError if it is there and `resume` is not asked for, or holds what is of no run; ValueError if it
    is of a run with another plan.
    """
    config = out / "config.yaml"
    if resume and config.exists():
        saved = read_config(out)
        _insist_same(saved, plan.saved(), out)
        if distributed.rank() == 0:
            clear_leftovers(out)
        return saved
    there = [path for path in out.iterdir() if not is_leftover(path)] if out.exists() else []
    if there and not resume:
        raise AlreadyThere(
            f"{str(out)!r} is there already and is never overwritten: go on with --resume, or name another --out"
        )
    foreign = sorted(path.name for path in there if path.name not in BEFORE_CONFIG)
    if foreign:
        raise AlreadyThere(
            f"{str(out)!r} cannot be resumed: it has no config.yaml, and holds {foreign[0]!r}, which is not of a run "
            "that was cut short; name another --out"
        )
    if resume:
        say(f"Nothing to resume in {str(out)!r}: starting from the beginning.")
    distributed.barrier()  # before anything is written: the other processes may still be reading
    out.mkdir(parents=True, exist_ok=True)
    if distributed.rank() == 0:
        clear_leftovers(out)
    return None


def is_finished(out: Path) -> bool:
    """Whether the run in this directory came to its end."""
    return (out / "environment.json").exists() and bool(read_environment(out).get("finished"))


def insist_same_samples(saved: dict[str, Any], facts: dict[str, Any], plan: Plan, out: Path) -> None:
    """Raise ValueError where a run would continue on other samples, or in batches of another size."""
    before = saved["made"]
    if before["fingerprint"] != facts["fingerprint"]:
        raise UserError(
            f"the samples in {str(plan.data)!r}, or their labels, are not those that {str(out)!r} was trained on: "
            "give the same data, or start a new run with another --out"
        )
    if before["batch"] != facts["batch"]:
        raise UserError(
            f"{str(out)!r} was trained in batches of {before['batch']}, which {distributed.world()} process(es) would "
            "make another: start as many processes as before"
        )


def _insist_same(saved: dict[str, Any], asked: dict[str, Any], out: Path) -> None:
    pairs = [(name, saved[name], asked[name]) for name in ("method", "data", "recipe", "kind")]
    for part in ("settings", "arguments"):
        names = dict.fromkeys(name for name in [*saved[part], *asked[part]] if name != "max_bad")
        pairs += [(name, saved[part].get(name), asked[part].get(name)) for name in names]
    changed = [f"{name} was {before!r} and is {now!r}" for name, before, now in pairs if before != now]
    if changed:
        raise UserError(
            f"{str(out)!r} cannot be resumed with other settings: {'; '.join(changed)}. "
            f"Give the same flags, or start a new run with another --out"
        )
    for name, before in saved["code"].items():
        if code_digests([name]).get(name) != before:
            raise UserError(
                f"{str(out)!r} cannot be resumed: the file of {name!r} has changed since (its SHA-256 began with "
                f"{str(before)[:12]}). Put that version back, or start a new run with another --out"
            )
