"""The files of a run directory that say what was trained on what: written before training, checked when they are read.

`config.yaml` comes last, and holds the SHA-256 of each file that has no checksum of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nearfar.data.csv import read_rows
from nearfar.errors import UserError
from nearfar.files import (
    csv_text,
    file_digest,
    insist_digest,
    read_json,
    read_text,
    read_yaml,
    replace_text,
    replace_yaml,
    with_checksum,
)

UNTRAINED = "untrained.safetensors"
"""The weights that a user's own encoder began with, which no seed draws again."""
GIVEN = "given.safetensors"
"""The weights that an encoder began with instead of random ones."""

REMEDIES = {
    "samples.parquet": "the command that trained the run writes it again, with the same data and --resume",
    "views.png": "the command that trained the run writes it again, with the same data and --resume",
    UNTRAINED: "nothing else holds these weights, so bring the file back from a copy, or train a new run",
    GIVEN: "nothing else holds these weights as they were, so bring the file back from a copy, or train a new run",
}
"""The files without a checksum of their own, and what brings each back."""

WANTED = {"method": str, "data": str, "recipe": str, "kind": str, "settings": dict, "arguments": dict, "made": dict}
WANTED |= {"files": dict, "code": dict}
WANTED_MADE = {"encoder": dict, "classes": list, "counts": list, "samples": int, "steps": int, "batch": int}
WANTED_MADE |= {"fingerprint": str, "micro_batch": int, "needs_labels": bool}
"""What a config holds at least, and of what type."""


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write `config.yaml`, with the digests of the files that are there."""
    files = {name: file_digest(out / name) for name in REMEDIES if (out / name).is_file()}
    replace_yaml(out / "config.yaml", {**config, "files": files})


def read_config(out: Path) -> dict[str, Any]:
    """What `config.yaml` holds. Raises ValueError where it is damaged, or of another version of the library."""
    path = out / "config.yaml"
    config = read_yaml(
        path,
        "a run cannot be opened without it, so bring it back from a copy, or train again; encoder.py loads the weights "
        "without it",
    )
    made = config.get("made")
    parts = [(config, WANTED, ""), (made if isinstance(made, dict) else {}, WANTED_MADE, "made.")]
    for part, wanted, where in parts:
        if odd := [where + name for name, kind in wanted.items() if not isinstance(part.get(name), kind)]:
            raise UserError(
                f"{str(path)!r} has no {odd[0]!r} as this version writes it: another version of nearfar made the run. "
                "Open it with that one, or train again; encoder.py loads the weights without it"
            )
    return config


def unchanged(out: Path, name: str, config: Mapping[str, Any]) -> Path:
    """A file of a run that is as it was when `config` was written. Raises ValueError where it is not."""
    remedy = "make the classifier again, with another --out" if "classifier" in config else REMEDIES[name]
    return insist_digest(out / name, config.get("files", {}).get(name), remedy)


def damaged(out: Path, config: Mapping[str, Any]) -> list[str]:
    """The names of files that are no longer as they were when `config` was written."""
    return [n for n, wanted in config["files"].items() if not (out / n).is_file() or file_digest(out / n) != wanted]


def read_samples(out: Path, config: Mapping[str, Any]) -> pa.Table:
    """What a run learned from: the columns of `samples.parquet`, name and digest among them."""
    return pq.read_table(unchanged(out, "samples.parquet", config))


def read_environment(out: Path) -> dict[str, Any]:
    """What `environment.json` holds: where, when and how long a run was trained."""
    return read_json(
        out / "environment.json",
        "remove it and give the command that trained the run again, with --resume: it is written anew, without the "
        "time of training so far",
    )


def write_skipped(out: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Write `skipped.csv`: the names of the samples that could not be read, and the reasons."""
    replace_text(out / "skipped.csv", with_checksum(csv_text([("name", "reason"), *skipped]), cells=2))


def read_skipped(path: Path) -> list[tuple[str, str]]:
    """What `write_skipped` wrote."""
    read_text(path, "nothing else holds these names")
    return [(row.cells[0], ", ".join(row.cells[1:])) for row in read_rows(path)[1:]]
