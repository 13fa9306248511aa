"""`nearfar compare`, `helps` and `transfer`: which method, whether pre-training is worth it, and on which data."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from typing import TYPE_CHECKING, Any

from nearfar import methods as catalog
from nearfar.cli.flags import parsed
from nearfar.cli.printing import print
from nearfar.errors import UserError
from nearfar.ranges import Checked
from nearfar.studies import asked

if TYPE_CHECKING:
    from nearfar.studies.base import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Checked):
    """Train several methods on the same data at equal budget, over seeds, and say which differences are there.

    Stopped, even by kill -9, it goes on where it was when it is started again with the same flags.
    """

    ask: asked.Compare
    out: str = "compare"
    """Where everything goes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Helps(Checked):
    """Will pre-training help me? Trains with and without it on parts of the labels, and says so in a sentence.

    Pre-trains on the samples without their labels, then compares classifiers that learn from few labels: from scratch,
    linear on the untrained and on the pre-trained encoder, fine-tuned. Rows of the split test are tested, or a fifth.
    Stopped, even by kill -9, it goes on where it was when it is started again with the same flags.
    """

    ask: asked.Helps
    out: str = "helps"
    """Where everything goes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(Checked):
    """How well the encoders of several runs serve other data sets: a linear classifier, neighbors and few labels, on
    all of them, beside raw input and the untrained encoders; ranks, and how far the data sets agree.

    Each cell of the table is measured once and kept: runs and data sets may be added, and a command that was stopped,
    even by kill -9, goes on where it was. Data that a run cannot take are left out, which is said before all else.
    """

    ask: asked.Transfer
    out: str = "transfer"
    """Where everything goes."""


def compare(argv: list[str]) -> int:
    """Compare methods."""
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    apart = list(itertools.takewhile(lambda word: word in catalog.names(), first))
    if len(apart) > 1:
        words = ["nearfar", "compare", ",".join(apart), *(first[len(apart) :] or ["DATA"]), *argv[len(first) :]]
        raise UserError(f"methods stand together, with commas between them: {shlex.join(words)}")
    call = parsed(Compare, "compare", argv)
    from nearfar.studies.comparison import Comparison

    return _answer(Comparison(call.ask, call.out), argv)


def helps(argv: list[str]) -> int:
    """Say whether pre-training helps."""
    call = parsed(Helps, "helps", argv)
    from nearfar.studies.helps import PretrainingHelps

    return _answer(PretrainingHelps(call.ask, call.out), argv)


def transfer(argv: list[str]) -> int:
    """Measure runs on data sets."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    if len(words) > 1 and not any(word.partition("=")[0] in ("--to", "-h", "--help") for word in argv):
        call = shlex.join(["nearfar", "transfer", *words[:-1], "--to", words[-1], *argv[len(words) :]])
        raise UserError(f"data sets are named by --to: {call}")
    call = parsed(Transfer, "transfer", argv)
    from nearfar.studies.across_sets import plain
    from nearfar.studies.transfer import Transferred

    study = Transferred(call.ask, call.out)
    if not study.answer():
        return _stopped(study, argv)
    print(f"\n{study.title()}\n\n{plain(study.summary)}\n")
    return _told(study)


def _answer(study: Study[Any], argv: list[str]) -> int:
    """Measure what is missing, and print the table and what can be told."""
    if not study.answer():
        return _stopped(study, argv)
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    header, *rows = study.lines()
    table = Table(title=study.title(), title_justify="left", box=SIMPLE_HEAD)
    shown = [i for i, name in enumerate(header) if name not in study.hidden]
    for i in shown:
        heading = header[i].replace("gain over ", "gain over\n")
        table.add_column(heading, justify="right" if i else "left", no_wrap=i > 0)
    for row in rows:
        table.add_row(*(row[i].replace(" [", "\n[") for i in shown), end_section=True)
    Console().print(table)
    return _told(study)


def _stopped(study: Study[Any], argv: list[str]) -> int:
    print(f"Stopped and saved. Go on with: {shlex.join(['nearfar', study.name, *argv])}")
    return 130


def _told(study: Study[Any]) -> int:
    print("\n".join(study.sentences()))
    print(f"\nTable: {study.file('csv')}\nPage:  {study.file('html')}")
    return 0
