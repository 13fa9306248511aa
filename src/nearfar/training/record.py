"""What a run writes down before training, and the time it took after."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from nearfar import methods
from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.errors import counted
from nearfar.files import code_digests, replace, replace_json
from nearfar.machine import session
from nearfar.modalities.encoder import kinds_of
from nearfar.training.build import Built
from nearfar.training.claim import Changes
from nearfar.training.directory import GIVEN, UNTRAINED, read_environment, write_config, write_skipped
from nearfar.training.plan import Plan

SURROUNDINGS = {"threads": "threads", "device": "machine", "torch": "torch", "nearfar": "nearfar"}
"""What environment.json keeps of where a run was made, and what a change of it is called: device is a flag's name."""


def write_down(plan: Plan, out: Path, built: Built, device: torch.device, say: Callable[[str], None]) -> None:
    """Write everything but the numbers and weights of training: environment, samples, a sheet of views, config.

    The config comes last: a directory with a config has everything that is written before training.
    """
    _write_environment(plan, out, built, device)
    if built.samples.skipped:
        write_skipped(out, built.samples.skipped)
        say(f"{counted(len(built.samples.skipped), 'files')} could not be read: see {out / 'skipped.csv'}")
    write_samples(out, built.samples, built.digests)
    for name, weights in ((UNTRAINED, built.first_weights), (GIVEN, built.given_weights)):
        if weights:
            replace(out / name, lambda temporary, weights=weights: temporary.write_bytes(save(weights)))
    _write_sheet(plan, out, built)
    config = plan.saved()
    config |= {
        "code": config["code"] | code_digests(kinds_of(built.encoder.spec)),
        "encoder": plan.settings.encoder,
        "epochs": plan.settings.epochs,
        "batch": built.facts["batch"],
        "samples": built.facts["samples"],
        "made": built.facts | {"encoder": built.encoder.spec, "classes": built.samples.classes},
    }
    write_config(out, config)


def write_again(
    plan: Plan,
    out: Path,
    built: Built,
    device: torch.device,
    saved: dict[str, Any],
    broken: list[str],
    say: Callable[[str], None],
) -> None:
    """Write again what a run that is resumed has lost of the files that were written before training.

    saved: its config.  broken: the files that are not as it says.
    """
    if not (out / "environment.json").exists():
        _write_environment(plan, out, built, device)
    if broken:
        say(f"{' and '.join(broken)} in {str(out)!r} had been damaged: written again.")
        write_samples(out, built.samples, built.digests)
        _write_sheet(plan, out, built)
        write_config(out, saved)


def write_samples(out: Path, samples: Samples, digests: list[str]) -> None:
    """By what the samples are known again, and what was known of them."""
    labels = [None if c == MISSING else samples.classes[c] for c in samples.label.tolist()]
    columns = {
        "name": samples.names,
        "digest": digests,
        "label": pa.array(labels, pa.string()),
        "group": samples.group.tolist(),
        "attribute": samples.attribute.tolist(),
    }
    replace(out / "samples.parquet", lambda temporary: pq.write_table(pa.table(columns), temporary))


def changed_surroundings(out: Path, saved: dict[str, Any], built: Built, device: torch.device) -> Changes:
    """What a run that goes on does not find as it left it, besides its settings."""
    environment = read_environment(out)
    now = session() | {"threads": torch.get_num_threads(), "device": _called(device)}
    changes: Changes = {
        SURROUNDINGS[name]: (environment.get(name), now[name])
        for name in SURROUNDINGS
        if environment.get(name) != now[name]
    }
    ranks = saved["made"]["processes"], built.facts["processes"]
    return changes if ranks[0] == ranks[1] else changes | {"processes": ranks}


def keep_up(plan: Plan, out: Path, built: Built, saved: dict[str, Any], changes: Changes, step: int) -> None:
    """Write down what changed when a run went on from a step: config.yaml has the new values, and what they were."""
    environment = read_environment(out)
    own = {name: changes[said][1] for name, said in SURROUNDINGS.items() if said in changes}
    environment |= own | {"finished": False}
    replace_json(
        out / "environment.json", environment, indent=1
    )  # before the config: a finished run of more epochs is not
    made = saved["made"] | {name: built.facts[name] for name in ("steps", "processes")}
    note = {"step": step} | {name: list(values) for name, values in changes.items()}
    asked = plan.saved()
    config = saved | asked | {"epochs": plan.settings.epochs, "made": made, "code": saved["code"] | asked["code"]}
    config["changed"] = [*saved.get("changed", []), note]
    write_config(out, config)


def note_time(out: Path, seconds: float, *, finished: bool) -> None:
    """Add to the time that a run took, and say whether it came to its end."""
    environment = read_environment(out)
    environment["seconds"] += seconds
    environment["finished"] = finished
    replace_json(out / "environment.json", environment, indent=1)


def _write_environment(plan: Plan, out: Path, built: Built, device: torch.device) -> None:
    environment = {
        **session(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _called(device),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "paper": methods.page(plan.method).paper,
        "notes": [*built.samples.notes, *built.encoder.notes],
        "seconds": 0.0,
        "finished": False,
    }
    replace_json(out / "environment.json", environment, indent=1)


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_sheet(plan: Plan, out: Path, built: Built) -> None:
    """Up to eight samples, from first to last, and their views."""
    few = torch.linspace(0, len(built.samples) - 1, min(8, len(built.samples))).long()
    draws = built.views.draw(len(few), torch.Generator().manual_seed(plan.settings.seed))
    sheet = built.kind.sheet(built.samples, built.views, few, draws)
    replace(out / "views.png", lambda temporary: sheet.save(temporary, format="PNG"))
