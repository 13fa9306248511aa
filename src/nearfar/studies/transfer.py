"""How well encoders of several runs serve other data: one table of runs by data sets (arXiv 2011.13377).

A cell is what one encoder gives on one data set, measured in one way. It is a file below `cells`, called by a digest of
all that it rests on: the weights, the contents, labels and split of the data, and how it was measured. So a study may
be asked for other runs and data sets, and measures only what is missing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar import modalities
from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.digests import digests, fingerprint
from nearfar.data.labels import USUAL
from nearfar.data.samples import Samples
from nearfar.errors import Damaged, NotFound, UserError, counted
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.intervals import of_answers
from nearfar.evaluation.linear import RIDGE_STRENGTHS, STRENGTHS, logistic, ridge
from nearfar.evaluation.protocol import PROTOCOL, packed
from nearfar.fewlabels.classifier import embed
from nearfar.fewlabels.rows import Rows, hold_out
from nearfar.fewlabels.settings import Tuning
from nearfar.fewlabels.tuned import Trainer, insist_tuning, tune
from nearfar.files import digest, read_json, replace_json
from nearfar.method import Encoder, Stage
from nearfar.report.transferred import transferred
from nearfar.run import Run
from nearfar.studies import across_sets
from nearfar.studies.across_sets import TUNED, Cell, Told
from nearfar.studies.asked import Transfer as Asked
from nearfar.studies.base import Study
from nearfar.studies.datasets import DataSet, data_sets
from nearfar.training import probe as probing
from nearfar.training.log import is_told

UNLABELED = (
    "no labels are known: name them in a list of data sets, or put labels.csv or folders of classes into a folder, and "
    "NAME.labels.csv beside a file"
)
VERSION = 2
"""Of cells: raised whenever a change here moves a number of theirs."""


Role = Literal["raw", "untrained", "given", "trained"]


class Row:
    """A row of the table: an encoder, whose features are taken of any data set of its kind.

    run: whose form data are opened in.  role: "raw" is what no network has made, by several names where the kind of
    data has several; "given" the weights that training began with.
    """

    def __init__(self, name: str, run: Run, role: Role) -> None:
        self.name, self.run, self.role = name, run, role

    @cached_property
    def encoder(self) -> Encoder:
        if self.role == "trained":
            return self.run.encoder
        began = self.run.given() if self.role == "given" else self.run.untrained()
        if began is None:
            raise UserError(f"{str(self.run.path)!r} began with random weights, and none were given")
        return began

    @cached_property
    def digest(self) -> str:
        """Of all that the features rest on, besides the samples."""
        if self.role == "raw":
            return "raw"
        spec = json.dumps(self.run.made["encoder"], sort_keys=True)
        state = sorted(self.encoder.state_dict().items())
        return digest(spec.encode(), *(part for name, value in state for part in (name.encode(), _bytes(value))))

    def features(self, samples: Samples) -> dict[str, Tensor]:
        """N x D, by the name of what made them, which is "" of an encoder."""
        kind = self.run.kind
        if self.role == "raw":
            return kind.baselines([samples], self.run.encoder)
        take = probing.embed if self.role == "trained" else probing.passed
        return {"": take(self.encoder, kind.plain(self.encoder), samples, self.run.batch)}


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A data set in the form in which a run sees data.

    splits: pairs (learned, tested) of positions.  tested: all positions tested.
    digest: of contents, labels and splits; the same in any form.
    """

    samples: Samples
    splits: list[tuple[Tensor, Tensor]]
    tested: Tensor
    digest: str

    @property
    def tests(self) -> str:
        """A digest of what is tested, in order, and its labels: answers of one may be held against each other.

        By name, as what a run cannot read has no row, so that in its form others may be at the same positions.
        """
        names = [self.samples.names[i] for i in self.tested.tolist()]
        return digest(json.dumps(names).encode(), self.samples.label[self.tested].numpy().tobytes())

    @property
    def group(self) -> Tensor | None:
        """Of each sample; None where none has one."""
        group = self.samples.group
        return group if bool((group != MISSING).any()) else None


