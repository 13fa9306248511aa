from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalise
from nearfar.heads import simclr_head
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Encoder, Method, Step, frozen_statistics


class LoCo(Method):
    """Each view finds its other view among all in the batch, in every pair of neighbouring stages of the network apart.

    No gradient passes through the whole network: each unit of two stages has a decoder, a projector and SimCLR's loss
    of its own. Units overlap by one stage, so that what is above tells what is below, one stage deep, what it needs:

        L = sum_u NT-Xent(head_u(stage_{u+1}(stage_u(sg(x_{u-1})))))

    Use it to learn what local learning loses; it costs more than SimCLR, as each stage but the outermost runs once in
    each of its units. The paper's saving of memory, by freeing a unit before the next, is not made: there is one
    backward pass. A middle stage gets the sum of its gradients, and its running statistics move in one of its passes.
    The decoder, of which little is published, is decided here: convolutions of 3x3 and stride 2, each with norm and
    ReLU, of the stage's own width; then the mean of the map, or in the last unit the encoder's own pooling.

    dim: width of the embeddings.  temperature: of all losses.  reach: stages in a unit: 1 is Greedy InfoMax, without
    overlap; as many as there are is SimCLR.  blocks: convolutions in a decoder.

    Xiong et al. 2020, "LoCo: Local Contrastive Representation Learning", arXiv 2008.01342.
    """

    family = "instance"
    pictures_only = True

    def __init__(
        self, encoder: Encoder, *, dim: int = 128, temperature: float = 0.1, reach: int = 2, blocks: int = 1
    ) -> None:
        super().__init__(encoder)
        if reach < 1:
            raise ValueError(f"a unit needs at least 1 stage, got reach={reach}")
        tops = [stage.dim for stage in encoder.stages()[:-1]][reach - 1 :] or [encoder.stages()[-2].dim]
        self.decoders = nn.ModuleList(nn.Sequential(*[_down(width) for _ in range(blocks)]) for width in tops)
        self.widths = [*tops[:-1], encoder.dim]
        self.projectors = nn.ModuleList(simclr_head(width, out=dim) for width in self.widths)
        self.temperature = temperature

    def forward(self, batch: Batch) -> Step:
        h = self.embed(torch.cat(batch.views), _Units(self.encoder, self.decoders))  # 2N x sum of widths
        *units, whole = h.split([*self.widths, self.encoder.dim], 1)
        if self.representations is not None:
            self.representations.append(whole.detach())
        losses = torch.stack([self.loss(project(u), batch) for project, u in zip(self.projectors, units, strict=True)])
        return Step(losses.sum(), {"last": losses[-1].detach()})

    def loss(self, z: Tensor, batch: Batch) -> Tensor:
        return nt_xent(*normalise(z).chunk(2), temperature=self.temperature, group=batch.group)

    def chance(self, batch: int) -> float:
        return len(self.widths) * math.log(2 * batch - 1)


class _Units(Encoder):
    """What every unit makes of a view, and last the encoder, without gradient: N x the sum of their widths."""

    def __init__(self, encoder: Encoder, decoders: nn.ModuleList) -> None:
        super().__init__()
        self.encoder, self.decoders = encoder, decoders

    def forward(self, x: Tensor) -> Tensor:
        *stages, pool = self.encoder.stages()
        reach, out, below = len(stages) - len(self.decoders) + 1, [], x
        h = x
        for u, decode in enumerate(self.decoders):
            h = below.detach()
            for s in range(u, u + reach):
                # The unit below has run all stages of this one but the last: the values are the same again.
                with frozen_statistics(stages[s]) if u > 0 and s < u + reach - 1 else nullcontext():
                    h = stages[s](h)
                below = h if s == u else below
            out.append(decode(h).mean((2, 3)) if u + reach < len(stages) else pool(decode(h)))
        return torch.cat([*out, pool(h).detach()], 1)


def _down(width: int) -> nn.Sequential:
    conv = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
