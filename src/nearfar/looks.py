"""What a run makes of some samples, to be looked at: on pages of their own, and in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
Say = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


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
    say: Say = silent,
) -> dict[str, Any]:
    """The content of results/look.json: sections, as `nearfar.report.look` makes them. Nothing is written.

    kinds: of `nearfar.looking.LOOKS`; all by default. One that is not possible says why.  most: samples, drawn with the
    run's seed where there are more.  seed: of what is shown of them.  say: told what is noted of the data, and what of
    them cannot be read.  Others: see `Run.open`.
    They are embedded where `Run.on` says, and the few of which pictures are made are then looked at on the CPU.
    """
    samples = _opened(run, data, labels, label_column, most, say)
    return _looked(run, samples, run.rows(samples), kinds, named(data), seed)


@writes
@checked
def explore(
    run: Run,
    data: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    most: PositiveInt = 5000,
    say: Say = silent,
) -> tuple[Samples, Tensor]:
    """Write what the report shows of some samples: a map of the embeddings, nearest neighbors, copies and outliers.

    most: samples, drawn with the run's seed where there are more.  Others: see `look`.
    Gives those that are shown, and their representation, N x dim.
    """
    samples = _opened(run, data, labels, label_column, most, say)
    features, shown = run.rows(samples), run.kind.tiles(samples)
    side = 40 if len(samples) <= MANY else 32  # pixels, so that the page stays small
    run.write("neighbors", neighbor_grid(features, shown))
    run.write("map", embedding_map(features, shown, side=side, colors=colors_of(samples, features)))
    run.write("copies", copy_sets(features, run.kind.copies(samples).group, shown))
    run.write("outliers", outliers(features, shown))
    return samples, features


@writes
def show(run: Run, data: Any, *, labels: Any = None, label_column: str = "", say: Say = silent) -> None:
    """Write all that the report shows of some samples: what `explore` writes, and all there is to look at.

    Arguments: see `look`.
    """
    samples, features = explore(run, data, labels=labels, label_column=label_column, say=say)
    others: list[Look] = [name for name in get_args(Look) if name != "neighbors"]  # which are there already
    run.write("look", _looked(run, samples, features, others, named(data), run.settings.seed))


def _opened(run: Run, data: Any, labels: Any, label_column: str, most: int, say: Say) -> Samples:
    """At most so many samples, with a word on what is not as it might be thought."""
    samples = run.open(data, labels=labels, label_column=label_column)
    for note in samples.notes:
        say(note)
    if samples.skipped:
        files = counted(len(samples.skipped), "files")
        say(f"{files} could not be read and are not shown, such as {samples.skipped[0][0]!r}")
    return samples.at_most(most, run.settings.seed)


@contextmanager
def _on_cpu(run: Run) -> Iterator[None]:
    """Within: the run computes on the CPU; afterward, where it did before."""
    device = str(run.device)
    run.on("cpu", run.batch)
    try:
        yield
    finally:
        run.on(device, run.batch)


def _looked(
    run: Run, samples: Samples, features: Tensor, kinds: Sequence[Look], called: str, seed: int
) -> dict[str, Any]:
    """The content of results/look.json.  features: of the samples, N x dim."""
    with _on_cpu(run):
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
        made = sections(seen, kinds)
    return {
        "sections": made,
        "run": run.path.name + (f", tower {run.tower}" if run.tower else ""),
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