def opened(
    run: Run, data: Any, *, labels: Any, label_column: str, seed: int, say: Callable[[str], None] = lambda text: None
) -> Opened:
    """A data set in the form in which a run sees data, and what of it is learned from and tested.

    Raises UserError where that tells nothing of an encoder: fewer than two classes, or none of those tested is learned.
    """
    samples = run.open(data, labels=labels, label_column=label_column)
    for note in samples.notes:
        say(note)
    if samples.skipped:
        say(f"{counted(len(samples.skipped), run.kind.noun)} cannot be read, such as {samples.skipped[0][0]!r}.")
    present = samples.label[samples.label != MISSING].unique().tolist()
    if len(present) == 1:
        raise UserError(f"every label is {samples.classes[present[0]]!r}: two classes or more are needed")
    splits, tested = run.splits(samples, seed, say)
    label = samples.label
    lost = sum(int((~torch.isin(label[test], label[learn])).sum()) for learn, test in splits)
    if lost == len(tested):
        raise UserError("none of the tested samples is of a class that is learned from")
    if lost:
        say(f"{lost:,} of {len(tested):,} tested {run.kind.noun} are of no class that is learned: they count as wrong.")
    parts = [part.numpy().tobytes() for split in splits for part in split]
    known = digest(fingerprint(digests(samples), samples).encode(), *parts)
    return Opened(samples=samples, splits=splits, tested=tested, digest=known)


Values = dict[str, dict[str, Cell]]
"""Of a cell: by the name of the row, accuracies by their title."""
Way = Callable[[Row, Opened, Asked], Values]
"""A way to measure an encoder on a data set."""


def frozen(row: Row, data: Opened, ask: Asked) -> Values:
    """Linear, neighbors and few labels, on features that are computed once."""
    return {name: on_features(features, data, ask) for name, features in row.features(data.samples).items()}


def on_features(features: Tensor, data: Opened, ask: Asked) -> dict[str, Cell]:
    """The same, of features N x D."""
    results = evaluate(
        features,
        data.samples.label,
        data.splits,
        group=data.group,
        seen_in_training=False,  # which is told beside: it is of the run, and no number here changes by it
        solver=ridge if ask.solver == "ridge" else logistic,
        strengths=RIDGE_STRENGTHS if ask.solver == "ridge" else STRENGTHS,
        shots=ask.shots,
        seed=ask.seed,
    )
    return {
        across_sets.title(name): {
            **{
                key: made[key]
                for key in ("accuracy", "low", "high", "right", "class_accuracy", "chance")
                if key in made
            },
            "of": data.tests,
            "protocol": {key: value for key, value in made["protocol"].items() if key != "choices"},
        }
        for name, made in results.items()
    }


def fine_tuned(row: Row, data: Opened, ask: Asked) -> Values:
    """The whole network trained on the labels, of several folds on the first; a fifth of them chooses the epoch."""
    learn, test = data.splits[0]
    right, facts = tuned_answers(row, data.samples, learn, test, Tuning(epochs=ask.tuning, seed=ask.seed))
    mean, low, high = of_answers(right, group=None if data.group is None else data.group[test], seed=ask.seed)
    protocol = facts | {"splits": 1, "test": len(test)}
    made = {"accuracy": mean, "low": low, "high": high, "right": packed(right), "of": data.tests, "protocol": protocol}
    return {"": {TUNED: made}}


def tuned_answers(
    row: Row, samples: Samples, learn: Tensor, test: Tensor, tuning: Tuning
) -> tuple[Tensor, dict[str, Any]]:
    """Which of the samples `test` a copy of an encoder names right that was trained on the labels of `learn`: M, bool;
    and what was chosen. A fifth of `learn` chooses the epoch, where labels are many enough."""
    present, numbers = samples.label[learn].unique(), torch.full_like(samples.label, MISSING)
    for place, number in enumerate(present.tolist()):
        numbers[samples.label == number] = place
    classes = [samples.classes[number] for number in present.tolist()]
    rows = Rows(learn=learn, held=learn[:0], test=test, label=numbers, classes=classes)
    rows = hold_out(rows, samples.group, tuning.seed)
    network = copy.deepcopy(row.encoder)
    trainer = Trainer(run=row.run, tuning=tuning)
    held = rows.of(samples, rows.held) if len(rows.held) else None
    method, facts = tune(Stage(network, dim=network.dim), rows.of(samples, rows.learn), held, trainer)
    logits = embed(nn.Sequential(network.eval(), method.classifier), row.run, samples.subset(test))
    return logits.argmax(1) == numbers[test], facts | {"learned": len(rows.learn)}


