"""What all studies share: they go on only with the same question, and measure nothing twice."""

from __future__ import annotations

import csv
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nearfar.studies.asked import Ask
from nearfar.studies.base import Page, Study


@dataclass(frozen=True, kw_only=True)
class Question(Ask):
    names: tuple[str, ...] = ("a", "b", "c")


class Toy(Study[Question]):
    """Measures the length of names; dies before the one called `dies_at`."""

    name = "toy"
    dies_at = ""

    def measure(self) -> bool:
        values = self.measured.setdefault("values", {})
        for name in self.ask.names:
            if name in values:
                continue
            if name == self.dies_at:
                return False
            self.say(name)
            values[name] = float(len(name))
            self.keep()
        return True

    def summarize(self) -> dict[str, Any]:
        return {"sum": sum(self.measured["values"].values())}

    def title(self) -> str:
        return "Lengths"

    def lines(self) -> list[Sequence[str]]:
        return [("name", "length"), *((name, str(value)) for name, value in self.measured["values"].items())]

    def sentences(self) -> list[str]:
        return [f"In all {self.summary['sum']}."]

    def page(self) -> Page:
        cells = {name: {"length": {"mean": v, "low": v, "high": v}} for name, v in self.measured["values"].items()}
        return Page(heading="Lengths of names", facts={"Names": 3}, cells=cells, main="a")


def test_it_goes_on_where_it_was_and_only_with_the_same(tmp_path: Path) -> None:
    said: list[str] = []
    first = Toy(Question(), tmp_path, say=said.append)
    first.dies_at = "b"
    assert not first.answer()
    saved = json.loads((tmp_path / "toy.json").read_text())
    assert saved["asked"] == Question().saved()
    assert saved["asked"]["names"] == ["a", "b", "c"]
    assert (saved["measured"], saved["summary"]) == ({"values": {"a": 1.0}}, {})
    assert not (tmp_path / "toy.html").exists()
    with pytest.raises(ValueError, match=r"--label-column was '' and is 'kind'.*another --out"):
        Toy(Question(label_column="kind"), tmp_path).answer()
    again = Toy(Question(), tmp_path, say=said.append)
    assert again.answer()
    assert said == ["a", "b", "c"]
    assert json.loads((tmp_path / "toy.json").read_text())["summary"] == again.summary == {"sum": 3.0}
    with open(tmp_path / "toy.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "length"], ["a", "1.0"], ["b", "1.0"], ["c", "1.0"]]
    page = (tmp_path / "toy.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("Lengths of names", "In all 3.0."))


def test_settings_of_the_runs_are_those_that_were_asked_for() -> None:
    assert Ask().flags() == {"labels": "", "keep_words": (), "label_column": ""}
    assert Ask(encoder="conv4", size=32, labels="x").flags() == {
        "labels": "x",
        "keep_words": (),
        "label_column": "",
        "encoder": "conv4",
        "size": 32,
    }


def test_a_second_process_on_the_same_study_is_refused(tmp_path: Path) -> None:
    told: list[str] = []

    def second(name: str) -> None:
        def ask() -> None:
            with pytest.raises(ValueError, match=rf"process {os.getpid()} \("):
                Toy(Question(), tmp_path, say=print).answer()
            told.append(name)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    assert Toy(Question(), tmp_path, say=second).answer()
    assert told == ["a", "b", "c"]
