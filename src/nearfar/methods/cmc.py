from __future__ import annotations

from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.memory.bank import Bank
from nearfar.memory.bank_contrast import BankContrast
from nearfar.method import Encoder, Look, Method, Step
from nearfar.nn.heads import moco_v1_head
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class CMC(Method):
    """Contrasts the channel groups of an image, such as lightness and color, through one memory bank for each group.

    Each group has its own encoder, projector and bank. With v^a the embedding of group a and M^b the bank of group b,

        L = sum_{a != b} loss(v^a, M^b),    loss as in InstDisc, with one constant Z for each pair

    Use it where channels come from different sensors. Two encoders, each on one group of one view, cost what SimCLR
    costs. The encoder must have several streams: `ycbcr:resnet18` (better than Lab, say the authors),
    `0,1,2+3:resnet18` by channel numbers, or `0+0:NAME` for the same channel twice. Export and evaluation use all
    streams side by side.
    Note: Each group takes the next view in turn; the paper uses one view for all. Encoders have their full width, as in
    the authors' second version; the first had half.

    Args:
        dim: Width of each embedding.
        temperature: Divides the similarities; 0.07 in the paper.
        negatives: Number K of bank rows drawn as negatives.
        contrast: Loss against the bank: "nce", "infonce" or "softmax", as in InstDisc.
        momentum: Share of a bank row that stays when its sample is seen.
        first: Initial banks: "noise", random rows (of unit length here; the released code does not normalize them), or
            a "look" that embeds all samples.
        core: Contrast only the first group with each other one, instead of all pairs.

    Tian et al. 2019, "Contrastive Multiview Coding", arXiv 1906.05849.
    """

    title = "CMC: Contrastive Multiview Coding (Tian et al. 2019)"
    family = "augmentations and views"
    needs_streams = True
    log_z: Tensor  # one for each pair

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.07,
        negatives: PositiveInt = 16384,
        contrast: Literal["nce", "infonce", "softmax"] = "nce",
        momentum: UnitInterval = 0.5,
        first: Literal["noise", "look"] = "noise",
        core: bool = False,
    ) -> None:
        super().__init__(encoder)
        streams = encoder.streams()
        self.projectors = nn.ModuleList(moco_v1_head(stream.dim, out=dim) for stream in streams)
        self.banks = nn.ModuleList(Bank(samples, dim) for _ in streams)
        self.pairs = [(a, b) for a, b in permutations(range(len(streams)), 2) if not core or 0 in (a, b)]
        self.register_buffer("log_z", torch.zeros(len(self.pairs)))
        self.contrast = BankContrast(contrast, temperature, negatives)
        self.momentum, self.first = momentum, first

    @property
    def stored(self) -> list[Bank]:
        return [bank for bank in self.banks if isinstance(bank, Bank)]

    def parts(self, views: list[Tensor]) -> list[Tensor]:
        h = self.embed_streams(views)  # N x widths of the streams
        return [normalize(project(x)) for project, x in zip(self.projectors, h, strict=True)]  # N x dim each

    def before_epoch(self, look: Look) -> None:
        if self.first == "look" and not self.stored[0].seen.any():
            rows = look(lambda view: torch.cat(self.parts([view]), 1)).chunk(len(self.banks), 1)
            for bank, part in zip(self.stored, rows, strict=True):
                bank.rows.copy_(part)

    def forward(self, batch: Batch) -> Step:
        v = self.parts(batch.views)
        scores = [
            self.contrast(v[a], batch, self.stored[b], z, self.clock.generator())
            for (a, b), z in zip(self.pairs, self.log_z, strict=True)
        ]
        losses, log_z = map(torch.stack, zip(*scores, strict=True))
        return Step(losses.sum(), carry=(v, log_z, batch))

    def after_step(self, step: Step) -> None:
        v, log_z, batch = step.carry
        self.log_z.copy_(log_z)
        for bank, part in zip(self.stored, v, strict=True):
            bank.write(batch.index, part, keep=self.momentum, group=batch.group)

    def chance(self, batch: Batch) -> Tensor | None:
        once = self.contrast.chance(batch, 1, self.stored[0], self.clock.generator())
        return None if once is None else len(self.pairs) * once
