"""A decoder that writes a sentence word by word, of what it reads about the sample."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.distributed import local, world
from nearfar.precision import network


class Captioner(nn.Module):
    """A Transformer decoder: of the words before it and of M rows that it reads, the logits of each word.

    size: of the vocabulary.  reads: the width of the rows.  most: words of a sentence.  skip: words at the start of
    each sentence that are always the same and need not be written.
    The last layer is the table of the words' embeddings, so that a small decoder stays small (arXiv 1706.03762).
    """

    def __init__(self, size: int, reads: int, most: int, *, skip: int = 0, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.skip, self.most = skip, most
        self.words = nn.Parameter(torch.randn(size, width) * width**-0.5)
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.places = nn.Parameter(torch.randn(most, width) * width**-0.5)
        self.read = nn.Sequential(nn.Linear(reads, width), nn.LayerNorm(width))
        layer = nn.TransformerDecoderLayer(
            width, math.gcd(width, 4), 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))

    def written(self, view: Any) -> tuple[Tensor, Tensor]:
        """The words of N sentences, and how many each has: N x L, int64, and N. view: it has `ids` and `length`."""
        length = (view.length - self.skip).clamp(min=0)
        return view.ids[:, self.skip :][:, : max(1, int(length.max()))], length

    def dropped(self, ids: Tensor, share: float, generator: torch.Generator) -> Tensor | None:
        """Which words are not told, drawn for the sentences of all ranks: N x most, bool; None where all are told."""
        if not share:
            return None
        chance = torch.rand(world() * len(ids), self.most, generator=generator)
        return (local(chance) < share).to(ids.device)

    @network
    def forward(self, ids: Tensor, rows: Tensor, dropped: Tensor | None = None) -> Tensor:
        """The logits of each word, for all places at once: N x L x size.

        ids: N x L, int64.  rows: N x M x reads.  dropped: N x at least L, bool: words that are not told to those behind
        them, so that a decoder must read.
        """
        told = self.words[ids[:, :-1]]
        if dropped is not None:
            told = told.masked_fill(dropped[:, : told.shape[1], None], 0.0)
        told = torch.cat([self.start.expand(len(ids), 1, -1), told], 1) + self.places[: ids.shape[1]]
        later = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], ids.device, told.dtype)
        out = self.layers(told, self.read(rows.to(told.dtype)), tgt_mask=later, tgt_is_causal=True)
        return nn.functional.linear(out, self.words)
