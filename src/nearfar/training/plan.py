"""What is to be trained: flags laid over a recipe. Free of torch but for the method that is named."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nearfar import methods
from nearfar.modalities import recipes
from nearfar.settings import Recipe, Settings

DRAWINGS = "drawings"
"""As DATA: the training part of the drawings that come with the package."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained: everything that was chosen, before anything is opened.

    network: a user's own module as the encoder, of which `settings.encoder` is the name; None for one of ours.
    """

    method: str
    data: Any
    recipe: str
    settings: Settings
    arguments: dict[str, Any]
    network: Any = None

    def saved(self) -> dict[str, Any]:
        """As `config.yaml` keeps it, in plain types."""
        data = (
            str(Path(self.data))
            if isinstance(self.data, str | os.PathLike)
            else f"{type(self.data).__name__} in memory"
        )
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.settings).items()}
        return {
            "method": self.method,
            "data": data,
            "recipe": self.recipe,
            "settings": settings,
            "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments.items()},
        }


def make(method: str, data: Any, recipe: str | None, flags: dict[str, Any]) -> Plan:
    """Lay flags over a recipe. Raises TypeError for a flag that neither the run nor the method has."""
    recipe = recipe or suited_recipe(data)
    base: Recipe = recipes.load(recipe, Path(method).stem)
    own = own_flags(method)
    known = {f.name for f in dataclasses.fields(Settings)}
    for name in flags:
        if name not in known and name not in own:
            insist_whole(name)
            near = get_close_matches(name, [*known, *own], 2)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise TypeError(f"neither a run nor {method!r} has an argument {name!r}{meant}")
    network = flags.get("encoder")
    if network is not None and not isinstance(network, str):
        spec = getattr(network, "spec", None)
        named = spec.get("name") if isinstance(spec, dict) else None
        flags = flags | {"encoder": named or type(network).__name__}
    else:
        network = None
    settings = dataclasses.replace(base.settings, **{k: v for k, v in flags.items() if k in known})
    arguments = {name: parameter.default for name, parameter in own.items()}
    arguments |= {k: v for k, v in (base.method | flags).items() if k in own}
    _check(settings)
    return Plan(method=method, data=data, recipe=recipe, settings=settings, arguments=arguments, network=network)


def insist_whole(flag: str) -> None:
    """Raise TypeError where a flag asks for gradient accumulation."""
    if "accum" in flag:
        raise TypeError(
            f"{flag!r}: adding up the gradients of small batches would contrast each sample with the few others of "
            "its small batch, which is another loss. For a large batch in little memory give batch, with micro_batch: "
            "it has the whole batch's negatives, and gradient"
        )


def own_flags(method: str) -> dict[str, inspect.Parameter]:
    """The arguments of a method, which no other flag may be called like. Raises ValueError where one is."""
    own = methods.flags(methods.load(method))
    taken = {f.name for f in dataclasses.fields(Settings)} | {"data", "out", "resume", "recipe"}
    if both := sorted(taken & set(own)):
        raise ValueError(f"the method {method!r} has an argument {both[0]!r}, which every run has: rename it")
    return own


def suited_recipe(data: Any) -> str:
    """What the data look like: drawings (those in the package), photos (a folder, archive, list), tables, or arrays,
    which are small_images."""
    if isinstance(data, str | os.PathLike) and str(data):
        if str(data) == DRAWINGS:
            return "drawings"
        path = Path(data)
        if _is_table(path):
            return "tables"
        return (
            "photos" if path.is_dir() or path.suffix in (".txt", ".csv", ".tar", ".parquet", ".pq") else "small_images"
        )
    return "tables" if hasattr(data, "columns") or isinstance(data, Mapping) else "small_images"


def _is_table(path: Path) -> bool:
    """Whether a file holds rows to learn from, and not a list of images or images themselves."""
    if path.name.endswith((".tsv", ".csv.gz", ".tsv.gz")):
        return True
    if path.suffix == ".csv" and path.is_file():
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in itertools.islice(csv.reader(file), 2) if row]
        listed = any("path" in row or (path.parent / row[0]).is_file() for row in rows)
        return not listed and any(len(row) > 1 for row in rows)
    if path.suffix in (".parquet", ".pq") and path.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            return False  # whoever opens it will say what is wrong with it
        held = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in schema.types)
        return not held and not {"path", "image_path", "file", "file_name", "filename"} & set(schema.names)
    return False


def free_directory(method: str, data: Any, root: Path = Path("runs")) -> Path:
    """The next unused name for a run, such as runs/simclr-photos-2."""
    known = isinstance(data, str | os.PathLike)
    stem = f"{Path(method).stem}-{Path(data).resolve().stem if known else 'array'}"
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"


def _check(settings: Settings) -> None:
    for name, kind in get_type_hints(Settings).items():
        if get_origin(kind) is Literal and getattr(settings, name) not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)!r} is none of {known}")
    for name in ("epochs", "keep", "save_every"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: at least 1 is needed")
    for name in ("probe_every", "view_count", "per_class"):
        if getattr(settings, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: 0 or more is needed")
    if settings.micro_batch < 0 or settings.micro_batch == 1:
        raise ValueError(f"--micro-batch {settings.micro_batch}: 2 or more samples at a time, or 0 to find what fits")
    for name in ("lr", "lr_1d", "weight_decay", "warmup", "clip", "floor", "size", "corruption", "max_bad", "white"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"--{name.replace('_', '-')} {value}: a finite number, 0 or more, is needed")
