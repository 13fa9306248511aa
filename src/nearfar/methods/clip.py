from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.losses import pairwise
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.towers import pick_tower, trunk
from nearfar.ranges import FiniteFloat, PositiveFloat

LARGEST_SCALE = 100.0


class CLIP(Method):
    """Contrasts what belongs together across kinds, such as images and their captions: each finds its partner.

    Each side has its own network, whose rows u and v are normalized: that is the space in which sides are compared, and
    no head comes behind. Among the N pairs of a batch, with s_ij = u_i . v_j / t,

        loss = mean_i (-s_ii + (log sum_j exp s_ij + log sum_j exp s_ji) / 2)

    where the temperature t is learned. With --sigmoid each pair is judged by itself (SigLIP): with y_ij = 1 for i = j,
    else -1, and a learned bias b,

        loss = -mean_i sum_j log sigmoid(y_ij (s_ij + b))

    Use it for pairs of kinds, `--pair image=path,text=caption`; of more than two sides each two are contrasted. On
    images alone it takes an encoder of several networks, such as `ycbcr:resnet18`. It costs what the networks cost.
    Samples that share a side, such as one caption of two images, are no negatives of each other.
    Note: The clamp of 1 / t to at most 100 comes after each step, as in the paper; of --sigmoid there is none.

    Args:
        temperature: With which training begins; 0.1 in SigLIP.
        sigmoid: Judge each pair by itself, instead of choosing among all.
        bias: With which --sigmoid begins.
        lock: The name of a side whose network stays as it is, but for the layer into the shared space, as in LiT; it
            must bring weights, as by --sides image.from_run=RUN.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020;
    Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; Zhai et al. 2022, "LiT:
    Zero-Shot Transfer with Locked-image text Tuning", arXiv 2111.07991.
    """

    title = "CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021)"
    family = "in-batch negatives"
    needs_streams = True
    locks = "lock"

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: PositiveFloat = 0.07,
        sigmoid: bool = False,
        bias: FiniteFloat = -10.0,
        lock: str = "",
    ) -> None:
        super().__init__(encoder)
        dims = [stream.dim for stream in encoder.streams()]
        if len(set(dims)) > 1:
            raise UserError(
                f"the networks give {' and '.join(map(str, dims))} numbers, and rows of one width are compared: "
                "--space 256 puts a layer behind each"
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(bias)) if sigmoid else None
        self.lock = lock
        if lock:
            trunk(pick_tower(encoder, lock)).requires_grad_(False)

    def train(self, mode: bool = True) -> CLIP:
        super().train(mode)
        if self.lock:  # its norms take the statistics that they were trained with
            trunk(pick_tower(self.encoder, self.lock)).eval()
        return self

    def forward(self, batch: Batch) -> Step:
        rows = [normalize(row) for row in self.embed_streams(batch.views)]  # N x D for each side
        log = {"temperature": (-self.log_scale).exp().detach()}
        if self.bias is not None:
            log["bias"] = self.bias.detach()
        return Step(self.loss(rows, batch.group), log)

    def loss(self, rows: list[Tensor], group: Tensor | None) -> Tensor:
        temperature = (-self.log_scale).exp()
        losses = [
            pairwise.clip(u, v, temperature=temperature, group=group)
            if self.bias is None
            else pairwise.siglip(u, v, temperature=temperature, bias=self.bias, group=group)
            for u, v in combinations(rows, 2)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if self.bias is None:
            self.log_scale.clamp_(0, math.log(LARGEST_SCALE))

    def chance(self, batch: Batch) -> Tensor | None:
        return None if self.bias is not None else self.loss([equal_rows(batch)] * 2, batch.group)
