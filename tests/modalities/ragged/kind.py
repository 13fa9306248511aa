"""A kind of data of one's own, in one file: rows of numbers of unequal length, such as short series of measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

import nearfar
from nearfar.data.labels import array_labels
from nearfar.data.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Settings(nearfar.Settings):
    """How to train."""

    encoder: str = "mean"
    """mean: a network on each number, and the mean of what it gives."""
    views: str = "crop"
    """crop: a random stretch of each row, with noise."""
    least: float = 0.5
    """The smallest share of a row that a view keeps."""


@dataclass(frozen=True)
class Series:
    """N rows of unequal length as one view: values N x L, padded with zeros, and lengths N."""

    values: Tensor
    length: Tensor

    @classmethod
    def pad(cls, rows: Sequence[Tensor]) -> Series:
        return cls(nn.utils.rnn.pad_sequence(list(rows), batch_first=True), torch.tensor([len(row) for row in rows]))

    def rows(self) -> list[Tensor]:
        return [row[:n] for row, n in zip(self.values, self.length.tolist(), strict=True)]

    def cat(self, others: Sequence[Series]) -> Series:
        return Series.pad([row for view in (self, *others) for row in view.rows()])


@dataclass(slots=True, eq=False, kw_only=True)
class Rows(Samples):
    """The samples: each a row of numbers."""

    PER_SAMPLE = ("rows",)
    rows: list[Tensor]

    def fetch(self, index: Tensor) -> tuple[Series]:
        return (Series.pad([self.rows[i] for i in index.tolist()]),)

    def contents(self) -> Iterator[bytes]:
        yield from (row.numpy().tobytes() for row in self.rows)

    def to(self, device: torch.device | str) -> Self:
        return self


class Crop:
    """Two views: a random stretch of each row, with noise; or one, the row as it is."""

    def __init__(self, least: float | None, count: int) -> None:
        self.least, self.count = least, count

    def __len__(self) -> int:
        return self.count

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        return Draws(torch.rand(n, self.count, 3, generator=generator))

    def __call__(self, series: Series, draws: Draws | None = None) -> list[Series]:
        if self.least is None or draws is None:
            return [series] * self.count
        return [Series.pad(list(map(self.stretch, series.rows(), draws.numbers[:, v]))) for v in range(self.count)]

    def stretch(self, row: Tensor, draw: Tensor) -> Tensor:
        assert self.least is not None
        length = max(2, round(len(row) * float(self.least + (1 - self.least) * draw[0])))
        start = int(draw[1] * (len(row) - length + 1))
        return row[start : start + length] * (0.9 + 0.2 * draw[2])


@dataclass(frozen=True)
class Draws:
    numbers: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws(self.numbers[rows])


class Mean(nearfar.Encoder):
    """Each number beside the one before it through a small network, then the mean over the row: N x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.spec, self.notes = 16, {"kind": str(Path(__file__)), "name": "mean"}, []
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, view: Series) -> Tensor:
        pairs = torch.stack([view.values, view.values.roll(1, 1)], 2)  # N x L x 2
        inside = (torch.arange(pairs.shape[1]) < view.length[:, None])[..., None]
        return (self.net(pairs) * inside).sum(1) / view.length[:, None]

    def example(self, n: int, generator: torch.Generator | None = None) -> Series:
        return Series(torch.rand(n, 5, generator=generator), torch.full((n,), 5))


class RaggedKind(nearfar.Kind):
    noun = "series"
    Settings = Settings

    def recognizes(self, data: Any) -> bool:
        return str(data).endswith(".jsonl")

    def open(self, data: Any, settings: Any) -> Rows:
        if isinstance(data, Rows):
            return data
        lines = [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]
        rows = [torch.tensor(line["row"], dtype=torch.float32) for line in lines]
        known = array_labels([line["label"] for line in lines], len(rows))
        parts = {"label": known.label, "classes": known.classes, "group": known.group, "split": known.split}
        return Rows(names=list(map(str, range(len(rows)))), rows=rows, **parts)

    def encoder(self, samples: Any, settings: Any, facts: dict[str, Any]) -> Mean:
        return Mean()

    def encoder_from_spec(self, spec: dict[str, Any]) -> Mean:
        return Mean()

    def views(self, samples: Any, settings: Any, facts: dict[str, Any]) -> Crop:
        return Crop(settings.least, 2)

    def plain(self, encoder: Any) -> Crop:
        return Crop(None, 1)
