"""The report of a run: one HTML file that needs no network, for whoever asks whether it works and whether it helps."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from nearfar.files import replace
from nearfar.report import parts
from nearfar.report.confusion import confusion
from nearfar.report.gallery import copies, drawn_map, embedding, neighbors, outliers, views
from nearfar.report.record import Record, read
from nearfar.report.training import curves, training
from nearfar.report.verdict import Answer, answers


def report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run directory, from the files in it alone, and give its path.

    The files, and the form of each, are described in `nearfar.report.record`. The page is replaced in one move, so that
    a reader never meets half of it. Raises FileNotFoundError where `run_dir` is not a run directory.
    """
    record = read(run_dir)
    return write(record.folder / "report.html", page(record))


def write(target: Path, text: str) -> Path:
    """Put a page there, in one move."""
    return replace(target, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))


def page(record: Record) -> str:
    """The whole page as text; the same record gives the same text."""
    drawn = curves(record)
    frozen = record.classifier is not None and record.classifier.get("train") == "frozen"
    body = [
        header(record),
        verdict(answers(record)),
        cards(record),
        *results(record),
        training(drawn, "Training of the encoder" if frozen else "Training"),
        embedding(record),
        neighbors(record),
        outliers(record),
        copies(record),
        views(record),
        confusion(record),
        per_class(record),
        remarks(record),
        details(record),
        commands(record),
    ]
    return document(title(record), body, {"curves": drawn, "map": drawn_map(record)})


def document(heading: str, body: Sequence[str], data: object) -> str:
    """A page of these parts, whose script finds `data`."""
    package = resources.files("nearfar.report")
    plotly, script = get_plotlyjs(), package.joinpath("page.js").read_text("utf-8")
    # The browser itself then sees to it that nothing is fetched and that no script runs but these two, whatever a name
    # says; eval is what Plotly's WebGL plots are made with.
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {_hash(plotly)} {_hash(script)} 'unsafe-eval'"
    )
    return Template(package.joinpath("page.html").read_text("utf-8")).substitute(
        title=parts.text(heading),
        policy=policy,
        style=package.joinpath("page.css").read_text("utf-8"),
        body="\n".join(part for part in body if part),
        data=parts.embedded_json(data),
        plotly=plotly,
        script=script,
    )


def title(record: Record) -> str:
    """What was trained on what."""
    if record.classifier is not None:
        return f"A classifier of {record.classifier['classes']:,} classes"
    data = record.fact("data")
    return str(record.fact("method") or "Run") + (f" on {Path(str(data)).name or data}" if data else "")


def header(record: Record) -> str:
    """Name, and the facts of the run."""
    started, seconds, samples = (record.fact(name) for name in ("started", "seconds", "samples"))
    when = [
        ("Started", str(started).replace("T", " ")[:16] if started else None),
        ("Duration", parts.duration(seconds) if isinstance(seconds, int | float) else None),
    ]
    trained = [
        ("Method", record.fact("method")),
        ("Paper", record.fact("paper")),
        ("Encoder", record.fact("encoder")),
        ("Data", record.fact("data")),
        ("Samples", f"{samples:,}" if isinstance(samples, int) else samples),
        ("Epochs", record.fact("epochs")),
        ("Batch", record.fact("batch")),
    ]
    if (own := record.classifier) is not None:
        trained = [
            ("Labels learned from", own.get("learned")),
            ("Labeled data", own.get("data")),
            ("Encoder", record.fact("encoder")),
            ("of the run", own.get("run")),
            ("was", {"full": "fine-tuned"}.get(str(own.get("train")), own.get("train"))),
        ]
    facts = parts.facts([*trained, *when])
    return f'<header><p class="eyebrow">nearfar report</p><h1>{parts.text(title(record))}</h1>{facts}</header>'


def verdict(said: Sequence[Answer]) -> str:
    """The three answers."""
    sign = {"good": "✓", "unsure": "?", "bad": "!"}
    inner = "".join(
        f'<div class="answer {a.mood}"><h2><span aria-hidden="true">{sign[a.mood]}</span>{parts.text(a.question)}</h2>'
        f"<p>{parts.prose(a.text)}</p></div>"
        for a in said
    )
    return f'<div class="answers">{inner}</div>'


