from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from nearfar.evaluation.intervals import judged, of_answers
from nearfar.evaluation.protocol import packed
from nearfar.studies.across_sets import LINEAR, Cell, Told, correlation, lines, markdown, plain, sentences, summarize

N = 400


def cell(right: int, of: str = "x") -> Cell:
    hit = torch.arange(N) < right
    mean, low, high = of_answers(hit)
    return {"accuracy": mean, "low": low, "high": high, "right": packed(hit), "of": of}


def told(table: dict[str, list[int | None]], **changed: Any) -> Told:
    """Runs on data sets one, two, ...: right answers of 400; None where it was not measured."""
    sets = ["one", "two", "three"][: max(map(len, table.values()))]
    cells = {
        row: {name: {LINEAR: cell(right)} for name, right in zip(sets, values, strict=True) if right is not None}
        for row, values in table.items()
    }
    runs = [row for row in table if row not in ("raw", "untrained")]
    given: dict[str, Any] = {
        "cells": cells,
        "sets": sets,
        "trained": runs,
        "untrained": {"untrained": "net"} if "untrained" in table else {},
        "architecture": dict.fromkeys(runs, "net"),
        "raw": ["raw"] if "raw" in table else [],
        "groups": dict.fromkeys(sets),
        "refused": {},
        "seen": {},
        "own": {},
    }
    return Told(**given | changed)


TABLE: dict[str, list[int | None]] = {
    "a": [200, 300],
    "b": [300, 300],
    "c": [299, 200],
    "raw": [250, 350],
    "untrained": [100, 100],
}


def test_ranks_the_best_and_what_is_ahead_of_what() -> None:
    made = summarize(told(TABLE))
    assert made["runs"] == ["b", "a", "c"]
    assert made["ranks"][LINEAR] == {"one": {"a": 3, "b": 1, "c": 2}, "two": {"a": 1.5, "b": 1.5, "c": 3}}
    assert made["mean_rank"][LINEAR] == {"a": 2.25, "b": 1.25, "c": 2.5}
    assert made["best"][LINEAR] == {"one": "b", "two": "b"}
    gaps = made["behind"][LINEAR]
    assert gaps["one"]["a"]["mean"] == pytest.approx(25)
    assert {run: gap["judged"] for run, gap in gaps["one"].items()} == {"a": "ahead", "c": "alike"}
    assert {run: gap["judged"] for run, gap in gaps["two"].items()} == {"a": "alike", "c": "ahead"}
    over = made["over"]["c"]
    assert {base: gain["judged"] for base, gain in over["two"][LINEAR].items()} == {
        "raw": "behind",
        "untrained": "ahead",
    }
    texts = sentences(made)
    assert any(text.startswith("one: b") and "not shown to be behind it: c; behind it: a." in text for text in texts)
    assert any(text.startswith("c: ahead of raw on 1 of 2") and "behind it on two" in text for text in texts)
    assert [line.split()[:3] for line in plain(made).splitlines()[2:5]] == [
        ["b", "75.0*", "75.0*"],
        ["a", "50.0", "75.0~"],
        ["c", "74.8~", "50.0"],
    ]
    table = [[part.strip() for part in line.split("|")[1:-1]] for line in markdown(made).splitlines()]
    assert table[0] == ["run", "one", "two", "mean rank"]
    assert table[2][1].startswith("**75.0 [")
    assert table[4][1].endswith("]~")
    assert [row[0] for row in table[5:]] == ["raw", "untrained"]
    long = lines(made)
    assert len(long) == 11
    assert long[3][:4] == ("a", "one", LINEAR, "50.00")
    assert [row[-1] for row in long[1:7]] == ["best", "best", "behind", "alike", "alike", "behind"]


