"""A classifier: an encoder, the layers that name classes, how sure it may be, and the labeled samples it rests on.

It lives in a run directory, so that whatever is done with a run can be done with it too. `store.py` says what its two
files hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.data.samples import Samples
from nearfar.evaluation.knn import neighbors
from nearfar.fewlabels import store
from nearfar.files import replace_csv
from nearfar.ranges import NonNegativeInt, checked
from nearfar.run import Run
from nearfar.training import probe as probing

FEW = 64
"""Samples on which an encoder is tried before long work rests on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a classifier says of N samples.

    label: N names of classes.
    probability: N, of that class.
    probabilities: N x C.
    near: for each sample the nearest labeled ones, as (name, label, cosine), nearest first.
    calibrated: whether the probabilities were fitted to labeled rows that the classifier had not learned from.
    """

    names: list[str]
    label: list[str]
    probability: Tensor
    probabilities: Tensor
    near: list[list[tuple[str, str, float]]]
    calibrated: bool

    def __len__(self) -> int:
        return len(self.names)

    def write(self, path: str | Path) -> Path:
        """As a CSV: path, label, probability, calibrated, and near_1, near_1_label, near_1_similarity, and so on."""
        most = max(map(len, self.near), default=0)
        heads = [f"near_{i}{part}" for i in range(1, most + 1) for part in ("", "_label", "_similarity")]

        def rows() -> Iterator[list[str]]:
            yield ["path", "label", "probability", "calibrated", *heads]
            calibrated = "yes" if self.calibrated else "no"
            for name, label, p, near in zip(self.names, self.label, self.probability, self.near, strict=True):
                cells = [cell for other, own, s in near for cell in (other, own, f"{s:.3f}")]
                yield [name, label, f"{float(p):.4f}", calibrated, *cells]

        return replace_csv(Path(path), rows())


class Classifier:
    """A classifier, read from the directory `path`.

    run: the directory as a run, whose encoder it is.
    classes: their names.
    temperature: what logits are divided by; None where there were too few labels to fit it.
    evidence: the labeled samples.
    facts: how it was made.
    trust: whether files of code that the directory names may be run (see `nearfar.load`).
    Raises FileNotFoundError where there is none, ValueError where it is damaged.
    """

    def __init__(self, path: str | Path, *, trust: bool = False) -> None:
        self.path = Path(path)
        stored = store.read(self.path)
        self.run = Run(self.path, trust=trust)
        self.classes, self.temperature = stored.classes, stored.temperature
        self.layers, self.evidence, self.facts = stored.layers, stored.evidence, stored.facts

    @cached_property
    def network(self) -> nn.Sequential:
        """From views to what the last layer sees: in eval mode, on the device of the run."""
        return nn.Sequential(self.run.encoder, *self.layers[:-1]).eval().to(self.run.device)

    def open(self, data: Any) -> Samples:
        """Samples to name: see `nearfar.run.Run.open_new`."""
        return self.run.open_new(data)

    def features(self, samples: Samples) -> Tensor:
        """What the last layer sees of every sample: N x D."""
        return embed(self.network, self.run, samples)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """The logits of rows of features: N x C."""
        return self.layers[-1](features)

    def probabilities(self, features: Tensor) -> Tensor:
        """The probability of each class, for rows of features: N x C."""
        return (self.logits(features) / (self.temperature or 1.0)).softmax(1)

    @checked
    def predict(self, data: Any, *, near: NonNegativeInt = 3) -> Predictions:
        """Label, probability and the nearest labeled samples, for every sample in order.

        data: what `open` takes, or samples.
        near: how many labeled samples to name.
        """
        samples = data if isinstance(data, Samples) else self.open(data)
        features = self.features(samples)
        p = self.probabilities(features)  # N x C
        answer = p.argmax(1)
        return Predictions(
            names=samples.names,
            label=[self.classes[c] for c in answer.tolist()],
            probability=p.gather(1, answer[:, None])[:, 0],
            probabilities=p,
            near=self._nearest(features, near),
            calibrated=self.temperature is not None,
        )

    def _nearest(self, features: Tensor, most: int) -> list[list[tuple[str, str, float]]]:
        known = self.evidence
        if not len(known) or most < 1 or not len(features):
            return [[] for _ in features]
        cosine, index = neighbors(features, known.features, min(most, len(known)))
        return [
            [(known.names[i], self.classes[int(known.label[i])], s) for i, s in zip(row, values, strict=True)]
            for row, values in zip(index.tolist(), cosine.tolist(), strict=True)
        ]


def embed(network: nn.Module, run: Run, samples: Samples) -> Tensor:
    """What a network makes of the plain view of every sample: N x whatever; N x 0 where there is none."""
    # Some networks cannot be given no sample at all.
    return (
        probing.embed(network, run.kind.plain(run.encoder), samples, run.batch) if len(samples) else torch.empty(0, 0)
    )
