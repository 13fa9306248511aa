"""How many samples may pass the encoder at a time, so that a step fits in the memory there is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.batch import size
from nearfar.method import frozen_statistics

ROOM = 0.6
"""The share of the free memory that activations may take; weights, gradients and views live in the rest."""


def activation_bytes(encoder: nn.Module, view: Any) -> float:
    """What autograd keeps of one sample between forward and backward, in bytes: measured on a view of a few."""
    weights = {p.untyped_storage().data_ptr() for p in [*encoder.parameters(), *encoder.buffers()]}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with frozen_statistics(encoder), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = encoder(view)  # held until the count is done: freed storage would give its address away again
    total = sum(kept.values())
    del out
    return total / size(view)


def fitting(needed: float, rows: int, free: float) -> int:
    """The micro-batch for `rows` samples that need so many bytes each, where so many are free; 0: all at once."""
    if needed * rows <= ROOM * free:
        return 0
    # What one part needs in its backward pass comes on top of what every part leaves behind, so take a quarter.
    most = max(2.0, ROOM * free / 4 / needed)
    return min(rows, 2 ** int(math.log2(most)))


def sees_batch(encoder: nn.Module) -> bool:
    """Whether a norm layer of the encoder computes with statistics of its batch."""
    return any(isinstance(module, _BatchNorm) for module in encoder.modules())
