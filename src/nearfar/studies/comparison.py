"""Several methods on the same data at the same budget, over seeds: one table, one plot, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar import modalities
from nearfar.batch import MISSING
from nearfar.data.labels import LabelColumn
from nearfar.errors import UserError, counted
from nearfar.evaluation.intervals import PERCENT, POINTS, Interval, Judgement, judged, of_answers, over_seeds
from nearfar.evaluation.protocol import unpacked
from nearfar.modalities import kind as kinds
from nearfar.run import Run
from nearfar.studies.asked import Compare
from nearfar.studies.base import Page, Study
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.build import batch_size, build, insist_ready, open_samples, settled
from nearfar.training.directory import read_environment
from nearfar.training.log import is_told

MEASURES = ("kNN (%)", "linear (%)")
MAIN = MEASURES[0]
"""By which methods are ordered."""

Scores = dict[str, Any]
"""Numbers by name; and "right", the answers to the test samples by measure, as `packed` writes them."""


class Comparison(Study[Compare]):
    """Methods compared: each trained and evaluated for each seed, in a run directory of its own below `out`."""

    name = "compare"
    hidden = ("samples seen", "verdict")

    def __init__(self, ask: Compare, out: str | Path, *, say: Callable[[str], None] = print) -> None:
        super().__init__(ask, out, say=say)
        self.said: set[str] = set()

    def prepare(self) -> None:
        """Also builds each method once, on the samples, so that none fails after another was trained."""
        ask = self.ask
        self.plans = {method: self._plan(method) for method in ask.methods}
        for plan in self.plans.values():
            insist_ready(plan)
        (first, *_), quiet = self.plans.values(), lambda text: None
        kind = kinds.of(first.kind)
        unlabeled = f"methods are compared by labels, and none are known: {kind.unlabeled}"
        kind.insist_there(ask.data, ask.labels, LabelColumn.of(ask.label_column), wanted=unlabeled)
        if sum(map(len, self.measured.get("runs", {}).values())) == ask.seeds * len(ask.methods):
            return
        samples = open_samples(first, quiet)
        if not (samples.label != MISSING).any():
            raise UserError(unlabeled)
        for plan in self.plans.values():
            build(settled(plan, samples), samples, batch_size(ask.batch, len(samples), quiet), self.out, quiet)

    def _plan(self, method: str) -> plans.Plan:
        flags, network = self.ask.flags(), modalities.entry(modalities.kind_of(self.ask.data)).study_encoder()
        return plans.make(method, self.ask.data, None, ({"encoder": network} if network else {}) | flags)

    def measure(self) -> bool:
        ask = self.ask
        epochs = self.measured.setdefault("epochs", {})
        runs = self.measured.setdefault("runs", {method: [] for method in ask.methods})
        for method in ask.methods:
            if method not in epochs:
                count = self._epochs(method)
                if count is None:
                    return False
                epochs[method] = count
                self.keep()
        for seed in range(ask.seeds):
            for method in ask.methods:
                if len(runs[method]) > seed:
                    continue
                path = self.out / f"{Path(method).stem}-seed{seed}"
                number = sum(map(len, runs.values())) + 1
                total = ask.seeds * len(ask.methods)
                if not self._train(method, path, epochs[method], seed):
                    return False
                scores = self._evaluate(path)
                runs[method].append(scores)
                self.keep()
                accuracy = ", ".join(f"{m.removesuffix(' (%)')} {scores[m]:.1f} %" for m in MEASURES)
                if is_told(number, total):
                    how = f"{counted(epochs[method], 'epochs')} in {scores['minutes']:.1f} min"
                    self.say(f"Run {number} of {total}, {path.name}: {accuracy}; {how}")
        return True

    def _train(self, method: str, path: Path, epochs: int, seed: int) -> bool:
        plan = plans.with_flags(self.plans[method], {"epochs": epochs, "seed": seed})
        return training.train(plan, path, resume=path.exists(), say=lambda text: None)

    def _epochs(self, method: str) -> int | None:
        """The epochs of a method within the budget; for minutes, by the time that one epoch takes. None: stopped."""
        if not self.ask.minutes:
            return self.ask.epochs
        path = self.out / f"{Path(method).stem}-timing"
        if not self._train(method, path, 1, 0):
            return None
        seconds = _seconds(path)
        self.say(f"{method}: about {seconds:.0f} s an epoch")
        return max(1, int(60 * self.ask.minutes / seconds))

    def _evaluate(self, path: Path) -> Scores:
        """The measures of a run, trained and untrained, its minutes and the samples it saw."""
        run, ask = Run(path, trust=True), self.ask
        table = run.evaluate(ask.data, labels=ask.labels or None, label_column=ask.label_column, say=self._once)
        rows = {row["name"]: row["values"] for row in table["rows"]}
        scores = {m: rows["trained encoder"][m]["value"] for m in MEASURES}
        scores |= {f"{m} untrained": rows["untrained encoder"][m]["value"] for m in MEASURES}
        if table["group"] is not None:
            self.measured["group"] = table["group"]
        scores["right"] = {m: rows["trained encoder"][m]["right"] for m in MEASURES}
        scores["right"] |= {f"{m} untrained": rows["untrained encoder"][m]["right"] for m in MEASURES}
        made = run.config["made"]
        return scores | {"minutes": _seconds(path) / 60, "samples seen": made["steps"] * made["batch"]}

    def _once(self, text: str) -> None:
        """Say what was not said before: it is the same data, time after time."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def summarize(self) -> dict[str, Any]:
        return summarize(self.measured["runs"], self.measured.get("group"))

    def title(self) -> str:
        return f"Equal budget, {self.ask.seeds} seeds; means and 95 % intervals over test samples and seeds"

    def lines(self) -> list[Sequence[str]]:
        summary, epochs = self.summary, self.measured["epochs"]
        rows: list[Sequence[str]] = [
            ("method", *MEASURES, "gain over untrained", "epochs", "samples seen", "minutes", "verdict")
        ]
        for method in summary["order"]:
            mean, gain = summary["means"][method], summary["gains"][method]
            rows.append(
                (
                    method,
                    *(f"{Interval(**mean[m]):.1f}" for m in MEASURES),
                    f"{Interval(**gain):+.1f}",
                    str(epochs[method]),
                    f"{mean['samples seen']['mean']:,.0f}",
                    f"{mean['minutes']['mean']:.1f}",
                    verdict(summary, method),
                )
            )
        return rows

    def sentences(self) -> list[str]:
        return sentences(self.summary)

    def page(self) -> Page:
        ask, order, means = self.ask, self.summary["order"], self.summary["means"]
        cells = {method: {m: means[method][m] for m in MEASURES} for method in order}
        cells["untrained"] = {m: means[order[0]][f"{m} untrained"] for m in MEASURES}
        epochs = ", ".join(dict.fromkeys(str(self.measured["epochs"][method]) for method in order))
        facts: dict[str, object] = {
            "Epochs": epochs,
            "Seeds": ask.seeds,
            "Samples seen": f"{means[order[0]]['samples seen']['mean']:,.0f}",
            "Encoder": self.plans[order[0]].settings.encoder,
            "Batch": ask.batch,
        }
        heading = f"{', '.join(order)} on {Path(ask.data).name}"
        return Page(heading=heading, facts=facts | ({"Size": ask.size} if ask.size else {}), cells=cells, main=order[0])


