"""Looks at an encoder during training and after: representations, and the kNN probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.data.samples import Samples
from nearfar.data.source import Views
from nearfar.distributed import gather, rank, world
from nearfar.evaluation.knn import knn
from nearfar.modalities.kind import plain_view


@torch.no_grad()
def embed(encoder: nn.Module, plain: Views, data: Samples, batch: int = 256) -> Tensor:
    """The representations of all samples, unaugmented, by the encoder as it is (`.eval()` comes first): N x dim."""
    device = next(encoder.parameters()).device
    return torch.cat(
        [
            encoder(plain_view(plain, data, index, device)).float().cpu()
            for index in torch.arange(len(data)).split(batch)
        ]
    )


def look(
    encode: Callable[[Any], Tensor], plain: Views, data: Samples, device: torch.device, batch: int = 256
) -> Tensor:
    """What `encode` makes of all samples, unaugmented: N x ..., on every rank, each of which does its part."""
    part = -(-len(data) // world())
    mine = (rank() * part + torch.arange(part)).clamp(max=len(data) - 1)  # the last rank repeats the last sample
    return gather(torch.cat([encode(plain_view(plain, data, index, device)) for index in mine.split(batch)]))[
        : len(data)
    ]


def probe(encoder: nn.Module, plain: Views, bank: Samples, queries: Samples) -> dict[str, float]:
    """kNN accuracy on held-out training rows, in per cent: what chooses the best checkpoint."""
    result = knn(embed(encoder, plain, bank), bank.label, embed(encoder, plain, queries), queries.label, k=20)
    return {"knn": result["accuracy"]}
