"""Filling a network from a file of weights: every entry of it, or nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar.errors import NotFound, UserError

Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From the names and shapes of another library to those of a network; whatever it raises, it does not fit."""

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "network", "net", "student", "teacher", "backbone"),
    *("encoder", "encoder_q", "online_encoder", "online", "base_encoder", "trunk", "visual", "_orig_mod"),
    *(
        "student_backbone",
        "teacher_backbone",
        "momentum_encoder",
        "momentum_backbone",
        "backbone_momentum",
        "target_encoder",
        "encoder_k",
        "ema",
        "model_ema",
    ),
)
"""What files and modules call the part that holds a network."""
SLOW = re.compile(r"momentum|target|encoder_k\b|ema\b|\bslow\b")
"""Of several networks in a file, those that are slow copies of another; a teacher (DINO) is the one to take."""
TEACHER = re.compile(r"(?:^|\.)teacher")
TRAINING = re.compile(r"^(optimizer|optim|lr_scheduler|scheduler|scaler|amp)\w*\.")
HEADS = {"head", "head_dist", "fc", "classifier", "last_linear"}
"""What files call the layers that give classes."""
FIXED = {"attn_mask", "relative_coords_table"}
"""Numbers in files of older versions of timm that follow from the size of a network."""
COUNTER = "num_batches_tracked"
"""Which files of older versions of torch lack; nothing that a network gives depends on it."""


@dataclass(frozen=True)
class Found:
    """The entries of a file that belong to a network, by the network's names, their shapes unchecked.

    under: what stood before each name.  left: names of what belongs to no part of it.  notes: in sentences.
    """

    path: Path
    entries: dict[str, Tensor]
    under: str
    left: list[str]
    notes: list[str]


def held(module: nn.Module, *names: str) -> None:
    """Let weights of a module stay as they are: plain tensors in the place of its parameters, where it has these."""
    for name in names:
        if (value := getattr(module, name)) is not None:
            delattr(module, name)
            setattr(module, name, value.detach())


def load_weights(net: nn.Module, path: str | Path, convert: Convert | None = None) -> list[str]:
    """Fill `net` from a file, every entry of it or nothing; returns notes on what in the file was left over.

    path: a .safetensors file, or a torch file that holds only tensors (a state dict, plain or inside others, as under
        "state_dict", "model" or "teacher"). A common prefix of the keys ("module.encoder_q.") is found and left out.
    convert: tried where the names or shapes are not those of the network.
    Raises ValueError where an entry is missing or has another shape, and for a damaged file; FileNotFoundError.
    """
    return fill(net, find_weights(net, path, convert))


def find_weights(net: nn.Module, path: str | Path, convert: Convert | None = None) -> Found:
    """The entries of `net` in a file; arguments and errors as of `load_weights`, but shapes are not looked at."""
    path = Path(path)
    content, wanted = read_weights(path), net.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in content if key == first or key.endswith("." + first)]
    fitting = {p: {k: content[p + k] for k in wanted if p + k in content} for p in prefixes}
    fitting = {p: own for p, own in fitting.items() if not _missing(wanted, own)}
    spare = {p: {k.removeprefix(p): v for k, v in content.items() if k.startswith(p)} for p in fitting}
    notes: list[str] = []
    if convert is not None and not any(_same_shapes(wanted, own) for own in fitting.values()):
        for p in _wrappers(content):
            own = {key.removeprefix(p): value for key, value in content.items() if key.startswith(p)}
            try:
                whole = convert(dict(own))
                made = {key: value for key, value in whole.items() if key in wanted}
            except Exception:  # whatever a stranger's function makes of strange names: so it does not fit
                continue
            if not _missing(wanted, made) and (p in fitting or not fitting):
                changed = [k for k in made if k in own and own[k].shape != made[k].shape]
                notes += [
                    f"{key} was resized from {tuple(own[key].shape)} to {tuple(made[key].shape)}." for key in changed
                ]
                fitting[p], spare[p] = made, whole
                break
    fitting = _chosen(fitting)
    if len(fitting) > 1:
        raise UserError(
            f"{path} holds {len(fitting)} networks of this kind, under {list(fitting)}; save one of them apart"
        )
    if not fitting:
        best = max(prefixes, key=lambda p: sum(p + key in content for key in wanted), default="")
        missing = [key for key in wanted if best + key not in content]
        raise UserError(
            f"{path} has {len(wanted) - len(missing)} of the {len(wanted)} entries of this network (missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; the file has "
            f"{', '.join(list(content)[:3])}); nothing was loaded: name the encoder that these weights belong to"
        )
    ((under, entries),) = fitting.items()
    if more := _more(net, spare[under]):
        raise UserError(
            f"{path} has {len(more)} entries more in parts of this network ({_some(more)}), as a larger network has, "
            "or one of another form; nothing was loaded: name the encoder that these weights belong to"
        )
    left = [key for key in content if not key.startswith(under) or key.removeprefix(under) not in entries]
    if made := [key for key in entries if under + key not in content]:  # by conversion: only what is elsewhere is left
        left = [key for key in left if not key.startswith(under)]
        notes.append(f"{len(made)} of them have other names in the file.")
    return Found(path, entries, under, left, notes)


