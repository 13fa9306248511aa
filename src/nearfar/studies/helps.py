"""Will pre-training help me? Accuracy on one's own data against the number of labels, with and without it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.splits import holdout
from nearfar.errors import UserError
from nearfar.evaluation.intervals import PERCENT, POINTS, Interval, judged, of_answers, over_seeds
from nearfar.evaluation.protocol import packed, unpacked
from nearfar.fewlabels.classifier import embed
from nearfar.fewlabels.frozen import frozen
from nearfar.fewlabels.rows import Rows, labeled_rows
from nearfar.fewlabels.settings import Tuning
from nearfar.fewlabels.tuned import Trainer, tune
from nearfar.method import Stage
from nearfar.modalities import kind as kinds
from nearfar.run import Run
from nearfar.studies.asked import Helps
from nearfar.studies.base import Page, Study
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing
from nearfar.training.build import insist_ready
from nearfar.training.log import is_told

SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF, FURTHER = (
    "from scratch",
    "linear on untrained",
    "linear on pre-trained",
    "pre-trained, fine-tuned",
    "linear on given weights",
    "linear on given weights, trained on",
)
WITH, WITHOUT = (LINEAR, TUNED), (SCRATCH, UNTRAINED)

Accuracies = dict[str, dict[str, list[float]]]
"""In per cent, by way to a classifier, then by labels a class; one of each seed."""
Answers = dict[str, dict[str, list[str]]]
"""Likewise, which answers to the tested samples are right, as `packed` writes them."""


class PretrainingHelps(Study[Helps]):
    """Pre-train on the training part, without its labels; then classify with and without, on few labels.

    Rows of the split test are tested; where there are none, a stratified fifth is, which no training sees.
    """

    name = "helps"

    def prepare(self) -> None:
        ask = self.ask
        flags = ask.flags() | {"probe_every": 0} | ({"epochs": ask.epochs} if ask.epochs else {})
        self.plan = plans.make(ask.method, ask.data, ask.recipe or None, flags)
        self.kind = kinds.of(self.plan.kind)
        unlabeled, column = f"no sample has a label: {self.kind.unlabeled}", ask.label_column
        self.kind.insist_there(ask.data, ask.labels, LabelColumn.of(column), wanted=unlabeled)
        if ask.weights:
            self.kind.off_the_shelf(ask.shelf, ask.weights, None)  # or an error, before anything is decoded
        if ask.further:
            self.further = plans.make(
                ask.method, ask.data, "continue", flags | {"weights": ask.weights, "encoder": ask.shelf}
            )
            insist_ready(self.further)
        if ask.run:
            samples = Run(ask.run, trust=ask.trust).open(
                ask.data, labels=ask.labels or None, label_column=column, keep_words=ask.keep_words
            )
        else:
            insist_ready(self.plan)
            samples = self.kind.samples(ask.data, self.plan.settings)
        self.samples = self._with_test(samples)
        for note in [*samples.notes, *labeled_rows(self.samples, unlabeled=self.kind.unlabeled).notes]:
            self.say(note)
        if ask.weights:
            self.kind.off_the_shelf(ask.shelf, ask.weights, self.samples)  # whether they can be read
        if ask.further:  # or an error: of images of other channels
            self.kind.encoder(self.samples, self.further.settings, self.kind.facts(self.samples, self.further.settings))

    def _with_test(self, samples: Samples) -> Samples:
        """The samples with a split test: theirs, or a stratified fifth of those that have labels."""
        known = samples.label != MISSING
        if (samples.of_split("test") & known).any():
            return samples
        if not known.any():
            raise UserError(f"no sample has a label: {self.kind.unlabeled}")
        label = torch.where(samples.of_split(*LEARNED), samples.label, MISSING)
        _, test = holdout(label, samples.group, share=0.2, seed=0)
        held = set(test.tolist())
        self.say(f"The labels name no split test: {len(held)} labeled samples are held out, and no training sees them.")
        split = ["test" if i in held else name for i, name in enumerate(samples.split)]
        return dataclasses.replace(samples, split=split)

    def measure(self) -> bool:
        if not self.ask.run and not self._pretrain(self.plan, "pretrained", "Pre-training"):
            return False
        if self.ask.further and not self._pretrain(self.further, "further", "From the given weights,"):
            return False
        ask = self.ask
        run = Run(ask.run, trust=ask.trust) if ask.run else Run(self.out / "pretrained", trust=True)
        tested = (self.samples.of_split("test") & (self.samples.label != MISSING)).nonzero()[:, 0]
        seen = int(run.seen(self.samples.subset(tested)).sum())
        if seen:
            self.say(f"{seen} of {len(tested)} samples that are tested were in the pre-training of {self.ask.run!r}.")
        self.measured |= {"tested": len(tested), "tested_in_pretraining": seen}
        self._measure(run, self.measured.setdefault("accuracies", {}))
        return True

    def _pretrain(self, plan: plans.Plan, name: str, what: str) -> bool:
        """Train in a folder of the study. Whether that came to its end."""
        part = self.samples.subset(self.samples.of_split(*LEARNED).nonzero()[:, 0])
        part = dataclasses.replace(part, label=torch.full_like(part.label, MISSING), classes=[])
        self.say(f"{what} {plan.method} on {len(part):,} samples, without their labels.")
        plan, path = plans.with_flags(plan, {"labels": "none"}), self.out / name
        plan = dataclasses.replace(plan, data=part)
        return training.train(plan, path, resume=path.exists(), say=lambda text: None)

    def _measure(self, run: Run, accuracies: Accuracies) -> None:
        """Fill in what is missing, seed after seed."""
        answers: Answers = self.measured.setdefault("right", {})
        samples = self.samples.subset((self.samples.label != MISSING).nonzero()[:, 0])
        ways = {
            SCRATCH: Tuned(run, self.ask.tuning, untrained=True),
            UNTRAINED: Linear(run.untrained(), run.kind.plain(run.encoder)),
            LINEAR: Linear(run.encoder, run.kind.plain(run.encoder)),
            TUNED: Tuned(run, self.ask.tuning),
        }
        if self.ask.weights:
            network = self.kind.off_the_shelf(self.ask.shelf, self.ask.weights, samples)
            ways[SHELF] = Linear(*network)
        if self.ask.further:
            further = Run(self.out / "further", trust=True)
            ways[FURTHER] = Linear(further.encoder, further.kind.plain(further.encoder))
        number, total = 0, self.ask.seeds * len(self.ask.budgets)
        for seed in range(self.ask.seeds):
            learned = 0
            for budget in sorted(self.ask.budgets):
                number += 1
                rows = labeled_rows(samples, per_class=budget, seed=seed)
                if len(rows.learn) == learned:
                    continue  # no class has more labels than the smaller budget takes
                learned = len(rows.learn)
                for name, way in ways.items():
                    values = accuracies.setdefault(name, {}).setdefault(str(budget), [])
                    if len(values) > seed:
                        continue
                    answer = way.logits(samples, rows, seed).argmax(1)
                    right = answer == rows.label[rows.test]
                    values.append(round(100 * float(right.double().mean()), 2))
                    answers.setdefault(name, {}).setdefault(str(budget), [])[seed:] = [packed(right)]
                    self.keep()
                if not is_told(number, total):
                    continue
                texts = ", ".join(f"{name} {values[str(budget)][seed]:.1f} %" for name, values in accuracies.items())
                self.say(f"{_labels(budget)}, draw {seed + 1} of {self.ask.seeds}: {texts}")

    def summarize(self) -> dict[str, Any]:
        group = self.samples.group[self.samples.of_split("test") & (self.samples.label != MISSING)]
        grouped = group if bool((group != MISSING).any()) else None
        return summarize(self.measured["accuracies"], self.measured.get("right"), grouped)

    def title(self) -> str:
        return (
            f"{self.measured['tested']:,} test samples named right, %; means and 95 % intervals over them "
            f"and {self.ask.seeds} draws of labels"
        )

    def lines(self) -> list[Sequence[str]]:
        means, gains = self.summary["means"], self.summary["gains"]
        rows: list[Sequence[str]] = [["", *map(_labels, gains)]]
        rows += [[way, *(f"{Interval(**cells[b]):.1f}" for b in gains)] for way, cells in means.items()]
        return [*rows, ["gain", *(f"{_interval(gain):+.1f}" for gain in gains.values())]]

    def sentences(self) -> list[str]:
        further = self.summary.get("further")
        told = [sentence(self.summary), *([further_sentence(further)] if further else [])]
        if seen := self.measured["tested_in_pretraining"]:
            told.append(
                f"{seen:,} of the {self.measured['tested']:,} tested samples were in the pre-training of "
                f"{self.ask.run!r}: what they say is not of new samples."
            )
        return told

    def page(self) -> Page:
        means, (_, *columns) = self.summary["means"], self.lines()[0]
        facts = {
            "Pre-training": self.ask.run or self.ask.method,
            "Draws of the labels": self.ask.seeds,
            "Tested samples": f"{self.measured['tested']:,}",
            "Numbers": "test samples named right, in %",
        }
        cells = {way: dict(zip(columns, values.values(), strict=True)) for way, values in means.items()}
        heading = f"Does pre-training help on {Path(self.ask.data).name}?"
        return Page(heading=heading, facts=facts, cells=cells, main=LINEAR)


class Linear:
    """A linear classifier on the features of a network, which are computed once.

    plain: the view that the network takes.
    """

    def __init__(self, network: nn.Module, plain: Any) -> None:
        self.network, self.plain = network.eval(), plain
        self.features: Tensor | None = None

    def logits(self, samples: Samples, rows: Rows, seed: int) -> Tensor:
        """Of the rows that are tested."""
        if self.features is None:
            self.features = probing.embed(self.network, self.plain, samples)
        layer, *_ = frozen(self.features[rows.learn], rows.label[rows.learn], seed=seed)
        with torch.no_grad():
            return layer(self.features[rows.test])


class Tuned:
    """The whole network of a run, trained on from its weights or from those that it began with."""

    def __init__(self, run: Run, epochs: int, *, untrained: bool = False) -> None:
        self.run, self.epochs, self.untrained = run, epochs, untrained

    def logits(self, samples: Samples, rows: Rows, seed: int) -> Tensor:
        """Of the rows that are tested."""
        run = self.run
        encoder = run.untrained() if self.untrained else copy.deepcopy(run.encoder)
        trainer = Trainer(run=run, tuning=Tuning(epochs=self.epochs, seed=seed))
        method, _ = tune(Stage(encoder, dim=encoder.dim), rows.of(samples, rows.learn), None, trainer)
        return embed(nn.Sequential(encoder.eval(), method.classifier), run, samples.subset(rows.test))


def summarize(accuracies: Accuracies, answers: Answers | None = None, group: Tensor | None = None) -> dict[str, Any]:
    """Means with 95 % intervals, and at each budget the gain of the better way with pre-training over that without.

    answers: to the tested samples, where they are known.  group: of each of these, where there are groups.
    The better of two is taken by its mean on the tested rows, on both sides alike; the gain is taken draw by draw.
    """

    def known(way: str, budget: str) -> Tensor | None:
        texts = (answers or {}).get(way, {}).get(budget, [])
        return torch.cat([unpacked(t) for t in texts]) if len(texts) == len(accuracies[way][budget]) else None

    def mean(way: str, budget: str) -> Interval:
        right = known(way, budget)
        if right is None:
            return over_seeds(accuracies[way][budget], bounds=PERCENT)
        return of_answers(right, group=group)

    def gain(ours: str, theirs: str, budget: str) -> Interval:
        right, others = known(ours, budget), known(theirs, budget)
        if right is None or others is None:
            pairs = zip(accuracies[ours][budget], accuracies[theirs][budget], strict=True)
            return over_seeds([a - b for a, b in pairs], bounds=POINTS)
        return of_answers(right, over=others, group=group)

    means = {way: {budget: mean(way, budget)._asdict() for budget in values} for way, values in accuracies.items()}
    gains: dict[str, dict[str, Any]] = {}
    for budget in accuracies[LINEAR]:
        ours, theirs = (max(ways, key=lambda way: means[way][budget]["mean"]) for ways in (WITH, WITHOUT))
        gains[budget] = {"of": ours, "over": theirs, **gain(ours, theirs, budget)._asdict()}
    further = {budget: gain(FURTHER, SHELF, budget)._asdict() for budget in accuracies.get(FURTHER, {})}
    return {"means": means, "gains": gains} | ({"further": further} if further else {})


def further_sentence(gains: dict[str, Any]) -> str:
    """Whether it helps to train on from given weights: by the budget at which that tells most."""
    found = judgement({"gains": gains})
    said = next(said for said in ("ahead", "behind", "open", "alike") if found[said])
    budget = max(found[said], key=lambda b: abs(gains[b]["mean"]))
    words = {"ahead": "helps", "behind": "does not help: take them as they are", "open": "is not settled"}
    interval = _interval(gains[budget])
    return (
        f"To train on from the given weights {words.get(said, 'makes no difference that is seen')}: "
        f"{interval.mean:+.1f} points with {_labels(budget)}, 95 % interval "
        f"{interval.low:+.1f} to {interval.high:+.1f}."
    )


def judgement(summary: dict[str, Any]) -> dict[str, list[str]]:
    """The budgets at which pre-training is ahead, behind, alike, or at which that is open."""
    found: dict[str, list[str]] = {said: [] for said in ("ahead", "behind", "alike", "open")}
    for budget, gain in summary["gains"].items():
        found[judged(_interval(gain))].append(budget)
    return found


def sentence(summary: dict[str, Any]) -> str:
    """The answer."""
    gains, found = summary["gains"], judgement(summary)
    better, worse = found["ahead"], found["behind"]
    if better:
        text = f"Yes: {_detail(summary, max(better, key=lambda b: gains[b]['mean']))}."
    elif worse:
        text = f"No: {_detail(summary, min(worse, key=lambda b: gains[b]['mean']))}."
    else:
        begins = "Not settled" if found["open"] else "No difference seen"
        text = f"{begins}: {_detail(summary, max(gains, key=lambda b: abs(gains[b]['mean'])))}."
        return text + (" More draws (--seeds) or test samples would tell." if found["open"] else "")
    if found["alike"]:
        text += f" No difference is seen with {' or '.join(found['alike'])} labels a class."
    if found["open"]:
        text += f" Not settled with {' or '.join(found['open'])} labels a class."
    if better and worse:
        text += f" With {' or '.join(worse)} labels a class it does worse than doing without."
    return text


def _detail(summary: dict[str, Any], budget: str) -> str:
    gain, means = summary["gains"][budget], summary["means"]
    interval = _interval(gain)
    ours, theirs = (means[gain[side]][budget]["mean"] for side in ("of", "over"))
    return (
        f"with {_labels(budget)} the better way with pre-training ({gain['of']}) names {ours:.1f} % right, and the "
        f"better way without ({gain['over']}) {theirs:.1f} %: {interval.mean:+.1f} points, 95 % interval "
        f"{interval.low:+.1f} to {interval.high:+.1f}"
    )


def _labels(budget: int | str) -> str:
    return f"{budget} label{'s' * (str(budget) != '1')} a class"


def _interval(gain: dict[str, Any]) -> Interval:
    return Interval(*(gain[key] for key in Interval._fields))
