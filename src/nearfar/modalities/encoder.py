"""Encoders from what describes them: each kind of data answers for its own."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from nearfar.method import Encoder
from nearfar.modalities import kind as kinds
from nearfar.nn.towers import TOWERS, Towers
from nearfar.nn.wrapped import Wrapped


def from_spec(spec: dict[str, Any], network: nn.Module | None = None) -> Encoder:
    """The encoder that a `spec` describes, with random weights.

    network: the module of a user's own encoder, which is put inside as it is; such a spec cannot do without it.
    Raises ValueError where a module is wanted and not given, or given and not wanted.
    """
    if spec.get("own"):
        if network is None:
            raise ValueError(
                f"the encoder {spec['name']!r} is a module of your own, and its code is not part of the run: give the "
                f"module, as in nearfar.load(path, encoder={spec['name']}())"
            )
        return wrap(network, spec)
    if network is not None:
        named = spec.get("name", spec.get("kind"))
        raise ValueError(f"the encoder {named!r} is built from its name, and no module is wanted: leave out encoder=")
    if "kind" not in spec:
        raise ValueError(f"the spec of an encoder names its kind, got the keys {sorted(spec)}")
    if spec["kind"] == TOWERS:
        return Towers({name: from_spec(tower) for name, tower in spec["towers"].items()})
    return kinds.of(spec["kind"]).encoder_from_spec(spec)


def is_own(spec: dict[str, Any]) -> bool:
    """Whether code of the user's is needed to build what a spec describes, or a tower of it."""
    return "kind" not in spec or bool(spec.get("own")) or any(map(is_own, spec.get("towers", {}).values()))


def own_encoder(network: nn.Module, kind: str, data: Any, facts: dict[str, Any]) -> Encoder:
    """A copy of a user's own module as an encoder, for samples of a kind of which `facts` are known.

    An encoder of ours, such as one with weights from a file, is copied as it is.
    """
    network = copy.deepcopy(network)
    if isinstance(network, Encoder) and network.spec:
        return network
    spec = {"kind": kind, "name": type(network).__name__, "own": True}
    return wrap(network, spec | kinds.of(kind).inputs(data, facts))


def wrap(network: nn.Module, spec: dict[str, Any]) -> Wrapped:
    """A user's own module as the encoder that a spec describes. Raises TypeError where it does not tell its width."""
    kind = kinds.of(spec["kind"])
    return Wrapped(network, spec, lambda n, generator: kind.example(spec, n, generator))
