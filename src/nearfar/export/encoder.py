"""Taking an encoder out of the library: weights that load elsewhere, checked before success is reported.

encoder.safetensors   the state dict of the network alone, without a head
encoder.json          what builds the network and prepares images for it, and the checksum of the weights
encoder.py            a few lines that load it without this library: `from encoder import encode`
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import runpy
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from nearfar.files import replace
from nearfar.modalities.encoder import AnyEncoder, from_spec

FORMAT = 1
NAMES = ("encoder.safetensors", "encoder.py", "encoder.json")
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported, and how it was checked.

    files: encoder.safetensors, encoder.py, encoder.json.  dim: the width of the representation.
    entries, parameters: tensors in the state dict, and trained numbers among them.  loader: the text of encoder.py.
    plain: whether `timm.create_model(name, num_classes=0, in_chans=channels)` is this network, without a change.
    difference: the largest one between the loader's output and the encoder's on noise, over the largest output.
    """

    folder: Path
    files: tuple[Path, ...]
    dim: int
    entries: int
    parameters: int
    loader: str
    plain: bool
    difference: float


def export_encoder(encoder: AnyEncoder, folder: str | Path) -> ExportReport:
    """Write `encoder` to `folder`, load it again by running encoder.py itself, and compare the two on noise.

    Older files in the folder give way only once the new ones have passed. Raises ValueError where the weights are not
    finite, and where encoder.py would give another encoder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = copy.deepcopy(encoder).to("cpu", torch.float32).eval()
    weights = {key: value.contiguous().clone() for key, value in encoder.net.state_dict().items()}
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"{len(broken)} of the {len(weights)} tensors of the encoder are not finite, such as {broken[0]}: training "
            "diverged, so export an earlier checkpoint"
        )
    lines, plain = encoder.source()
    loader = _loader(encoder, lines)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
        staged = Path(name)
        # As bytes: the library's own writer makes files that only their owner may read, and hides a full disk.
        (staged / "encoder.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
        (staged / "encoder.py").write_text(loader, encoding="utf-8")
        description = {
            "format": FORMAT,
            "encoder": encoder.spec,
            "dim": encoder.dim,
            "input": encoder.preparation(),
            "sha256": _checksum(staged / "encoder.safetensors"),
            "versions": {package: version(package) for package in ("torch", "timm", "safetensors")},
        }
        (staged / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        difference = _difference(encoder, staged)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"encoder.py gives other outputs than the encoder: they differ by {difference:.2g} of the largest, "
                f"allowed are {TOLERANCE:g}; nothing was exported. Was a layer changed by hand, or rounded to 16 bits?"
            )
        files = tuple(replace(folder / n, lambda temporary, n=n: os.replace(staged / n, temporary)) for n in NAMES)
    return ExportReport(
        folder=folder,
        files=files,
        dim=encoder.dim,
        entries=len(weights),
        parameters=sum(p.numel() for p in encoder.net.parameters()),
        loader=loader,
        plain=plain,
        difference=difference,
    )


def load_encoder(folder: str | Path) -> AnyEncoder:
    """The encoder that `export_encoder` wrote to `folder`, in eval mode; no file of it is run or unpickled.

    Raises FileNotFoundError for missing files, ValueError for damaged ones and for weights that do not fit.
    """
    folder = Path(folder)
    for name in ("encoder.json", "encoder.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no exported encoder: there is no {name} in it")
    description = _read_description(folder / "encoder.json")
    if (found := _checksum(folder / "encoder.safetensors")) != description["sha256"]:
        raise ValueError(
            f"{folder / 'encoder.safetensors'} is not the file that encoder.json describes (its sha256 begins with "
            f"{found[:12]}, wanted {str(description['sha256'])[:12]}): it is damaged or of another export, so export "
            "again"
        )
    try:
        weights = load_file(folder / "encoder.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'encoder.safetensors'} is damaged ({error}): export again") from error
    encoder = from_spec(description["encoder"])
    _fill(encoder, weights, folder)
    return encoder.eval()


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): export again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise ValueError(f"{path} has format {found!r}, this version reads {FORMAT}: update nearfar, or export again")
    if missing := {"encoder", "sha256"} - set(description):
        raise ValueError(f"{path} lacks {sorted(missing)}: it is damaged, so export again")
    return description


def _fill(encoder: AnyEncoder, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = encoder.net.state_dict()
    fitting = [key for key in wanted if key in weights and weights[key].shape == wanted[key].shape]
    if len(fitting) < len(wanted) or len(weights) > len(wanted):
        odd = sorted((set(wanted) | set(weights)) - set(fitting))
        raise ValueError(
            f"{folder / 'encoder.safetensors'} fits {len(fitting)} of the {len(wanted)} entries of "
            f"{encoder.spec['name']} and has {len(weights)} (not fitting: {', '.join(odd[:3])}): the file or the "
            "version of timm is another than that of the export"
        )
    encoder.net.load_state_dict(weights)


def _loader(encoder: AnyEncoder, lines: list[str]) -> str:
    told = encoder.encode_lines()
    return "\n".join(
        [
            '"""The encoder beside this file, without the library that trained it."""',
            "",
            *(["import json"] if any("json." in line for line in told) else []),
            "from pathlib import Path",
            "",
            *(["import timm"] if any("timm." in line for line in lines) else []),
            "import torch",
            "from safetensors.torch import load_file",
            "",
            *lines,
            'net.load_state_dict(load_file(Path(__file__).with_name("encoder.safetensors")))',
            "net.eval()",
            *told,
            "",
        ]
    )


def _difference(encoder: AnyEncoder, folder: Path) -> float:
    noise = encoder.example(2, torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # building a network draws from the global generator
        other = runpy.run_path(str(folder / "encoder.py"))["encode"](noise)
        own = encoder(noise)
    return ((other - own).abs().max() / own.abs().max().clamp(min=1e-12)).item() if other.shape == own.shape else 1.0


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
