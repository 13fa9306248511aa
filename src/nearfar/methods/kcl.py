from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import local, world
from nearfar.losses.positives import chosen, info_nce_chosen
from nearfar.method import Encoder, Look
from nearfar.methods.moco import MoCo
from nearfar.ranges import NonNegativeInt, PositiveFloat


class KCL(MoCo):
    """Trains MoCo with k additional positives of the query's class, the same number for every class.

    SupCon gives large classes more positives, so that these shape the space. Here every class has as many, drawn anew
    in each step. With S_i the chosen keys of the queue,

        loss_i = -(s_i + sum_{j in S_i} s_ij) / (1 + |S_i|) + log(exp(s_i) + sum_j exp(s_ij))

    Use it when some classes are rare, and fit a class-balanced classifier afterward. It costs what MoCo costs, and one
    pass over all samples before the first step, which fills the queue.
    Note: That pass uses plain views, where the paper uses augmented ones. Keys of the class that were not chosen are
    negatives. A sample without a label has its own key alone; a class with few keys in the queue has fewer positives.

    Args:
        positives: Number k of additional positives.
        selection: Choice of the k keys: "random" (the paper), or the "first" in the queue (close to the released code).
        others: Rest of the class: "negatives", or a "constant" 1 each in the sum (the released version 2).
        temperature: Divides the similarities; 0.07 in the paper.
        head: "linear", or "mlp" as in MoCo v2.
        first: Initial queue: a "look" that embeds all samples, or "noise".

    Kang et al. 2021, "Exploring Balanced Feature Spaces for Representation Learning", ICLR 2021; reimplemented in Li et
    al. 2021, "Targeted Supervised Contrastive Learning for Long-Tailed Recognition", arXiv 2111.13998.
    """

    title = "KCL: k-positive Contrastive Learning (Kang et al. 2021)"
    family = "supervised"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        positives: NonNegativeInt = 6,
        selection: Literal["random", "first"] = "random",
        others: Literal["negatives", "constant"] = "negatives",
        temperature: PositiveFloat = 0.07,
        head: Literal["mlp", "linear"] = "linear",
        first: Literal["look", "noise"] = "look",
        **moco: Any,
    ) -> None:
        super().__init__(encoder, temperature=temperature, head=head, labeled=True, **moco)
        self.positives, self.selection, self.others, self.first = positives, selection, others, first

    def before_epoch(self, look: Look) -> None:
        queue = self.queue
        if self.first == "noise" or queue.count:
            return
        k = look(self.slow_rows)  # samples x dim
        drawn = torch.randperm(len(k), generator=self.clock.generator())[: len(queue.keys)].to(k.device)
        queue.keys[: len(drawn)] = k[drawn].to(queue.keys.dtype)
        if look.label is not None:
            queue.label[: len(drawn)] = look.label.to(k.device)[drawn]
        queue.count.fill_(len(drawn))

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        ids, draws = (batch.label, self.queue.label), None
        if self.selection == "random":  # for all ranks' queries
            draws = torch.rand(world() * len(q), self.positives, generator=self.clock.generator(1))
            draws = local(draws).to(q.device)
        columns = chosen(*ids, self.positives, draws)
        loss = partial(info_nce_chosen, temperature=self.temperature, constant=self.others == "constant")
        return loss(q, k, self.queue.keys, columns, ids, groups=self.groups(batch))

    def chance(self, batch: Batch) -> Tensor | None:
        return None if self.others == "constant" else super().chance(batch)  # the constant is no similarity
