"""Several methods on the same data at the same budget, over seeds: one table, one plot, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar.evaluation.intervals import Interval, over_seeds
from nearfar.files import replace_csv, replace_text
from nearfar.report.compared import compared
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans

MEASURES = ("kNN (%)", "linear (%)")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is compared. Everything is saved in compare.json, and a comparison goes on only with the same.

    epochs: passes for each method, so that all see the same samples. minutes: instead of that, as many epochs as each
    method does in so many minutes; 0 for none.  flags: settings that all share.
    """

    methods: tuple[str, ...]
    data: str
    labels: str = ""
    label_column: str = "label"
    epochs: int = 10
    minutes: float = 0.0
    seeds: int = 3
    flags: dict[str, Any] = field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.__dict__))


def compare(ask: Ask, out: Path, *, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Run what is missing, each in a run directory of its own below `out`, then judge. None: told to stop.

    Raises ValueError where `out` holds another comparison, or there are not two methods and two seeds.
    """
    if len(set(ask.methods)) < 2 or ask.seeds < 2:
        raise ValueError(
            f"{len(set(ask.methods))} method(s) and {ask.seeds} seed(s): two of each are needed to tell a difference "
            "from luck"
        )
    saved = out / "compare.json"
    if saved.exists() and json.loads(saved.read_text(encoding="utf-8"))["asked"] != ask.saved():
        raise ValueError(
            f"{str(out)!r} holds another comparison: give the same flags to go on with it, or another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    if not saved.exists():
        replace_text(saved, json.dumps({"asked": ask.saved()}, indent=1))
    epochs = {}
    for method in ask.methods:
        if (found := _epochs(ask, method, out, say)) is None:
            return None
        epochs[method] = found
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in ask.methods}
    for seed in range(ask.seeds):
        for method in ask.methods:
            name = f"{Path(method).stem}-seed{seed}"
            number = sum(map(len, results.values())) + 1
            say(f"Run {number} of {ask.seeds * len(ask.methods)}, {name}: {epochs[method]} epochs")
            if not _train(ask, method, out / name, epochs[method], seed):
                return None
            results[method].append(found := _evaluated(ask, out / name))
            measured = ", ".join(f"{m.removesuffix(' (%)')} {found[m]:.1f} %" for m in MEASURES)
            say(f"    {measured}; {found['minutes']:.1f} minutes of training")
    made = {"asked": ask.saved(), "epochs": epochs, **judged(results)}
    replace_text(saved, json.dumps(made, indent=1))
    replace_csv(out / "compare.csv", lines(made))
    _page(made, out)
    return made


def _train(ask: Ask, method: str, path: Path, epochs: int, seed: int) -> bool:
    flags = ask.flags | {"labels": ask.labels, "label_column": ask.label_column, "epochs": epochs, "seed": seed}
    plan = plans.make(method, ask.data, None, flags)
    return training.train(plan, path, resume=path.exists(), say=lambda text: None)


def _epochs(ask: Ask, method: str, out: Path, say: Callable[[str], None]) -> int | None:
    """The epochs of a method within the budget; for minutes, by the time that one epoch takes. None: told to stop."""
    if not ask.minutes:
        return ask.epochs
    path = out / f"{Path(method).stem}-timing"
    if not _train(ask, method, path, 1, 0):
        return None
    seconds = _environment(path)["seconds"]
    say(f"{method}: about {seconds:.0f} s an epoch")
    return max(1, int(60 * ask.minutes / seconds))


def _evaluated(ask: Ask, path: Path) -> dict[str, Any]:
    """The measures of a run, trained and untrained, and its minutes; measured once."""
    kept = path / "results" / "evaluate.json"
    table = (
        json.loads(kept.read_text(encoding="utf-8"))
        if kept.exists()
        else load(path).evaluate(ask.data, labels=ask.labels or None, label_column=ask.label_column)
    )
    rows = {row["name"]: row["values"] for row in table["rows"]}
    found = {m: rows["trained encoder"][m]["value"] for m in MEASURES}
    found |= {f"{m} untrained": rows["untrained encoder"][m]["value"] for m in MEASURES}
    made = load(path).config["made"]
    seen = made["steps"] * made["batch"]
    return found | {"minutes": _environment(path)["seconds"] / 60, "samples seen": seen}


def _environment(path: Path) -> dict[str, Any]:
    return json.loads((path / "environment.json").read_text(encoding="utf-8"))


def judged(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means and 95 % t-intervals over seeds, best first; and each method against the best, by the same seeds."""
    means = {
        method: {name: over_seeds([run[name] for run in runs])._asdict() for name in runs[0]}
        for method, runs in results.items()
    }
    main = MEASURES[0]
    order = sorted(means, key=lambda method: -means[method][main]["mean"])
    best = order[0]
    verdicts = {}
    for method in order[1:]:
        gaps = [a[main] - b[main] for a, b in zip(results[best], results[method], strict=True)]
        verdicts[method] = _verdict(best, over_seeds(gaps))
    learned = {}
    for method, runs in results.items():
        learned[method] = over_seeds([run[main] - run[f"{main} untrained"] for run in runs])._asdict()
    return {"measure": main, "order": order, "means": means, "gain": learned, "verdicts": verdicts, "runs": results}


def _verdict(best: str, gap: Interval) -> str:
    told = f"{gap.mean:.1f} points, 95 % interval {gap.low:.1f} to {gap.high:.1f}"
    return f"no difference from {best} seen at this budget ({told})" if gap.low <= 0 else f"behind {best} by {told}"


def lines(made: dict[str, Any]) -> list[Sequence[str]]:
    """The table, a header and a row a method, best first."""
    rows: list[Sequence[str]] = [
        ("method", *MEASURES, "gain over untrained", "epochs", "samples seen", "minutes", "verdict")
    ]
    for method in made["order"]:
        mean, gain = made["means"][method], made["gain"][method]
        rows.append(
            (
                method,
                *(f"{Interval(**mean[m]):.1f}" for m in MEASURES),
                f"{Interval(**gain):+.1f}",
                str(made["epochs"][method]),
                f"{mean['samples seen']['mean']:,.0f}",
                f"{mean['minutes']['mean']:.1f}",
                made["verdicts"].get(method, "best"),
            )
        )
    return rows


def sentences(made: dict[str, Any]) -> list[str]:
    """What can be told of each method, the best first: against the best, and against the untrained network."""
    said = []
    for method in made["order"]:
        gain = Interval(**made["gain"][method])
        nothing = f"; no gain in kNN over the untrained network seen ({gain:+.1f} points)" if gain.low <= 0 else ""
        said.append(f"{method}: {made['verdicts'].get(method, 'best')}{nothing}")
    return said


def _page(made: dict[str, Any], out: Path) -> None:
    """The page of the comparison."""
    asked, order, means = made["asked"], made["order"], made["means"]
    cells = {method: {m: means[method][m] for m in MEASURES} for method in order}
    cells["untrained"] = {m: means[order[0]][f"{m} untrained"] for m in MEASURES}
    budget = {"Epochs": ", ".join(dict.fromkeys(str(made["epochs"][method]) for method in order))}
    budget |= {"Seeds": asked["seeds"], "Samples seen": f"{means[order[0]]['samples seen']['mean']:,.0f}"}
    budget |= {name.capitalize(): value for name, value in asked["flags"].items() if value}
    heading = f"{', '.join(map(str, order))} on {Path(asked['data']).name}"
    compared(out / "compare.html", heading, budget, sentences(made), cells, by="compare", main=order[0])
