"""What the parts of a suite see: encoders, and the samples that these are measured on, with features computed once."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING, to
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.samples import drawn as positions
from nearfar.evaluation.calibration import fit_temperature
from nearfar.evaluation.held import holdouts
from nearfar.evaluation.linear import RIDGE_STRENGTHS, STRENGTHS, linear_fit, logistic, ridge
from nearfar.evaluation.protocol import finite
from nearfar.fewlabels.temperature import Calibration, calibrate
from nearfar.files import digest, replace
from nearfar.method import derive_seed
from nearfar.modalities.kind import plain_view
from nearfar.run import Run
from nearfar.studies.transfer import Row, form
from nearfar.training import probe as probing

Say = Callable[[str], None]
Splits = list[tuple[Tensor, Tensor]]


LARGE = 10**9
"""Rows x width x classes above which a linear classifier is ridge regression: logistic regression takes minutes."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier on training rows, and the temperature of its logits.

    weight: D x C, bias: C, from features to logits of `present`.  present: C, the classes that it knows, rising.
    plain: what logits are divided by before any calibration: 1, or of ridge regression, whose scores are no
    logits (here they deviate by 1 over classes), the temperature that is likeliest on the rows that it was fitted to.
    calibration: of logits, on held-out training rows.  facts: what was chosen.
    """

    weight: Tensor
    bias: Tensor
    present: Tensor
    plain: float
    calibration: Calibration
    facts: dict[str, object]

    def logits(self, features: Tensor) -> Tensor:
        """M x C, before any temperature, with gradient where the features have one."""
        return features @ self.weight.to(features) + self.bias.to(features)

    def numbers(self, label: Tensor) -> Tensor:
        """Labels as the classifier numbers them: M; of a class that it does not know the number C."""
        place = torch.searchsorted(self.present, label).clamp(max=len(self.present) - 1)
        return torch.where(self.present[place] == label, place, len(self.present))


def probe_of(x: Tensor, label: Tensor, group: Tensor | None, seed: int) -> Probe:
    """The linear classifier of training rows: a fifth of them fits its temperature, and its strength is chosen on parts
    of the others.  x: N x D.  label: N, all known.  group: N, rows that stay together."""
    present, y = label.unique(return_inverse=True)
    held = next(iter(holdouts(y, group, seed)), torch.zeros(len(y), dtype=torch.bool))
    if len(y[~held].unique()) < len(present):  # classes whose only rows would be held out
        held = torch.zeros_like(held)
    large = x.numel() * len(present) > LARGE
    fit = linear_fit(
        x[~held],
        y[~held],
        group=None if group is None else group[~held],
        solver=ridge if large else logistic,
        strengths=RIDGE_STRENGTHS if large else STRENGTHS,
        scales=("one",),
        seed=seed,
    )
    weight, bias = fit.folded()
    if large:  # scores of many classes are so small that no temperature in reach would suit them
        scale = (x[~held] @ weight + bias).std(1).mean().clamp(min=1e-12)
        weight, bias = weight / scale, bias / scale
    facts: dict[str, object] = {
        "classifier": "ridge" if large else "logistic",
        "strength": fit.config["strength"],
        "learned": int((~held).sum()),
        "calibrated_on": int(held.sum()),
    }
    plain = fit_temperature(x[~held] @ weight + bias, y[~held]) if large else 1.0
    return Probe(weight, bias, present, plain, calibrate(x[held] @ weight + bias, y[held]), facts)


@dataclass(kw_only=True)
class Case:
    """What is measured.

    rows: the encoders, what the run began with first and the trained one last.
    splits: pairs (learned, tested) of positions; none where no labels can be learned from.  unlabeled: why, or "".
    tested: all positions tested, or measured.
    other: samples of another data set, to be told from these.  beside: other runs, by name.
    folder: where features are kept.
    """

    run: Run
    rows: list[Row]
    samples: Samples
    splits: Splits
    tested: Tensor
    seed: int
    folder: Path
    unlabeled: str = ""
    other: Samples | None = None
    other_name: str = ""
    beside: dict[str, Run] = field(default_factory=dict)
    beside_data: dict[str, Samples] = field(default_factory=dict)
    _features: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    _probes: dict[str, Probe] = field(default_factory=dict)

    @property
    def label(self) -> Tensor:
        return self.samples.label

    @cached_property
    def group(self) -> Tensor | None:
        """Of each sample; None where none has one."""
        return self.samples.group if bool((self.samples.group != MISSING).any()) else None

    @property
    def main(self) -> Row:
        return self.rows[-1]

    @cached_property
    def digest(self) -> str:
        """Of contents, labels, groups, attributes and splits."""
        parts = [part.numpy().tobytes() for split in self.splits for part in split]
        own = fingerprint(digests(self.samples), self.samples)
        return digest(own.encode(), self.tested.numpy().tobytes(), *parts)

    @cached_property
    def learned(self) -> Tensor:
        """The positions that measures without a say of labels learn from: those of the first split, else all that are
        not of another split than that of training, or all."""
        if self.splits:
            return self.splits[0][0]
        learned = self.samples.of_split(*LEARNED)
        return learned.nonzero()[:, 0] if learned.any() else torch.arange(len(self.samples))

    @property
    def once(self) -> tuple[Tensor, Tensor]:
        """The positions learned from and tested of the one split, or the first fold."""
        return self.splits[0]

    def some_tested(self, most: int, *, known: bool = False) -> Tensor:
        """The tested positions of `once`, or so many of them, drawn by the seed: the same for every encoder.

        known: only those of classes that are learned from.
        """
        learned, tested = self.once
        if known:
            tested = tested[torch.isin(self.label[tested], self.label[learned])]
        return drawn(tested, most, self.seed)

    def features(self, row: Row) -> Tensor:
        """The representation of all samples: N x dim, float32, computed once and kept beside the run."""
        return self._kept(row, self.samples, "data")

    def other_features(self, row: Row) -> Tensor:
        """That of the other data set."""
        assert self.other is not None
        return self._kept(row, self.other, "other")

    def features_beside(self, name: str) -> Tensor:
        """That of the same samples by another run."""
        run = self.beside[name]
        return self._kept(Row(name, run, "trained"), self.beside_data[name], "beside")

    def _kept(self, row: Row, samples: Samples, what: str) -> Tensor:
        key = row.name, what
        if key not in self._features:
            path = self.features_path(row, samples)
            made = _read(path, len(samples))
            if made is None:
                made = row.features(samples)[""]
                array = made.numpy()
                path.parent.mkdir(exist_ok=True)
                replace(path, lambda temporary: _save(temporary, array))
            self._features[key] = finite(made, row.name)
        return self._features[key]

    def features_path(self, row: Row, samples: Samples) -> Path:
        """Where they are kept: by weights, contents of the samples, and the plain view in which the run sees them."""
        parts = ("plain view", row.digest, *digests(samples), form(row.run))
        return self.folder / f"features-{digest(*map(str.encode, parts))}.npz"

    def probe(self, row: Row) -> Probe:
        """The linear classifier on the features of the training rows of `once`."""
        if row.name not in self._probes:
            learned = self.once[0]
            own = None if self.group is None else self.group[learned]
            self._probes[row.name] = probe_of(self.features(row)[learned], self.label[learned], own, self.seed)
        return self._probes[row.name]

    def images(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The plain view of some samples of a kind of `pixels`, some at a time: positions n, and n x C x H x W in
        [0, 1], on the CPU."""
        plain = self.run.kind.plain(self.main.encoder)
        for some in index.split(min(128, self.run.batch)):
            yield some, plain_view(plain, self.samples, some, torch.device("cpu"))

    @torch.no_grad()
    def two_views(self, row: Row, index: Tensor) -> tuple[Tensor, Tensor]:
        """What an encoder makes of two random views of some samples, those of training: n x dim each."""
        views = self.run.kind.views(self.samples, self.run.settings, self.run.config["made"])
        device, batch = next(row.encoder.parameters()).device, self.run.batch
        turns = range(1 if len(views) > 1 else 2)
        generators = [torch.Generator().manual_seed(derive_seed(self.seed, turn, 8)) for turn in turns]
        drawn_for = [views.draw(len(index), generator) for generator in generators]
        made: tuple[list[Tensor], list[Tensor]] = ([], [])
        for start in range(0, len(index), batch):
            inputs = self.samples.fetch(index[start : start + batch])
            seen: list[Tensor] = []
            for draws in drawn_for:
                mine = draws.rows(slice(start, min(start + batch, len(index))))
                own = views.read(*inputs, draws=mine) if hasattr(views, "read") else inputs  # pyright: ignore[reportAttributeAccessIssue]
                each = views(*(to(part, device) for part in own), draws=mine)
                seen += [probing.viewed(row.encoder, view, batch) for view in each[:2]]
            made[0].append(seen[0])
            made[1].append(seen[1])
        return torch.cat(made[0]), torch.cat(made[1])

    @cached_property
    def pace(self) -> float:
        """Seconds for the plain view of one sample: the least of three tries on some, as others may be busy."""
        index = torch.arange(min(64, self.run.batch, len(self.samples)))
        plain, encoder = self.run.kind.plain(self.main.encoder), self.main.encoder
        device, tries = next(encoder.parameters()).device, list[float]()
        with torch.no_grad():
            encoder(plain_view(plain, self.samples, index[:8], device))
            for _ in range(3):
                start = time.perf_counter()
                encoder(plain_view(plain, self.samples, index, device)).cpu()
                tries.append(time.perf_counter() - start)
        return min(tries) / len(index)


def drawn(index: Tensor, most: int, seed: int) -> Tensor:
    """The positions, or so many of them, in their order."""
    return index[positions(len(index), most, derive_seed(seed, 9))]


def how(parts: Sequence[object]) -> str:
    """A digest of settings."""
    return digest(json.dumps(parts, sort_keys=True, default=str).encode())


def _save(path: Path, features: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.savez(file, features=features)


def _read(path: Path, rows: int) -> Tensor | None:
    """Features that were kept; None where there are none, or they are damaged: a .npz file has a checksum."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            features = held["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return torch.from_numpy(features) if features.ndim == 2 and len(features) == rows else None