def fill(net: nn.Module, found: Found) -> list[str]:
    """Fill a network with what was found for it. Raises ValueError where a shape is another; then nothing changes."""
    wanted, entries = net.state_dict(), found.entries
    wrong = [key for key in wanted if key in entries and entries[key].shape != wanted[key].shape]
    if wrong:
        key = wrong[0]
        raise UserError(
            f"{len(wrong)} of the {len(wanted)} entries of {found.path} have another shape than this network (such as "
            f"{key}: {tuple(entries[key].shape)}, wanted {tuple(wanted[key].shape)}); nothing was loaded: check "
            "how the network is built (its channels, its size)"
        )
    whole = [k for k in entries if wanted[k].is_floating_point() and not entries[k].is_floating_point()]
    if whole:
        raise UserError(
            f"{len(whole)} of the {len(wanted)} entries of {found.path} are whole numbers (such as {whole[0]}: "
            f"{str(entries[whole[0]].dtype).removeprefix('torch.')}), as of a network that was quantized; nothing was "
            "loaded: give its weights as floats"
        )
    net.load_state_dict(wanted | entries)
    if blank := [key for key in wanted if key not in entries]:
        found.notes.append(
            f"{len(blank)} of them, counters of batches ({COUNTER}), are not in the file, and stay at 0."
        )
    under = f", under {found.under.removesuffix('.')!r}" if found.under else ""
    notes = [f"All {len(wanted)} entries of the network were loaded from {found.path}{under}.", *found.notes]
    if found.left:
        notes.append(
            f"{len(found.left)} entries of {found.path} belong to no part of the encoder: {_some(found.left)}."
        )
    return notes


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name; no code in it is run. Those of a dict inside it have its name before theirs.

    Raises ValueError where it holds no tensors, or more than plain data.
    """
    if not path.is_file():
        raise NotFound(f"there is no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain names and values, which DINO and MAE keep
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}); it may be cut short") from error
    except Exception as error:  # torch raises pickle's own errors for a file that holds more than tensors
        raise UserError(
            f"{path} is no file of plain tensors, and code in it is never run ({_reason(error)}). Where it came from, "
            "save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from error
    tensors = dict(_tensors(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no state dict: wanted names and tensors, plain or under state_dict or model")
    return tensors


def _reason(error: Exception) -> str:
    """What torch's reader did not take, without its advice to run the code after all."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {found[1]}" if found else type(error).__name__


def _tensors(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, Tensor) and not TRAINING.match(name):
            yield name, value
        elif isinstance(value, Mapping) and not TRAINING.match(name + "."):
            yield from _tensors(value, name + ".")


def _wrappers(content: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the names of a network, by the words that files use for it, the longest first."""
    prefixes = {""}
    for key in content:
        words = key.split(".")
        for n, word in enumerate(words[:-1], 1):
            if word not in WRAPPERS:
                break
            prefixes.add(".".join(words[:n]) + ".")
    return sorted(prefixes, key=lambda p: (not TEACHER.search(p), bool(SLOW.search(p)), -len(p)))


def _chosen(fitting: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Of several networks the one that their makers evaluate: a teacher, or what is no slow copy; "" before all."""
    for of in (lambda p: not p, TEACHER.search, lambda p: not SLOW.search(p)):
        if len(fitting) > 1 and (some := {p: own for p, own in fitting.items() if of(p)}):
            fitting = some
    return fitting


def _missing(wanted: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    return [key for key in wanted if key not in there and not key.endswith(COUNTER)]


def _more(net: nn.Module, there: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that would lie in parts of a network and are none of its own, such as of further blocks."""
    wanted = net.state_dict()
    parts = {name.partition(".")[0] for name, _ in net.named_parameters() if "." in name}
    return [
        key
        for key, value in there.items()
        if key not in wanted
        and value.is_floating_point()
        and (words := key.split("."))[0] in parts
        and not (HEADS | FIXED) & set(words)
    ]


def _same_shapes(wanted: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> bool:
    return all(there[key].shape == value.shape for key, value in wanted.items() if key in there)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
