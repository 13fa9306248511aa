from __future__ import annotations

from torch import Tensor

from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR
from nearfar.nn.heads import mlp
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class CVRL(SimCLR):
    """Contrasts two clips of each video, which lie near each other more often than not, with clips of other videos.

    It is SimCLR on clips. What is its own is in the views: how far apart the clips lie (`--power`), and that all frames
    of a clip are cropped and recolored alike (`--consistent`). The loss is the sum of the means over the first and the
    second clips, where SimCLR has the mean over both:

        L = 2 * mean of (-s_ip + log sum_{j != i} exp(s_ij)),    s_ij = z_i . z_j / temperature

    Use it first on videos, when batches are large and what is in a clip stays the same over some seconds. It costs what
    SimCLR costs on as many clips. Mirror images make left and right the same motion: `--views motion` has none.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.1 in the paper.
        hidden: Width of the projector's hidden layers.
        layers: Number of these layers, each with batch norm; 3 in the paper.

    Qian et al. 2021, "Spatiotemporal Contrastive Video Representation Learning", arXiv 2008.03800.
    """

    title = "CVRL: Spatiotemporal Contrastive Video Representation Learning (Qian et al. 2021)"
    needs_frames = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        hidden: PositiveInt = 2048,
        layers: NonNegativeInt = 3,
    ) -> None:
        head = mlp((encoder.dim, *[hidden] * layers, dim), norm=True, bias=True, last_bias=True)
        super().__init__(encoder, temperature=temperature, projector=head)

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return 2 * super().loss(z1, z2, group)
