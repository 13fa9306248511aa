"""What the values of a column are: text is read as numbers, times or names, and other types are what they are."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from nearfar.data import csv
from nearfar.errors import UserError
from nearfar.ranges import LARGEST

pc: Any = pyarrow.compute  # whose functions are made as it is imported

NUMBERS = 0.9
"""The share of the values of a column of text that must be numbers for the others to count as missing."""

ZEROS = r"^[+-]?0[0-9]+(?:\.[0-9]*)?$"
"""A code: as a number it would lose its zeros."""

COMMAS = r"^[+-]?(?:[0-9]{1,3}(?:[,.'’ \x{00A0}\x{202F}][0-9]{3})+(?:[.,][0-9]*)?|[0-9]*,[0-9]+)$"
"""A number with a decimal comma, or with marks between thousands; 1.000 alone is a plain number, and is asked first."""

INFINITE = r"[+-]?(?i:inf|infinity)"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"


def missing_words(table: pa.Table, keep: Collection[str] = ()) -> tuple[int, list[str], list[str]]:
    """How many cells say that a value is missing, by which words, in which columns."""
    count: Counter[str] = Counter()
    where = []
    for name in table.column_names:
        values = _decoded(table[name].combine_chunks())
        if is_text(values.type):
            texts = pc.utf8_trim_whitespace(values.cast(pa.large_string()))
            words = texts.filter(pc.is_in(texts, value_set=pa.array(csv.MISSING_WORDS - set(keep), pa.large_string())))
            count.update(words.to_pylist())
            where += [name] if len(words) else []
    return count.total(), sorted(count), where


def plain(values: pa.Array, keep: Collection[str] = ()) -> pa.Array:
    """Text without white space around it, null where it says that a value is missing; other values as they are.

    keep: words that are values all the same.
    """
    values = _decoded(values)
    if not is_text(values.type):
        return values
    texts = pc.utf8_trim_whitespace(values.cast(pa.large_string()))
    words = pa.array(["", *(csv.MISSING_WORDS - set(keep))], pa.large_string())
    return pc.if_else(pc.is_in(texts, value_set=words), pa.scalar(None, pa.large_string()), texts)


def _decoded(values: pa.Array) -> pa.Array:
    """The values themselves, where they are numbers of a dictionary."""
    if not pa.types.is_dictionary(values.type):
        return values
    known = values.dictionary
    return (known.cast(pa.large_string()) if is_text(known.type) else known).take(values.indices)


def meaning(name: str, texts: pa.Array, typed: bool) -> tuple[bool, bool, list[str]]:
    """What a column of text holds: whether times; whether categories; numbers if neither. And what is to be said."""
    known = texts.drop_null()
    numbers = int(pc.sum(_matches(known, csv.NUMBER)).as_py() or 0)
    zeros = known.filter(pc.match_substring_regex(known, ZEROS))
    if len(zeros):
        note = f"The column {name!r} has zeros in front of numbers, such as {zeros[0].as_py()!r}: they are categories."
        return False, True, [note]
    strange = as_numbers(known, time=True)[1]
    if strange.sum() <= (1 - NUMBERS) * len(known):
        return True, False, []
    if not strange.all():
        other = known.filter(pa.array(strange))[0].as_py()
        times = f"{int((~strange).sum()):,} of {len(known):,} values of {name!r} are times"
        return False, True, [f"{times}, and others such as {other!r} are not: it is read as categories."]
    if numbers + _infinite(known) >= NUMBERS * len(known):
        insist_plain(name, known)
        if numbers == len(known) and typed:
            said = f"The column {name!r} is text and holds numbers only: it is read as numbers"
            return False, False, [f"{said}; --categorical {shlex.quote(name)} keeps it as categories."]
        return False, False, []
    commas = int(pc.sum(pc.match_substring_regex(known, COMMAS)).as_py())
    if numbers + commas >= NUMBERS * len(known):
        insist_plain(name, known)
    if numbers >= len(known) / 2:
        other = known.filter(pc.invert(_matches(known, csv.NUMBER)))[0].as_py()
        note = f"{numbers:,} of {len(known):,} values of {name!r} are numbers, and others such as {other!r} are not"
        return False, True, [f"{note}: it is read as categories."]
    return False, True, []


def insist_plain(name: str, texts: pa.Array) -> None:
    """Raise ValueError where text is a number with a decimal comma, or with marks between thousands."""
    plain = _matches(texts, csv.NUMBER)
    odd = texts.filter(pc.and_not(pc.match_substring_regex(texts, COMMAS), plain))
    if len(odd):
        quoted = shlex.quote(name)
        raise UserError(
            f"the column {name!r} holds numbers such as {odd[0].as_py()!r}: write them with a decimal point and "
            f"nothing between thousands, or take the column as categories by --categorical {quoted}, or leave it out "
            f"by --drop {quoted}"
        )


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(texts, f"^(?:{pattern})$")


def _infinite(texts: pa.Array) -> int:
    return int(pc.sum(_matches(texts, INFINITE)).as_py() or 0)


def is_time(kind: pa.DataType) -> bool:
    """Whether values are times or dates; how long something took is a number."""
    return pa.types.is_temporal(kind) and not pa.types.is_duration(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers, or times."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_temporal(kind)
    )


def as_numbers(values: pa.Array, time: bool) -> tuple[np.ndarray, np.ndarray]:
    """As float64, NaN where missing; and which are there, but are no such values.

    time: whether times are wanted, which become seconds: since 1970, or midnight.
    """
    kind = values.type
    if is_text(kind):
        present = values.is_valid()
        if time:
            day = _matches(values, DAY)
            on_a_day = pc.replace_substring_regex(values, "^", "1970-01-01 ")
            texts = pc.if_else(_matches(values, CLOCK), on_a_day, values)
            good = pc.or_(day, _matches(texts, f"{DAY}[ T]{CLOCK}Z?"))
            texts = pc.replace_substring_regex(texts, "Z$", "")
            seconds = pa.timestamp("us")
        else:
            good, texts, seconds = _matches(values, f"{csv.NUMBER}|{INFINITE}"), values, None
        texts = pc.if_else(pc.fill_null(good, False), texts, None)
        if seconds:
            texts = _possible(texts, seconds)
        numbers = _floats(texts.cast(seconds or pa.float64()))
        return numbers, pc.and_(present, texts.is_null()).to_numpy(zero_copy_only=False)
    if values.null_count == len(values):
        return np.full(len(values), np.nan), np.zeros(len(values), bool)
    if not is_number(kind) or is_time(kind) != time:
        return np.full(len(values), np.nan), values.is_valid().to_numpy(zero_copy_only=False)
    return _floats(values), np.zeros(len(values), bool)


def _possible(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Times as text, null where there is no such time, as on the 31st of February."""

    def can_be(text: str) -> bool:
        try:
            pa.array([text]).cast(kind)
            return True
        except pa.ArrowInvalid:
            return False

    try:
        texts.cast(kind)
        return texts
    except pa.ArrowInvalid:
        known = pa.array(list(filter(can_be, pc.unique(texts.drop_null()).to_pylist())), texts.type)
        return pc.if_else(pc.is_in(texts, value_set=known), texts, pa.scalar(None, texts.type))


