"""A model card: what a run is, in Markdown that people read and with a head of YAML that model hubs read.

Everything in it is read from the run directory. What no run can know, the licenses and what the model is for, is
left as a line that says FILL IN; nothing is made up in its place.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from nearfar import methods, modalities
from nearfar.errors import UserError, counted, printable
from nearfar.files import is_checked, name_text, read_json, replace_text
from nearfar.report.numbers import code_parts, decimals, duration, interval, number, protocol
from nearfar.report.page import title
from nearfar.report.record import Record, outline
from nearfar.report.results import ENDS, NOTHING
from nearfar.report.verdict import spoken

FILL = "FILL IN"
"""What stands where only a person can know."""
PATHS = ("data", "labels", "test", "test_labels")
"""Of a protocol what may be a path on the machine that trained."""


def write_card(run_dir: str | Path, target: Path, say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Write the card of a run, and give what is to be filled in, a line each.

    say: told of each file of the run that cannot be read, of which the card has nothing.
    Raises NotFound where there is no run, UserError where its configuration cannot be read.
    """
    record = outline(run_dir)
    if not isinstance(record.config.get("made"), dict):
        raise UserError(
            f"a card of {str(run_dir)!r} cannot be written: "
            + (record.damage[0] if record.damage else "it has no config.yaml as this version writes it")
        )
    for sentence in record.damage:
        say(sentence)
    replace_text(target, card(record))
    return open_lines(record)


def open_lines(record: Record) -> list[str]:
    """What a person has to fill in: the name of the line, and what is wanted there."""
    lines = [
        "license: the license under which you give the weights away, as the hub writes it, such as apache-2.0",
        "License of the data: of what the encoder learned from, and whether it allows this",
        "Meant for, and not for: what the model was made for, and what it must not be used for",
    ]
    return [*lines, "License of the weights it began with: they were not made by this run"] if _given(record) else lines


