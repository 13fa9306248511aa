"""Which samples to label next: those that stand for many, or for many that a classifier is unsure of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.labels import meet, present
from nearfar.data.samples import Samples
from nearfar.errors import UserError, printable
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.settings import LabelPlanSettings, given, with_keywords
from nearfar.files import replace_csv
from nearfar.run import Run

CANDIDATES = 5000
"""Samples of which all pairs are compared, drawn by the seed where there are more."""
DRAWS = 20
"""Random choices that a plan is compared with."""


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Samples to label, the most useful first.

    samples: all there are.
    chosen: n positions.
    stands_for: n, how many of the samples are nearest to each, among those chosen and those labeled before.
    near: the mean cosine of a sample to the nearest of these.
    near_random: that for as many drawn at random, the mean of twenty draws.
    guess: N, what a classifier says of each sample, where it was asked.
    unsure: N, 1 - (p of its first choice - p of its second).
    """

    samples: Samples
    chosen: Tensor
    stands_for: Tensor
    near: float
    near_random: float
    guess: list[str] | None = None
    unsure: Tensor | None = None

    def write(self, path: str | Path, *, label_column: str = "label") -> Path:
        """As a table that --labels reads once its labels are filled in: path (or index), label, split, why.

        Samples that have a label follow, so that it holds all labels there are.
        """
        samples = self.samples

        def rows() -> Iterator[list[str]]:
            yield ["index" if samples.numbered else "path", label_column, "split", "why"]
            for i, n in zip(self.chosen.tolist(), self.stands_for.tolist(), strict=True):
                why = f"stands for {n} of {len(samples)}"
                if self.guess is not None and self.unsure is not None:
                    why += f"; a guess is {self.guess[i]}, unsure by {float(self.unsure[i]):.2f}"
                yield [samples.names[i], "", samples.split[i], why]
            for i in (samples.label != MISSING).nonzero()[:, 0].tolist():
                yield [samples.names[i], samples.classes[int(samples.label[i])], samples.split[i], "was labeled before"]

        return replace_csv(Path(path), rows())

    def captions(self) -> list[str]:
        """A name for each chosen sample, and on a second line its place, what it stands for, and the guess."""
        captions = []
        for place, (i, n) in enumerate(zip(self.chosen.tolist(), self.stands_for.tolist(), strict=True), 1):
            guess = "" if self.guess is None else f"; {self.guess[i]}?"
            captions.append(f"{printable(self.samples.names[i])}\n{place}: stands for {n}{guess}")
        return captions


def label_plan(
    run: Run | Classifier, data: Any, settings: LabelPlanSettings | None = None, **keywords: Any
) -> LabelPlan:
    """Choose samples to label, among those without a label that are in no split test or val.

    settings, keywords: fields of `LabelPlanSettings`, such as count=20, labels="labels.csv".
    By coverage those are taken to which, with the labeled ones, all samples lie nearest: each in turn is the one that
    raises the sum of everyone's cosine to its nearest the most (facility location). By uncertainty that sum is weighed
    by how unsure a classifier is of each.
    Raises ValueError where there are not so many to choose from, or uncertainty is asked of a run; TypeError for a
    keyword that is no field.
    """
    settings = with_keywords(settings or LabelPlanSettings(), keywords)
    count = settings.count
    classifier = run if isinstance(run, Classifier) else None
    by = settings.by if settings.by != "auto" else "coverage" if classifier is None else "uncertainty"
    if by == "uncertainty" and classifier is None:
        raise UserError("--by uncertainty asks a classifier: make one with `nearfar finetune RUN DATA --labels FILE`")
    own = run.run if isinstance(run, Classifier) else run
    samples = own.open(data, labels=given(settings), label_column=settings.label_column, keep_words=settings.keep_words)
    if classifier is not None:
        known = present(samples.label, samples.classes)
        notes = meet(classifier.classes, known, ours="the classifier", theirs="the labels of DATA")
        samples = dataclasses.replace(samples, notes=[*samples.notes, *notes])
    free = ~samples.of_split("test", "val") & (samples.label == MISSING)
    if not 0 < count <= int(free.sum()):
        raise UserError(
            f"--count {count}: {int(free.sum())} of {len(samples)} samples have no label and are in no split test or "
            "val; give a number from 1 to that"
        )
    guess = unsure = None
    if classifier is None:
        features = own.embed(samples)
    else:
        features = classifier.features(samples)
        p = classifier.probabilities(features)
        first, second = p.topk(2).values.T
        unsure = 1 - (first - second)
        guess = [classifier.classes[c] for c in p.argmax(1).tolist()]
    directions = F.normalize(features - features.mean(0), dim=1)
    weight = unsure if by == "uncertainty" and unsure is not None else torch.ones(len(samples))
    known = (samples.label != MISSING).nonzero()[:, 0]
    chosen, near, near_random = _choose(directions, weight, free.nonzero()[:, 0], known, count, settings.seed)
    together = torch.cat([chosen, known])
    owner = torch.cat([(part @ directions[together].T).argmax(1) for part in directions.split(4096)])
    return LabelPlan(
        samples=samples,
        chosen=chosen,
        stands_for=torch.bincount(owner, minlength=len(together))[:count],
        near=near,
        near_random=near_random,
        guess=guess,
        unsure=unsure,
    )


def _choose(
    directions: Tensor, weight: Tensor, pool: Tensor, known: Tensor, count: int, seed: int
) -> tuple[Tensor, float, float]:
    """Positions of the chosen samples; the mean cosine to the nearest of these or of the labeled; that by chance.

    directions: N x D, unit rows.  weight: N.  pool: positions to choose from.  known: positions of the labeled.
    """
    generator = torch.Generator().manual_seed(seed)
    voters = torch.randperm(len(directions), generator=generator)[:CANDIDATES].sort().values
    pool = pool[torch.randperm(len(pool), generator=generator)[: max(CANDIDATES, count)]].sort().values
    nearest = _nearest(directions[voters], directions[known])
    chosen = pool[facilities(directions[voters], directions[pool], count, weight=weight[voters], nearest=nearest)]
    draws = [pool[torch.randperm(len(pool), generator=generator)[:count]] for _ in range(DRAWS)]
    near, *others = (
        float(torch.maximum(nearest, _nearest(directions[voters], directions[some])).mean())
        for some in (chosen, *draws)
    )
    return chosen, near, sum(others) / len(others)


def facilities(
    voters: Tensor, candidates: Tensor, count: int, *, weight: Tensor | None = None, nearest: Tensor | None = None
) -> Tensor:
    """Greedy facility location: positions of `count` candidates, each the one that adds most to

        sum_i weight_i max_{j chosen} voters_i . candidates_j

    voters: M x D and candidates: N x D, unit rows.  weight: M.  nearest: M, what is reached before any is chosen, -1 by
    default.  The sum is at least 1 - 1/e of the best possible (Nemhauser et al. 1978).
    """
    cosine = voters @ candidates.T  # M x N
    reached = torch.full((len(voters),), -1.0) if nearest is None else nearest.clone()
    weight = torch.ones(len(voters)) if weight is None else weight
    chosen: list[int] = []
    for _ in range(count):
        gain = weight @ (cosine - reached[:, None]).clamp_(min=0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        reached = torch.maximum(reached, cosine[:, chosen[-1]])
    return torch.tensor(chosen)


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """The cosine of each row to the nearest of the others, -1 where there are none."""
    return (rows @ others.T).amax(1) if len(others) else torch.full((len(rows),), -1.0)