class Transferred(Study[Asked]):
    """Encoders measured on data sets: each cell once, and what follows from them all."""

    name = "transfer"

    def __init__(self, ask: Asked, out: str | Path, *, say: Callable[[str], None] = print) -> None:
        super().__init__(ask, out, say=say)
        self.said: set[str] = set()

    def ways(self) -> dict[str, Way]:
        """The ways to measure that are asked for, by their name.

        Dense measures, of data sets that have masks or boxes, are a further one.
        """
        return {"frozen": frozen} | ({"tuned": fine_tuned} if self.ask.finetune else {})

    def _resume(self) -> None:
        """Cells are known by what they rest on: anything may be asked anew."""

    def prepare(self) -> None:
        """Opens every run, and looks whether every data set and its labels are there, and fit each run."""
        ask = self.ask
        self.sets = data_sets(ask.to, self.say)
        runs = _runs(ask)
        self.trained = [Row(name, run, "trained") for name, run in runs.items()]
        self.untrained = _untrained(runs)
        self.refused: dict[str, dict[str, str]] = {one.name: {} for one in self.sets}
        for one in self.sets:
            for row in self.trained:
                if why := self._unfit(row.run, one):
                    self.refused[one.name][row.name] = why
            if one.masks or one.boxes:
                self.say(f"{one.name}: masks and boxes are not measured here, see `nearfar evaluate`.")
        for sentence in across_sets.refusals(self.refused):
            self.say(sentence)
        if all(len(self.refused[one.name]) == len(self.trained) for one in self.sets):
            first = next(iter(self.refused[self.sets[0].name].values()))
            raise UserError(f"no run can be measured on any data set of {ask.to!r}. Of {self.sets[0].name!r}: {first}")

    def _unfit(self, run: Run, one: DataSet) -> str:
        """Why a run cannot be measured on a data set, as far as headers tell; "" where nothing speaks against it."""
        kind = run.kind
        if kind.entry is not None and not kind.recognizes(one.data):
            other = modalities.kind_of(one.data)
            return f"the run is of the kind {kind.name}, and {one.data!r} is " + (
                f"of the kind {other}" if modalities.entry(other).recognizes(one.data) else "of no kind that is known"
            )
        try:
            run.insist_there(one.data, one.labels or None, self._column(run, one), UNLABELED)
        except NotFound:
            raise
        except UserError as error:
            return str(error)
        return ""

    def _column(self, run: Run, one: DataSet) -> str:
        """The column of labels; that of training only where the data have it, as these are other data."""
        given, usual = one.label_column or self.ask.label_column, run.settings.label_column
        if given or not usual:
            return given
        there = csv.header(Path(one.labels)) if Path(one.labels).is_file() else run.kind.columns(one.data)
        return "" if there is None or csv.column(there, usual) else USUAL

    def measure(self) -> bool:
        try:
            self._measure()
        except KeyboardInterrupt:
            return False
        if not any(row.name in self.cells for row in self.trained):
            raise UserError(f"no run could be measured on any data set of {self.ask.to!r}, for the reasons above")
        return True

    def _measure(self) -> None:
        ways = self.ways()
        self.cells: dict[str, dict[str, dict[str, Cell]]] = {}
        self.groups: dict[str, list[int] | None] = {}
        self.seen: dict[str, dict[str, tuple[int, int, str]]] = {}
        self.baselines: list[str] = []
        jobs = [(one, row) for one in self.sets for row in (None, *self.untrained, *self.trained)]
        forms: dict[tuple[str, str], Opened | str] = {}
        for number, (one, row) in enumerate(jobs, 1):
            if row is None:  # data are opened anew, and what no network has made comes first
                forms = {}
                for raw in self._raw(one, forms):
                    self._row(raw, one, forms, {"frozen": frozen}, told=False)
            else:
                self._row(row, one, forms, ways, told=is_told(number, len(jobs)))

    def _raw(self, one: DataSet, forms: dict[tuple[str, str], Opened | str]) -> list[Row]:
        """What no network has made, of each kind of data, as the first run of it sees a data set that can."""
        first: dict[str, Run] = {}
        for row in self.trained:
            if row.run.kind.name not in first and isinstance(self._opened(row.run, one, forms), Opened):
                first[row.run.kind.name] = row.run
        return [Row(run.kind.raw_name, run, "raw") for run in first.values()]

    def _row(
        self, row: Row, one: DataSet, forms: dict[tuple[str, str], Opened | str], ways: Mapping[str, Way], *, told: bool
    ) -> None:
        """Measure what is missing of a row on a data set, in all ways."""
        data = self._opened(row.run, one, forms)
        for name, way in ways.items():
            made = data if isinstance(data, str) else self._cell(row, one, data, name, way)
            if isinstance(made, str):
                if row.role == "trained":
                    new = made not in self.refused[one.name].values()
                    self.refused[one.name][row.name] = made
                    if new:
                        self.say(across_sets.refusals({one.name: {row.name: made}})[0])
                return
            values, is_new = made
            for source, cells in values.items():
                self.cells.setdefault(source or row.name, {}).setdefault(one.name, {}).update(cells)
                if source and source not in self.baselines:
                    self.baselines.append(source)
                if is_new and told:
                    parts = (f"{t.removesuffix(' (%)')} {v['accuracy']:.1f} %" for t, v in cells.items())
                    self.say(f"{source or row.name} on {one.name}: {', '.join(parts)}")

    def _opened(self, run: Run, one: DataSet, forms: dict[tuple[str, str], Opened | str]) -> Opened | str:
        """A data set in the form of a run, opened once for all runs of one form; or why it cannot be.

        forms: what is open so far.
        """
        seen = run.kind.name, form(run)
        if seen not in forms:
            try:
                forms[seen] = self._unfit(run, one) or opened(
                    run,
                    one.data,
                    labels=one.labels or None,
                    label_column=self._column(run, one),
                    seed=self.ask.seed,
                    say=lambda text: self._once(f"{one.name}: {text}"),
                )
            except UserError as error:
                forms[seen] = str(error)
        data = forms[seen]
        if not isinstance(data, str):
            self.groups[data.tests] = None if data.group is None else data.group[data.tested].tolist()
        return data

    def _once(self, text: str) -> None:
        """Say what was not said before: several forms of the same data have much in common."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def _cell(self, row: Row, one: DataSet, data: Opened, name: str, way: Way) -> tuple[Values, bool] | str:
        """The values of a cell, and whether they were measured now; or why they cannot be."""
        ask = self.ask
        if row.role == "trained":
            seen = row.run.seen(data.samples)[data.tested]
            self.seen.setdefault(one.name, {})[row.name] = int(seen.sum()), len(seen), row.run.seen_how
        how: dict[str, Any] = {"version": VERSION, "protocol": PROTOCOL, "way": name, "seed": ask.seed}
        how |= {"solver": ask.solver, "shots": list(ask.shots)} if name == "frozen" else {"tuning": ask.tuning}
        parts = [json.dumps(how, sort_keys=True), row.digest, data.digest, form(row.run)]
        path = self.out / "cells" / f"{digest(*map(str.encode, parts))}.json"
        if path.exists():
            try:
                return read_json(path, "it is measured anew")["values"], False
            except Damaged as error:
                self.say(f"{error}.")
        try:
            if name != "frozen":
                insist_tuning(row.run, Tuning(epochs=ask.tuning, seed=ask.seed))
            values = way(row, data, ask)
        except UserError as error:
            return str(error)
        facts = {"row": row.name, "role": row.role, "run": str(row.run.path), "data": one.name, "samples": data.digest}
        replace_json(path, facts | {"how": how, "values": values}, indent=1)
        return values, True

    def summarize(self) -> dict[str, Any]:
        return across_sets.summarize(
            Told(
                cells=self.cells,
                sets=[one.name for one in self.sets],
                trained=[row.name for row in self.trained],
                untrained={row.name: _architecture(row.run) for row in self.untrained},
                architecture={row.name: _architecture(row.run) for row in self.trained},
                raw=self.baselines,
                groups=self.groups,
                refused=self.refused,
                seen=self.seen,
                own={row.name: own for row in self.trained if (own := own_result(row.run)) is not None},
            )
        )

    def title(self) -> str:
        return across_sets.heading(self.summary)

    def lines(self) -> list[Sequence[str]]:
        return across_sets.lines(self.summary)

    def sentences(self) -> list[str]:
        return across_sets.sentences(self.summary)

    def write_page(self) -> None:
        ask = self.ask
        facts = {
            "Runs": len(self.trained),
            "Data sets": len(self.sets),
            "Linear classifier": f"{ask.solver}, strength chosen on held-out training rows",
            "Labels": f"of a split where one is named, else folds by seed {ask.seed}",
        }
        transferred(self.file("html"), self.summary, facts, self.sentences())


def _runs(ask: Asked) -> dict[str, Run]:
    """The runs by their names in the table, opened, with their encoders."""
    paths = [Path(run) for run in ask.runs]
    if twice := next(
        (path for i, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:i]]), None
    ):
        raise UserError(f"the run {str(twice)!r} is named twice")
    last = [path.resolve().name for path in paths]
    names = [name if last.count(name) == 1 else str(path) for name, path in zip(last, paths, strict=True)]
    runs = {name: Run(path, ask.checkpoint, trust=ask.trust) for name, path in zip(names, paths, strict=True)}
    if ask.tower:
        several = {name for name, run in runs.items() if run.made["encoder"].get("towers")}
        if not several:
            raise UserError(f"--tower {ask.tower!r}: no run has an encoder of several towers; leave it out")
        runs |= {name: Run(runs[name].path, ask.checkpoint, ask.tower, trust=ask.trust) for name in several}
    for run in runs.values():
        _ = run.encoder
    return runs


def _architecture(run: Run) -> str:
    """What two runs have in common whose untrained encoders differ by their random weights alone."""
    return json.dumps([run.kind.name, run.made["encoder"]], sort_keys=True)


def _untrained(runs: Mapping[str, Run]) -> list[Row]:
    """The untrained encoder of each architecture, as the first run of it began with it."""
    first: dict[str, tuple[str, Run]] = {}
    for name, run in runs.items():
        first.setdefault(_architecture(run), (name, run))
    titles = [f"untrained {run.made['encoder'].get('name', run.kind.name)}" for _, run in first.values()]
    return [
        Row(title if titles.count(title) == 1 else f"{title} of {name}", run, "untrained")
        for title, (name, run) in zip(titles, first.values(), strict=True)
    ]


def form(run: Run) -> str:
    """The form in which a run sees data: what `Run.open` goes by."""
    volatile = ("samples", "labeled", "groups", "classes", "counts", "needs_labels", "batch", "steps", "lr", "views")
    made = {k: v for k, v in run.made.items() if k not in (*volatile, "micro_batch", "processes", "fingerprint")}
    read = {name: getattr(run.settings, name) for name in sorted(run.kind.read) if hasattr(run.settings, name)}
    read = {name: value for name, value in read.items() if name not in ("labels", "split")}
    return digest(json.dumps([run.kind.name, made, read], sort_keys=True, default=str).encode())


def own_result(run: Run) -> dict[str, Any] | None:
    """The newest result of `nearfar evaluate` of a run on its own training data, by the same checkpoint: data and
    accuracies by title."""
    found = []
    for path in sorted((run.path / "results").glob("evaluate-*.json")):
        with suppress(UserError):  # one that is damaged says nothing
            table = read_json(path, "")
            if table.get("own") and (table.get("protocol") or {}).get("checkpoint", "last") == run.checkpoint:
                found.append(table)
    if not found:
        return None
    newest = max(found, key=lambda table: str(table.get("written", "")))
    main = next(row for row in newest["rows"] if row["main"])
    return {"data": newest["data"], "values": {title: cell["value"] for title, cell in main["values"].items()}}
