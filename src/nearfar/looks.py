"""What a run has learned, to be looked at: its encoder, and some samples, brought to `nearfar.report.look`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from nearfar.data.samples import Samples
from nearfar.errors import UserError, counted
from nearfar.looking import Look
from nearfar.method import Method
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.look import Seen, sections, write_page
from nearfar.report.page import title
from nearfar.report.record import check_look, read
from nearfar.run import Run, named


@checked
def look(
    run: Run,
    data: Any,
    kinds: Sequence[Look] = (),
    *,
    labels: Any = None,
    label_column: str = "",
    most: PositiveInt = 5000,
    seed: Seed = 0,
    called: str = "",
) -> dict[str, Any]:
    """The content of results/look.json: sections, as `nearfar.report.look` makes them. Nothing is written.

    kinds: of `nearfar.looking.LOOKS`; all by default. One that is not possible says why.  most: samples, drawn with the
    run's seed where there are more.  seed: of what is shown of them.  called: what the data are called.  Others: see
    `Run.open`.
    """
    samples = run.open(data, labels=labels, label_column=label_column).at_most(most, run.settings.seed)
    seen = Seen(
        kind=run.kind,
        encoder=run.encoder,
        untrained=run.untrained(),
        samples=samples,
        features=run.embed(samples),
        method=_method(run),
        settings=run.settings,
        made=run.made,
        seed=seed,
    )
    return {
        "sections": sections(seen, kinds),
        "run": run.path.name,
        "checkpoint": run.checkpoint,
        "data": f"{counted(len(samples), run.kind.noun)} of {called or named(data)}",
        "written": datetime.now(UTC).isoformat(),
    }


def _method(run: Run) -> Method | str:
    """The method that made the encoder; or why there is none: no checkpoint is left, or its code is not trusted."""
    if run.tower:
        return "a method contrasts all towers, and one of them is looked at"
    try:
        return run.method
    except UserError as error:
        return str(error)


def explore(run: Run, data: Any, *, labels: Any = None, label_column: str = "") -> None:
    """Write what the report shows of some samples: a map, neighbors, copies and outliers, and all there is to look at.

    Arguments: see `Run.open`.
    """
    samples: Samples = run.open(data, labels=labels, label_column=label_column)
    run.explore(samples)
    others: list[Look] = [name for name in get_args(Look) if name != "neighbors"]  # which are there already
    run.write("look", look(run, samples, others, called=named(data)))


def page(run: Run, content: dict[str, Any], path: Path) -> Path:
    """Write the page of what `look` gave."""
    return write_page(path, check_look(content), title(read(run.path)))
