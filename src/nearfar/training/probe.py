"""Looks at an encoder during training and after: representations, and the kNN probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.data.samples import Samples
from nearfar.data.source import Views
from nearfar.distributed import gather, rank, world
from nearfar.errors import Lost
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

    def view(index: Tensor) -> Any:
        """A sample that can be read no more is not trained on either: another one keeps its place."""
        try:
            return plain_view(plain, data, index, device)
        except Lost as lost:
            good = [k for k in range(len(index)) if k not in lost.at]
            if not good:
                raise
            kept = [good[0] if k in lost.at else k for k in range(len(index))]
            return view(index[kept])

    return gather(torch.cat([encode(view(index)) for index in mine.split(batch)]))[: len(data)]


def probe(encoder: nn.Module, plain: Views, bank: Samples, queries: Samples) -> dict[str, float]:
    """kNN accuracy on held-out training rows, in per cent: what chooses the best checkpoint.

    Rows that can be read no more are left out.
    """
    result = knn(*_embed_readable(encoder, plain, bank), *_embed_readable(encoder, plain, queries), k=20)
    return {"knn": result["accuracy"]}


def _embed_readable(encoder: nn.Module, plain: Views, data: Samples) -> tuple[Tensor, Tensor]:
    """Representations and labels of the samples that can be read."""
    parts = []
    for index in torch.arange(len(data)).split(256):
        some = data.subset(index)
        while True:
            try:
                parts.append((embed(encoder, plain, some), some.label))
                break
            except Lost as lost:
                if len(lost.at) == len(some):
                    raise
                some = some.subset([k for k in range(len(some)) if k not in lost.at])
    features, label = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(label)
