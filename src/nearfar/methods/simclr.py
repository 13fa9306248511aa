from __future__ import annotations

from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import MLP, simclr_head
from nearfar.ranges import PositiveFloat, PositiveInt


class SimCLR(Method):
    """Contrasts the two views of each sample with all other views in the batch.

    One encoder embeds both views; the loss is NT-Xent on unit embeddings, with p the other view of the same sample:

        loss_i = -s_ip + log sum_{j != i} exp(s_ij),    s_ij = z_i . z_j / temperature

    Use it as the baseline, when batches are large and augmentations are known: it needs no memory and no second
    encoder. The projector is thrown away after training. All other methods state their cost relative to this one.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.1 in the paper for ImageNet, 0.5 for CIFAR.

    Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709.
    """

    title = "SimCLR: A Simple Framework for Contrastive Learning (Chen et al. 2020)"
    family = "in-batch negatives"
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        projector: MLP | None = None,
    ) -> None:
        super().__init__(encoder)
        self.projector = simclr_head(encoder.dim, out=dim) if projector is None else projector
        self.temperature = temperature

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.project_all(batch.views)  # N x dim
        return Step(self.loss(z1, z2, batch.group))

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return nt_xent(z1, z2, temperature=self.temperature, group=group)

    def chance(self, batch: Batch) -> Tensor:
        z = equal_rows(batch, self.projector.dim)
        return self.loss(z, z, batch.group)
