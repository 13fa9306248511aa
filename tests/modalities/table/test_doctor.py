from __future__ import annotations

import numpy as np
import pytest

from nearfar.modalities.table.doctor import examine, missing, targets, telling, to_beat
from nearfar.modalities.table.samples import open_table


def rows(n: int = 400, *, seed: int = 0) -> dict[str, list]:
    """Rows without fault: columns that tell something of a label of two classes, but none alone."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, n)
    return {
        "size": (label + random.normal(size=n)).tolist(),
        "weight": random.normal(size=n).tolist(),
        "color": [
            ("red", "blue", "gray")[c] for c in np.where(random.random(n) < 0.6, label, random.integers(0, 3, n))
        ],
        "place": [f"p{i}" for i in random.integers(0, 60, n)],
        "kind": ["yes" if y else "no" for y in label],
    }


def planted() -> dict[str, list]:
    """Copies (one with another label, one across the split), gaps, an empty column, uneven classes, and leaks."""
    table = rows()
    n = len(table["kind"])
    random = np.random.default_rng(1)
    table["kind"] = ["yes" if i % 13 == 0 else "no" for i in range(n)]
    yes = [kind == "yes" for kind in table["kind"]]
    table["score"] = [float(0.5 + random.random() if y else 0.5 - random.random()) for y in yes]
    table["verdict"] = [("up", "over", "high")[i % 3] if y else ("down", "low")[i % 2] for i, y in enumerate(yes)]
    table["paid"] = [float(random.random()) if y else None for y in yes]
    table["running"] = list(range(n))
    table["same"] = ["x"] * n
    table["weight"] = [None if i % 4 == 0 else value for i, value in enumerate(table["weight"])]
    table["split"] = ["test" if i % 5 == 1 else "train" for i in range(n)]
    for copy, of in ((399, 3), (398, 3), (6, 7)):
        for name, values in table.items():
            if name not in ("split", "kind", "running"):
                values[copy] = values[of]
    table["kind"][399] = "yes"
    return table


def test_all_that_was_planted_is_found() -> None:
    opened = open_table(planted(), label_column="kind")
    found = examine(opened)
    facts, said = dict(found.facts), " ".join(found.warnings)
    assert facts["rows"] == "400 (320 train, 80 test)"
    assert facts["columns"] == "4 numbers, 3 categories, of 3 to 60 values"
    assert facts["missing"].startswith("paid 92%, weight 25%")
    assert "3 rows are copies, in 2 sets" in said
    assert "1 set of copies has more than one label ('3': no, '398': no, '399': yes)" in said
    assert "'no' has 368 rows, 'yes' 32" in said
    assert "1 row of the split test is in train as well: '6' of '7'" in said
    assert "The column 'paid' is empty in 92%" in said
    assert {name for name, _ in telling(opened)} == {"score", "verdict", "paid"}
    for name in ("score", "verdict", "paid"):
        assert f"The column {name!r} alone tells the label" in said
    assert len(found.warnings) == 8
    notes = " ".join(opened.notes)
    assert "'running' numbers the rows" in notes
    assert "'same' has one value at most" in notes


@pytest.mark.parametrize("n", [12, 30, 100, 400])
def test_nothing_is_found_where_nothing_is_wrong(n: int) -> None:
    for seed in range(5):
        assert examine(open_table(rows(n, seed=seed), label_column="kind")).warnings == []


def test_missing_values_are_counted_as_they_are() -> None:
    table = {"a": [1.0, None, 3.0, None], "b": ["x", "", None, "y"], "c": ["x", "y", "x", "y"]}
    assert missing(open_table(table)) == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_a_number_that_is_a_code_of_the_label_tells_it() -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 4, 300)
    table = open_table(
        {"code": (3 * label % 4).tolist(), "noise": random.normal(size=300).tolist(), "label": label.tolist()}
    )
    assert [name for name, _ in telling(table)] == ["code"]


def test_a_target_among_the_inputs_is_suspected() -> None:
    table = rows(300)
    label, kind = np.array([k == "yes" for k in table["kind"]]), table.pop("kind")
    for name in "Income", "target?", "_class_":
        assert list(dict(targets(open_table({name: kind} | table | {"z": table["size"]})))) == [name]
    found = dict(targets(open_table({"a": label * 2.0 + table["size"], **table, "b": kind})))
    assert list(found) == ["b"]  # the last, which the others tell
    assert "2 values" in found["b"]
    weak = (label ^ (np.random.default_rng(1).random(300) < 0.2)).astype(int)
    found = dict(targets(open_table({"code": (weak + 1).tolist(), "a": label * 2.0, **table})))
    assert list(found) == ["code"]  # the first, of the codes 1 and 2
    assert dict(targets(open_table(table))) == {}
    noise = np.random.default_rng(2).integers(0, 3, 300)
    assert dict(targets(open_table(table | {"noise": noise.tolist()}))) == {}  # codes that nothing tells
    # What is the label already is no input; another column may still be called like one.
    found = dict(targets(open_table(table | {"b": kind, "target": noise.tolist()}, label_column="b")))
    assert list(found) == ["target"]


def test_one_column_is_said_as_one() -> None:
    table = rows(300)
    facts = dict(examine(open_table({"size": table["size"], "kind": table["kind"]})).facts)
    assert facts["columns"] == "1 number, 1 category, of 2 values"


def test_what_needs_no_encoder_is_told_before_training() -> None:
    """A label by the product of two signs is for trees alone; one by a sum for both; test rows do not count."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 900))
    kind = random.integers(0, 300, 900).astype(str)
    split = ["test"] * 100 + ["train"] * 800
    found = {}
    for name, label in (("sum", x + y > 0), ("product", x * y > 0)):
        own = np.where(np.arange(900) < 100, random.integers(0, 2, 900), label)  # of the test rows by chance
        found[name] = to_beat(open_table({"x": x, "y": y, "kind": kind, "label": own, "split": split}))
    linear, trees, learned, held = found["sum"]
    assert (learned, held) == (600, 200)
    assert linear > 0.9
    assert trees > 0.9
    linear, trees, *_ = found["product"]
    assert linear < 0.65
    assert trees > 0.85
    assert to_beat(open_table({"x": x[:60], "y": y[:60], "label": (x + y)[:60] > 0})) is None
    assert to_beat(open_table({"x": x, "y": y})) is None
