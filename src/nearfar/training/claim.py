"""Whose is a directory? A run gets one of its own, or that of the run it continues; nothing is overwritten."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import fields
from pathlib import Path
from typing import Any

from nearfar import distributed
from nearfar.errors import AlreadyThere, UserError, counted
from nearfar.files import clear_leftovers, code_digests
from nearfar.owner import contents
from nearfar.settings import Settings
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.directory import UNTRAINED, read_config, read_environment
from nearfar.training.plan import Plan, as_saved

BEFORE_CONFIG = ("environment.json", "samples.parquet", "skipped.csv", "views.png", UNTRAINED)
"""What a run writes before its config.yaml: a directory with nothing else is of a run that was killed early."""

FREE = {
    "epochs": "from here on the learning rate, and all else that follows a schedule, is that of so many epochs",
    "device": "results agree to rounding, not bit for bit",
    "machine": "results agree to rounding, not bit for bit",
    "compile": "results agree to rounding, not bit for bit",
    "threads": "sums are taken in another order, so that results agree to rounding, not bit for bit",
    "processes": "sums are taken in another order, so that results agree to rounding, not bit for bit",
    "torch": "another version may compute otherwise",
    "nearfar": "another version may compute otherwise",
    "data": "samples are compared by their contents",
    "labels": "samples are compared by their contents",
    "probe_every": "the best checkpoint is chosen among other epochs",
    "stop_if_worse": "",
    "save_every": "",
    "keep": "",
    "keep_every": "probes and scores without labels are taken after other epochs",
    "max_bad": "",
    "timeout": "",
}
"""What may change when a run goes on, and what then changes with it. All else would be another run."""

PLACES = ("data", "labels", "method", "recipe", "kind", "views", "from_run")
"""What may be a path: the same file under another spelling is the same."""

Changes = dict[str, tuple[Any, Any]]
"""By name, before and now."""


def claim(plan: Plan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Make the directory `out` ours: the config of the run to continue there, or None for a new one.

    Raises FileExistsError if it is there and `resume` is not asked for, or holds what is of no run; ValueError if it
    is of a run with another plan.
    """
    config = out / "config.yaml"
    if resume and config.exists():
        saved = read_config(out)
        if "classifier" in saved:
            raise AlreadyThere(
                f"{str(out)!r} holds a classifier, which training cannot go on with: resume the run that it was made "
                "from, or name another --out"
            )
        plan = as_saved(plan, saved)
        insist_same(flat(saved, plan.settings), flat(plan.saved(), plan.settings), out)
        _insist_same_code(saved, out)
        _insist_more(saved, plan.settings.epochs, out)
        if distributed.rank() == 0:
            clear_leftovers(out)
        return saved
    there = contents(out)
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
            f"{str(out)!r} was trained in batches of {before['batch']}, which "
            f"{counted(distributed.world(), 'processes')} would make another: start as many processes as before"
        )


def flat(saved: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """All that was asked of a plan, as `Plan.saved` gives it, by name.

    settings: of the kind, whose defaults those have that came up after the plan was made.
    """
    own = {name: saved[name] for name in ("method", "data", "recipe", "kind")}
    usual = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(settings)}
    return own | usual | saved["settings"] | saved["arguments"]


def insist_same(saved: dict[str, Any], asked: dict[str, Any], out: Path, free: Container[str] = FREE) -> Changes:
    """What changed of what was asked, and may. Raises ValueError where anything else changed.

    free: the names of what may.
    """
    names = dict.fromkeys([*saved, *asked])
    pairs = {name: (saved.get(name), asked.get(name)) for name in names}
    changed = {name: values for name, values in pairs.items() if not _same(name, *values)}
    # Labels are held back for a probe, so that it cannot begin or end in the middle of a run.
    other = [name for name, values in changed.items() if name not in free or (name == "probe_every" and 0 in values)]
    if other:
        texts = [f"{name} was {changed[name][0]!r} and is {changed[name][1]!r}" for name in other]
        raise UserError(
            f"{str(out)!r} cannot be resumed with other settings: {'; '.join(texts)}. "
            f"Give the same flags, or start a new run with another --out"
        )
    return changed


def sentences(changes: Changes) -> list[str]:
    """One for each change: what was, what is, and what follows from it."""
    return [
        f"{name} was {before!r} and is {now!r}{': ' if FREE[name] else ''}{FREE[name]}."
        for name, (before, now) in changes.items()
    ]


def step_reached(out: Path) -> int:
    """The step of the newest checkpoint of a run, 0 where there is none."""
    saved = Checkpoints(out / "checkpoints").all()
    return int(saved[-1].stem.partition("-")[2]) if saved else 0


def _same(name: str, before: Any, now: Any) -> bool:
    if name in PLACES and isinstance(before, str) and isinstance(now, str) and before and now:
        return Path(before).resolve() == Path(now).resolve()
    return before == now


def _insist_more(saved: dict[str, Any], epochs: int, out: Path) -> None:
    """Raise ValueError for fewer epochs than are done."""
    per_epoch = saved["made"]["steps"] // saved["settings"]["epochs"]
    done = step_reached(out) / per_epoch
    if epochs < done:
        raise UserError(f"--epochs {epochs}: {done:.4g} are done in {str(out)!r}, so that many or more are needed")


def _insist_same_code(saved: dict[str, Any], out: Path) -> None:
    """Raise ValueError where a file of the user's own is no longer the one that the run was begun with."""
    for name, before in saved["code"].items():
        if code_digests([name]).get(name) != before:
            raise UserError(
                f"{str(out)!r} cannot be resumed: the file of {name!r} has changed since (its SHA-256 began with "
                f"{str(before)[:12]}). Put that version back, or start a new run with another --out"
            )
