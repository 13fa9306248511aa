"""What training asks of data, and of the views made of them: the two protocols between the rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Generator, Tensor


class Source(Protocol):
    """N samples, known by position. `nearfar.data.samples.Samples` is one; so is any class with these members."""

    label: Tensor  # N int64, or MISSING
    group: Tensor  # N int64, or MISSING
    attribute: Tensor  # N int64, or MISSING

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> tuple[Any, ...]:
        """The inputs of some samples, in the form in which the views take them.

        Raises `nearfar.errors.Lost` where some can be read no more: see `nearfar.training.lost`.
        """
        ...


class Draws(Protocol):
    """The random numbers from which the views of a global batch follow."""

    def rows(self, which: slice, /) -> Any:
        """Those of some samples, such as the samples of one rank."""
        ...


class Views(Protocol):
    """What turns inputs into a list of views. All chance is in the draws."""

    # read: where it is there, (*inputs, draws=Draws) -> inputs, what these views want of inputs that were not read yet,
    # such as a crop of a long recording. Training calls it in the thread that fetches; `__call__` takes either. Raises
    # Lost, as `Source.fetch` does.
    # places: where it is there, (*inputs, draws=Draws) -> V of N x 2 x 3, where in the sample each view lies: see
    # `nearfar.batch.Batch`. Methods that need it are not for other views.
    # alike: bool, where it is there and true, views of a sample are so alike by nature that even an untrained network
    # finds them, as of sentences, most of whose words are the same.

    def __len__(self) -> int:
        """How many views are made of a sample."""
        ...

    def draw(self, n: int, generator: Generator, /) -> Draws:
        """The draws for n samples."""
        ...

    __call__: Callable[..., list[Any]]  # (*inputs, draws=Draws) -> V views
