from __future__ import annotations

import math

import pytest

from nearfar.report import numbers


@pytest.mark.parametrize(
    ("value", "places", "written"),
    [(81.25, 1, "81.2"), (-0.5, 3, "−0.500"), (12345.0, 0, "12,345"), (None, 1, "–"), (math.nan, 1, "–")],
)
def test_numbers(value: float | None, places: int, written: str) -> None:
    assert numbers.number(value, places) == written


def test_an_interval_has_both_ends_or_is_none() -> None:
    assert numbers.interval({"low": -1.0, "high": 2.5}, 1) == "−1.0 to 2.5"
    assert numbers.interval({"low": None, "high": 2.5}, 1) == numbers.interval({}, 1) == ""


@pytest.mark.parametrize(("values", "places"), [([81.2, 3.1], 1), ([0.61, 0.2], 3), ([3.0, 12.0, None], 0), ([], 0)])
def test_a_column_has_one_number_of_decimals(values: list[float | None], places: int) -> None:
    assert numbers.decimals(values) == places
    assert numbers.decimals(values, "accuracy (%)") == min(places, 1)


@pytest.mark.parametrize(
    ("seconds", "written"), [(4.125, "4.12 s"), (59.9, "59.9 s"), (192, "3 min 12 s"), (7500.4, "2 h 5 min")]
)
def test_durations(seconds: float, written: str) -> None:
    assert numbers.duration(seconds) == written


def test_a_protocol_leaves_out_what_is_empty_and_digits_that_nobody_reads() -> None:
    protocol = {
        "temperature": 1.3636058919101133,
        "notes": [],
        "labels": "",
        "parts": [56.0, 59.3333333],
        "a": {"b": 2},
    }
    assert numbers.protocol({"protocol": protocol}) == [
        ("temperature", "1.364"),
        ("parts", "[56.0, 59.33]"),
        ("a.b", "2"),
    ]
    assert numbers.protocol({}) == []


def test_only_what_stands_between_two_backticks_is_code() -> None:
    assert numbers.code_parts("run `a` and `b c`, not ` d") == [
        ("run ", False),
        ("a", True),
        (" and ", False),
        ("b c", True),
        (", not ` d", False),
    ]
