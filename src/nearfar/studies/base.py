"""A study: a question about data, answered by training and measuring, that survives being killed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nearfar.errors import UserError
from nearfar.files import clear_leftovers, read_json, replace_csv, replace_json
from nearfar.owner import owned
from nearfar.report.compared import compared
from nearfar.studies.asked import Question

A = TypeVar("A", bound=Question)


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page of a study shows, besides its sentences.

    facts: by name, of the budget.
    cells: of each row, for each column: mean, low and high.
    main: the row that stands out.
    """

    heading: str
    facts: Mapping[str, object]
    cells: Mapping[str, Mapping[str, Mapping[str, float]]]
    main: str


class Study(ABC, Generic[A]):
    """What is asked, what is measured, and a page.

    The directory `out` holds NAME.json (what was asked, what is measured so far, and in the end the summary), NAME.csv
    and NAME.html. Stopped at any moment, even by kill -9, a study goes on where it was when it is asked the same again.
    """

    name: ClassVar[str]
    """Of the command, and of the files."""
    hidden: ClassVar[tuple[str, ...]] = ()
    """Columns that only the CSV has, not the terminal."""

    def __init__(self, ask: A, out: str | Path, *, say: Callable[[str], None] = print) -> None:
        self.ask, self.out, self.say = ask, Path(out), say
        self.measured: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}

    def answer(self) -> bool:
        """Measure what is missing, then write the table and the page. False where it was told to stop.

        Raises ValueError where `out` holds another study or another process is at work there, or the question makes no
        sense for the data.
        """
        with owned(self.out):
            return self._answer()

    def _answer(self) -> bool:
        self._resume()
        clear_leftovers(self.out)
        self.prepare()
        self.keep()
        if not self.measure():
            return False
        self.summary = self.summarize()
        self.keep()
        replace_csv(self.file("csv"), self.lines())
        self.write_page()
        return True

    def write_page(self) -> None:
        """NAME.html."""
        page = self.page()
        compared(
            self.file("html"), page.heading, page.facts, self.sentences(), page.cells, by=self.name, main=page.main
        )

    def keep(self) -> None:
        """Save what was asked and what is measured so far."""
        document = {"asked": self.ask.saved(), "measured": self.measured, "summary": self.summary}
        replace_json(self.file("json"), document, indent=1)

    def file(self, suffix: str) -> Path:
        """One of the study's files."""
        return self.out / f"{self.name}.{suffix}"

    def _resume(self) -> None:
        if not self.file("json").exists():
            return
        document = read_json(self.file("json"), "start anew, with another --out")
        asked, saved = self.ask.saved(), document.get("asked", {})
        if changed := [name for name in asked if asked[name] != saved.get(name)]:
            name = changed[0]
            raise UserError(
                f"{str(self.out)!r} was asked something else: --{name.replace('_', '-')} was {saved.get(name)!r} and "
                f"is {asked[name]!r}. Give the same flags to go on with it, or another --out"
            )
        self.measured = document.get("measured", {})

    def prepare(self) -> None:
        """Open what is needed. Raises ValueError where the question makes no sense; nothing has been written yet."""
        return

    @abstractmethod
    def measure(self) -> bool:
        """Fill in what is missing of `measured`, with `keep` after each part. False where it was told to stop."""

    @abstractmethod
    def summarize(self) -> dict[str, Any]:
        """Means and differences of what was measured, fit for JSON."""

    @abstractmethod
    def title(self) -> str:
        """What stands above the table."""

    @abstractmethod
    def lines(self) -> list[Sequence[str]]:
        """The table: a header, and rows."""

    @abstractmethod
    def sentences(self) -> list[str]:
        """What can be told."""

    def page(self) -> Page:
        """What the page shows, of a study that leaves it to `write_page`."""
        raise NotImplementedError
