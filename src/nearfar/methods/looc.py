from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.losses.leave_one_out import leave_one_out
from nearfar.method import Encoder, Step, equal_rows
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import moco_v1_head, moco_v2_head
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class LooC(MoCo):
    """Trains MoCo in several embedding spaces, each sensitive to one augmentation and invariant to the others.

    A query has a free key k_0 and, for each of n augmentations, a key k_v made with the query's own parameters of
    augmentation v. Space v > 0 takes k_v as the positive and the query's other keys as negatives; space 0 is MoCo's:

        loss = mean over v of  -q^v . k_v^v + log(exp(q^v . k_v^v) + sum_{w != v} exp(q^v . k_w^v) + sum over queue v)

    Use it when it is not known which augmentation harms the task, such as color for birds or rotation for digits. It
    needs n + 1 passes of keys without gradient: about twice the time of MoCo for n = 2.
    Note: Keys are drawn independently, so a key may by chance equal the query in its augmentation. This was decided
    here.

    Args:
        augmentations: Number n; the views must provide as many: `looc` and `looc_drawing` provide 2; 0 is MoCo.
        negatives: Other keys of the same "image", or of the whole "batch", as in Seasonal Contrast.
        dim: Width of each space.
        queue: Number of negatives in each space.
        momentum: Momentum of the key encoder.
        temperature: Divides the similarities; 0.2 in the paper.
        head: Projector of each space: "mlp" or "linear".
        splits: Parts of the batch that batch norm sees separately, as in MoCo.

    Xiao et al. 2020, "What Should Not Be Contrastive in Contrastive Learning", arXiv 2008.05659.
    """

    title = "LooC: What Should Not Be Contrastive in Contrastive Learning (Xiao et al. 2020)"
    family = "augmentations and views"
    needs_pixels = True
    fewest_views, most_views = 3, 0

    def __init__(
        self,
        encoder: Encoder,
        *,
        augmentations: NonNegativeInt = 2,
        negatives: Literal["image", "batch"] = "image",
        dim: PositiveInt = 128,
        queue: PositiveInt = 16384,
        momentum: UnitInterval = 0.999,
        temperature: PositiveFloat = 0.2,
        head: Literal["mlp", "linear"] = "mlp",
        splits: PositiveInt = 8,
    ) -> None:
        # The rows of MoCo's queue are the keys of all spaces, side by side.
        spaces, make = 1 + augmentations, moco_v2_head if head == "mlp" else moco_v1_head
        heads = _Heads(make(encoder.dim, out=dim) for _ in range(spaces))
        moco = {"queue": queue, "momentum": momentum, "temperature": temperature, "splits": splits}
        super().__init__(encoder, dim=spaces * dim, projector=heads, **moco)
        self.n, self.negatives = augmentations, negatives
        self.fewest_views = self.most_views = augmentations + 2

    def spaces(self, rows: Tensor) -> list[Tensor]:
        # MoCo scales rows as a whole, which scaling each part by itself undoes.
        return [normalize(part) for part in rows.chunk(1 + self.n, 1)]

    def forward(self, batch: Batch) -> Step:
        query, *keys = batch.views
        if len(keys) != 1 + self.n:
            raise UserError(f"{self.n} augmentations want {self.n + 2} views, not {len(batch.views)}; --views looc: 4")
        q = self.spaces(self.query(query))  # a space: N x dim
        k = [self.spaces(rows) for rows in self.each(self.key, keys)]  # a key, a space: N x dim
        rows = torch.cat([k[v][v] for v in range(1 + self.n)], 1)
        return Step(self.mean_of_spaces(q, k, batch), carry=([rows], batch))

    def mean_of_spaces(self, q: list[Tensor], k: list[list[Tensor]], batch: Batch) -> Tensor:
        """The mean loss, of the query in each space and of each key in each space."""
        queue = self.spaces(self.queue.keys)  # a space: K x dim
        how = partial(
            leave_one_out,
            temperature=self.temperature,
            groups=self.groups(batch),
            batch=self.negatives == "batch",
        )
        loss = how(q[0], k[0][0], [], queue[0])
        for v in range(1, 1 + self.n):
            loss = loss + how(q[v], k[v][v], [k[w][v] for w in range(1 + self.n) if w != v], queue[v])
        return loss / (1 + self.n)

    def chance(self, batch: Batch) -> Tensor:
        q = [equal_rows(batch, self.queue.keys.shape[1] // (1 + self.n))] * (1 + self.n)
        return self.mean_of_spaces(q, [q] * (1 + self.n), batch)


class _Heads(nn.ModuleList):
    """The heads of all spaces: N x encoder.dim -> N x spaces * dim."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([head(h) for head in self], 1)
