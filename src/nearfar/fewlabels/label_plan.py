"""Which samples to label next: those that stand for many, or for many that a classifier is unsure of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.fewlabels.classifier import Classifier
from nearfar.files import replace_csv
from nearfar.run import Run

CANDIDATES = 5000
"""Samples of which the pairs are looked at, drawn by the seed where there are more."""

Wanted = Literal["coverage", "uncertainty"]


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Samples to label, the most useful first.

    samples: all that were looked at.  chosen: n positions.  stands_for: n, how many of the samples are nearest to each,
    among those chosen and those labeled before.  near: the mean cosine of a sample to the nearest of these;
    near_random: that for as many drawn at random, the mean of twenty draws.
    guess, unsure: what a classifier says of each sample, and 1 - (p of its first choice - p of its second); where it
    was asked.
    """

    samples: Samples
    chosen: Tensor
    stands_for: Tensor
    near: float
    near_random: float
    guess: list[str] | None = None
    unsure: Tensor | None = None

    def write(self, path: str | Path, *, label_column: str = "label") -> Path:
        """As a table that --labels reads once its labels are filled in: path (or index), label, why.

        Samples that have a label follow, so that it holds all labels there are.
        """
        samples = self.samples
        rows = [["index" if samples.numbered else "path", label_column, "split", "why"]]
        for i, n in zip(self.chosen.tolist(), self.stands_for.tolist(), strict=True):
            why = f"stands for {n} of {len(samples)}"
            if self.guess is not None and self.unsure is not None:
                why += f"; a guess is {self.guess[i]}, unsure by {float(self.unsure[i]):.2f}"
            rows.append([samples.names[i], "", samples.split[i], why])
        for i in (samples.label != MISSING).nonzero()[:, 0].tolist():
            known = samples.classes[int(samples.label[i])]
            rows.append([samples.names[i], known, samples.split[i], "was labeled before"])
        return replace_csv(Path(path), rows)


def label_plan(
    run: Run | Classifier,
    data: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    count: int = 20,
    by: Wanted | None = None,
    seed: int = 0,
) -> LabelPlan:
    """Choose `count` samples to label, among those without a label that are in no split test or val.

    labels: as in training; "none" takes the samples as if none had a label.
    by: "coverage" takes those to which, with the labeled ones, all samples lie nearest: each in turn is the one that
    raises the sum of everyone's cosine to its nearest the most (facility location).  "uncertainty" weighs that sum by
    how unsure a classifier is of each.  By default coverage for a run, uncertainty for a classifier.
    Raises ValueError where there are not so many to choose from, or uncertainty is asked of a run.
    """
    classifier = run if isinstance(run, Classifier) else None
    by = by or ("coverage" if classifier is None else "uncertainty")
    if by == "uncertainty" and classifier is None:
        raise ValueError("--by uncertainty asks a classifier: make one with `nearfar finetune RUN DATA --labels FILE`")
    opened = run.run if isinstance(run, Classifier) else run
    samples = opened.open(data, labels=None if labels == "none" else labels, label_column=label_column)
    if labels == "none":
        samples = dataclasses.replace(samples, label=torch.full_like(samples.label, MISSING), classes=[])
    free = ~samples.of_split("test", "val") & (samples.label == MISSING)
    if not 0 < count <= int(free.sum()):
        raise ValueError(
            f"--count {count}: {int(free.sum())} of {len(samples)} samples have no label and are in no split test or "
            "val; give a number from 1 to that"
        )
    features = classifier.features(samples) if classifier is not None else opened.embed(samples)
    directions = F.normalize(features - features.mean(0), dim=1)
    guess = unsure = None
    if classifier is not None:
        p = (classifier.logits(features) / (classifier.temperature or 1.0)).softmax(1)
        first, second = p.topk(2).values.T
        unsure = 1 - (first - second)
        guess = [classifier.classes[c] for c in p.argmax(1).tolist()]
    weight = unsure if by == "uncertainty" and unsure is not None else torch.ones(len(samples))
    generator = torch.Generator().manual_seed(seed)
    pool = free.nonzero()[:, 0]
    known = (samples.label != MISSING).nonzero()[:, 0]
    judges = torch.randperm(len(samples), generator=generator)[:CANDIDATES].sort().values
    pool = pool[torch.randperm(len(pool), generator=generator)[: max(CANDIDATES, count)]].sort().values
    nearest = _nearest(directions[judges], directions[known])
    chosen = pool[facilities(directions[judges], directions[pool], count, weight=weight[judges], nearest=nearest)]
    draws = [pool[torch.randperm(len(pool), generator=generator)[:count]] for _ in range(20)]
    near, *others = (
        float(torch.maximum(nearest, _nearest(directions[judges], directions[some])).mean())
        for some in (chosen, *draws)
    )
    together = torch.cat([chosen, known])
    owner = torch.cat([(part @ directions[together].T).argmax(1) for part in directions.split(4096)])
    return LabelPlan(
        samples=samples,
        chosen=chosen,
        stands_for=torch.bincount(owner, minlength=len(together))[:count],
        near=near,
        near_random=sum(others) / len(others),
        guess=guess,
        unsure=unsure,
    )


def facilities(
    judges: Tensor, candidates: Tensor, count: int, *, weight: Tensor | None = None, nearest: Tensor | None = None
) -> Tensor:
    """Greedy facility location: positions of `count` candidates, each the one that adds most to

        sum_i weight_i max_{j chosen} judges_i . candidates_j

    judges: M x D and candidates: N x D, unit rows.  weight: M.  nearest: M, what is reached before any is chosen, -1 by
    default.  The sum is at least 1 - 1/e of the best possible (Nemhauser et al. 1978).
    """
    likeness = judges @ candidates.T  # M x N
    reached = torch.full((len(judges),), -1.0) if nearest is None else nearest.clone()
    weight = torch.ones(len(judges)) if weight is None else weight
    chosen: list[int] = []
    for _ in range(count):
        gain = weight @ (likeness - reached[:, None]).clamp_(min=0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        reached = torch.maximum(reached, likeness[:, chosen[-1]])
    return torch.tensor(chosen)


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """The cosine of each row to the nearest of the others, -1 where there are none."""
    return (rows @ others.T).amax(1) if len(others) else torch.full((len(rows),), -1.0)
