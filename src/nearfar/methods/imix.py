from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.mixed import mixed_byol, mixed_info_nce, mixed_rows
from nearfar.losses.redundancy import barlow
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import mlp
from nearfar.nn.momentum import MomentumPair
from nearfar.nn.norms import shuffled, split_norms
from nearfar.ops.mixing import cutmix, input_mix, mixup
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class IMix(Method):
    """Mixes two samples and trains the mixture to match the other views of both, in the same proportions.

    A sample's label is its index in the batch, so mixing inputs mixes these virtual labels, for any kind of data:

        q = f(lam x_i + (1 - lam) x_p)        loss_i = lam loss(q, k_i) + (1 - lam) loss(q, k_p)

    Use it when augmentations are weak or unknown, as for tables, or data are few. It costs what its base costs.
    Note: Decided here: "barlow" mixes targets as "byol" does; one direction is computed; "npair" alone has a last norm.

    Args:
        base: Loss: "npair" (keys of the batch), "moco" (of a queue too), "byol" or "barlow" (needs a larger dim).
        mix: "mixup" averages two samples, "cutmix" pastes a box of one image into the other.
        alpha: Parameter of the Beta distribution of lam; smaller mixes less.
        extra: Number of other samples that InputMix adds to every view, labels unchanged.
        extra_alpha: Parameter of the Beta or Dirichlet distribution of InputMix's shares.
        dim: Width of the embedding.
        norm: Batch norm in the projector and the predictor, as everywhere in the paper but on ImageNet.
        temperature: Divides the similarities of npair and moco.
        queue: Number of negatives of moco beyond the batch.
        momentum: Momentum of the key encoder of moco and byol.
        splits: Parts of the batch that batch norm sees separately, for moco and byol.

    Lee et al. 2020, "i-Mix: A Domain-Agnostic Strategy for Contrastive Representation Learning", arXiv 2010.08887.
    """

    title = "i-Mix: A Domain-Agnostic Strategy for Contrastive Representation Learning (Lee et al. 2020)"
    changes = "mixed"
    family = "augmentations and views"
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        base: Literal["npair", "moco", "byol", "barlow"] = "npair",
        mix: Literal["mixup", "cutmix"] = "mixup",
        alpha: PositiveFloat = 1.0,
        extra: NonNegativeInt = 0,
        extra_alpha: PositiveFloat = 1.0,
        dim: PositiveInt = 128,
        norm: bool = True,
        temperature: PositiveFloat = 0.2,
        queue: PositiveInt = 65536,
        momentum: UnitInterval = 0.999,
        splits: PositiveInt = 8,
    ) -> None:
        slow = base in ("moco", "byol")
        super().__init__(split_norms(encoder, splits) if slow else encoder)
        widths = (dim, dim, dim) if base == "barlow" else (encoder.dim, dim)
        head, last = partial(mlp, norm=norm, bias=not norm), norm and base == "npair"  # a norm behind the last layer
        self.projector = head((encoder.dim, *widths), last_norm=last, last_bias=base != "barlow" and not last)
        self.predictor = head((dim, encoder.dim, dim), last_bias=True) if base == "byol" else None
        self.slow = MomentumPair(self.encoder, split_norms(self.projector, splits)) if slow else None
        self.queue = Queue(queue, dim) if base == "moco" else None
        self.base, self.mix, self.temperature = base, mixup if mix == "mixup" else cutmix, temperature
        self.changes = "images" if mix == "cutmix" else "numbers" if extra else "mixed"
        self.alpha, self.extra, self.extra_alpha, self.momentum = alpha, extra, extra_alpha, momentum

    def query(self, view: Any) -> Tensor:
        return self.projector(self.embed(view))  # N x dim

    @torch.no_grad()
    def key(self, view: Any, slow: MomentumPair) -> Tensor:
        return shuffled(partial(slow, self), view, self.clock.generator())  # N x dim

    def forward(self, batch: Batch) -> Step:
        v1, v2 = input_mix(batch.views, self.extra, alpha=self.extra_alpha, generator=self.clock.generator(1))
        x, partner, lam = self.mix(v1, alpha=self.alpha, generator=self.clock.generator(2))
        q, k = (self.query(x), self.key(v2, self.slow)) if self.slow else self.each(self.query, [x, v2])
        return Step(self.loss(q, k, partner, lam, batch.group), carry=(normalize(k.detach()), batch.group))

    def loss(self, q: Tensor, k: Tensor, partner: Tensor, lam: Tensor, group: Tensor | None) -> Tensor:
        if self.predictor is not None:
            return mixed_byol(self.predictor(q), k, partner, lam)
        if self.base == "barlow":
            return barlow(q, mixed_rows(k, partner, lam))
        q, k, queue = normalize(q), normalize(k), self.queue and (self.queue.keys, self.queue.group)
        return mixed_info_nce(q, k, partner, lam, temperature=self.temperature, queue=queue, group=group)

    def after_step(self, step: Step) -> None:
        if self.slow is not None:
            self.slow.follow(self, self.momentum)
        if self.queue is not None:
            self.queue.enqueue(*step.carry)

    def chance(self, batch: Batch) -> Tensor | None:
        mixed = self.mix(batch.views[0], alpha=self.alpha, generator=self.clock.generator(2))
        q = equal_rows(batch, self.projector.dim)
        return None if self.base == "byol" else self.loss(q, q, mixed.partner, mixed.lam, batch.group)
