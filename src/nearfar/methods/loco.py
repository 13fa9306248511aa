from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from nearfar.batch import Batch, cat
from nearfar.distributed import normalize
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Encoder, Method, Stage, Step, equal_rows, frozen_statistics
from nearfar.nn.heads import simclr_head
from nearfar.nn.local import at_once
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class LoCo(Method):
    """Trains overlapping pairs of encoder stages, each with its own SimCLR loss, without end-to-end backpropagation.

    Each unit of two stages has a decoder and projector. Units share a stage, for feedback from above; sg: no gradient.

        L = sum_u NT-Xent(head_u(stage_{u+1}(stage_u(sg(x_{u-1})))))

    Use it to study local learning, or to save memory: each unit's activations are freed before the next (not in
    float16). It takes more time than SimCLR, as inner stages run twice.
    Note: Little is published about the decoder. Decided here: 3x3 convolutions of stride 2 and the stage's width, with
    norm and ReLU, then mean pooling, in the last unit the encoder's own. A stage's statistics move in one pass.

    Args:
        dim: Width of the embeddings.
        temperature: Divides the similarities of all losses.
        reach: Stages in a unit: 1 is Greedy InfoMax, without overlap; all stages is SimCLR.
        blocks: Convolutions in a decoder.

    Xiong et al. 2020, "LoCo: Local Contrastive Representation Learning", arXiv 2008.01342.
    """

    title = "LoCo: Local Contrastive Representation Learning (Xiong et al. 2020)"
    family = "in-batch negatives"
    needs_pixels = True
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        reach: PositiveInt = 2,
        blocks: NonNegativeInt = 1,
    ) -> None:
        super().__init__(encoder)
        tops = [stage.dim for stage in encoder.stages()[:-1]][reach - 1 :] or [encoder.stages()[-2].dim]
        self.decoders = nn.ModuleList(nn.Sequential(*[_down(width) for _ in range(blocks)]) for width in tops)
        self.widths = [*tops[:-1], encoder.dim]
        self.projectors = nn.ModuleList(simclr_head(width, out=dim) for width in self.widths)
        self.temperature = temperature

    def forward(self, batch: Batch) -> Step:
        v1, v2 = batch.views
        x, losses = cat([v1, v2]), []
        if self.representations is not None:
            with torch.no_grad(), frozen_statistics(self):
                self.embed(x)
        for parts in self.units():
            loss, x = at_once(partial(self.of_unit, x, batch, *parts), nn.ModuleList(parts).parameters())
            losses.append(loss)
        return Step(torch.stack(losses).sum(), {"last": losses[-1].detach()})

    def units(self) -> Iterator[tuple[Stage, Stage, nn.Module]]:
        """For each unit: its first stage, its other stages with the decoder, and its projector."""
        *stages, pool = self.encoder.stages()
        reach = len(stages) - len(self.decoders) + 1
        for u, decode in enumerate(self.decoders):
            *lower, last = stages[u : u + reach]
            if u > 0:  # the unit below has run them: the values are the same again
                lower = [_Again(stage, dim=stage.dim) for stage in lower]
            top = pool if u + reach == len(stages) else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            first, *others = *lower, last
            yield first, Stage(*others, decode, top, dim=self.widths[u]), self.projectors[u]

    def of_unit(
        self, x: Tensor, batch: Batch, first: Stage, others: Stage, project: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The loss of a unit, and the output of its first stage, with which the unit above begins."""
        h = self.embed(x, first)
        return self.loss(project(self.embed(h, others)), batch), h.detach()

    def loss(self, z: Tensor, batch: Batch) -> Tensor:
        return nt_xent(*normalize(z).chunk(2), temperature=self.temperature, group=batch.group)

    def chance(self, batch: Batch) -> Tensor:
        return len(self.widths) * self.loss(equal_rows(batch).repeat(2, 1), batch)


class _Again(Stage):
    """A stage that runs a second time, and leaves the running statistics alone."""

    def forward(self, x: Tensor) -> Tensor:
        with frozen_statistics(self):
            return super().forward(x)


def _down(width: int) -> nn.Sequential:
    conv = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
