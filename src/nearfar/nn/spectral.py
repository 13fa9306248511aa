"""Spectral normalization: the weights of a layer divided by their largest singular value (arXiv 1802.05957)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

M = TypeVar("M", bound=nn.Module)


class Spectral(_SpectralNorm):
    """torch's parametrization and its state, but for two things: a forward pass only reads the singular vectors, which
    `iterate` moves once a step; and autocast does not lower their products."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.vdot(self._u, weight.flatten(1) @ self._v)

    def iterate(self, weight: Tensor) -> None:
        self._power_method(weight.flatten(1), self.n_power_iterations)


def spectral(layer: M) -> M:
    """The layer, with weights (a matrix, or the kernels of a convolution) of spectral norm 1. In place.

    They begin anew as orthogonal ones, as in BigGAN: of other random weights only the largest singular value would be
    1, and layer by layer little would be left of what goes in.
    """
    nn.init.orthogonal_(layer.get_parameter("weight"))
    register_parametrization(layer, "weight", Spectral(layer.get_parameter("weight").detach()))
    return layer


@torch.no_grad()
def iterate(module: nn.Module) -> None:
    """Bring each spectral norm inside a module up to its weights, by one iteration of the power method."""
    for part in module.modules():
        if isinstance(part, ParametrizationList) and isinstance(norm := part[0], Spectral):
            norm.iterate(part.get_parameter("original"))
