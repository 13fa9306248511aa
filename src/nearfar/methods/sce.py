from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses import relational
from nearfar.method import Encoder
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import mlp
from nearfar.nn.norms import split_norms
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class SCE(MoCo):
    """Trains MoCo with a soft target, which shares probability among the key and the queue keys similar to it.

    With q of a strong view, k of a weak one, and the queue Q,

        L = -sum_j w_j log p_j,    p = softmax([q.k, q.Q_1, ...] / temperature)
        w = share * [1, 0, ...] + (1 - share) * softmax([-inf, k.Q_1, ...] / target_temperature)

    Use it when many samples are alike, so that many of MoCo's negatives are false. It costs MoCo's step and one more
    product with the queue. The first view is the query: the views `sce` make it strong and the second weak.
    Note: Keep target_temperature below temperature, or the target is too flat. Predictor, three layers and symmetric
    are the paper's for ImageNet; there batch norm sees the whole batch and the momentum rises, here it is split and
    constant.

    Args:
        dim: Width of the embedding.
        queue: Number of keys in the queue.
        momentum: Momentum of the key encoder; 0.99 for CIFAR.
        temperature: Temperature of the prediction p.
        target_temperature: Temperature of the target w; 0.05 for CIFAR, 0.07 for ImageNet.
        share: Share of the key itself in the target; 1 is MoCo, 0 similarity alone.
        own: Key's own slot in the similarities: "left_out" (the paper) or "zero", a logit of 0 (the released code).
        layers: Layers of the projector, with batch norm.
        predictor: Add a predictor of two layers for queries.
        splits: Parts of the batch that batch norm sees separately, as in MoCo.
        symmetric: Use both views as queries and average.

    Denize et al. 2021, "Similarity Contrastive Estimation for Self-Supervised Soft Contrastive Learning",
    arXiv 2111.14585.
    """

    title = "SCE: Similarity Contrastive Estimation (Denize et al. 2021)"
    family = "queue or memory bank"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        queue: PositiveInt = 65536,
        momentum: UnitInterval = 0.99,
        temperature: PositiveFloat = 0.1,
        target_temperature: PositiveFloat = 0.05,
        share: UnitInterval = 0.5,
        own: Literal["left_out", "zero"] = "left_out",
        layers: PositiveInt = 2,
        predictor: bool = False,
        splits: PositiveInt = 8,
        symmetric: bool = False,
    ) -> None:
        head = mlp((*[encoder.dim] * layers, dim), norm=True, bias=True, last_bias=True)
        moco = {"dim": dim, "queue": queue, "momentum": momentum, "temperature": temperature, "splits": splits}
        super().__init__(encoder, projector=split_norms(head, splits), symmetric=symmetric, **moco)
        self.predictor = nn.Identity()
        if predictor:
            guess = mlp((dim, encoder.dim, dim), norm=True, bias=True, last_bias=True)
            self.predictor = split_norms(guess, splits)
        self.own: Literal["left_out", "zero"] = own
        self.target_temperature, self.share = target_temperature, share

    def query(self, view: Any) -> Tensor:
        return normalize(self.predictor(self.projector(self.embed(view))))  # N x dim

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        sce = partial(relational.sce, target_temperature=self.target_temperature, share=self.share, own=self.own)
        return sce(q, k, self.queue.keys, temperature=self.temperature, groups=self.groups(batch))