def card(record: Record) -> str:
    """The card as text."""
    parts = [
        _head(record),
        f"# {_text(title(record))}",
        _summary(record),
        _licenses(record),
        _use(record),
        *(_section(heading, made) for heading, made in (
            ("Data", _data(record)),
            ("Method", _method(record)),
            ("Results", _results(record)),
            ("Compute", _compute(record)),
        )),
        _loading(record),
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _head(record: Record) -> str:
    """The front matter."""
    config = record.config
    kind = str(config.get("kind") or "")
    entry = modalities.entry(kind) if kind in modalities.names() else None
    task = "feature-extraction" if record.classifier is None else None
    head: dict[str, Any] = {
        "license": f"{FILL}: the license under which you give these weights away",
        "library_name": "nearfar",
        "pipeline_tag": getattr(entry, "PIPELINE", task) if task else None,
        "tags": [*dict.fromkeys(["contrastive-learning", "self-supervised-learning", str(config["method"]), kind])],
        "model-index": _index(record),
    }
    if record.config["made"].get("needs_labels") or record.classifier is not None:
        head["tags"].remove("self-supervised-learning")
    text = yaml.safe_dump({k: v for k, v in head.items() if v}, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{text}---"


def _index(record: Record) -> list[dict[str, Any]]:
    """The numbers of the encoder, as hubs read them; those before training stand in the card alone."""
    found = []
    for table in record.tables.values():
        cells = record.main_row(table)["values"]
        metrics = [
            {"type": _metric(column), "name": column, "value": round(cell["value"], 4)}
            for column in table["columns"]
            if (cell := cells.get(column, NOTHING))["value"] is not None
        ]
        if metrics:
            data = {"type": "other", "name": str(table.get("data") or _called(record.config["data"]))}
            found.append({"task": {"type": "feature-extraction"}, "dataset": data, "metrics": metrics})
    return [{"name": printable(record.folder.resolve().name), "results": found}] if found else []


def _metric(column: str) -> str:
    """What a hub may call a column: its name in letters that such names have."""
    if re.fullmatch(r"(kNN|linear|accuracy|\d+ labels?( a class)?) \(%\)", column):
        return "accuracy"
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def _summary(record: Record) -> str:
    made = record.config["made"]
    state = "" if record.environment.get("finished") else (
        f" Training was stopped: {_steps(record):,} of {counted(made['steps'], 'steps')} were made."
    )  # fmt: skip
    what = "A classifier" if record.classifier is not None else f"An encoder: it makes {_width(record)} of a sample"
    said = ["".join(f"`{part}`" if code else _text(part) for part, code in code_parts(line)) for line in spoken(record)]
    return f"{what}. Trained with nearfar.{state}\n\n" + "\n\n".join(said)


def _width(record: Record) -> str:
    try:
        width = read_json(record.folder / "encoder.json", "").get("dim")
    except UserError:  # training was stopped before there was one, or `nearfar export` must write it again
        width = None
    return f"a vector of {width:,} numbers" if isinstance(width, int) else "one vector"


def _steps(record: Record) -> int:
    return int(max((line["step"] for line in record.metrics), default=0))


def _licenses(record: Record) -> str:
    lines = ["Nothing in this section was filled in by the program that wrote the card.", ""]
    lines += [f"- **License of these weights:** {FILL}, here and in the first lines of this file."]
    lines += [f"- **License of the data:** {FILL}. Does it allow a model that learned from them to be given away?"]
    if given := _given(record):
        lines += [f"- **License of the weights it began with** ({_code(given)}): {FILL}."]
    return _section("Licenses", "\n".join(lines))


def _use(record: Record) -> str:
    lines = [f"- **Meant for:** {FILL}.", f"- **Not for:** {FILL}.", f"- **Known limits and biases:** {FILL}."]
    return _section("What it is for", "\n".join(lines))


def _given(record: Record) -> str:
    """The weights that training began with; "" where they were random."""
    settings = record.config.get("settings") or {}
    return _called(settings.get("from_run") or settings.get("weights") or record.config["made"].get("given") or "")


def _called(path: object) -> str:
    """The last part of a path: where something lies on the machine that trained is nobody else's business."""
    return name_text(Path(str(path)).name) if path else ""


def _data(record: Record) -> str:
    config, made = record.config, record.config["made"]
    rows = [("What", _code(_called(config["data"]))), ("Kind", _text(str(config["kind"])))]
    rows += [("Samples", f"{made['samples']:,}")]
    if own := record.classifier:
        rows += [("Labels that it learned from", _text(str(own.get("learned") or own.get("train") or "")))]
    labeled, needs = made.get("labeled"), made.get("needs_labels")
    if isinstance(labeled, int):
        if needs:
            seen = f"seen in training, of {counted(labeled, 'samples')}"
        elif labeled and made.get("probe_samples"):
            seen = f"not seen in training; {counted(labeled, 'samples')} have one, by which progress was measured"
        else:
            seen = "not seen in training" + (f"; {counted(labeled, 'samples')} have one" if labeled else "; none known")
        rows += [("Labels", seen), ("Classes", f"{len(made['classes']):,}")]
    skipped = record.folder / "skipped.csv"
    rows += [("Left out", "samples that could not be read: `skipped.csv` names them")] if skipped.is_file() else []
    return _table(("", ""), rows) + "\n\n" + "\n".join(f"- {_text(note)}" for note in record.notes)


def _method(record: Record) -> str:
    config = record.config
    name, paper = str(config["method"]), record.environment.get("paper")
    called = methods.page(name).title if name in methods.names() else f"a method of a file of its own, {_code(name)}"
    cited = re.findall(r"\d{4}\.\d{4,5}", str(paper or ""))
    links = ", ".join(f"[arXiv {one}](https://arxiv.org/abs/{one})" for one in cited) or _text(str(paper or ""))
    lines = [f"{called if name not in methods.names() else _text(called)}{': ' if links else ''}{links}.", ""]
    rows = [("Encoder", config.get("encoder")), ("Epochs", config.get("epochs")), ("Batch", config.get("batch"))]
    rows += [(key, value) for key, value in (config.get("arguments") or {}).items()]
    settings = config.get("settings") or {}
    rows += [(key, settings[key]) for key in ("views", "optimizer", "lr", "weight_decay", "seed") if key in settings]
    if given := _given(record):
        rows += [("Began with", given)]
    lines += [_table(("Setting", "Value"), [(_text(key), _code(str(value))) for key, value in rows if value != ""])]
    return "\n".join([*lines, "", "`config.yaml` holds all settings."])


def _results(record: Record) -> str:
    if not record.tables:
        return "None were measured: `nearfar evaluate RUN DATA` does, and `nearfar card RUN --force` then has them."
    return "\n\n".join(_measured(record, table) for table in record.tables.values())


def _measured(record: Record, table: dict[str, Any]) -> str:
    """One table, with 95 % intervals: the trained encoder beside all that it is compared with."""
    main = record.main_row(table)
    rows = []
    for row in table["rows"]:
        cells = [row["values"].get(column, NOTHING) for column in table["columns"]]
        name = f"**{_text(row['name'])}**" if row is main else _text(row["name"])
        rows.append((name, *(_cell(cell, _places(table, column)) for cell, column in zip(
            cells, table["columns"], strict=True))))  # fmt: skip
    columns = [_text(column) for column in table["columns"]]
    said = [f"### {_text(table['title'])}", _table(("", *columns), rows), _text(str(table.get("note") or ""))]
    how = "; ".join(f"{_text(name)} {_text(value)}" for name, value in protocol(table) if name not in PATHS)
    if how:
        said += [f"<details><summary>Protocol</summary>\n\n{how}.\n\n</details>"]
    return "\n\n".join(part for part in said if part)


def _places(table: dict[str, Any], column: str) -> int:
    return decimals([row["values"].get(column, NOTHING).get(end) for row in table["rows"] for end in ENDS], column)


def _cell(cell: dict[str, Any], places: int) -> str:
    between = interval(cell, places)
    return number(cell["value"], places) + (f" ({between})" if between else "")


def _compute(record: Record) -> str:
    """Time and machine, as environment.json has them."""
    known = record.environment
    seconds = known.get("seconds")
    rows = [
        ("Time", duration(seconds) if isinstance(seconds, int | float) else None),
        ("Device", known.get("device")),
        ("Processes", record.config["made"].get("processes")),
        ("Processor cores", known.get("cpus")),
        ("Threads", known.get("threads")),
        ("System", known.get("platform")),
        ("Python", known.get("python")),
        ("torch", known.get("torch")),
        ("nearfar", known.get("nearfar")),
        ("Started", str(known.get("started") or "")[:10] or None),
    ]
    made = [(name, _text(str(value))) for name, value in rows if value is not None]
    return _table(("", ""), made) if made else "Not known: `environment.json` is missing or damaged."


def _loading(record: Record) -> str:
    """How to load it, with nearfar and without."""
    folder = printable(record.folder.resolve().name)
    name = "RUN" if folder != shlex.quote(folder) else folder
    if record.classifier is not None:
        lines = [f'model = nearfar.Classifier("{name}")']
        return _section("How to load it", _python(["import nearfar", "", *lines]) + "\n\nOr `nearfar predict`.")
    own = bool(record.config.get("code"))
    trust = ", trust=True" if own else ""
    made = ["import nearfar", "", f'run = nearfar.load("{name}"{trust})', 'vectors = run.embed("photos/")  # N x D']
    made[-1] = made[-1].replace('"photos/"', "data")
    parts = ["With nearfar, from the whole run directory; `data` is whatever it was trained on:", _python(made)]
    if own:
        parts += ["The run names files of code, which `trust=True` lets run: read them first."]
    if is_checked(record.folder / "encoder.py"):
        parts += [
            "Without nearfar, from `encoder.py`, `encoder.json` and `encoder.safetensors` alone:",
            _python(["from encoder import encode, net  # net: a torch.nn.Module", "", "vectors = encode(x)  # N x D"]),
            "The docstring of `encode` says what `x` is.",
        ]
    return _section("How to load it", "\n\n".join(parts))


def _python(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _section(heading: str, body: str) -> str:
    return f"## {heading}\n\n{body.strip()}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(text: str) -> str:
    """A text in which nothing is markup, on one line."""
    plain = printable(re.sub(r"\s+", " ", text))  # at its ends too, where code may stand beside it
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", plain)


def _code(text: str) -> str:
    """A text set as code, in a cell of a table too."""
    plain = printable(" ".join(text.split())).replace("|", "\\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    gap = " " if len(ticks) > 1 else ""
    return f"{ticks}{gap}{plain}{gap}{ticks}"
