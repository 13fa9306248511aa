"""Projectors, predictors and classifiers: the small networks on the representation, as each paper has them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.losses.classification import log_prior
from nearfar.precision import network
from nearfar.ranges import PositiveInt, checked


class MLP(nn.Sequential):
    """Linear layers with ReLU between them: N x dims[0] -> N x dim."""

    def __init__(self, layers: list[nn.Module], dim: int) -> None:
        super().__init__(*layers)
        self.dim = dim

    @network
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


@checked
def mlp(
    dims: Sequence[PositiveInt],
    *,
    norm: bool,
    bias: bool,
    last_bias: bool,
    last_norm: bool = False,
    last_offset: bool = True,
) -> MLP:
    """Linear layers of the widths `dims`, with ReLU between them: N x dims[0] -> N x dims[-1].

    norm: batch norm after each linear layer but the last.  bias: of the linear layers but the last.
    last_bias, last_norm: the same of the last.  last_offset: whether its batch norm may shift (held at 0 if not).
    """
    if len(dims) < 2:
        raise UserError(f"a head needs the widths of its input and its output, got {list(dims)}")
    layers: list[nn.Module] = []
    for before, after in pairwise(dims[:-1]):
        layers.append(nn.Linear(before, after, bias=bias))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(dims[-2], dims[-1], bias=last_bias))
    if last_norm:
        scale = nn.BatchNorm1d(dims[-1])
        scale.bias.requires_grad_(last_offset)
        layers.append(scale)
    return MLP(layers, dims[-1])


def first_layers(head: nn.Module, layer: int) -> nn.Sequential:
    """The first layers of a projector, each with its norm and ReLU, with the modules of the projector itself.

    layer: how many linear layers; 0 is none of it, -1 the whole projector.
    Raises ValueError where the projector is no stack of layers, or has fewer.
    """
    if not isinstance(head, nn.Sequential):
        raise UserError(f"a {type(head).__name__} is no stack of layers of which some could be kept")
    parts = list(head)
    ends = [0, *(at + 1 for at, part in enumerate(parts) if isinstance(part, nn.ReLU)), len(parts)]
    if not -1 <= layer < len(ends):
        raise UserError(f"layer {layer} of a projector of {len(ends) - 1} layers; wanted -1 to {len(ends) - 1}")
    return nn.Sequential(*parts[: ends[layer]])


def simclr_head(dim: int, *, out: int = 128, layers: int = 2) -> MLP:
    """SimCLR's projector: dim -> dim -> out, batch norm after both layers, the last without offset.

    arXiv 2002.05709; the batch norms are those of google-research/simclr, the paper names none.
    layers: 3 in version 2 (arXiv 2006.10029), all but the last of width dim.
    """
    return mlp((*[dim] * layers, out), norm=True, bias=False, last_bias=False, last_norm=True, last_offset=False)


def moco_v1_head(dim: int, *, out: int = 128) -> MLP:
    """MoCo v1's projector: one linear layer (arXiv 1911.05722)."""
    return mlp((dim, out), norm=False, bias=True, last_bias=True)


def moco_v2_head(dim: int, *, out: int = 128) -> MLP:
    """MoCo v2's projector: dim -> dim -> out without batch norm (arXiv 2003.04297)."""
    return mlp((dim, dim, out), norm=False, bias=True, last_bias=True)


def supcon_head(dim: int, *, out: int = 128) -> MLP:
    """SupCon's projector: dim -> dim -> out without batch norm (arXiv 2004.11362)."""
    return mlp((dim, dim, out), norm=False, bias=True, last_bias=True)


def byol_head(dim: int, *, hidden: int = 4096, out: int = 256) -> MLP:
    """BYOL's projector, and with dim = out its predictor: dim -> hidden -> out (arXiv 2006.07733)."""
    return mlp((dim, hidden, out), norm=True, bias=True, last_bias=False)


def swav_head(dim: int, *, hidden: int = 2048, out: int = 128) -> MLP:
    """SwAV's projector: dim -> hidden -> out (arXiv 2006.09882)."""
    return mlp((dim, hidden, out), norm=True, bias=True, last_bias=True)


def barlow_head(dim: int, *, out: int = 8192) -> MLP:
    """Barlow Twins' projector: dim -> out -> out -> out without biases (arXiv 2103.03230)."""
    return mlp((dim, out, out, out), norm=True, bias=False, last_bias=False)


def debiased_head(dim: int, *, hidden: int = 512, out: int = 128) -> MLP:
    """The projector of debiased contrastive learning and of HCL: dim -> hidden -> out (arXiv 2007.00224)."""
    return mlp((dim, hidden, out), norm=True, bias=False, last_bias=True)


def moco_v3_head(dim: int, *, hidden: int = 4096, out: int = 256) -> MLP:
    """MoCo v3's projector: dim -> hidden -> out, the last batch norm without scale and offset (arXiv 2104.02057)."""
    head = mlp((dim, hidden, out), norm=True, bias=False, last_bias=False, last_norm=True)
    head[-1].requires_grad_(False)
    return head


def paco_head(dim: int, *, out: int = 128) -> MLP:
    """PaCo's projector, and ResCom's: dim -> dim -> out with batch norm between (arXiv 2107.12028)."""
    return mlp((dim, dim, out), norm=True, bias=True, last_bias=True)


def gpaco_head(dim: int, *, out: int = 128) -> MLP:
    """GPaCo's projector: dim -> dim -> dim -> out without batch norm (arXiv 2209.12400)."""
    return mlp((dim, dim, dim, out), norm=False, bias=True, last_bias=True)


def simcse_head(dim: int, *, layer: bool = True) -> MLP:
    """SimCSE's layer behind the first token, of the width of the encoder, with tanh (arXiv 2104.08821).

    layer: without it the representation stays as it is.
    """
    return MLP([nn.Linear(dim, dim), nn.Tanh()] if layer else [], dim)


class LinearClassifier(nn.Linear):
    """A linear classifier that knows how frequent classes are: N x dim -> N x classes, logits of what they look like.

    counts: labeled samples of each class.  prior: whether their shares count; if not, classes count alike.
    """

    log_prior: Tensor  # classes, the logarithm of each one's share, or 0: no state

    def __init__(self, dim: int, counts: Sequence[int], *, prior: bool = True) -> None:
        super().__init__(dim, len(counts))
        known = log_prior(counts) if prior else torch.zeros(len(counts))
        self.register_buffer("log_prior", known, persistent=False)

    def balanced(self, h: Tensor) -> Tensor:
        """The logits of training, with the shares: the balanced softmax (Ren et al. 2020, arXiv 2007.10740)."""
        return self(h) + self.log_prior
