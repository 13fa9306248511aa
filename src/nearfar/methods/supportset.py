from __future__ import annotations

from itertools import combinations
from operator import itemgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import columns, gather, local, normalize, world
from nearfar.errors import UserError
from nearfar.losses.support import Mode, captioning, hardest_hinge, support_weights
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Stage, Step
from nearfar.methods.clip import CLIP
from nearfar.nn.apply import Apply
from nearfar.nn.towers import Towers, WithMaps
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class SupportSet(CLIP):
    """Contrasts clips with their captions, and writes each caption from what other clips show.

    Contrast alone pushes away clips that show the same thing. So a decoder writes each caption c, word by word, of a
    mixture of the rows v of other samples, its support set S: what is alike must stay near, to be of use. With t the
    rows of captions, all of unit length, and w_ij the softmax of t_i . v_j / support_temperature over S_i,

        loss = contrast + weight * mean_i (-1/|c_i|) sum_k log p(c_i[k] | c_i[< k], sum_j w_ij v_j)

    S_i is all but i (cross), all (full), or i alone (identity); hybrid takes the mean of the weights of the last two.
    Contrast is the hinge of the hardest negative, max_j max(0, margin - s_ii + s_ij) in both directions, or CLIP's.
    With --mode identity --discrimination infonce it is captioning beside contrast, as CoCa has it.
    Use it for pairs of which one side is sentences, `--pair image=path,text=caption`, where samples show the same
    things in other combinations. A small decoder is all that it costs more than CLIP.
    Note: The paper's decoder is a T5 with weights. This one is small and begins with none, so that it has to read.
    Samples that share a side are no negatives of each other, and under cross none of each other's support, nor is what
    the bank holds of the same sample. Weight and support_temperature are not the paper's, which we have not verified;
    nor is hybrid. With more than two sides one is written, of each of the others.

    Args:
        mode: Of which samples a caption is written.
        support_temperature: Of the softmax over the support set; small values choose the nearest.
        weight: Of writing beside contrast.
        discrimination: The hinge of the hardest negative, or CLIP's loss, whose temperature is learned.
        margin: Of the hinge.
        infonce_epochs: Epochs at the beginning in which CLIP's loss stands in for the hinge, which may collapse early.
        width: Of the decoder.
        layers: Of the decoder.
        word_dropout: Share of the words that those behind them are not told, so that the decoder must read.
        maps: Let it read each place of the last maps of the other network, in the place of one row.
        bank: Samples of past steps that are in the support set beside those of the batch, as they were seen then.
        write: The name of the side that is written; by default the last.

    Patrick et al. 2020, "Support-set bottlenecks for video-text representation learning", arXiv 2010.02824; Yu et al.
    2022, "CoCa: Contrastive Captioners are Image-Text Foundation Models", arXiv 2205.01917.
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
        if not isinstance(encoder, Towers):
            raise UserError("a caption is written of another side: give pairs, such as --pair image=path,text=caption")
        if bank and (maps or mode == "identity"):
            why = "it holds a row of each, and --maps reads many" if maps else "--mode identity has no support set"
            raise UserError(f"--bank {bank}: {why}; leave one of the two out")
        self.mode: Mode = mode
        self.support_temperature, self.weight = support_temperature, weight
        self.hinge = margin if discrimination == "triplet" else None
        self.infonce_epochs, self.word_dropout, self.maps = infonce_epochs, word_dropout, maps
        self.write = write or list(encoder.of)[-1]
        told, sides = encoder.tower(self.write), [name for name in encoder.of if name != self.write]
        reads = {WithMaps(encoder.tower(name)).reads for name in sides} if maps else {told.dim}
        if len(reads) > 1:
            raise UserError(f"--maps: they have {' and '.join(map(str, reads))} channels, and one decoder reads them")
        self.reads = reads.pop()
        try:
            self.writer: Any = told.writer(self.reads, width=width, layers=layers)
        except UserError as error:
            raise UserError(f"{error}: name the side that holds them by --write, of {', '.join(encoder.of)}") from error
        self.banks = nn.ModuleDict({name: Queue(bank, told.dim, labeled=True) for name in sides} if bank else {})
        if self.hinge is not None:  # in the epochs of InfoNCE they stay as given: what is trained must always be used
            for name in ("log_scale", "bias"):
                if (value := getattr(self, name)) is not None:
                    delattr(self, name)
                    setattr(self, name, value.detach())

    def forward(self, batch: Batch) -> Step:
        streams = self._streams()
        names = list(streams)
        made = dict(zip(names, self.embed_streams(batch.views, list(streams.values())), strict=True))
        rows = {name: normalize(out[:, : streams[name].dim]) for name, out in made.items()}
        ids, length = self.writer.written(batch.views[names.index(self.write) % len(batch.views)][self.write])
        dropped = self._dropped(len(ids)).to(ids.device) if self.word_dropout else None
        costs = []
        for name in (name for name in names if name != self.write):
            maps = made[name][:, rows[name].shape[1] :].unflatten(1, (-1, self.reads)) if self.maps else None
            bank = self.banks[name] if self.banks else None
            read, weight = self.support(batch, rows[self.write], rows[name], maps, bank)
            costs.append(captioning(self.writer(ids, read, dropped), ids, length, weight.any(1)))
        written = torch.stack(costs).mean()
        log = {"captioning": written.detach()}
        if self.hinge is None:
            log["temperature"] = (-self.log_scale).exp().detach()
        loss = self.loss(list(rows.values()), batch.group) + self.weight * written
        return Step(loss, log, ({name: rows[name].detach() for name in self.banks}, batch.index, batch.group))

    def support(
        self, batch: Batch, t: Tensor, v: Tensor, maps: Tensor | None = None, bank: Any = None
    ) -> tuple[Tensor, Tensor]:
        """What each caption is written from: N x M x width; and by which weights it is mixed: N x K, the candidates.

        t, v: N x D, the rows of captions and of another side.  maps: N x M x width, in the place of the row alone.
        """
        keys = gather(v)
        read = keys[:, None] if maps is None else gather(maps)
        apart = [(own, gather(own)) for own in (batch.index, batch.group) if own is not None]
        if bank is not None:
            filled = min(int(bank.count), len(bank.keys))
            past = bank.keys[:filled].to(keys.dtype)
            keys, read = torch.cat([keys, past]), torch.cat([read, past[:, None]])
            held = (bank.label[:filled], bank.group[:filled])
            apart = [(own, torch.cat([every, old])) for (own, every), old in zip(apart, held, strict=False)]
        weight = support_weights(
            t, keys, mode=self.mode, temperature=self.support_temperature, own=columns(t), apart=apart
        )
        return (weight @ read.flatten(1)).unflatten(1, read.shape[1:]), weight.detach()

    def loss(self, rows: list[Tensor], group: Tensor | None) -> Tensor:
        if self.hinge is None or self.clock.epoch < self.infonce_epochs:
            return super().loss(rows, group)
        hinges = [hardest_hinge(u, v, margin=self.hinge, group=group) for u, v in combinations(rows, 2)]
        return torch.stack(hinges).mean()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        super().after_step(step)
        rows, index, group = step.carry
        for name, row in rows.items():
            bank: Any = self.banks[name]
            bank.enqueue(row, group, index)

    def chance(self, batch: Batch) -> None:
        """What writing costs without reading depends on the sentences."""

    def _streams(self) -> dict[str, Stage]:
        """The towers by their names, those that are read with their maps, if these are wanted."""
        encoder: Any = self.encoder
        towers = {name: encoder.tower(name) for name in encoder.of}
        seen = {name: WithMaps(one) if self.maps and name != self.write else one for name, one in towers.items()}
        return {name: Stage(Apply(itemgetter(name)), one, dim=one.dim) for name, one in seen.items()}

    def _dropped(self, n: int) -> Tensor:
        """Which words are not told, drawn for the batch of all ranks: N x most, bool."""
        return local(torch.rand(world() * n, self.writer.most, generator=self.clock.generator())) < self.word_dropout
