"""Encoders from what describes them: each kind of data answers for its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.modalities import kind as kinds
from nearfar.nn.towers import TOWERS, Joint, Towers
from nearfar.nn.wrapped import Wrapped


def from_spec(spec: dict[str, Any], network: nn.Module | None = None) -> Encoder:
    """The encoder that a `spec` describes, with random weights.

    network: the module of a user's own encoder, which is put inside as it is; such a spec cannot do without it.
    Raises ValueError where a module is wanted and not given, or given and not wanted.
    """
    if spec.get("own"):
        if network is None:
            raise UserError(
                f"the encoder {spec['name']!r} is a module of your own, and its code is not part of the run: give the "
                f"module, as in nearfar.load(path, encoder={spec['name']}())"
            )
        return wrap(network, spec)
    if network is not None:
        named = spec.get("name", spec.get("kind"))
        raise UserError(f"the encoder {named!r} is built from its name, and no module is wanted: leave out encoder=")
    if "kind" not in spec:
        raise UserError(f"the spec of an encoder names its kind, got the keys {sorted(spec)}")
    if spec["kind"] == TOWERS:
        towers = spec["towers"].items()
        return Towers({name: tower if isinstance(tower, str) else from_spec(tower) for name, tower in towers})
    if "joint" in spec:
        return Joint(from_spec({key: value for key, value in spec.items() if key != "joint"}), int(spec["joint"]))
    return kinds.of(spec["kind"]).encoder_from_spec(spec)


def is_own(spec: dict[str, Any]) -> bool:
    """Whether code of the user's is needed to build what a spec describes, or a tower of it."""
    towers = [tower for tower in spec.get("towers", {}).values() if not isinstance(tower, str)]
    return "kind" not in spec or bool(spec.get("own")) or any(map(is_own, towers))


def kinds_of(spec: dict[str, Any]) -> list[str]:
    """The names of the kinds that a spec, or a tower of it, is built by."""
    towers = spec.get("towers", {})
    parts = [tower for tower in towers.values() if isinstance(tower, dict)] if isinstance(towers, dict) else []
    return [str(spec.get("kind", "")), *(name for tower in parts for name in kinds_of(tower))]


def own_encoder(network: nn.Module, kind: str, data: Any, facts: dict[str, Any]) -> Encoder:
    """A copy of a user's own module as an encoder, for samples of a kind of which `facts` are known.

    An encoder of ours, such as one with weights from a file, is copied as it is.
    Raises TypeError where the module does not tell its width, and ValueError where it cannot take the views of these
    samples or gives another width.
    """
    network = copy.deepcopy(network)
    if isinstance(network, Encoder) and network.spec:
        return network
    spec = {"kind": kind, "name": type(network).__name__, "own": True}
    encoder = wrap(network, spec | kinds.of(kind).inputs(data, facts))
    try:
        view = encoder.example(2)
    except NotImplementedError:  # the kind makes no views of noise: the first step will tell
        return encoder
    training = network.training
    try:
        with torch.no_grad():
            out = encoder.eval()(view)
    except Exception as error:  # whatever a stranger's network makes of a view
        known = {key: value for key, value in encoder.spec.items() if isinstance(value, int) and key != "own"}
        named = ", ".join(f"{key} {value}" for key, value in known.items())
        raise UserError(f"{spec['name']} cannot take the views of these samples ({named}): {error}") from error
    finally:
        encoder.train(training)
    if not isinstance(out, Tensor) or out.shape != (2, encoder.dim):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{spec['name']} gives {shape} for 2 samples, and its dim says (2, {encoder.dim})")
    return encoder


def wrap(network: nn.Module, spec: dict[str, Any]) -> Wrapped:
    """A user's own module as the encoder that a spec describes. Raises TypeError where it does not tell its width."""
    kind = kinds.of(spec["kind"])
    return Wrapped(network, spec, lambda n, generator: kind.example(spec, n, generator))
