"""Taking an encoder out of the library: weights that load elsewhere, checked before success is reported.

encoder.safetensors   the state dict of the network alone, without a head
encoder.json          what builds the network and prepares samples for it, and the SHA-256 of the weights
encoder.py            a few lines that load it without this library: `from encoder import encode`; not there for a
                      network that only its own code builds (`Encoder.source` is None)

Each is checked when it is read: encoder.json and encoder.py carry a checksum, and both know the file beside them that
they rest on.
"""

from __future__ import annotations

import copy
import json
import os
import runpy
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nearfar.errors import Damaged, UserError, out_of_memory
from nearfar.files import (
    code_digests,
    file_digest,
    insist_digest,
    insist_trusted,
    read_json,
    read_text,
    replace,
    same_code,
    staging,
    to_json,
    with_checksum,
)
from nearfar.method import Encoder
from nearfar.modalities.encoder import from_spec, is_own, kinds_of
from nearfar.nn.towers import pick_tower

FORMAT = 1
NAMES = ("encoder.safetensors", "encoder.py", "encoder.json")
TOLERANCE = 1e-4
LOAD = 'net.load_state_dict(load_file(Path(__file__).with_name("encoder.safetensors")))'


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported, and how it was checked.

    files: encoder.safetensors, encoder.json, and encoder.py where there is one.  dim: the width of the representation.
    entries, parameters: tensors in the state dict, and trained numbers among them.
    loader: the text of encoder.py, or "" where the network can be built by its own code alone.
    plain: whether `timm.create_model(name, num_classes=0, in_chans=channels)` is this network, without a change.
    difference: the largest one between what was loaded again and the encoder on noise, over the largest output; None
        where nothing builds the network again, and only the file was read back.
    """

    folder: Path
    files: tuple[Path, ...]
    dim: int
    entries: int
    parameters: int
    loader: str
    plain: bool
    difference: float | None


def export_encoder(encoder: Encoder, folder: str | Path, tower: str = "") -> ExportReport:
    """Write `encoder` to `folder`, load it again by running encoder.py itself, and compare the two on noise.

    tower: of an encoder with several, the one to export.
    Older files in the folder give way only once the new ones have passed. Raises ValueError where the weights are not
    finite, where what is loaded again is another encoder, and for a tower that is not there.
    """
    encoder = pick_tower(encoder, tower)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = copy.deepcopy(encoder).to("cpu", torch.float32).eval()
    weights = {key: value.contiguous().clone() for key, value in encoder.network().state_dict().items()}
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{len(broken)} of the {len(weights)} tensors of the encoder are not finite, such as {broken[0]}: training "
            "diverged, so export an earlier checkpoint"
        )
    lines, plain = encoder.source() or ([], False)
    names = [name for name in NAMES if lines or name != "encoder.py"]
    with staging(folder) as staged:
        # As bytes: the library's own writer makes files that only their owner may read, and hides a full disk.
        (staged / "encoder.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
        description = {
            "format": FORMAT,
            "encoder": encoder.spec,
            "dim": encoder.dim,
            "input": encoder.preparation(),
            "sha256": file_digest(staged / "encoder.safetensors"),
            "code": code_digests(kinds_of(encoder.spec)),
            "loader": bool(lines),
            "versions": {package: version(package) for package in ("torch", "timm", "safetensors")},
        }
        (staged / "encoder.json").write_bytes(f"{to_json(description, indent=2)}\n".encode())
        loader = _loader(encoder, lines, staged) if lines else ""
        if loader:
            (staged / "encoder.py").write_bytes(with_checksum(loader).encode())
        difference = _difference(encoder, staged, weights)
        if difference is not None and not difference <= TOLERANCE:
            raise UserError(
                f"what was exported gives other outputs than the encoder: they differ by {difference:.2g} of the "
                f"largest, allowed are {TOLERANCE:g}; nothing was exported. Was a layer changed by hand, or rounded to "
                "16 bits?"
            )
        files = tuple(replace(folder / n, lambda temporary, n=n: os.replace(staged / n, temporary)) for n in names)
    if not loader:
        (folder / "encoder.py").unlink(missing_ok=True)  # of an earlier export: it would load these weights wrongly
    return ExportReport(
        folder=folder,
        files=files,
        dim=encoder.dim,
        entries=len(weights),
        parameters=sum(p.numel() for p in encoder.network().parameters()),
        loader=loader,
        plain=plain,
        difference=difference,
    )


def load_encoder(
    folder: str | Path, tower: str = "", network: nn.Module | None = None, *, trust: bool | str = False
) -> Encoder:
    """The encoder that `export_encoder` wrote to `folder`, in eval mode; no file of it is run or unpickled.

    tower: of an encoder with several, the one that is wanted.
    network: the module that was exported, where it is a user's own; the weights are filled into it.
    trust: whether the file of a kind of data of the user's own may be run, if it is that of the export; or the name of
        the one kind of which it may, as the user has given it.
    Raises FileNotFoundError for missing files, ValueError for damaged ones, for weights that do not fit, and for a
    user's own encoder without its module.
    """
    folder = Path(folder)
    description = read_description(folder)
    for name in kinds_of(description["encoder"]):
        insist_trusted(
            name, description["code"], folder / "encoder.json", trust=trust is True or same_code(name, str(trust))
        )
    try:
        weights = load_file(folder / "encoder.safetensors")
    except SafetensorError as error:
        raise Damaged(f"{folder / 'encoder.safetensors'} is damaged ({error}): {_remedy(folder)}") from error
    with understood(folder / "encoder.json"):
        encoder = from_spec(description["encoder"], network)
    _fill(encoder, weights, folder)
    return pick_tower(encoder, tower).eval()


def check_export(folder: Path) -> None:
    """Raise ValueError where one of the files that `export_encoder` wrote is damaged, or missing."""
    description = read_description(folder)
    if description["loader"]:
        read_text(folder / "encoder.py", _remedy(folder))


@contextmanager
def understood(source: Path) -> Iterator[None]:
    """Within: the error of a description that describes nothing that can be built names the file that holds it."""
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, ArithmeticError) as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise UserError(
            f"{str(source)!r} describes no encoder that this version can build ({type(error).__name__}: {error}): "
            "another version of nearfar wrote it, or the code of its kind of data has changed"
        ) from error


def _remedy(folder: Path) -> str:
    if not (folder / "config.yaml").is_file():
        return "export the run again"
    if not (folder / "checkpoints").is_dir():
        return "make this directory again by the command that made it"
    return f"`nearfar export {shlex.quote(str(folder))}` writes it again from the newest checkpoint"


def read_description(folder: Path) -> dict[str, Any]:
    """What encoder.json holds, once the weights beside it are those that it describes."""
    path, remedy = folder / "encoder.json", _remedy(folder)
    description = read_json(path, remedy)
    if (number := description.get("format")) != FORMAT:
        raise UserError(f"{path} has format {number!r}, this version reads {FORMAT}: update nearfar, or export again")
    wanted = {"encoder": dict, "sha256": str, "code": dict, "loader": bool}
    if odd := [name for name, kind in wanted.items() if not isinstance(description.get(name), kind)]:
        raise Damaged(f"{str(path)!r} has no {odd[0]!r} as this version writes it: {remedy}")
    insist_digest(folder / "encoder.safetensors", description["sha256"], remedy)
    return description


def _fill(encoder: Encoder, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = encoder.network().state_dict()
    fitting = [key for key in wanted if key in weights and weights[key].shape == wanted[key].shape]
    if len(fitting) < len(wanted) or len(weights) > len(wanted):
        odd = sorted((set(wanted) | set(weights)) - set(fitting))
        raise UserError(
            f"{folder / 'encoder.safetensors'} fits {len(fitting)} of the {len(wanted)} entries of "
            f"{encoder.spec.get('name', 'the network')} and has {len(weights)} (not fitting: {', '.join(odd[:3])}): "
            "the file, the version of timm or the code of the network is another than that of the export"
        )
    encoder.network().load_state_dict(weights)


def _loader(encoder: Encoder, lines: list[str], folder: Path) -> str:
    """The text of encoder.py, for the other files as they are in `folder`."""
    encode = encoder.encode_lines()
    read = [name for name in ("encoder.safetensors", "encoder.json") if any(name in line for line in [LOAD, *encode])]
    return "\n".join(
        [
            '"""The encoder beside this file, without the library that trained it."""',
            "",
            "import hashlib",
            *(["import json"] if any("json." in line for line in encode) else []),
            "from pathlib import Path",
            "",
            *(["import timm"] if any("timm." in line for line in lines) else []),
            "import torch",
            "from safetensors.torch import load_file",
            "",
            f"written = {json.dumps({name: file_digest(folder / name) for name in read}, indent=4)}",
            "for name, sha256 in written.items():",
            "    if hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest() != sha256:",
            '        raise ValueError(f"{name} is damaged, or of another export: export the encoder again")',
            "",
            *lines,
            LOAD,
            "net.eval()",
            *encode,
            "",
        ]
    )


def _difference(encoder: Encoder, folder: Path, weights: dict[str, Tensor]) -> float | None:
    """How far what is loaded from `folder` is from the encoder, of its largest output, on noise."""
    if not (folder / "encoder.py").exists() and is_own(encoder.spec):
        content = load_file(folder / "encoder.safetensors")
        assert all(content[key].equal(value) for key, value in weights.items())
        return None
    noise = encoder.example(2, torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # building a network draws from the global generator
        if (folder / "encoder.py").exists():
            encode = runpy.run_path(str(folder / "encoder.py"))["encode"]
        else:
            encode = load_encoder(folder, trust=True)  # the code of its kind has just been run
        other, own = encode(noise), encoder(noise)
    return ((other - own).abs().max() / own.abs().max().clamp(min=1e-12)).item() if other.shape == own.shape else 1.0