def _floats(values: pa.Array) -> np.ndarray:
    """As float64, NaN where missing; times, dates and durations in seconds.

    What single precision cannot hold is infinite: its deviation could not be taken either.
    """
    kind, scale = values.type, 1.0
    if pa.types.is_temporal(kind):
        of = pa.time64 if pa.types.is_time(kind) else pa.duration if pa.types.is_duration(kind) else pa.timestamp
        values, scale = values.cast(of("us"), safe=False).cast(pa.int64()), 1e6
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / scale
    return np.where(np.abs(numbers) > LARGEST, np.copysign(np.inf, numbers), numbers)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_name(kind: pa.DataType) -> bool:
    """Whether values are names, or can be read as such."""
    return is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)


def as_texts(values: pa.Array) -> list[str | None]:
    """As text, None where missing; whole numbers without a point.

    Raises ValueError for what cannot be text.
    """
    if not (is_name(values.type) or pa.types.is_floating(values.type)):
        raise UserError(f"a column of categories was wanted, and one of {values.type} given")
    if pa.types.is_null(values.type):
        return [None] * len(values)
    coded = values.dictionary_encode()
    names = [csv.as_text(value) for value in csv.arrow_values(coded.dictionary)]
    known: list[str | None] = [csv.short(name) or None for name in names]
    return [None if code is None else known[code] for code in coded.indices.to_pylist()]
