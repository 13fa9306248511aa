"""Half precision: inside networks, and nowhere else.

Autocast lowers every product that is made within it. A network bears that. A loss does not: it takes differences and
logarithms of products that are nearly equal. So a method that is called under autocast turns it off; each of its
networks turns it on again for itself, and gives float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")
Half = tuple[str, torch.dtype]
"""A kind of device, and what autocast computes in there."""

_half: ContextVar[Half | None] = ContextVar("half", default=None)
_inside: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether a network runs: one within it is part of it."""


@contextmanager
def networks_alone(device: torch.device) -> Iterator[None]:
    """Within: autocast, where it is on, is left to networks."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    token = _half.set((device.type, torch.get_autocast_dtype(device.type)))
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _half.reset(token)


def network(call: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function that runs a network: in half precision where `networks_alone` found autocast, from which it gives
    float32. Elsewhere nothing changes."""

    @wraps(call)
    def _run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if _inside.get():
            return call(*args, **kwargs)
        half, token = _half.get(), _inside.set(True)
        try:
            if half is None:
                out = call(*args, **kwargs)
            else:
                with torch.autocast(half[0], dtype=half[1]):
                    out = call(*args, **kwargs)
                out = out.to(torch.promote_types(out.dtype, torch.float32))
        finally:
            _inside.reset(token)
        return _leaving(out)

    return _run


def _leaving(out: Tensor) -> Tensor:
    """What a network gives to the rest of a method: tests look at it, and put other rows in its place."""
    return out


def in_float16() -> bool:
    """Whether networks compute in float16, whose gradients vanish unless the loss is scaled, as the loop scales it."""
    half = _half.get()
    return half is not None and half[1] == torch.float16


@contextmanager
def without_float16() -> Iterator[None]:
    """Within: networks that would compute in float16 do in float32, for gradients that are taken without a scale."""
    if not in_float16():
        yield
        return
    token = _half.set(None)
    try:
        yield
    finally:
        _half.reset(token)
