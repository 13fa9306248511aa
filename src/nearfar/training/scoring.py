"""Scores of the encoder without labels, measured while it trains, so that a checkpoint can be chosen by them later."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import size, split, to
from nearfar.data.samples import Samples
from nearfar.data.source import Views
from nearfar.errors import UserError
from nearfar.evaluation import scores
from nearfar.method import derive_seed
from nearfar.modalities.kind import plain_view
from nearfar.training.cadence import IMAGES, VIEWS, viewed_rows
from nearfar.training.probe import passed, readable, viewed

CELLS = 16
"""Of a map, without which its cells are too few to form clusters."""


class Scorer:
    """Measures an encoder on some training samples, always the same, and remembers who was near whom.

    rows: samples at the plain view; those that are lost are left out. Of some of them VIEWS views are made too, and of
    IMAGES the maps are taken where the encoder has them. What is remembered goes into checkpoints, so that a resumed
    run measures what it would have.
    """

    def __init__(
        self, encoder: nn.Module, plain: Views, views: Views, data: Samples, lost: Collection[int], rows: int, seed: int
    ) -> None:
        self.encoder, self.plain, self.views, self.seed = encoder, plain, views, seed
        self.device = next(encoder.parameters()).device
        generator = torch.Generator().manual_seed(derive_seed(seed, 5))
        some = torch.randperm(len(data), generator=generator)[:rows].tolist()
        self.data = data.subset([row for row in some if row not in lost])
        self.nearest: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"nearest": self.nearest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nearest = state["nearest"]

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        """The scores by name, with the prefix that they have in the journal, and on how many samples they rest.

        step: 0 is not remembered: a run that is killed before its first checkpoint does not measure it again.
        """
        read = readable(self.data, lambda some: passed(self.encoder, self.plain, some))
        rows = torch.cat([made for made, _ in read])
        if not rows.isfinite().all() or len(rows) < 3:
            return {}
        numbers = scores.of_rows(rows, self.seed)
        some = self.data.subset(range(viewed_rows(len(self.data))))
        of_views = torch.cat([made for made, _ in readable(some, self._views)])
        if len(of_views) > 1 and of_views.isfinite().all():
            numbers |= scores.of_views(of_views)
        if (maps := self._maps()) is not None:
            numbers["dense"] = scores.dense(maps, self.seed)
        now = scores.nearest(rows)
        if self.nearest is not None and self.nearest.shape == now.shape:
            numbers["stability"] = scores.stability(self.nearest, now)
        if step > 0:
            self.nearest = now
        return {f"{scores.PREFIX}{name}": number for name, number in numbers.items()} | {
            f"{scores.PREFIX}samples": len(rows)
        }

    def _views(self, some: Samples) -> Tensor:
        """What the encoder makes of VIEWS views of each sample: n x VIEWS x dim. Of more than two the first two."""
        inputs = some.fetch(torch.arange(len(some)))
        each = min(2, len(self.views))
        made = []
        for turn in range(-(-VIEWS // each)):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, turn, 6))
            draws = self.views.draw(len(some), generator).rows(slice(0, len(some)))
            own = self.views.read(*inputs, draws=draws) if hasattr(self.views, "read") else inputs  # pyright: ignore[reportAttributeAccessIssue]
            views = self.views(*(to(part, self.device) for part in own), draws=draws)
            made += [viewed(self.encoder, view) for view in views[:each]]
        return torch.stack(made[:VIEWS], 1)

    def _maps(self) -> Tensor | None:
        """The deepest maps of IMAGES samples that have CELLS cells, on the CPU; None where the encoder has none."""
        some = self.data.subset(range(min(IMAGES, len(self.data))))
        try:
            read = readable(some, lambda own: _deepest(self.encoder, self.plain, own, self.device))
        except UserError:  # this encoder has none
            return None
        maps = torch.cat([made for made, _ in read])
        return maps if maps.numel() and maps.isfinite().all() else None


def _deepest(encoder: Any, plain: Views, some: Samples, device: torch.device) -> Tensor:
    """The deepest maps with CELLS cells: n x C x H x W, on the CPU; of width 0 where none has so many."""
    view = plain_view(plain, some, torch.arange(len(some)), device)
    parts = []
    for part in split(view, -(-size(view) // 16)):
        maps = [one for one in encoder.maps(part) if one.shape[2] * one.shape[3] >= CELLS]
        parts.append(maps[-1].float().cpu() if maps else torch.empty(size(part), 0, 1, 1))
    return torch.cat(parts)
