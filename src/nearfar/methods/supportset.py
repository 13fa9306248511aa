from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.support import captioning, hardest_hinge
from nearfar.memory.support import supports
from nearfar.method import Encoder, Step
from nearfar.methods.clip import CLIP
from nearfar.nn.towers import Reading
from nearfar.nn.weights import held
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class SupportSet(CLIP):
    """Contrasts clips with their captions, and writes each caption from what other clips show.

    Contrast pushes apart what shows the same thing. So a decoder writes each caption c from a mixture of other samples'
    rows v, the support set S. With t the rows of captions, and w_ij the softmax of t_i . v_j / support_temperature,

        loss = contrast + weight * mean_i (-1/|c_i|) sum_k log p(c_i[k] | c_i[< k], sum_j w_ij v_j)

    S_i is all but i (cross), all (full), or i alone (identity); hybrid has the mean of the weights of the last two.
    Contrast is the hinge of the hardest negative, max_j max(0, margin - s_ii + s_ij) in both directions, or CLIP's.
    With --mode identity --discrimination infonce it is captioning beside contrast, as CoCa has it.
    Use it for pairs of which one side is sentences, where samples show the same things in other combinations.
    Note: The paper's decoder is a T5 with weights; this one begins with none, and is small so that it has to read.
    Samples that share a side are no negatives, nor, under cross, support; nor is a sample's own past in a bank. Weight,
    support_temperature and hybrid are not verified by the paper. Of more than two sides one is written.

    Args:
        mode: Of which samples a caption is written.
        support_temperature: Of the softmax over the support set; small values choose the nearest.
        weight: Of writing beside contrast.
        discrimination: The hinge of the hardest negative, or CLIP's loss, whose temperature is learned.
        margin: Of the hinge.
        infonce_epochs: Epochs at the beginning in which CLIP's loss stands in for the hinge, which may collapse early.
        width: Of the decoder, in numbers.
        layers: Of the decoder.
        word_dropout: Share of the words that those behind them are not told, so that the decoder must read.
        maps: Let it read each place of the last maps of the other network, in the place of one row.
        bank: Samples of past steps that are in the support set beside those of the batch, as they were seen then.
        write: The name of the side that is written; by default the last.

    Patrick et al. 2020, "Support-set bottlenecks for video-text representation learning", arXiv 2010.02824.
    """

    title = "Support-set bottlenecks for video-text representation learning (Patrick et al. 2020)"
    family = "in-batch negatives"
    needs_words = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        mode: Literal["cross", "hybrid", "full", "identity"] = "cross",
        support_temperature: PositiveFloat = 0.1,
        weight: PositiveFloat = 1.0,
        discrimination: Literal["triplet", "infonce"] = "triplet",
        margin: PositiveFloat = 0.2,
        infonce_epochs: NonNegativeFloat = 1.0,
        width: PositiveInt = 128,
        layers: PositiveInt = 2,
        word_dropout: UnitInterval = 0.0,
        maps: bool = False,
        bank: NonNegativeInt = 0,
        write: str = "",
        **others: Any,
    ) -> None:
        super().__init__(encoder, **others)
        self.reading = Reading(encoder, write, maps=maps)
        self.writer: Any = self.reading.writer(encoder, width=width, layers=layers)
        self.support: Any = supports(self.reading, mode, support_temperature, bank)
        self.weight, self.infonce_epochs, self.word_dropout = weight, infonce_epochs, word_dropout
        self.hinge = margin if discrimination == "triplet" else None
        if self.hinge is not None:  # in the epochs of InfoNCE they stay as given: what is trained must always be used
            held(self, "log_scale", "bias")

    def forward(self, batch: Batch) -> Step:
        rows, maps = self.reading.apart(self.embed_streams(batch.views, self.reading.streams(self.encoder)))
        ids, length = self.writer.written(self.reading.seen(batch.views))
        dropped = self.writer.dropped(ids, self.word_dropout, self.clock.generator())
        costs = []
        for name, support in self.support.items():
            read, weight = support(rows[self.reading.write], rows[name], batch, maps[name])
            costs.append(captioning(self.writer(ids, read, dropped), ids, length, weight.any(1)))
        written = torch.stack(costs).mean()
        log = {"captioning": written.detach(), "temperature": (-self.log_scale).exp().detach()}
        carry = {name: (rows[name].detach(), batch.index, batch.group) for name in self.support}
        return Step(self.loss(list(rows.values()), batch.group) + self.weight * written, log, carry)

    def loss(self, rows: list[Tensor], group: Tensor | None) -> Tensor:
        if self.hinge is None or self.clock.epoch < self.infonce_epochs:
            return super().loss(rows, group)
        return torch.stack(
            [hardest_hinge(*two, margin=self.hinge, group=group) for two in combinations(rows, 2)]
        ).mean()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        super().after_step(step)
        for name, kept in step.carry.items():
            self.support[name].keep(*kept)

    def chance(self, batch: Batch) -> None:
        """What writing costs without reading depends on the sentences."""
