"""The report of a run: one HTML file that needs no network, on whether training works and whether it helps."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.errors import counted
from nearfar.owner import owned
from nearfar.report.confusion import Confusion, confusions
from nearfar.report.gallery import Gallery, copies, found, neighbors, outliers
from nearfar.report.html import render, write
from nearfar.report.look import Section, page_sections, source
from nearfar.report.numbers import duration, flat
from nearfar.report.record import Record, read
from nearfar.report.results import Card, Results, ResultsTable, cards, class_tables, results
from nearfar.report.training import curves
from nearfar.report.verdict import Answer, answers

SKIPPED = 200
"""Skipped files that are listed."""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """What the page of a run shows, without a word of HTML.

    facts: names and values of the header.  folder: of the run, quoted for a shell.  classifier: whether it is one.
    encoder_only: whether the curves are of the encoder, which a classifier took as it was.
    results, cards, classes: of results/*.json; classes has title and table of single classes.
    look: what was learned, to be looked at.
    written: concepts, what was written for them, and a true sentence, of some.
    map: as stored, for the script.  views: the contact sheet, a data URI.
    damaged: the names of files that could not be read.
    skipped: name and reason of the first files that could not be read, of `skipped_count`.
    details: headings, each with names and values.
    """

    title: str
    facts: list[tuple[str, str]]
    folder: str
    classifier: bool
    encoder_only: bool
    answers: list[Answer]
    cards: list[Card]
    results: list[Results]
    curves: list[dict[str, Any]]
    map: dict[str, Any] | None
    neighbors: Gallery | None
    found: list[tuple[str, Gallery]]
    written: list[list[str]]
    look: list[Section]
    outliers: Gallery | None
    copies: Gallery | None
    views: str | None
    confusions: list[Confusion]
    classes: list[tuple[str, ResultsTable]]
    notes: list[str]
    damaged: list[str]
    skipped: list[tuple[str, str]]
    skipped_count: int
    details: list[tuple[str, list[tuple[str, str]]]]


def report(run_dir: str | Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write `report.html` into a run directory, from the files in it alone, and give its path.

    say: told of each file that cannot be read, which the page says too.

    The files, and the form of each, are described in `nearfar.report.record`. The page is replaced in one move, so that
    a reader never meets half of it. Raises FileNotFoundError where `run_dir` is not a run directory, ValueError where
    another process is at work there.
    """
    record = read(run_dir)
    for sentence in record.damage:
        say(sentence)
    page = page_data(record)
    with owned(record.folder):
        return write(record.folder / "report.html", "run.html", page, _script_data(page))


def page(record: Record) -> str:
    """The whole page as text; the same record gives the same text."""
    data = page_data(record)
    return render("run.html", data, _script_data(data))


def page_data(record: Record) -> RunPage:
    """What the page shows."""
    classifier = record.classifier
    return RunPage(
        title=title(record),
        facts=facts(record),
        folder=shlex.quote(str(record.folder)),
        classifier=classifier is not None,
        encoder_only=classifier is not None and classifier.get("train") == "frozen",
        answers=answers(record),
        cards=cards(record),
        results=results(record),
        curves=curves(record),
        map=record.map,
        neighbors=neighbors(record),
        found=found(record),
        written=record.written,
        look=page_sections(record.look, source(record.look)),
        outliers=outliers(record),
        copies=copies(record),
        views=record.views,
        confusions=confusions(record),
        classes=class_tables(record),
        notes=[*record.damage, *record.notes],
        damaged=record.damaged,
        skipped=record.skipped[:SKIPPED],
        skipped_count=len(record.skipped),
        details=details(record),
    )


def title(record: Record) -> str:
    """What was trained on what."""
    if record.classifier is not None:
        return f"A classifier of {counted(record.classifier['classes'], 'classes')}"
    data = record.fact("data")
    return str(record.fact("method") or "Run") + (f" on {Path(str(data)).name or data}" if data else "")


def facts(record: Record) -> list[tuple[str, str]]:
    """Names and values of the header, those that are known."""
    started, seconds, samples = (record.fact(name) for name in ("started", "seconds", "samples"))
    known = [
        ("Method", record.fact("method")),
        ("Paper", record.fact("paper")),
        ("Encoder", record.fact("encoder")),
        ("Data", record.fact("data")),
        ("Samples", f"{samples:,}" if isinstance(samples, int) else samples),
        ("Epochs", record.fact("epochs")),
        ("Batch", record.fact("batch")),
    ]
    if (own := record.classifier) is not None:
        known = [
            ("Training labels", own.get("learned")),
            ("Labeled data", own.get("data")),
            ("Encoder", record.fact("encoder")),
            ("Encoder's run", own.get("run")),
            ("Encoder's weights", {"full": "fine-tuned"}.get(str(own.get("train")), own.get("train"))),
        ]
    known += [
        ("Started", str(started).replace("T", " ")[:16] if started else None),
        ("Duration", duration(seconds) if isinstance(seconds, int | float) else None),
    ]
    return [(name, str(value)) for name, value in known if value is not None]


def details(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Configuration, machine, timings and checkpoints, each where it is known."""
    machine = {k: v for k, v in record.environment.items() if k not in ("notes", "timings")}
    timings = record.environment.get("timings")
    timed = timings.items() if isinstance(timings, dict) else []
    listed = [
        ("Configuration", list(flat(record.config))),
        ("Machine and versions", list(flat(machine))),
        ("Timings", [(name, duration(value)) for name, value in timed if isinstance(value, int | float)]),
        ("Checkpoints", [(name, f"checkpoints/{name}") for name in record.checkpoints]),
    ]
    return [(heading, rows) for heading, rows in listed if rows]


def _script_data(page: RunPage) -> dict[str, Any]:
    return {"curves": page.curves, "map": page.map}
