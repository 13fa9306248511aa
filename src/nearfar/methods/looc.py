from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.leave_one_out import leave_one_out
from nearfar.method import Encoder, Step
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import moco_v1_head, moco_v2_head


class LooC(MoCo):
    """Each query finds its key in several spaces: in one under any change, in each other with one change held fixed.

    Beside a query come a free key k_0 and, for each of n augmentations, a key k_v that was made with the parameters
    of the query's. Space v > 0 takes k_v for the positive and the query's other keys for negatives, and so stays
    sensitive to augmentation v; the encoder below all spaces keeps what each of them needs. Space 0 is MoCo's:

        loss = mean over v of  -q^v . k_v^v + log(exp(q^v . k_v^v) + sum_{w != v} exp(q^v . k_w^v) + sum over queue v)

    Use it when it is not known which augmentation harms the task, such as color for birds or turns for digits; it
    takes n + 1 passes of keys without gradient, about twice the time of MoCo for n = 2.
    Decided here: keys are drawn independently, so by chance one may equal the query in what it should differ in.

    augmentations: n, for which the views have to be made; `looc` and `looc_drawing` make them for 2, and 0 is MoCo.
    negatives: the other keys of the same sample, "image", or of all in the "batch", as in Seasonal Contrast.
    dim: width of each space.  queue: negatives, in each space.  momentum: of the slow copy.  temperature: 0.2 in the
    paper.  head: "mlp" or "linear", one a space.  splits: parts of the batch that batch norm sees apart.

    Xiao et al. 2020, "What Should Not Be Contrastive in Contrastive Learning", arXiv 2008.05659.
    """

    family = "views"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        augmentations: int = 2,
        negatives: Literal["image", "batch"] = "image",
        dim: int = 128,
        queue: int = 16384,
        momentum: float = 0.999,
        temperature: float = 0.2,
        head: Literal["mlp", "linear"] = "mlp",
        splits: int = 8,
    ) -> None:
        # The rows of MoCo's queue are the keys of all spaces, side by side.
        spaces, make = 1 + augmentations, moco_v2_head if head == "mlp" else moco_v1_head
        heads = _Heads(make(encoder.dim, out=dim) for _ in range(spaces))
        moco = {"queue": queue, "momentum": momentum, "temperature": temperature, "splits": splits}
        super().__init__(encoder, dim=spaces * dim, projector=heads, **moco)
        self.n, self.negatives = augmentations, negatives

    def spaces(self, rows: Tensor) -> list[Tensor]:
        # MoCo scales rows as a whole, which scaling each part by itself undoes.
        return [normalize(part) for part in rows.chunk(1 + self.n, 1)]

    def forward(self, batch: Batch) -> Step:
        query, *keys = batch.views
        if len(keys) != 1 + self.n:
            raise ValueError(f"{self.n} augmentations want {self.n + 2} views, not {len(batch.views)}; --views looc: 4")
        q, queue = self.spaces(self.query(query)), self.spaces(self.queue.keys)  # a space: N x dim, K x dim
        k = [self.spaces(rows) for rows in self.each(self.key, keys)]  # a key, a space: N x dim
        how = partial(
            leave_one_out,
            temperature=self.temperature,
            groups=self.groups(batch),
            batch=self.negatives == "batch",
        )
        loss = how(q[0], k[0][0], [], queue[0])
        for v in range(1, 1 + self.n):
            loss = loss + how(q[v], k[v][v], [k[w][v] for w in range(1 + self.n) if w != v], queue[v])
        rows = torch.cat([k[v][v] for v in range(1 + self.n)], 1)
        return Step(loss / (1 + self.n), carry=([rows], batch))

    def chance(self, batch: int) -> float:
        others, queue = self.n * (batch if self.negatives == "batch" else 1), len(self.queue.keys)
        return (math.log(1 + queue) + self.n * math.log(1 + others + queue)) / (1 + self.n)


class _Heads(nn.ModuleList):
    """The heads of all spaces: N x encoder.dim -> N x spaces * dim."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([head(h) for head in self], 1)
