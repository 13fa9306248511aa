from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.pairwise import hard_info_nce
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import simcse_head
from nearfar.ranges import FiniteFloat, NonNegativeFloat, PositiveFloat


class SimCSE(Method):
    """Contrasts a sentence with itself, seen through other dropout, or with another one of the same meaning.

    One encoder embeds both views; each first view finds its own second view among those of the batch, and of a triplet
    also among all third views, the hard negatives h. With s the cosines, divided by the temperature,

        loss_i = -s(a_i, p_i) + log sum_j (exp s(a_i, p_j) + exp(s(a_i, h_j) + [j = i] hard_weight))

    Use it for sentences: of single ones the paper's views differ by dropout alone, which a network from random weights
    finds too easy, so that words are deleted there; columns of pairs or triplets, as of NLI, are better. It costs what
    SimCLR costs. Copies in a batch are false negatives: `nearfar doctor` finds them. With --both, --no-mlp and
    temperature 0.05 it is the loss that others call multiple negatives ranking.
    Note: With pairs or triplets the paper keeps the layer behind the first token: --pooler cls --no-mlp.

    Args:
        temperature: Divides the cosines.
        mlp: A linear layer and tanh between representation and loss, which are thrown away after training.
        hard_negatives: The views from the third on are hard negatives; the recipe sets it for triplets.
        hard_weight: Added to the logit of a sample's own hard negative: the logarithm of a weight.
        both: Let each second view find its first one too.
        mlm: Weight of masked language modeling beside the loss, which restores hidden tokens; 0.1 in the paper.
        warm_start_epochs: Epochs at the beginning in which hidden tokens are restored, and nothing is contrasted.

    Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", arXiv 2104.08821.
    """

    title = "SimCSE: Simple Contrastive Learning of Sentence Embeddings (Gao et al. 2021)"
    family = "in-batch negatives"
    fewest_views = 2
    one_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: PositiveFloat = 0.05,
        mlp: bool = True,
        hard_negatives: bool = False,
        hard_weight: FiniteFloat = 0.0,
        both: bool = False,
        mlm: NonNegativeFloat = 0.0,
        warm_start_epochs: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(encoder)
        self.projector = simcse_head(encoder.dim, layer=mlp)
        self.restorer = encoder.restorer() if mlm or warm_start_epochs else None
        self.temperature, self.hard_weight, self.both = temperature, hard_weight, both
        self.mlm, self.warm_start_epochs = mlm, warm_start_epochs
        self.most_views = 0 if hard_negatives else 2

    def forward(self, batch: Batch) -> Step:
        warm = self.clock.epoch < self.warm_start_epochs
        contrast = _idle(self.projector) if warm else self.loss(self.project_all(batch.views), batch.group)
        if self.restorer is None:
            return Step(contrast)
        if not (warm or self.mlm):
            return Step(contrast + _idle(self.restorer))
        restored = self.restorer(self.encoder, batch.views[0], self.clock.generator(), self.micro_batch)
        return Step(contrast + (1.0 if warm else self.mlm) * restored, {"mlm": restored.detach()})

    def loss(self, z: list[Tensor], group: Tensor | None) -> Tensor:
        if self.most_views and len(z) > self.most_views:
            raise UserError(f"SimCSE takes 2 views, and {len(z)} where the rest are hard_negatives")
        anchor, positive, *hard = z
        loss = hard_info_nce(
            anchor, positive, *hard, temperature=self.temperature, weight=self.hard_weight, group=group
        )
        if not self.both:
            return loss
        back = hard_info_nce(positive, anchor, temperature=self.temperature, group=group)
        return (loss + back) / 2

    def chance(self, batch: Batch) -> Tensor | None:
        z = equal_rows(batch, self.projector.dim)
        return None if self.restorer is not None else self.loss([z] * len(batch.views), batch.group)


def _idle(module: nn.Module) -> Tensor:
    """0, with a gradient of 0 for the weights of a part that has nothing to do: all processes wait for one."""
    return torch.stack([p.sum() for p in module.parameters()] or [torch.zeros(())]).sum() * 0
