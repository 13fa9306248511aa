"""Kinds of data. Training, evaluation and reports know nothing else of what the samples are.

A kind is a module with the functions below: `images`, `tables`. It is chosen by `Settings.kind`, which recipes set.
`made` is what config.yaml keeps of a run under that name: the facts of the kind among others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from nearfar.batch import to
from nearfar.data.samples import Samples
from nearfar.modalities.encoder import AnyEncoder
from nearfar.report.shown import Shown
from nearfar.settings import Settings
from nearfar.training.options import Viewer


class Kind(Protocol):
    """What is asked of a kind of data."""

    RAW: str
    """What a representation is compared with that no network has made, such as "raw pixels"."""

    def open_samples(self, data: Any, settings: Settings) -> Samples:
        """The data of a run."""
        ...

    def open_as(self, data: Any, made: dict[str, Any], *, labels: Any, label_column: str, max_bad: float) -> Samples:
        """Data in the form in which the encoder of a run saw its training data."""
        ...

    def facts(self, data: Any, settings: Settings) -> dict[str, Any]:
        """What config.yaml keeps of the samples: `channels` (of a row, its inputs) among others."""
        ...

    def make_encoder(self, data: Any, settings: Settings, facts: dict[str, Any]) -> AnyEncoder:
        """The encoder that the settings name, for these samples."""
        ...

    def make_views(self, data: Any, settings: Settings, facts: dict[str, Any]) -> Viewer:
        """The views that the settings name."""
        ...

    def insist_fitting(self, encoder: AnyEncoder, viewer: Any) -> None:
        """Raise ValueError where the encoder cannot take one of the views."""
        ...

    def plain(self, encoder: AnyEncoder) -> Viewer:
        """The one view without chance, for evaluation."""
        ...

    def raw(self, encoder: AnyEncoder) -> Viewer:
        """The view of which the rows are what a representation is compared with."""
        ...

    def describe(self, facts: dict[str, Any]) -> str:
        """A word on what the encoder takes, such as "at 32 px"."""
        ...

    def sheet(self, data: Any, viewer: Any, index: Tensor, draws: Any) -> Image:
        """An image of some samples and their views."""
        ...

    def grid(self, data: Any, index: Tensor, captions: list[str]) -> Image:
        """An image of some samples, with a word on each: two lines at most."""
        ...

    def copies(self, data: Any) -> Tensor:
        """Which samples are copies, or nearly copies, of one another: N, int64, a number for each set, or MISSING."""
        ...

    def shown(self, data: Any) -> Shown:
        """What reports show of each sample."""
        ...


def of(name: str) -> Kind:
    """The kind called `name`, "image" or "table"."""
    module = import_module(f"nearfar.modalities.{name}.kind")
    return module  # pyright: ignore[reportReturnType] (a module is a kind by its functions)


@torch.no_grad()
def seen(plain: Viewer, data: Samples, index: Tensor, device: torch.device) -> Tensor:
    """The plain view of some samples."""
    (view,) = plain(*(to(part, device) for part in data.fetch(index)))
    return view
