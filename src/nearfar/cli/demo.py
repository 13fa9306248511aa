"""`nearfar demo`: what contrastive learning does, on real drawings, in a minute or two."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nearfar.cli.flags import parsed
from nearfar.cli.printing import print
from nearfar.ranges import Checked, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(Checked):
    """Train SimCLR on drawings of characters, without labels; then recognize characters of alphabets it never saw."""

    out: str = ""
    """Where the run goes; runs/demo-N by default."""
    seed: Seed = 0
    """All that is random follows from it."""


def demo(argv: list[str]) -> int:
    """Train, measure, report."""
    asked = parsed(Demo, "demo", argv)
    from nearfar.cli.console import Console
    from nearfar.modalities.image.drawings import drawings
    from nearfar.modalities.image.settings import DRAWINGS
    from nearfar.training import job as training
    from nearfar.training import plan as plans

    out = Path(asked.out) if asked.out else plans.free_directory("demo", "drawings")
    plan = plans.make("simclr", DRAWINGS, None, {"labels": "none", "epochs": 2, "seed": asked.seed})
    with Console() as console:
        console.say("Learning from 13,180 drawings of 20 alphabets. No label is used.")
        if not training.train(plan, out, say=console.say, watch=console.watch):
            return 130
        console.say("Measuring on 4,840 drawings of 8 alphabets it never saw.")
        from nearfar import looks
        from nearfar.run import load

        run, test = load(out), drawings("test")
        table = measure(run, test)
        run.write("demo", table)
        looks.explore(run, test, most=1500)
        page = run.report()
    print_table(table)
    print(f"\n{table['note']}")
    print(f"\nRun:     {out}\nReport:  {page}")
    return 0


def measure(run: Any, test: Any, seed: int = 0) -> dict[str, Any]:
    """20-way 1-shot accuracy and retrieval of pixels, the untrained and the trained encoder: a report's table."""
    import torch

    from nearfar.evaluation.intervals import bootstrap
    from nearfar.evaluation.kshot import episodes
    from nearfar.evaluation.retrieval import retrieval
    from nearfar.modalities.image.drawings import alphabets
    from nearfar.modalities.image.views import plain
    from nearfar.training import probe as probing

    names = sorted(set(alphabets(test)))
    alphabet = torch.tensor([names.index(name) for name in alphabets(test)])
    view = plain(run.config["made"]["size"])
    pixels = view(*test.fetch(torch.arange(len(test))))[0].flatten(1)
    rows, protocol = [], {}
    for name, features in (
        ("raw pixels", pixels),
        ("untrained encoder", probing.passed(run.untrained(), view, test)),
        ("trained encoder", probing.embed(run.encoder, view, test)),
    ):
        shot = episodes(features, test.label, within=alphabet, seed=seed)
        precisions = [
            retrieval(features[alphabet == a], test.label[alphabet == a], seed=seed)["mAP"] for a in range(len(names))
        ]
        mean, low, high = bootstrap(precisions, seed=seed)
        values = {
            "20-way 1-shot (%)": {"value": shot["accuracy"], "low": shot["low"], "high": shot["high"]},
            "retrieval mAP (%)": {"value": mean, "low": low, "high": high},
        }
        rows.append({"name": name, "main": name == "trained encoder", "values": values})
        protocol = shot["protocol"]
    return {
        "title": "Characters of alphabets it never saw",
        "note": (
            "1-shot: one drawing of each of 20 characters of one alphabet is known, and a drawing by another hand must "
            "be named; chance is 5 %. Retrieval: the other drawings of the same character should come first among all "
            f"of its alphabet. Intervals (95 %) are over the {protocol['units']} alphabets that have 20 characters, "
            f"for retrieval over all {len(names)}. No test drawing was seen in training."
        ),
        "columns": ["20-way 1-shot (%)", "retrieval mAP (%)"],
        "rows": rows,
        "protocol": protocol,
    }


WIDE = 5
"""Columns that fit into a terminal side by side."""


def print_table(table: dict[str, Any]) -> None:
    """Print a report's table; one of many columns with a line for each of these."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=table["title"], title_justify="left", title_style="bold")
    names, columns = [row["name"] for row in table["rows"]], table["columns"]
    cells = {(row["name"], c): _shown(row["values"].get(c)) for row in table["rows"] for c in columns}
    turned = len(columns) > max(WIDE, len(names))
    drawn.add_column("")
    for column in names if turned else columns:
        drawn.add_column(column, justify="right")
    for column in columns if turned else ():
        drawn.add_row(column, *(cells[name, column] for name in names), end_section=True)
    for row in () if turned else table["rows"]:
        shown = [cells[row["name"], column] for column in columns]
        drawn.add_row(row["name"], *shown, style="bold" if row.get("main") else "", end_section=True)
    Console().print(drawn)


def _shown(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['value']:.{cell.get('places', 1)}f}" + (
        f"\n{cell['low']:.1f} to {cell['high']:.1f}" if "low" in cell else ""
    )
