"""A function as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Apply(nn.Module):
    """A function without weights as a layer, to stand in a sequence of layers."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)
