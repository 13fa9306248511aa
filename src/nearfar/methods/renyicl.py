from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.negatives import renyi
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import mlp, moco_v3_head
from nearfar.nn.momentum import MomentumPair
from nearfar.optim.schedules import cosine_ramp
from nearfar.ranges import PositiveFloat, PositiveInt, ShareBelowOne, UnitInterval


class RenyiCL(Method):
    """Maximizes a bound of the skew Renyi divergence between positive and negative pairs, to cope with strong views.

    The order gamma lets far positives, perhaps ruined by strong views, count less and near negatives more; the skew
    alpha keeps the bound finite. p and n: logits of positives and negatives; means: over all pairs of the batch.

        L = 1/gamma log(alpha mean exp(gamma p) + (1 - alpha) mean exp(gamma n))
            - 1/(gamma - 1) log mean exp((gamma - 1) p)        summed over both targets

    Use it when strong views share little. It costs a third more than SimCLR. Small crops only predict.
    Note: The loss is minus the bound, of which the released code has the gradient, not the value.

    Args:
        dim: Width of the embedding.
        hidden: Width of the hidden layers of projector and predictor.
        temperature: Divides the similarities.
        gamma: Order of the divergence; 1 is Kullback-Leibler, which weighs positives alike.
        alpha: Skew of the divergence.
        momentum: Momentum of the target encoder at the start; it rises to 1, which the released code makes optional.

    Lee and Shin 2022, "RenyiCL: Contrastive Representation Learning with Skew Renyi Divergence", arXiv 2208.06270.
    """

    title = "RenyiCL: Contrastive Learning with Skew Renyi Divergence (Lee and Shin 2022)"
    family = "negative weighting and selection"
    fewest_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 256,
        hidden: PositiveInt = 4096,
        temperature: PositiveFloat = 0.5,
        gamma: PositiveFloat = 2.0,
        alpha: ShareBelowOne = 2**-16,
        momentum: UnitInterval = 0.99,
    ) -> None:
        super().__init__(encoder)
        self.projector = moco_v3_head(encoder.dim, hidden=hidden, out=dim)
        self.predictor = mlp((dim, hidden, dim), norm=True, bias=False, last_bias=False)
        self.slow = MomentumPair(self.encoder, self.projector)
        self.temperature, self.gamma, self.alpha, self.momentum = temperature, gamma, alpha, momentum

    def predict(self, view: Any) -> Tensor:
        return normalize(self.predictor(self.projector(self.embed(view))))  # N x dim

    def target(self, view: Any) -> Tensor:
        return normalize(self.slow(self, view))  # N x dim

    def forward(self, batch: Batch) -> Step:
        a = self.each(self.predict, batch.views)  # V of N x dim
        b = self.each(self.target, batch.views[:2])
        return Step(self.loss(a[1:], b[0], batch.group) + self.loss([a[0], *a[2:]], b[1], batch.group))

    def loss(self, sources: list[Tensor], target: Tensor, group: Tensor | None) -> Tensor:
        return renyi(sources, target, temperature=self.temperature, gamma=self.gamma, alpha=self.alpha, group=group)

    def after_step(self, step: Step) -> None:
        self.slow.follow(self, cosine_ramp(self.momentum, self.clock.progress))
