"""`nearfar evaluate --suite`: every part that applies, each taken once of each encoder, in one result.

What a part tells of an encoder is a file below RUN/suite, called by a digest of all that it rests on: weights, data,
how it was measured. So a suite that was killed goes on, and another choice of parts measures only what is missing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import Samples
from nearfar.errors import Damaged, UserError
from nearfar.evaluation.protocol import PROTOCOL
from nearfar.files import clear_leftovers, digest, name_text, read_json, replace_json
from nearfar.owner import writes
from nearfar.ranges import Seed, checked
from nearfar.report.measured import results_table
from nearfar.report.numbers import duration
from nearfar.run import Run, named
from nearfar.studies.transfer import Role, Row, form
from nearfar.suite.case import Case, Say, Splits, how
from nearfar.suite.names import PARTS as TITLES
from nearfar.suite.names import UNASKED, chosen
from nearfar.suite.part import Number, Part, Told, gain
from nearfar.suite.unlabeled import PARTS

VERSION = 1
"""Of the result and of what is kept: raised whenever a change here moves a number, or its form."""

NAMES = {"untrained encoder": "untrained", "given weights": "given", "trained encoder": "trained"}
"""The encoders of a run, by their names in tables, in order."""


@writes
@checked
def suite(
    run: Run,
    data: Any,
    *,
    parts: Sequence[str] = (),
    labels: Any = None,
    label_column: str = "",
    keep_words: Sequence[str] = (),
    ood: Any = None,
    beside: Sequence[str | Path] = (),
    force: bool = False,
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Everything that can be measured of a run on data: see docs/evaluation.md.

    parts: names of `nearfar.suite.names.PARTS`; none takes all. Parts that were measured before are told too.
    labels, label_column, keep_words: as in `Run.evaluate`; without labels the parts that take them are left out.
    ood: other data, in the form of DATA, whose samples are to be told from those of DATA.
    beside: other runs, with whose encoders the run's is compared.
    force: measure the parts anew that were measured before, with features that are computed anew.
    Raises ValueError, before data are opened, for an unknown part, and for data, labels or runs that are not there.
    Writes results/suite-DATA-DIGEST.json and returns what it holds: a table of the main accuracies, and under "suite"
    every part that was measured and every part that was left out, and why.
    """
    asked = chosen(parts)
    if towers := run.made["encoder"].get("towers"):
        raise UserError(f"--suite measures one encoder: name one by --tower; its towers are {', '.join(towers)}")
    run.insist_there(data, labels, label_column)
    if ood is not None:
        run.insist_there(ood, "none", "")
    others = _beside(run, beside)
    case = _case(run, data, labels, label_column, keep_words, ood, others, seed, say)
    clear_leftovers(case.folder)
    return _Suite(case, data, say).measured(asked, force=force)


def _beside(run: Run, paths: Sequence[str | Path]) -> dict[str, Run]:
    """Other runs by their names, opened, with their encoders."""
    found: dict[str, Run] = {}
    for path in map(Path, paths):
        if path.resolve() == run.path.resolve():
            raise UserError(f"--beside {str(path)!r} is the run itself: name another")
        other = Run(path, trust=run.trust)
        if other.kind.name != run.kind.name:
            raise UserError(
                f"--beside {str(path)!r} is a run of the kind {other.kind.name}, and {str(run.path)!r} one of the kind "
                f"{run.kind.name}: they do not see the same data"
            )
        name = name_text(path.resolve().name)
        found[name if name not in (*found, *NAMES) else name_text(str(path))] = other.on(str(run.device), run.batch)
        _ = other.encoder
    return found


def _case(
    run: Run,
    data: Any,
    labels: Any,
    label_column: str,
    keep_words: Sequence[str],
    ood: Any,
    others: Mapping[str, Run],
    seed: int,
    say: Say,
) -> Case:
    own: dict[str, Any] = {"labels": labels, "label_column": label_column, "keep_words": keep_words}
    samples = run.open(data, **own)
    for note in samples.notes:
        say(note)
    if samples.skipped:
        say(f"{len(samples.skipped):,} of them cannot be read, such as {samples.skipped[0][0]!r}.")
    splits, tested, why = _splits(run, samples, seed, say)
    roles: dict[str, Role] = {"untrained encoder": "untrained"}
    if run.given() is not None:
        roles["given weights"] = "given"
    roles["trained encoder"] = "trained"
    case = Case(
        run=run,
        rows=[Row(name, run, role) for name, role in roles.items()],
        samples=samples,
        splits=splits,
        tested=tested,
        unlabeled=why,
        seed=seed,
        folder=run.path / "suite",
        other=None if ood is None else run.open(ood, labels="none"),
        other_name="" if ood is None else named(ood),
        beside=dict(others),
    )
    for name, other in others.items():
        seen = other.open(data, labels="none")
        if digests(seen) != digests(samples):
            raise UserError(f"the run {name!r} sees other samples in {data!r}: it cannot be compared sample by sample")
        case.beside_data[name] = seen
    return case


