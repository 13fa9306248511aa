"""How the result of `nearfar evaluate --suite` is printed."""

from __future__ import annotations

from typing import Any

from nearfar.suite.names import UNASKED


def print_suite(table: dict[str, Any]) -> None:
    """Print every part that was measured, and those that were left out."""
    from rich.console import Console
    from rich.table import Table

    made = table["suite"]
    encoders, console = made["encoders"], Console()
    for part in made["parts"]:
        drawn = Table(title=part["title"], title_justify="left", title_style="bold")
        drawn.add_column("")
        for name in encoders:
            drawn.add_column(name, justify="right")
        if len(encoders) > 1:
            drawn.add_column("gain", justify="right")
        for row in part["rows"]:
            cells = [_cell(row["cells"].get(name), row["places"]) for name in encoders]
            gained = _cell(row["gains"].get(encoders[0]), row["places"], sign="+")
            drawn.add_row(row["title"] + _arrow(row["better"]), *cells, *([gained] if len(encoders) > 1 else []))
        console.print(drawn)
        for note in part["notes"]:
            console.print(f"  {note}", markup=False, highlight=False)
    if len(encoders) > 1:
        console.print(f"Gain: what the {encoders[-1]} has over the {encoders[0]}, sample by sample.", highlight=False)
    unasked = [one["name"] for one in made["left_out"] if one["why"] == UNASKED]
    if unasked:
        console.print(f"Not asked for: {', '.join(unasked)}", markup=False, highlight=False)
    for one in (one for one in made["left_out"] if one["why"] != UNASKED):
        console.print(f"Left out: {one['name']} ({one['why']})", markup=False, highlight=False)


def _arrow(better: str) -> str:
    return ", lower is better" if better == "lower" else ""


def _cell(cell: dict[str, Any] | None, places: int, sign: str = "") -> str:
    if cell is None:
        return ""
    text = f"{cell['value']:{sign}.{places}f}"
    if cell.get("low") is not None:
        text += f" [{cell['low']:{sign}.{places}f}, {cell['high']:{sign}.{places}f}]"
    return text
