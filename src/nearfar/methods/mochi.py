from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import local, world
from nearfar.losses.synthetic import hardest, info_nce_mixed, mixtures
from nearfar.method import Encoder
from nearfar.methods.moco import MoCo
from nearfar.ranges import NonNegativeInt, PositiveInt


class MoCHi(MoCo):
    """Adds synthetic hard negatives to MoCo by mixing the keys of the queue that are most similar to the query.

    Few keys of a long queue are hard. With Q the queue, and n_i, n_j drawn from the keys of Q nearest to q,

        loss = -q.k/t + log(exp(q.k/t) + sum_Q exp(q.n/t) + sum_h exp(q.h/t) + sum_h' exp(q.h'/t))
        h ~ a n_i + (1 - a) n_j,  a in [0, 1),    h' ~ b q + (1 - b) n_j,  b in [0, 1/2),    of unit length

    Use it when MoCo's loss is soon low and classes are fine-grained. It costs MoCo's step, a search of the queue and
    rows x (mixed + mixed_query) x dim numbers. It amplifies false negatives, and a lower contrastive accuracy is
    normal.
    Note: The defaults are within what the paper reports as best, from memory (unverified). The two keys of a pair may
    coincide, which the paper does not mention.

    Args:
        hardest: Number of nearest keys that are mixed.
        mixed: Mixtures of two keys for each query.
        mixed_query: Mixtures of the query and a key for each query.
        start: Epoch from which mixtures are made.

    Kalantidis et al. 2020, "Hard Negative Mixing for Contrastive Learning", arXiv 2010.01028.
    """

    title = "MoCHi: Hard Negative Mixing for Contrastive Learning (Kalantidis et al. 2020)"
    family = "negative weighting and selection"

    def __init__(
        self,
        encoder: Encoder,
        *,
        hardest: PositiveInt = 1024,
        mixed: NonNegativeInt = 512,
        mixed_query: NonNegativeInt = 128,
        start: NonNegativeInt = 10,
        **moco: Any,
    ) -> None:
        super().__init__(encoder, **moco)
        self.hardest, self.mixed, self.mixed_query, self.start = hardest, mixed, mixed_query, start

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        if self.clock.epoch < self.start:
            return super().loss(q, k, batch)
        queue = self.queue.keys
        groups = self.groups(batch)
        hard, known = hardest(q, queue, min(self.hardest, len(queue)), groups)
        draws = torch.rand(world() * len(q), 3 * self.mixed + 2 * self.mixed_query, generator=self.clock.generator(1))
        pairs, own = local(draws).to(q.device).split([3 * self.mixed, 2 * self.mixed_query], 1)
        mixed = mixtures(q, queue, hard, known, pairs.unflatten(1, (3, -1)), own.unflatten(1, (2, -1)))
        return info_nce_mixed(q, k, queue, mixed, temperature=self.temperature, groups=groups)
