"""What comes next, from what was seen: a recurrent network over the blocks of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn.heads import mlp
from nearfar.precision import network


class Forecast(nn.Module):
    """From the cells of what was seen to those of what comes: N x B x S x width -> N x steps x S x width.

    A GRU sums up each cell over time; from its state two layers predict the next block, which it then takes as if it
    had been seen.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.state, self.steps = nn.GRUCell(width, width), steps
        self.predictor = mlp((width, width, width), norm=False, bias=True, last_bias=True)
        for p in self.parameters():
            nn.init.orthogonal_(p) if p.dim() > 1 else nn.init.zeros_(p)

    @network
    def forward(self, seen: Tensor) -> Tensor:
        n, cells, state, ahead = len(seen), seen.shape[2], None, []
        for block in seen.unbind(1):
            state = self.state(block.flatten(0, 1).relu(), state)
        for _ in range(self.steps):
            ahead.append(self.predictor(state))
            state = self.state(ahead[-1].relu(), state)
        return torch.stack([row.unflatten(0, (n, cells)) for row in ahead], 1)
