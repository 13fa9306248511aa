from __future__ import annotations

import itertools

import pytest
from benchmarks.bench.timing import OURS, DoesNotFit, Run, Spread, compare


def test_contenders_take_turns_and_are_compared_within_a_turn() -> None:
    now, order = [0.0], []
    length = {OURS: itertools.cycle([1.0, 2.0]), "other": itertools.cycle([3.0, 8.0])}

    def make(who: str) -> Run:
        def run() -> float:
            order.append(who)
            now[0] += next(length[who])
            return 7.0

        return run

    def missing() -> Run:
        raise ImportError("no module", name="elsewhere")

    def large() -> Run:
        raise DoesNotFit("needs 99 GiB")

    contenders = {"other": lambda: make("other"), "gone": missing, "large": large, OURS: lambda: make(OURS)}
    row = compare(
        "task", {"N": 3}, contenders, clock=lambda: now[0], seconds=0, least=4, warm=False, rate=(6, "things/s")
    )
    assert order == ["other", OURS] * 4
    assert row.ratio["other"] == Spread(3.5, 3.0, 4.0)
    assert row.seconds[OURS] == Spread(1.5, 1.0, 2.0)
    assert row.absent == {"gone": "not installed (elsewhere)", "large": "needs 99 GiB"}
    assert row.value == {"other": 7.0, OURS: 7.0}
    assert "3.50 x" in row.text()


def test_the_number_of_turns_follows_the_time_they_take() -> None:
    now = [0.0]

    def run() -> None:
        now[0] += 0.5

    def turns(seconds: float) -> int:
        return compare("task", {}, {OURS: lambda: run}, clock=lambda: now[0], seconds=seconds).turns

    assert [turns(0.1), turns(3), turns(1000)] == [3, 6, 15]


def test_without_the_reference_there_is_nothing_to_compare() -> None:
    def missing() -> Run:
        raise ImportError(name="nearfar")

    with pytest.raises(RuntimeError, match="'nearfar' did not run"):
        compare("task", {}, {OURS: missing}, clock=lambda: 0.0, seconds=0)
