from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from nearfar.modalities.table.values import as_numbers, as_texts, meaning, missing_words, plain


def test_text_is_without_white_space_and_words_for_missing_are_null() -> None:
    given = pa.array([" x\xa0", "NA", "", None, "?", "na"])
    assert plain(given).to_pylist() == ["x", None, None, None, None, "na"]
    assert plain(given.dictionary_encode(), keep=["NA"]).to_pylist() == ["x", "NA", None, None, None, "na"]
    assert plain(pa.array([1, None])).to_pylist() == [1, None]
    assert missing_words(pa.table({"a": given, "b": [1] * 6})) == (2, ["?", "NA"], ["a"])


def test_text_is_read_as_numbers_or_as_times_in_seconds() -> None:
    numbers, strange = as_numbers(pa.array(["1", "-2.5e1", "+3.", ".5", "x", None, "inf", "01"]), time=False)
    assert numbers.tolist()[:4] == [1, -25, 3, 0.5]
    assert np.isinf(numbers[6])
    assert strange.tolist() == [False, False, False, False, True, False, False, True]
    seconds, strange = as_numbers(
        pa.array(["1970-01-02", "1970-01-01 00:01", "00:00:02.5", "1970-01-01T00:00:03Z", "5"]), time=True
    )
    assert seconds.tolist()[:4] == [86_400, 60, 2.5, 3]
    assert strange.tolist() == [False, False, False, False, True]
    day = pa.array([datetime.date(1970, 1, 2)])
    for unit in ("s", "ms", "us", "ns"):
        assert as_numbers(day.cast(pa.timestamp(unit)), time=True)[0].tolist() == [86_400]
    assert as_numbers(day, time=False)[1].tolist() == [True]
    assert as_numbers(pa.array(["2024-02-31"]), time=True)[1].tolist() == [True]
    assert as_numbers(pa.array([2**62]), time=False)[0].tolist() == [2.0**62]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2.5", "3"], (False, False)),
        (["1"] * 9 + ["x"], (False, False)),
        (["1"] * 8 + ["x", "y"], (False, True)),
        (["007", "12"], (False, True)),
        (["2024-01-01", "2024-01-02 12:00"], (True, False)),
        (["x", "y"], (False, True)),
    ],
)
def test_what_a_column_of_text_is(values: list[str], expected: tuple[bool, bool]) -> None:
    assert meaning("a", pa.array(values, pa.large_string()), typed=False)[:2] == expected


def test_categories_as_text() -> None:
    assert as_texts(pa.array([1.0, None, 2.0])) == ["1", None, "2"]
    assert as_texts(pa.array([True, None])) == ["True", None]
    assert as_texts(pa.array(["1.0", "01", "1.50"])) == ["1", "01", "1.50"]
    with pytest.raises(ValueError, match="one of date32"):
        as_texts(pa.array([datetime.date(2020, 1, 1)]))