def _seconds(path: Path) -> float:
    """Of training."""
    return read_environment(path)["seconds"]


def summarize(runs: dict[str, list[Scores]], group: Sequence[int] | None = None) -> dict[str, Any]:
    """Means with 95 % intervals over test samples and seeds; and differences, of the same seeds and samples.

    runs: of each method, the scores of each seed.  group: of each test sample.
    Gives `order`, methods from the best on; `means` of each score; `gains` over the untrained network; and `behind`,
    how far each other method is behind the best.
    """
    means = {
        method: {name: _mean(rows, name, group)._asdict() for name in rows[0] if name != "right"}
        for method, rows in runs.items()
    }
    order = sorted(means, key=lambda method: -means[method][MAIN]["mean"])
    gains = {m: _gain(rows, MAIN, rows, f"{MAIN} untrained", group)._asdict() for m, rows in runs.items()}
    best = runs[order[0]]
    behind = {method: _gain(best, MAIN, runs[method], MAIN, group)._asdict() for method in order[1:]}
    return {"measure": MAIN, "order": order, "means": means, "gains": gains, "behind": behind}


def _mean(rows: Sequence[Scores], name: str, group: Sequence[int] | None) -> Interval:
    """Of one score; of accuracies by the answers, where they are known."""
    if (answers := _answers(rows, name)) is not None:
        return of_answers(answers, group=_tensor(group))
    return over_seeds([row[name] for row in rows], bounds=PERCENT if "(%)" in name else None)


def _gain(
    ours: Sequence[Scores], name: str, theirs: Sequence[Scores], other: str, group: Sequence[int] | None
) -> Interval:
    """What one accuracy has over another, in points."""
    both = _answers(ours, name), _answers(theirs, other)
    if both[0] is not None and both[1] is not None and both[0].shape == both[1].shape:
        return of_answers(both[0], over=both[1], group=_tensor(group))
    return over_seeds([a[name] - b[other] for a, b in zip(ours, theirs, strict=True)], bounds=POINTS)


def _answers(rows: Sequence[Scores], name: str) -> Tensor | None:
    """S x N, of S seeds that answered the same N test samples; None where that is not known."""
    texts = [row.get("right", {}).get(name) for row in rows]
    parts = [unpacked(text) for text in texts if text]
    alike = len(parts) == len(rows) and len({part.shape for part in parts}) == 1
    return torch.cat(parts) if alike else None


def _tensor(group: Sequence[int] | None) -> Tensor | None:
    return None if group is None else torch.tensor(group)


def judgement(summary: dict[str, Any], method: str) -> Judgement | str:
    """A method against the best: "best", or whether the best is ahead of it."""
    return judged(Interval(**summary["behind"][method])) if method in summary["behind"] else "best"


def verdict(summary: dict[str, Any], method: str) -> str:
    """A method against the best, in words."""
    found, best = judgement(summary, method), summary["order"][0]
    if found == "best":
        return "best"
    gap = Interval(**summary["behind"][method])
    points = f"{gap.mean:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"
    if found == "ahead":
        return f"behind {best} by {points}"
    if found == "alike":
        return f"as good as {best} at this budget ({points} behind)"
    return f"not told apart from {best} at this budget ({points} behind): more seeds or test samples would tell"


NO_GAIN: dict[Judgement, str] = {
    "alike": "no gain in kNN over the untrained network",
    "behind": "worse in kNN than the untrained network",
    "open": "a gain in kNN over the untrained network is not shown",
}


def sentences(summary: dict[str, Any]) -> list[str]:
    """What can be told of each method, the best first: against the best, and against the untrained network."""
    texts = []
    for method in summary["order"]:
        gain = Interval(**summary["gains"][method])
        nothing = f"; {text} ({gain:+.1f} points)" if (text := NO_GAIN.get(judged(gain))) else ""
        texts.append(f"{method}: {verdict(summary, method)}{nothing}")
    return texts
