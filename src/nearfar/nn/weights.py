"""Filling a network from a file of weights: every entry of it, or nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar.errors import NotFound, UserError


def held(module: nn.Module, *names: str) -> None:
    """Let weights of a module stay as they are: plain tensors in the place of its parameters, where it has these."""
    for name in names:
        if (value := getattr(module, name)) is not None:
            delattr(module, name)
            setattr(module, name, value.detach())


def load_weights(net: nn.Module, path: str | Path) -> list[str]:
    """Fill `net` from a file, every entry of it or nothing; returns notes on what in the file was left over.

    path: a .safetensors file, or a torch file that holds only tensors (a state dict, plain or under "state_dict" or
        "model"). A common prefix of the keys ("module.encoder_q.") is found and left out.
    Raises ValueError where an entry is missing or has another shape, and for a damaged file; FileNotFoundError.
    """
    path = Path(path)
    entries = read_weights(path)
    wanted = net.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in entries if key == first or key.endswith("." + first)]
    fitting = [p for p in prefixes if all(p + key in entries for key in wanted)]
    if "" in fitting:
        fitting = [""]
    if len(fitting) > 1:
        raise UserError(f"{path} holds {len(fitting)} networks of this kind, under {fitting}; save one of them apart")
    if not fitting:
        best = max(prefixes, key=lambda p: sum(p + key in entries for key in wanted), default="")
        missing = [key for key in wanted if best + key not in entries]
        raise UserError(
            f"{path} has {len(wanted) - len(missing)} of the {len(wanted)} entries of this network (missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; the file has "
            f"{', '.join(list(entries)[:3])}); nothing was loaded: name the encoder that these weights belong to"
        )
    prefix = fitting[0]
    wrong = [key for key, value in wanted.items() if entries[prefix + key].shape != value.shape]
    if wrong:
        key = wrong[0]
        raise UserError(
            f"{len(wrong)} of the {len(wanted)} entries of {path} have another shape than this network (such as {key}: "
            f"{tuple(entries[prefix + key].shape)}, wanted {tuple(wanted[key].shape)}); nothing was loaded: check "
            "how the network is built (its channels, its size)"
        )
    net.load_state_dict({key: entries[prefix + key] for key in wanted})
    notes = [f"All {len(wanted)} entries of the network were loaded from {path}."]
    if left := [key for key in entries if key.removeprefix(prefix) not in wanted or not key.startswith(prefix)]:
        notes.append(f"{len(left)} entries of {path} belong to no part of the encoder, such as {left[0]}.")
    return notes


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name; no code in it is run. Raises ValueError where it holds anything else."""
    if not path.is_file():
        raise NotFound(f"there is no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}); it may be cut short") from error
    except Exception as error:  # torch raises pickle's own errors for a file that holds more than tensors
        raise UserError(
            f"{path} is no file of plain tensors, and code in it is never run: {str(error).partition(chr(10))[0]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict: wanted names and tensors, plain or under state_dict or model")
    return content
