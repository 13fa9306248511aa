"""Looks at an encoder during training and after: representations, and the kNN probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.data.image import Images
from nearfar.evaluation.knn import knn
from nearfar.views.image import Views


@torch.no_grad()
def embed(encoder: nn.Module, plain: Views, data: Images, batch: int = 256) -> Tensor:
    """The representations of all samples, unaugmented, by the encoder as it is (`.eval()` comes first): N x dim."""
    device = next(encoder.parameters()).device
    out = []
    for index in torch.arange(len(data)).split(batch):
        pixels, aspect = data.fetch(index)
        (view,) = plain(pixels.to(device), aspect)
        out.append(encoder(view).float().cpu())
    return torch.cat(out)


def probe(encoder: nn.Module, plain: Views, bank: Images, queries: Images) -> dict[str, float]:
    """kNN accuracy on held-out training rows, in per cent: what chooses the best checkpoint."""
    result = knn(embed(encoder, plain, bank), bank.label, embed(encoder, plain, queries), queries.label, k=20)
    return {"knn": result["accuracy"]}
