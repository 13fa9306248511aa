"""A user's own module as an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import WrongType
from nearfar.method import Encoder, Stage


def sees_steps(net: nn.Module) -> bool:
    """Whether a module has `steps`, as `Encoder.steps` describes them."""
    return bool(getattr(net, "sequential", callable(getattr(net, "steps", None))))


class Wrapped(Encoder):
    """Any module with a width `.dim`, which takes views and gives N x dim, as an encoder.

    net: the module.  spec: says that it is the user's "own": it is built again only from its code.
    example: (n, generator) -> a view of n samples of noise.
    Raises TypeError where `.dim` is no whole number.
    """

    def __init__(self, net: nn.Module, spec: dict[str, Any], example: Callable[..., Any] | None = None) -> None:
        super().__init__()
        dim = getattr(net, "dim", None)
        if not isinstance(dim, int) or dim < 1:
            raise WrongType(
                f"the encoder {type(net).__name__} does not tell how many numbers it gives a sample: set its "
                f"attribute `dim`, such as self.dim = 512 (it is {dim!r})"
            )
        self.net, self.dim, self.spec, self._example = net, dim, spec, example

    def forward(self, view: Any) -> Tensor:
        return self.net(view)

    def example(self, n: int, generator: torch.Generator | None = None) -> Any:
        return super().example(n, generator) if self._example is None else self._example(n, generator)

    def stages(self) -> list[Stage]:
        """Those of the module, where it has any."""
        own = getattr(self.net, "stages", None)
        return super().stages() if own is None else own()

    def streams(self) -> list[Stage]:
        """Those of the module, where it has any."""
        own = getattr(self.net, "streams", None)
        return super().streams() if own is None else own()

    def captioner(self, reads: int, *, width: int = 128, layers: int = 2) -> nn.Module:
        """That of the module, where it has one."""
        own = getattr(self.net, "captioner", None)
        return (
            super().captioner(reads, width=width, layers=layers)
            if own is None
            else own(reads, width=width, layers=layers)
        )

    @property
    def sequential(self) -> bool:
        return sees_steps(self.net)

    def steps(self) -> tuple[Stage, Stage]:
        """Those of the module, where it has any."""
        own = getattr(self.net, "steps", None)
        return super().steps() if own is None else own()

    def network(self) -> nn.Module:
        return self.net
