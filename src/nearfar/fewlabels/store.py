"""The two files that make a run directory a classifier's: written, read, and checked.

classifier.safetensors   the layers behind the encoder, and the features of the labeled samples
classifier.json          class names, temperature, names of the labeled samples, how all was made, and a checksum
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from nearfar.errors import NotFound, UserError, out_of_memory
from nearfar.files import insist_digest, read_json, replace, replace_json

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The labeled samples that a classifier rests on: N of them.

    names, digests: by which they are known, the latter by their contents.
    label: N, int64, numbers of classes.
    held: N, bool, those that were not learned from, but chose or calibrated.
    features: N x D, what the last layer sees.
    """

    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    label: Tensor
    held: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the two files hold.

    layers: what follows the encoder: linear layers, batch norms and ReLUs; the last is linear, D x C.
    classes: C names.
    temperature: what logits are divided by; None where there were too few labels to fit it.
    facts: how it was made, fit for JSON.
    """

    layers: nn.Sequential
    classes: list[str]
    temperature: float | None
    evidence: Evidence
    facts: dict[str, Any]


def is_classifier(path: str | Path) -> bool:
    """Whether a directory holds a classifier."""
    return (Path(path) / "classifier.json").is_file()


def write(folder: Path, stored: Stored) -> None:
    """Put the two files into a run directory. Raises ValueError for a layer that could not be read back."""
    evidence = stored.evidence
    specs = [_describe(layer) for layer in stored.layers]
    tensors = {f"layers.{name}": value.detach().cpu() for name, value in stored.layers.state_dict().items()}
    tensors |= {f"evidence.{name}": getattr(evidence, name) for name in ("label", "held", "features")}
    content = save({name: value.contiguous() for name, value in tensors.items()}, metadata={"format": "pt"})
    replace(folder / "classifier.safetensors", lambda temporary: temporary.write_bytes(content))
    document = {
        "format": FORMAT,
        "classes": stored.classes,
        "temperature": stored.temperature,
        "layers": specs,
        "names": evidence.names,
        "digests": evidence.digests,
        "facts": stored.facts,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    replace_json(folder / "classifier.json", document, indent=1)


def read(path: Path) -> Stored:
    """The two files of a directory. Raises FileNotFoundError without them, ValueError where they are damaged."""
    if not is_classifier(path):
        is_run = (path / "config.yaml").is_file()
        raise NotFound(
            f"{str(path)!r} is {'a run without a classifier' if is_run else 'no directory of a classifier'}. Make one "
            f"from a few labels: nearfar finetune {path if is_run else 'RUN'} DATA --labels labels.csv"
        )
    remedy = "make the classifier again, with `nearfar finetune` or `nearfar distill`"
    document = read_json(path / "classifier.json", remedy)
    weights = insist_digest(path / "classifier.safetensors", document.get("sha256"), remedy)
    try:
        content = weights.read_bytes()
        if document["format"] != FORMAT:
            raise UserError(f"it has format {document['format']!r}, and this version reads {FORMAT}: update nearfar")
        tensors, mark = load(content), "layers."
        layers = nn.Sequential(*map(_build, document["layers"]))
        layers.load_state_dict({k.removeprefix(mark): v for k, v in tensors.items() if k.startswith(mark)})
        return Stored(
            layers=layers.eval(),
            classes=document["classes"],
            temperature=document["temperature"],
            evidence=Evidence(
                names=document["names"],
                digests=document["digests"],
                label=tensors["evidence.label"],
                held=tensors["evidence.held"],
                features=tensors["evidence.features"],
            ),
            facts=document["facts"],
        )
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        raise UserError(f"the classifier in {str(path)!r} cannot be read ({error}): {remedy}") from error


def _describe(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        return {"kind": "linear", "dims": [layer.in_features, layer.out_features], "bias": layer.bias is not None}
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
        return {"kind": "norm", "dim": layer.num_features, "eps": layer.eps, "affine": layer.affine}
    if isinstance(layer, nn.ReLU):
        return {"kind": "relu"}
    raise UserError(f"a classifier's layers are linear layers, batch norms and ReLUs, and not {type(layer).__name__}")


def _build(spec: dict[str, Any]) -> nn.Module:
    match spec["kind"]:
        case "linear":
            return nn.Linear(*spec["dims"], bias=spec["bias"])
        case "norm":
            return nn.BatchNorm1d(spec["dim"], eps=spec["eps"], affine=spec["affine"])
        case "relu":
            return nn.ReLU()
        case unknown:
            raise UserError(f"it has a layer {unknown!r}: update nearfar")