def cards(record: Record, most: int = 8) -> str:
    """The main numbers of this run's encoder."""
    shown = []
    for table in record.tables.values():
        row = record.main_row(table)
        for column in table["columns"]:
            cell = row["values"].get(column, {})
            if cell.get("value") is not None:
                places = parts.decimals(cell.values(), column)
                interval = parts.interval(cell, places)
                detail = f"95 % interval {interval}" if interval else "no interval was measured"
                shown.append(parts.card(column, parts.number(cell["value"], places), detail))
    return f'<div class="cards">{"".join(shown[:most])}</div>' if shown else ""


def results(record: Record) -> list[str]:
    """A part for each table of results/."""
    if not record.tables:
        why = "Nothing has been measured yet. `nearfar evaluate` compares it with raw pixels and an untrained encoder."
        return [parts.section("results", "Results", "How well the representation serves.", parts.missing(why))]
    lead = "Bars and the small numbers are 95 % intervals: where two of them overlap, the difference may be luck."
    return [
        parts.section(
            f"results-{i}",
            table["title"],
            f"{table.get('note', '')} {lead}",
            parts.dots(table, record.main_row(table)) if len(table["rows"]) > 1 else "",
            parts.results_table(table, record.main_row(table)),
            parts.protocol(table),
        )
        for i, table in enumerate(record.tables.values())
    ]


def per_class(record: Record) -> str:
    """A table for each result that has numbers of single classes."""
    content = ""
    for table in record.tables.values():
        if classes := table.get("per_class"):
            last = classes["columns"][-1]
            rows = sorted(classes["rows"], key=lambda row: row["values"].get(last, {}).get("value") or 0.0)
            content += f"<h3>{parts.text(table['title'])}</h3>{parts.results_table(classes | {'rows': rows}, None)}"
    lead = "Where the encoder serves and where not, weakest class first."
    return parts.section("classes", "Class by class", lead, content)


def remarks(record: Record, most: int = 200) -> str:
    """Notes and skipped files."""
    notes = "".join(f"<li>{parts.prose(note)}</li>" for note in record.notes)
    skipped = ""
    if record.skipped:
        more = f", the first {most} of them below" if len(record.skipped) > most else ""
        table = parts.plain_table(["File", "Why"], record.skipped[:most])
        skipped = f"<h3>Skipped files: {len(record.skipped):,}{more}</h3>{table}"
    listed = f'<ul class="notes">{notes}</ul>' if notes else ""
    return parts.section("notes", "Notes", "What was noticed on the way.", listed, skipped)


def details(record: Record) -> str:
    """Configuration, machine and timings, folded."""
    machine = {k: v for k, v in record.environment.items() if k not in ("notes", "timings")}
    timings = record.environment.get("timings")
    timed = timings.items() if isinstance(timings, dict) else []
    folded = [
        ("Configuration", list(parts.flat(record.config))),
        ("Machine and versions", list(parts.flat(machine))),
        ("Timings", [(name, parts.duration(value)) for name, value in timed if isinstance(value, int | float)]),
        ("Checkpoints", [(name, f"checkpoints/{name}") for name in record.checkpoints]),
    ]
    content = "".join(
        f"<details><summary>{name}</summary>{parts.plain_table(['Name', 'Value'], rows)}</details>"
        for name, rows in folded
        if rows
    )
    return parts.section("details", "Details", "All that is needed to run it again.", content)


def commands(record: Record) -> str:
    """What to do next."""
    run = shlex.quote(str(record.folder))
    naming = [("Name files", f"nearfar predict {run} your-files/")] if record.classifier is not None else []
    steps = [
        *naming,
        (
            "Measure the encoder" if naming else "Measure it with your labels",
            f"nearfar evaluate {run} your-files/ --labels labels.csv",
        ),
        ("Turn files into embeddings", f"nearfar embed {run} your-files/"),
        ("Take the encoder elsewhere", f"nearfar export {run}"),
    ]
    inner = "".join(f"<dt>{what}</dt><dd><code>{parts.text(line)}</code></dd>" for what, line in steps)
    return parts.section("next", "Going on", "Commands that take this run.", f'<dl class="commands">{inner}</dl>')


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
