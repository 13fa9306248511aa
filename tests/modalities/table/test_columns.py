from __future__ import annotations

import datetime
import json
import math
from statistics import NormalDist

import pyarrow as pa
import pytest
import torch

from nearfar.modalities.table.columns import MOST_CATEGORIES, Columns, NumberForm
from nearfar.modalities.table.views import expand


def people(n: int = 60) -> pa.Table:
    """Numbers with gaps, whole numbers, categories with gaps, and columns that say nothing."""
    return pa.table(
        {
            "height": [None if i % 10 == 0 else 150.0 + i for i in range(n)],
            "children": [i % 3 for i in range(n)],
            "town": [None if i % 7 == 0 else ("Ulm", "Bern", "Graz")[i % 3] for i in range(n)],
            "member": [i % 4 == 0 for i in range(n)],
            "since": [datetime.date(2020, 1, 1 + i % 20) for i in range(n)],
            "row": list(range(n)),
            "name": [f"person {i}" for i in range(n)],
            "planet": ["Earth"] * n,
            "nothing": pa.nulls(n, pa.float64()),
            "tags": [[i] for i in range(n)],
        }
    )


def test_what_each_column_becomes_and_which_are_left_out() -> None:
    columns, notes = Columns.learn(people())
    assert [c.name for c in columns.numbers] == ["height", "children", "since"]
    assert {c.name: c.values for c in columns.categories} == {
        "town": ("Bern", "Graz", "Ulm"),
        "member": ("false", "true"),
    }
    assert [c.gaps for c in columns.numbers] == [True, False, False]
    assert columns.width == 3 + 1 + 3 + 1 + 2
    assert len(notes) == 5
    for name in ("row", "name", "planet", "nothing", "tags"):
        assert any(repr(name) in note and "left out" in note for note in notes), name


