"""The blocks of code that the pages show, and what is run of them.

A line before a block says what is not run with the tests, and why: `<!-- long: WHY -->` (`make docs-check` runs it) or
`<!-- not run: WHY -->`. `<!-- file: NAME -->` writes the block into that file instead.
In the first lines of a page, `<!-- page not run: WHY -->` says it of all its blocks.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from nearfar.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SHELL = ("sh", "bash", "shell", "console")
SHOWN = ("text", "yaml", "json")
"""What is shown and is no code."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>long|not run|file): (?P<why>.*?) -->\n)?"
    r"(?:^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|"
    r"(?:(?<=\n\n)|(?<=-->\n))(?P<indented>(?:^    (?:nearfar|python|torchrun) [^\n]*\n)+))",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Code on a page. mark: "long", "not run", "file", or "" for what is run; why: the reason, or the file."""

    page: str
    line: int
    language: str
    code: str
    mark: str
    why: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: Path, *, all_of_it: bool = False) -> list[Block]:
    """The blocks of code of a page, in order.

    all_of_it: for a test of the page's own: what the first lines say of all its blocks does not count.
    """
    text = page.read_text(encoding="utf-8") + "\n"
    name = page.relative_to(ROOT).as_posix()
    top = "" if all_of_it else "\n".join(text.splitlines()[:5])
    whole = re.search(r"^<!-- page not run: (.*?) -->$", top, re.MULTILINE)
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        language = match["language"] if match["fenced"] is not None else "sh"
        code = match["fenced"] if match["fenced"] is not None else re.sub(r"^    ", "", match["indented"], flags=re.M)
        if language in SHOWN:
            continue
        mark, why = ("not run", whole[1]) if whole else (match["mark"] or "", match["why"] or "")
        found.append(Block(name, text.count("\n", 0, match.start()) + 1, language, code, mark, why))
    return found


def lines(code: str) -> list[list[str]]:
    """The words of each call of a block for the shell."""
    joined = code.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def run(some: list[Block], *, long: bool = False, train: Sequence[str] = ()) -> None:
    """Run blocks of a page one after the other, here: Python with names in common, calls by the command line.

    train: flags that each call of train gets besides, so that it is short.
    """
    names: dict[str, object] = {"__name__": "snippet"}
    for block in some:
        if block.mark == "not run" or (block.mark == "long" and not long):
            continue
        if block.mark == "file":
            Path(block.why).write_text(block.code, encoding="utf-8")
            continue
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), names)
            continue
        assert block.language in SHELL, f"{block}: a block of {block.language!r}, which nothing runs"
        for words in lines(block.code):
            assert words[0] == "nearfar", f"{block}: {shlex.join(words)} is no call of nearfar: mark the block"
            more = train if words[1] == "train" else ()
            assert main([*words[1:], *more]) == 0, f"{block}: {shlex.join(words)}"
            for flag, path in pairwise(words):
                assert flag not in ("--out", "--save", "--page") or Path(path).exists(), f"{block}: no {path}"


def stopped(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Have commands end where they would open files, by an exception of this type: flags, values and what is named are
    known to be right then."""

    class Parsed(Exception):
        pass

    def stop(*args: object, **options: object) -> None:
        raise Parsed

    monkeypatch.setenv("NEARFAR_TRACEBACK", "1")  # so that the command line lets the exception through
    monkeypatch.setattr("nearfar.training.job.train", stop)  # train, demo
    monkeypatch.setattr("nearfar.modalities.image.kind.ImageKind.views", stop)  # views
    monkeypatch.setattr("nearfar.modalities.image.doctor.examine", stop)
    monkeypatch.setattr("nearfar.modalities.table.doctor.examine", stop)
    monkeypatch.setattr("nearfar.modalities.audio.doctor.examine", stop)
    monkeypatch.setattr("nearfar.report.beside.beside", stop)
    monkeypatch.setattr("nearfar.studies.base.Study.answer", stop)  # compare, helps
    monkeypatch.setattr("nearfar.report.runs.find", stop)
    monkeypatch.setattr("nearfar.report.card.write_card", stop)
    monkeypatch.setattr("nearfar.run.load", stop)  # embed, evaluate, finetune, report, export
    monkeypatch.setattr("nearfar.fewlabels.classifier.Classifier.__init__", stop)  # predict, distill
    return Parsed