def _splits(run: Run, samples: Samples, seed: int, say: Say) -> tuple[Splits, torch.Tensor, str]:
    """What is learned from and what is tested; and why labels cannot be learned from, "" where they can."""
    everything = samples.of_split("test").nonzero()[:, 0]
    everything = everything if len(everything) else torch.arange(len(samples))
    present = samples.label[samples.label != MISSING].unique()
    if len(present) < 2:
        only = f"every label is {samples.classes[int(present[0])]!r}" if len(present) else "no labels are known"
        return [], everything, only
    try:
        splits, tested = run.splits(samples, seed, say)
    except UserError as error:
        return [], everything, str(error)
    if any(len(samples.label[learned].unique()) < 2 for learned, _ in splits):
        return [], everything, "a part to learn from holds one class alone"
    known = torch.cat([torch.isin(samples.label[test], samples.label[learned]) for learned, test in splits])
    if not known.any():
        return [], everything, "no tested sample is of a class that is learned from"
    if lost := int((~known).sum()):
        say(f"{lost:,} of {len(tested):,} tested samples are of no class that is learned: they count as wrong.")
    return splits, tested, ""


@dataclass
class _Suite:
    """A case on its way to a result."""

    case: Case
    data: Any
    say: Say

    def measured(self, asked: Sequence[str], *, force: bool) -> dict[str, Any]:
        """Measure the parts that were asked for and apply, and write what is known of all.  force: as in `suite`."""
        case, start = self.case, time.perf_counter()
        left_out = {name: why for name in TITLES if (why := PARTS[name].unfit(case))}
        wanted = [PARTS[name] for name in asked if name not in left_out]
        for name in asked:
            if name in left_out:
                self.say(f"Left out: {name} ({left_out[name]}).")
        if not wanted:
            raise UserError(f"no part that was asked for applies: {'; '.join(f'{n}: {left_out[n]}' for n in asked)}")
        if force:
            for row in case.rows:
                stale = [self._path(part, row) for part in wanted]
                stale += [case.features_path(row, data) for data in (case.samples, case.other) if data is not None]
                for path in stale:
                    path.unlink(missing_ok=True)
        told: dict[str, dict[str, Told]] = {}
        for part in (PARTS[name] for name in TITLES if name not in left_out):
            found = self._kept_of_all(part)
            if part in wanted or len(found) == len(case.rows):
                told[part.name] = found
        jobs = [(part, row) for part in wanted for row in case.rows if row.name not in told[part.name]]
        guesses = self._guesses(jobs)
        self._announce(wanted, len(jobs), sum(guesses))
        spent = expected = 0.0
        for number, (part, row) in enumerate(jobs, 1):
            if part.name in left_out:
                continue
            since = time.perf_counter()
            try:
                made = part.measure(case, row, told[part.name])
            except UserError as error:
                left_out[part.name] = str(error)
                del told[part.name]
                self.say(f"Left out: {part.name} ({error}).")
                continue
            self._keep(part, row, made)
            told[part.name][row.name] = made
            took = time.perf_counter() - since
            spent, expected = spent + took, expected + guesses[number - 1]
            rest = sum(guesses[number:]) * spent / max(expected, 1e-9)
            left = f"; about {duration(float(f'{rest:.2g}'))} left" if number < len(jobs) else ""
            self.say(f"{number} of {len(jobs)}: {part.name}, {row.name}, {took:.1f} s{left}")
        left_out |= {name: UNASKED for name in TITLES if name not in told and name not in left_out}
        return self._written(told, left_out, time.perf_counter() - start)

    def _guesses(self, jobs: Sequence[tuple[Part, Row]]) -> list[float]:
        """About how many seconds each job takes; the first of an encoder computes its features."""
        case, guesses, computed = self.case, list[float](), set[str]()
        for part, row in jobs:
            new = row.name not in computed and not case.features_path(row, case.samples).exists()
            computed.add(row.name)
            guesses.append(part.seconds(case) + (case.pace * len(case.samples) if new else 0.0))
        return guesses

    def _announce(self, wanted: Sequence[Part], jobs: int, seconds: float) -> None:
        every = len(wanted) * len(self.case.rows)
        known = f" {every - jobs} of {every} were measured before." if jobs < every else ""
        names = ", ".join(part.name for part in wanted)
        if jobs:
            self.say(f"Parts: {names}.{known} This takes about {duration(float(f'{seconds:.2g}'))}.")
        else:
            self.say(f"Parts: {names}. All were measured before; --force measures them anew.")

    def _path(self, part: Part, row: Row) -> Path:
        case, more = self.case, list[str]()
        if part.name in ("corruptions", "cka"):  # told beside the others
            more += [one.digest for one in case.rows]
        if part.name == "cka":
            more += [f"{name}: {Row(name, run, 'trained').digest}" for name, run in case.beside.items()]
        if part.name == "ood" and case.other is not None:
            more += digests(case.other)
        if part.name in ("geometry", "finetune"):  # whose views are those of training
            more += [how([dataclasses.asdict(case.run.settings)])]
        rests = how([VERSION, PROTOCOL, part.name, part.version, case.seed, row.name, *more])
        return (
            case.folder
            / f"told-{part.name}-{digest(*map(str.encode, [rests, row.digest, case.digest, form(case.run)]))}.json"
        )

    def _kept_of_all(self, part: Part) -> dict[str, Told]:
        """What was told of the encoders before, up to the first that is missing: of later ones a part may have told
        how they compare with that."""
        found: dict[str, Told] = {}
        for row in self.case.rows:
            if (one := self._kept(part, row)) is None:
                break
            found[row.name] = one
        return found

    def _kept(self, part: Part, row: Row) -> Told | None:
        """What was told before; None where nothing was, or the file is damaged."""
        path = self._path(part, row)
        if not path.exists():
            return None
        try:
            kept = read_json(path, "it is measured anew")["told"]
            numbers = {title: Number(**number) for title, number in kept.pop("numbers").items()}
            return Told(numbers=numbers, **kept)
        except Damaged as error:
            self.say(f"{error}.")
            return None

    def _keep(self, part: Part, row: Row, told: Told) -> None:
        path = self._path(part, row)
        path.parent.mkdir(exist_ok=True)
        facts = {"part": part.name, "encoder": row.name, "data": named(self.data)}
        replace_json(path, facts | {"told": dataclasses.asdict(told)})

    def _written(
        self, told: Mapping[str, Mapping[str, Told]], left_out: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        case = self.case
        known = case.run.seen(case.samples)
        table = self._headline(told, known)
        table["title"] = "The whole evaluation"
        table["suite"] = {
            "version": VERSION,
            "encoders": [row.name for row in case.rows],
            "parts": [_part(PARTS[name], told[name], case) for name in TITLES if name in told],
            "left_out": [
                {"name": name, "title": TITLES[name], "why": left_out[name]} for name in TITLES if name in left_out
            ],
            "seconds": seconds,
        }
        table["protocol"] |= {"suite": VERSION, "version": PROTOCOL, "seed": case.seed, "splits": len(case.splits)}
        contents = [fingerprint(digests(case.samples), case.samples)]
        contents += [] if case.other is None else digests(case.other)
        contents += [Row(name, run, "trained").digest for name, run in case.beside.items()]
        return case.run.kept(table, "suite", self.data, contents, known)

    def _headline(self, told: Mapping[str, Mapping[str, Told]], known: torch.Tensor) -> dict[str, Any]:
        """The table of the main accuracies, by which the answers of a report are judged; without columns where
        neighbors or the linear probe were not measured."""
        case = self.case
        seen = known[case.tested]
        group = None if case.group is None else case.group[case.tested]
        results = {
            row.name: {
                key: made
                for name in ("knn", "linear", "kshot")
                if name in told
                for key, made in told[name][row.name].result.items()
            }
            for row in case.rows
        }
        if "knn" in told and "linear" in told:
            return results_table(
                _numbered(results),
                case.samples.classes,
                int(seen.sum()),
                len(seen),
                len(case.splits),
                case.run.seen_how,
                group,
            )
        note = f"{int(seen.sum()):,} of the {len(seen):,} measured samples were in pre-training{case.run.seen_how}."
        return {
            "note": note if seen.any() else "No measured sample was in pre-training.",
            "columns": [],
            "rows": [{"name": row.name, "main": row is case.main, "values": {}} for row in case.rows],
            "seen": {"samples": int(seen.sum()), "of": len(seen)},
            "protocol": {},
        }


def _numbered(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results as they were before they went through a file, which knows no whole numbers as keys."""
    for result in (made for of in results.values() for made in of.values() if "per_class" in made):
        result["per_class"] = {int(c): share for c, share in result["per_class"].items()}
    return results


def _part(part: Part, told: Mapping[str, Told], case: Case) -> dict[str, Any]:
    """A part as the result holds it: a row for each number, with a cell for each encoder, and what the trained one
    gains over the others."""
    main = told[case.main.name]
    rows = []
    titles = list(dict.fromkeys(title for one in told.values() for title in one.numbers))
    for title in titles:
        numbers = {row.name: told[row.name].numbers.get(title) for row in case.rows}
        ours = numbers[case.main.name]
        shown = next(number for number in numbers.values() if number is not None)
        gains = {
            name: made
            for name, theirs in numbers.items()
            if name != case.main.name and ours and theirs and (made := gain(ours, theirs, case.seed))
        }
        cells = {
            name: {"value": number.value, "low": number.low, "high": number.high}
            for name, number in numbers.items()
            if number is not None
        }
        rows.append({"title": title, "better": shown.better, "places": shown.places, "cells": cells, "gains": gains})
    notes = list(dict.fromkeys(note for one in told.values() for note in one.notes))
    return {
        "name": part.name,
        "title": TITLES[part.name],
        "source": part.source,
        "rows": rows,
        "protocol": main.protocol,
        "notes": notes,
    }
