"""What a run makes of some samples, to be looked at: on pages of their own, and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from nearfar.data.samples import Samples
from nearfar.errors import UserError, counted
from nearfar.looking import Look
from nearfar.method import Method
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.look import Seen, sections, write_page
from nearfar.report.page import title
from nearfar.report.record import check_look, read
from nearfar.report.samples import colors_of, copy_sets, embedding_map, neighbor_grid, outliers
from nearfar.run import Run, named

MANY = 1000
"""Samples beyond which the map has smaller thumbnails."""


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
) -> dict[str, Any]:
    """The content of results/look.json: sections, as `nearfar.report.look` makes them. Nothing is written.

    kinds: of `nearfar.looking.LOOKS`; all by default. One that is not possible says why.  most: samples, drawn with the
    run's seed where there are more.  seed: of what is shown of them.  Others: see `Run.open`.
    """
    samples = run.open(data, labels=labels, label_column=label_column).at_most(most, run.settings.seed)
    return _looked(run, samples, run.embed(samples), kinds, named(data), seed)


@writes
@checked
def explore(
    run: Run, data: Any, *, labels: Any = None, label_column: str = "", most: PositiveInt = 5000
) -> tuple[Samples, Tensor]:
    """Write what the report shows of some samples: a map of the embeddings, nearest neighbors, copies and outliers.

    most: samples, drawn with the run's seed where there are more.  Others: see `Run.open`.
    Gives those that are shown, and their representation, N x dim.
    """
    samples = run.open(data, labels=labels, label_column=label_column).at_most(most, run.settings.seed)
    features, shown = run.embed(samples), run.kind.tiles(samples)
    side = 40 if len(samples) <= MANY else 32  # pixels, so that the page stays small
    run.write("neighbors", neighbor_grid(features, shown))
    run.write("map", embedding_map(features, shown, side=side, colors=colors_of(samples, features)))
    run.write("copies", copy_sets(features, run.kind.copies(samples).group, shown))
    run.write("outliers", outliers(features, shown))
    return samples, features


@writes
def show(run: Run, data: Any, *, labels: Any = None, label_column: str = "") -> None:
    """Write all that the report shows of some samples: what `explore` writes, and all there is to look at.

    Arguments: see `Run.open`.
    """
    samples, features = explore(run, data, labels=labels, label_column=label_column)
    others: list[Look] = [name for name in get_args(Look) if name != "neighbors"]  # which are there already
    run.write("look", _looked(run, samples, features, others, named(data), run.settings.seed))


def _looked(
    run: Run, samples: Samples, features: Tensor, kinds: Sequence[Look], called: str, seed: int
) -> dict[str, Any]:
    """The content of results/look.json.  features: of the samples, N x dim."""
    seen = Seen(
        kind=run.kind,
        encoder=run.encoder,
        untrained=run.untrained(),
        samples=samples,
        features=features,
        method=_method(run),
        settings=run.settings,
        made=run.made,
        seed=seed,
        untrusted=_untrusted(run),
    )
    return {
        "sections": sections(seen, kinds),
        "run": run.path.name,
        "checkpoint": run.checkpoint,
        "data": f"{counted(len(samples), run.kind.noun)} of {called}",
        "written": datetime.now(UTC).isoformat(),
    }


def _untrusted(run: Run) -> str:
    """Why the views that it was trained with are not made again, where they are code that is not trusted."""
    try:
        run.insist_trusted(run.settings.views)
    except UserError as error:
        return str(error)
    return ""


def _method(run: Run) -> Method | str:
    """The method that made the encoder; or why there is none: no checkpoint is left, or its code is not trusted."""
    if run.tower:
        return "a method contrasts all towers, and one of them is looked at"
    try:
        return run.method
    except UserError as error:
        return str(error)


def page(run: Run, content: dict[str, Any], path: Path) -> Path:
    """Write the page of what `look` gave."""
    return write_page(path, check_look(content), title(read(run.path)))
