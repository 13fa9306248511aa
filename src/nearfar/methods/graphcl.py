from __future__ import annotations

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce_batch
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import MLP, mlp
from nearfar.ranges import PositiveFloat


class GraphCL(Method):
    """Contrasts each graph with a changed copy of it; the positive is not below the fraction.

    The two views pass the encoder one after the other, each normalized by its own statistics, and a projector of the
    encoder's width. Rows are the first views, columns the second ones; views of one side are not contrasted:

        loss_i = -s_i + log sum_{j != i} exp(s_ij),    s_ij = z_i . z'_j / temperature

    Use it on graphs, as the system that others there are compared with. It costs what SimCLR costs.
    Note: The loss may be negative: of identical orthogonal views it is log(N - 1) - 1 / temperature. Which views are
    changed is a setting of the data: the first stays as it is in the unsupervised recipe.

    Args:
        temperature: Divides the similarities; 0.2 in the released code without labels, 0.1 for molecules and proteins.
        positive_below: Have the positive below the fraction as well, as InfoNCE does.

    You et al. 2020, "Graph Contrastive Learning with Augmentations", arXiv 2010.13902.
    """

    title = "GraphCL: Graph Contrastive Learning with Augmentations (You et al. 2020)"
    family = "in-batch negatives"
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: PositiveFloat = 0.2,
        positive_below: bool = False,
        projector: MLP | None = None,
    ) -> None:
        super().__init__(encoder)
        self.projector = _head(encoder.dim) if projector is None else projector
        self.temperature, self.positive_below = temperature, positive_below

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.each(lambda view: normalize(self.projector(self.embed(view))), batch.views)  # N x dim
        return Step(self.loss(z1, z2, batch.group))

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return info_nce_batch(z1, z2, temperature=self.temperature, group=group, positive_below=self.positive_below)

    def chance(self, batch: Batch) -> Tensor:
        z = equal_rows(batch)
        return self.loss(z, z, batch.group)


def _head(dim: int) -> MLP:
    """Two layers of the encoder's width, drawn as the released code draws them."""
    head = mlp((dim, dim, dim), norm=False, bias=True, last_bias=True)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return head
