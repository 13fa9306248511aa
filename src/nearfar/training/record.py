"""What a run writes down before training, and the time it took after."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save

from nearfar import methods
from nearfar.files import replace, replace_csv, replace_text
from nearfar.machine import session
from nearfar.training.build import Built
from nearfar.training.claim import UNTRAINED, Changes
from nearfar.training.plan import Plan


def write_down(plan: Plan, out: Path, built: Built, device: torch.device, say: Callable[[str], None]) -> None:
    """Write everything but the numbers and weights of training: environment, samples, a sheet of views, config.

    The config comes last: a directory with a config has everything that is written before training.
    """
    _write_environment(plan, out, built, device)
    if built.samples.skipped:
        replace_csv(out / "skipped.csv", [("name", "reason"), *built.samples.skipped])
        say(f"{len(built.samples.skipped)} files could not be read: see {out / 'skipped.csv'}")
    table = pa.table({"name": built.samples.names, "digest": built.digests})
    replace(out / "samples.parquet", lambda temporary: pq.write_table(table, temporary))
    if built.first_weights:
        replace(out / UNTRAINED, lambda temporary: temporary.write_bytes(save(built.first_weights)))
    _write_sheet(plan, out, built)
    config = plan.saved() | {
        "encoder": plan.settings.encoder,
        "epochs": plan.settings.epochs,
        "batch": built.facts["batch"],
        "samples": built.facts["samples"],
        "made": built.facts | {"encoder": built.encoder.spec, "classes": built.samples.classes},
    }
    replace_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def changed_surroundings(out: Path, saved: dict[str, Any], built: Built, device: torch.device) -> Changes:
    """What a run that goes on does not find as it left it, besides its settings."""
    environment = json.loads((out / "environment.json").read_text(encoding="utf-8"))
    now = session() | {"threads": torch.get_num_threads(), "device": _called(device)}
    changes: Changes = {
        name: (environment.get(name), now[name])
        for name in ("threads", "device", "torch", "nearfar")
        if environment.get(name) != now[name]
    }
    ranks = saved["made"]["processes"], built.facts["processes"]
    return changes if ranks[0] == ranks[1] else changes | {"processes": ranks}


def keep_up(plan: Plan, out: Path, built: Built, saved: dict[str, Any], changes: Changes, step: int) -> None:
    """Write down what changed when a run went on from a step: config.yaml has the new values, and what they were."""
    path = out / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    own = {name: now for name, (_, now) in changes.items() if name in ("threads", "device", "torch", "nearfar")}
    environment |= own | {"finished": False}
    replace_text(path, json.dumps(environment, indent=1))  # before the config: a finished run of more epochs is not
    made = saved["made"] | {name: built.facts[name] for name in ("steps", "processes")}
    note = {"step": step} | {name: list(values) for name, values in changes.items()}
    config = saved | plan.saved() | {"epochs": plan.settings.epochs, "made": made}
    config["changed"] = [*saved.get("changed", []), note]
    replace_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def note_time(out: Path, seconds: float, *, finished: bool) -> None:
    """Add to the time that a run took, and say whether it came to its end."""
    path = out / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    environment["seconds"] += seconds
    environment["finished"] = finished
    replace_text(path, json.dumps(environment, indent=1))


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
    replace_text(out / "environment.json", json.dumps(environment, indent=1))


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_sheet(plan: Plan, out: Path, built: Built) -> None:
    """Up to eight samples, from first to last, and their views."""
    few = torch.linspace(0, len(built.samples) - 1, min(8, len(built.samples))).long()
    draws = built.views.draw(len(few), torch.Generator().manual_seed(plan.settings.seed))
    sheet = built.kind.sheet(built.samples, built.views, few, draws)
    replace(out / "views.png", lambda temporary: sheet.save(temporary, format="PNG"))
