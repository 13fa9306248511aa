"""Several methods on the same data at the same budget, over seeds: one table, one plot, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nearfar import modalities
from nearfar.evaluation.intervals import Interval, over_seeds
from nearfar.run import Run
from nearfar.studies.asked import Compare
from nearfar.studies.base import Page, Study
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.build import insist_on_pixels
from nearfar.training.directory import read_environment

MEASURES = ("kNN (%)", "linear (%)")
MAIN = MEASURES[0]
"""By which methods are ordered."""

Scores = dict[str, float]


class Comparison(Study[Compare]):
    """Methods compared: each trained and evaluated for each seed, in a run directory of its own below `out`."""

    name = "compare"
    hidden = ("samples seen", "verdict")

    def __init__(self, ask: Compare, out: str | Path, *, say: Callable[[str], None] = print) -> None:
        super().__init__(ask, out, say=say)
        self.said: set[str] = set()

    def prepare(self) -> None:
        self.plans = {method: self._plan(method) for method in self.ask.methods}
        for plan in self.plans.values():
            insist_on_pixels(plan)

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
                self.say(f"Run {number} of {ask.seeds * len(ask.methods)}, {path.name}: {epochs[method]} epochs")
                if not self._train(method, path, epochs[method], seed):
                    return False
                scores = self._evaluate(path)
                runs[method].append(scores)
                self.keep()
                accuracy = ", ".join(f"{m.removesuffix(' (%)')} {scores[m]:.1f} %" for m in MEASURES)
                self.say(f"    {accuracy}; {scores['minutes']:.1f} minutes of training")
        return True

    def _train(self, method: str, path: Path, epochs: int, seed: int) -> bool:
        plan = plans.with_flags(self.plans[method], epochs=epochs, seed=seed)
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
        made = run.config["made"]
        return scores | {"minutes": _seconds(path) / 60, "samples seen": made["steps"] * made["batch"]}

    def _once(self, text: str) -> None:
        """Say what was not said before: it is the same data, time after time."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def summarize(self) -> dict[str, Any]:
        return summarize(self.measured["runs"])

    def title(self) -> str:
        return f"Equal budget, {self.ask.seeds} seeds; means and 95 % t-intervals"

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


def summarize(runs: dict[str, list[Scores]]) -> dict[str, Any]:
    """Means and 95 % t-intervals over seeds; and differences, taken seed by seed.

    runs: of each method, the scores of each seed.
    Gives `order`, methods from the best on; `means` of each score; `gains` over the untrained network; and `behind`,
    how far each other method is behind the best.
    """
    means = {
        method: {name: over_seeds([scores[name] for scores in rows])._asdict() for name in rows[0]}
        for method, rows in runs.items()
    }
    order = sorted(means, key=lambda method: -means[method][MAIN]["mean"])
    gains = {m: over_seeds([s[MAIN] - s[f"{MAIN} untrained"] for s in rows])._asdict() for m, rows in runs.items()}
    behind = {}
    for method in order[1:]:
        pairs = zip(runs[order[0]], runs[method], strict=True)
        behind[method] = over_seeds([best[MAIN] - own[MAIN] for best, own in pairs])._asdict()
    return {"measure": MAIN, "order": order, "means": means, "gains": gains, "behind": behind}


def verdict(summary: dict[str, Any], method: str) -> str:
    """A method against the best."""
    if method not in summary["behind"]:
        return "best"
    best, gap = summary["order"][0], Interval(**summary["behind"][method])
    points = f"{gap.mean:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"
    return f"no difference from {best} seen at this budget ({points})" if gap.low <= 0 else f"behind {best} by {points}"


def sentences(summary: dict[str, Any]) -> list[str]:
    """What can be told of each method, the best first: against the best, and against the untrained network."""
    texts = []
    for method in summary["order"]:
        gain = Interval(**summary["gains"][method])
        nothing = f"; no gain in kNN over the untrained network seen ({gain:+.1f} points)" if gain.low <= 0 else ""
        texts.append(f"{method}: {verdict(summary, method)}{nothing}")
    return texts