def test_answers_are_paired_only_where_they_are_to_the_same_samples() -> None:
    """One more right answer of the same samples is a gain that other samples could not show."""
    made = summarize(told({"a": [200], "b": [195]}))
    assert made["behind"][LINEAR]["one"]["b"]["paired"]
    width = made["behind"][LINEAR]["one"]["b"]["high"] - made["behind"][LINEAR]["one"]["b"]["low"]
    both = told({"a": [200], "b": [195]})
    other = {"a": both.cells["a"], "b": {"one": {LINEAR: cell(195, "y")}}}
    apart = summarize(told({"a": [200], "b": [195]}, cells=other))["behind"][LINEAR]["one"]["b"]
    assert not apart["paired"]
    assert apart["high"] - apart["low"] > 3 * width
    assert apart["judged"] == "open"


def test_groups_are_drawn_together() -> None:
    alone = summarize(told({"a": [200], "b": [180]}))["behind"][LINEAR]["one"]["b"]
    groups = {"x": [i // 100 for i in range(N)], "y": None}
    together = summarize(told({"a": [200], "b": [180]}, groups=groups))["behind"][LINEAR]["one"]["b"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
    assert judged(of_answers(torch.arange(N) < 200, over=torch.arange(N) < 180)) == alone["judged"] == "ahead"


def test_seeds_without_partners_are_not_paired() -> None:
    """As where a run of some seeds is not through yet."""

    def seeds(count: int, right: int) -> Cell:
        return cell(right) | {"right": packed((torch.arange(N) < right).expand(count, N))}

    cells = {row: {"one": {LINEAR: seeds(count, 200)}} for row, count in (("a", 3), ("b", 2), ("raw", 1))}
    made = summarize(told({"a": [200], "b": [200], "raw": [200]}, cells=cells))
    assert not made["behind"][LINEAR]["one"]["b"]["paired"]
    assert made["over"]["a"]["one"][LINEAR]["raw"]["paired"]


def test_mean_ranks_are_over_the_data_sets_on_which_all_were_measured() -> None:
    made = summarize(told({"a": [200, None, 100], "b": [100, 300, 200]}))
    assert made["ranked_sets"] == ["one", "three"]
    assert made["mean_rank"][LINEAR] == {"a": 1.5, "b": 1.5}
    assert made["best"][LINEAR]["two"] == "b"
    none = summarize(told({"a": [200, None], "b": [None, 200]}))
    assert none["mean_rank"][LINEAR] == {"a": None, "b": None}
    assert plain(none).splitlines()[2].split() == ["a", "50.0*", "–"]


def test_data_sets_are_correlated_over_runs() -> None:
    table: dict[str, list[int | None]] = {"a": [100, 210], "b": [200, 250], "c": [300, 220], "d": [390, 300]}
    own = {run: {"data": "home", "values": {LINEAR: value}} for run, value in zip("abcd", (9, 7, 5, 1), strict=True)}
    found = summarize(told(table, own=own))["correlation"][LINEAR]
    assert [(one["of"], one["and"]) for one in found] == [
        ("pre-training on home", "one"),
        ("pre-training on home", "two"),
        ("one", "two"),
    ]
    assert found[0]["spearman"][0] == pytest.approx(-1)
    x, y = [100, 200, 300, 390], [210, 250, 220, 300]
    assert found[2]["spearman"][0] == pytest.approx(next(iter(stats.spearmanr(x, y))))
    wanted: Any = stats.pearsonr(x, y)
    assert found[2]["pearson"] == pytest.approx([wanted.statistic, *wanted.confidence_interval()])
    few = {run: values for run, values in table.items() if run != "d"}
    assert summarize(told(few))["correlation"][LINEAR] == []


def test_few_runs_in_one_order_leave_doubt() -> None:
    value, low, high = correlation([1, 2, 3, 4], [1, 4, 9, 16])["spearman"]
    assert (value, high) == pytest.approx((1, 1))
    assert -1 < low < 0
    value, low, high = correlation(range(14), [-i for i in range(14)])["spearman"]
    assert (value, low) == pytest.approx((-1, -1))
    assert -1 < high < -0.9