def test_numbers_are_standardized_by_the_rows_that_were_learned_from() -> None:
    table = people()
    columns, _ = Columns.learn(table)
    numbers, codes, _ = columns.encode(table)
    known = numbers[~numbers[:, 0].isnan(), 0]
    assert len(known) == 54
    torch.testing.assert_close(known.mean(), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(known.std(correction=0), torch.ones(()))
    assert codes[0].tolist() == [3, 1]  # a missing town is the position after the last; row 0 is a member
    later, *_ = columns.encode(table.slice(50))
    torch.testing.assert_close(later, numbers[50:], equal_nan=True)


def test_what_was_never_seen_is_no_category() -> None:
    table = pa.table({"a": ["x", "y", "x"], "b": [1, 2, 3]})
    columns, _ = Columns.learn(table)
    _, codes, notes = columns.encode(pa.table({"a": ["z", None, "y"], "b": [1, 1, 1]}))
    assert codes[:, 0].tolist() == [-1, -1, 1]
    assert "1 values of 'a'" in notes[0]
    assert "'z'" in notes[0]


def test_codes_may_be_categories() -> None:
    columns, _ = Columns.learn(people(), categorical=("children",))
    assert next(c for c in columns.categories if c.name == "children").values == ("0", "1", "2")


def test_rare_categories_are_not_told_apart() -> None:
    words = [f"w{i}" for i in range(MOST_CATEGORIES + 5) for _ in range(2 + (i < MOST_CATEGORIES))]
    columns, notes = Columns.learn(pa.table({"word": words}))
    assert columns.width == MOST_CATEGORIES
    assert "most frequent are told apart" in notes[0]
    assert columns.encode(pa.table({"word": [f"w{MOST_CATEGORIES + 1}", "w0"]}))[1][:, 0].tolist() == [-1, 0]


def test_they_come_back_from_json() -> None:
    table = people()
    columns, _ = Columns.learn(table)
    again = Columns.from_spec(json.loads(json.dumps(columns.spec())))
    assert again.spec() == columns.spec()
    for one, two in zip(columns.encode(table)[:2], again.encode(table)[:2], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_tables_that_do_not_fit_are_refused() -> None:
    columns, _ = Columns.learn(people())
    with pytest.raises(ValueError, match=r"no column 'height', .*which the encoder was trained on; it has 'a'"):
        columns.encode(pa.table({"a": [1]}))
    wrong = people().set_column(0, "height", pa.array(["tall"] * 60))
    with pytest.raises(ValueError, match="'height' was a number in training and is text here, such as 'tall'"):
        columns.encode(wrong)
    with pytest.raises(ValueError, match="no column of 'planet' can be learned from"):
        Columns.learn(people().select(["planet"]))


def test_infinite_numbers_are_missing() -> None:
    columns, _ = Columns.learn(pa.table({"x": [1.0, 2.0, math.inf, math.nan, 3.0]}))
    assert columns.numbers[0].gaps
    assert columns.numbers[0].mean == 2


def test_running_numbers_are_seen_though_only_some_rows_are_learned_from() -> None:
    table = pa.table({"id": list(range(40)), "x": [float(i % 7) for i in range(40)]})
    columns, notes = Columns.learn(table, rows=list(range(0, 40, 3)))
    assert columns.names == ["x"]
    assert columns.numbers[0].mean == pytest.approx(sum(i % 7 for i in range(0, 40, 3)) / 14)
    assert "'id' numbers the rows" in notes[0]


def prices() -> pa.Table:
    """Numbers of a heavy tail, one that is mostly 0, few whole numbers, and gaps."""
    tail = [math.exp(i / 8) for i in range(200)]
    return pa.table(
        {
            "price": tail,
            "owed": [0.0 if i % 4 else 1.0 + i for i in range(200)],
            "rooms": [(1, 2, 3, 5)[i % 4] for i in range(200)],
            "age": [None if i % 10 == 0 else float(i * i) for i in range(200)],
        }
    )


def test_pieces_rise_one_after_another_between_points_that_hold_equally_many() -> None:
    columns, _ = Columns.learn(prices(), form="piecewise")
    numbers, codes, _ = columns.encode(prices())
    x = expand(columns, numbers, codes)
    assert x.shape == (200, columns.width)
    price, owed, rooms, age = (column.points for column in columns.numbers)
    assert rooms == (1, 2, 3, 5)  # few whole numbers: a piece between each and the next
    widths = [len(points) - 1 for points in (price, owed, rooms, age)]
    assert widths == [8, 8, 3, 8]
    assert owed[0] == 0  # which most rows share, so that it spends no second point
    first, middle, last, old, gap = x.split([*widths, 1], 1)
    assert bool(((x >= 0) & (x <= 1)).all())
    assert bool((x[:, :-1].split(widths, 1)[0].diff(dim=1) <= 0).all())  # a later piece waits for those before
    torch.testing.assert_close((first == 1).float().mean(0), torch.arange(7, -1, -1) / 8, atol=0.01, rtol=0)
    want = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert last[:4].tolist() == want
    assert middle[1].tolist() == [0] * 8
    assert gap[:, 0].tolist() == [float(i % 10 == 0) for i in range(200)]
    assert old[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]  # a gap stands in the middle


def test_quantiles_are_normal_whatever_the_tail() -> None:
    from sklearn.preprocessing import QuantileTransformer

    columns, _ = Columns.learn(prices(), form="quantile")
    numbers, _, _ = columns.encode(prices())
    assert numbers.shape == (200, 4)
    theirs = QuantileTransformer(n_quantiles=200, output_distribution="normal")
    price = torch.from_numpy(theirs.fit_transform(prices()["price"].to_numpy()[:, None]))[:, 0]
    torch.testing.assert_close(numbers[5:-5, 0], price[5:-5].float(), atol=0.02, rtol=0)
    torch.testing.assert_close(numbers[1, 1], torch.tensor(NormalDist().inv_cdf(0.375)).float(), atol=0.02, rtol=0)
    assert numbers[:, 3].isnan().tolist() == [i % 10 == 0 for i in range(200)]


@pytest.mark.parametrize("form", ["standard", "quantile", "piecewise"])
def test_each_form_comes_back_from_its_spec_and_is_shown_as_it_was(form: NumberForm) -> None:
    columns, _ = Columns.learn(prices(), form=form)
    again = Columns.from_spec(json.loads(json.dumps(columns.spec())))
    assert again.spec() == columns.spec()
    assert ("form" in columns.spec()[0]) == (form != "standard")
    one, other = (c.encode(prices())[0] for c in (columns, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert columns.digests(prices()) == Columns.learn(prices())[0].digests(prices())
    for a, name in ((1, "owed"), (2, "rooms")):
        known = prices()[name].to_pylist()
        shown = [float(columns.numbers[a].shown(value)) for value in one[8:160, a].tolist()]
        assert shown == pytest.approx(known[8:160], rel=1e-2)


def test_a_number_of_one_finite_value_is_standardized() -> None:
    table = pa.table({"x": [1.0, math.inf] * 10, "y": [1.0, 2.0, 3.0, 4.0] * 5})
    columns, _ = Columns.learn(table, form="piecewise")
    assert [column.form for column in columns.numbers] == ["standard", "piecewise"]
    x = expand(columns, *columns.encode(table)[:2])
    assert x[2].tolist() == [0, 1, 1, 0, 0]
