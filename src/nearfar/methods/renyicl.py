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


class RenyiCL(Method):
    """Predictions find a slow copy's embedding of the other view, easy pairs of either kind weighing little.

    The loss is a bound of the skew Renyi divergence between pairs of one sample and pairs of any two. An order gamma
    above 1 lets positives that are far apart, perhaps ruined by strong views, count less, and negatives that are near
    count more; the skew alpha keeps the bound finite. With p the logits of positives and n of negatives,

        L = 1/gamma log(alpha mean exp(gamma p) + (1 - alpha) mean exp(gamma n))
            - 1/(gamma - 1) log mean exp((gamma - 1) p)

    summed over both targets. Means are over all pairs of the batch, not per anchor.
    Use it when views are so strong that some pairs share little. The slow copy makes a step cost about a third more
    than SimCLR's; small crops, if any, only predict. Here the loss is minus the bound itself, of which the
    released code has the gradient and not the value. The copy's momentum always rises to 1; there that is a switch.

    dim, hidden: widths of projector and predictor.  temperature: of the logits.  gamma: the order; 1 is the
    Kullback-Leibler divergence, which weighs positives alike.  alpha: the skew.  momentum: of the copy at the start.

    Lee and Shin 2022, "RenyiCL: Contrastive Representation Learning with Skew Renyi Divergence", arXiv 2208.06270.
    """

    family = "negatives"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 256,
        hidden: int = 4096,
        temperature: float = 0.5,
        gamma: float = 2.0,
        alpha: float = 2**-16,
        momentum: float = 0.99,
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
