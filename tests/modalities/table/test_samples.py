from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import nearfar
from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.modalities.table.samples import open_table

TEXT = "split,age,town,income,group\n" + "".join(
    f"{'test' if i % 4 == 0 else 'train'},{'?' if i == 5 else 20 + i},{'Ulm' if i % 3 else 'Bern'},"
    f"{'high' if i % 2 else 'low'},{i // 2}\n"
    for i in range(24)
)


def write(folder: Path, name: str, text: str = TEXT) -> Path:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_text(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a.csv.gz"), label_column="income")
    assert table.columns.names == ["age", "town"]
    assert table.classes == ["high", "low"]
    assert table.label.tolist() == [1, 0] * 12
    assert table.group.unique().tolist() == list(range(12))
    assert [i for i, part in enumerate(table.split) if part == "test"] == list(range(0, 24, 4))
    assert table.numbers[:, 0].isnan().nonzero()[:, 0].tolist() == [5]
    assert table.describe(1) == ["21", "Ulm"]
    assert table.describe(5) == ["", "Ulm"]


def test_columns_are_learned_from_the_training_rows(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a.csv"), label_column="income")
    train = [i for i, part in enumerate(table.split) if part == "train" and i != 5]
    assert table.columns.numbers[0].mean == pytest.approx(np.mean([20 + i for i in train]))


def test_a_data_frame_holds_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    first = open_table(write(tmp_path, "a.csv"), label_column="income")
    frame = pandas.read_csv(tmp_path / "a.csv", na_values="?")
    again = open_table(frame, label_column="income")
    assert digests(again) == digests(first)
    assert again.label.equal(first.label)
    assert again.group.equal(first.group)
    assert again.split == first.split
    run = nearfar.fit(
        frame, "simclr", out=tmp_path / "run", label_column="income", epochs=1, batch=8, device="cpu", say=str
    )
    embedded = run.embed(frame)
    assert embedded.shape == (24, run.encoder.dim)
    assert embedded.equal(run.embed(str(tmp_path / "a.csv")))


def test_other_forms_hold_the_same(tmp_path: Path) -> None:
    first = open_table(write(tmp_path, "a.csv"), label_column="income")
    age, town = [None if i == 5 else 20 + i for i in range(24)], ["Ulm" if i % 3 else "Bern" for i in range(24)]
    arrow = pa.table({"age": age, "town": town})
    arrow = arrow.append_column("split", pa.array(first.split)).append_column("income", pa.array(["low", "high"] * 12))
    pq.write_table(arrow, tmp_path / "a.parquet")
    for data in (arrow, tmp_path / "a.parquet", arrow.to_pydict()):
        again = open_table(data, label_column="income")
        assert digests(again) == digests(first)
        assert again.label.equal(first.label)


def test_a_row_is_known_by_the_cells_of_the_columns_that_were_learned() -> None:
    cells = {"age": [20, 30, 40, None], "size": [0.1, 0.2, 0.3, -0.0], "town": ["Ulm", None, "Bern", "Rome"]}
    first = open_table(cells)
    known = digests(first)
    assert len(set(known)) == 4
    again = {"town": pa.array(cells["town"]).dictionary_encode(), "more": [1, 2, 3, 4], "size": [0.1, 0.2, 0.3, 0.0]}
    again = pa.table(again | {"age": [20.0, 30.0, 40.0, float("nan")]})
    assert digests(open_table(again, columns=first.columns)) == known
    assert digests(open_table(again.select(["age", "town", "size"]))) == known  # whatever scale was learned
    for column, cell in (("age", 21), ("size", 0.1 + 1e-12), ("town", "None"), ("town", None), ("town", "ulm")):
        other = {name: [cell if name == column else values[0], *values[1:]] for name, values in cells.items()}
        new = digests(open_table(other, columns=first.columns))
        assert (new[0] != known[0], new[1:]) == (True, known[1:]), (column, cell)
    cells["town"][0] = " Ulm "  # white space is never read
    assert digests(open_table(cells, columns=first.columns)) == known
    swapped = {"size": cells["age"], "age": cells["size"], "town": cells["town"]}
    assert not set(digests(open_table(swapped))) & set(known[:3])


def test_a_row_is_known_in_every_form_in_which_it_is_read_alike() -> None:
    first = open_table({"n": [1.0, 2.0, None], "yes": [True, False, True]})
    other = {"n": np.array([1.0, 2.0, np.copysign(np.nan, -1)]), "yes": ["True", "false", "TRUE"]}  # 0 / 0 is -NaN
    assert digests(open_table(other, columns=first.columns)) == digests(first)


def test_a_run_goes_on_where_columns_stand_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, path = pa.table({f"n{i}": [float((i + 2) * k % 17) for k in range(24)] for i in range(3)}), tmp_path / "a.pq"
    pq.write_table(table, path)
    flags = {"epochs": 2, "batch": 8, "device": "cpu", "say": str}
    whole = nearfar.fit(str(path), out=tmp_path / "whole", **flags)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "anywhere", lambda flag: True)  # as if somebody stopped it after the first step
        nearfar.fit(str(path), out=tmp_path / "cut", **flags)
    pq.write_table(table.select(["n2", "n0", "n1"]), path)
    cut = nearfar.fit(str(path), out=tmp_path / "cut", resume=True, **flags)
    assert torch.equal(cut.embed(str(path)), whole.embed(str(path)))


def test_rows_for_an_encoder_take_its_columns(tmp_path: Path) -> None:
    first = open_table(write(tmp_path, "a.csv"), label_column="income")
    other = open_table({"age": [30, 90], "town": ["Rome", "Ulm"], "more": [1, 2]}, columns=first.columns)
    assert other.codes[:, 0].tolist() == [-1, 1]
    assert other.numbers.shape == (2, 1)
    told = open_table(write(tmp_path, "b.csv"), label_column="age", columns=first.columns)
    assert any("'age' are among the inputs" in note for note in told.notes)


def test_some_rows_keep_what_is_known_of_them(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a.csv"), label_column="income")
    some = table.subset([5, 2])
    assert some.names == ["5", "2"]
    assert some.label.tolist() == [0, 1]
    assert digests(some) == [digests(table)[5], digests(table)[2]]
    numbers, codes = some.fetch(torch.tensor([1]))
    assert torch.equal(numbers, table.numbers[2:3])
    assert torch.equal(codes, table.codes[2:3])


def test_labels_of_a_table_of_their_own(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("index,label\n0,a\n3,b\n", encoding="utf-8")
    table = open_table(write(tmp_path, "a.csv"), labels=labels)
    assert table.classes == ["a", "b"]
    assert (table.label >= 0).nonzero()[:, 0].tolist() == [0, 3]
    assert open_table(write(tmp_path, "a.csv"), drop=["income"]).columns.names == ["age", "town"]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no table at '.*none\.csv'"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"no table that is known here. Wanted: .csv"):
        open_table(write(tmp_path, "a.xlsx"))
    with pytest.raises(ValueError, match="cannot be read as a Parquet table"):
        open_table(write(tmp_path, "bad.parquet"))
    with pytest.raises(ValueError, match=r"torn.csv', line 3: 3 cells, but the header has 2"):
        open_table(write(tmp_path, "torn.csv", "a,b\n1,2\n1,2,3\n"))
    with pytest.raises(ValueError, match="has no rows"):
        open_table(write(tmp_path, "empty.csv", "a,b\n"))
    with pytest.raises(ValueError, match="has no column 'agee'; it has 'split', 'age'"):
        open_table(write(tmp_path, "a.csv"), drop=["agee"])


def rows(*lines: str, head: str = "a,b,label", n: int = 30) -> str:
    return "\n".join([head, *lines, *(f"{i / 7:.3f},{'xyz'[i % 3]},{i % 2}" for i in range(n))]) + "\n"


def test_a_stray_word_among_numbers_is_missing_and_named(tmp_path: Path) -> None:
    first = open_table(write(tmp_path, "a.csv", rows("unknown,x,0")))
    assert [c.name for c in first.columns.numbers] == ["a"]
    assert first.numbers[:, 0].isnan().nonzero().flatten().tolist() == [0]
    assert any("1 of 31 values of 'a'" in note and "'unknown'" in note for note in first.notes)
    again = open_table(
        {"a": ["unknown", *(i / 7 for i in range(30))], "b": ["x", *"xyz" * 10], "label": [0, *[0, 1] * 15]}
    )
    assert again.columns.spec()[0]["mean"] == pytest.approx(first.columns.spec()[0]["mean"], abs=1e-3)
    kept = open_table(write(tmp_path, "a.csv", rows("unknown,x,0")), categorical=["b", "a"])
    assert [c.name for c in kept.columns.categories] == ["a", "b"]
    words = open_table({"a": [*range(12), *"lmnopqrs"] * 3, "b": ["x", "y"] * 30})
    assert any("36 of 60 values of 'a' are numbers" in note and "'l'" in note for note in words.notes)


@pytest.mark.parametrize("odd", ["1,5", "1,234.5", "1.234.567", "1 234", "1'234"])
def test_decimal_commas_and_thousands_are_refused(tmp_path: Path, odd: str) -> None:
    path = write(
        tmp_path, "a.csv", rows(f"{odd},x,0", head="a b;b;label").replace(",", ";").replace(odd.replace(",", ";"), odd)
    )
    with pytest.raises(ValueError, match=rf"'a b' holds numbers such as .{odd}.: .*--categorical 'a b'"):
        open_table(path)


def test_codes_keep_their_zeros_and_times_are_times(tmp_path: Path) -> None:
    lines = [
        f"{i % 5:03d},2024-01-{1 + i % 28:02d},{i % 24:02d}:30,{'TRUE' if i % 2 else 'False'},{i % 2}.0"
        for i in range(40)
    ]
    table = open_table(write(tmp_path, "a.csv", "zip,day,at,flag,label\n" + "\n".join(lines)))
    assert {c.name: c.values for c in table.columns.categories} == {
        "zip": ("000", "001", "002", "003", "004"),
        "flag": ("false", "true"),
    }
    assert [c.time for c in table.columns.numbers] == [True, True]
    assert table.classes == ["0", "1"]
    assert any("'zip'" in note and "'000'" in note for note in table.notes)
    days = pa.array([f"2024-01-{1 + i % 28:02d}" for i in range(40)]).cast(pa.timestamp("ns"))
    frame = {"zip": ["000"] * 40, "day": days, "at": ["00:30"] * 40, "flag": [True] * 40}
    again = open_table(frame, columns=table.columns)
    assert torch.equal(again.numbers[:, 0], table.numbers[:, 0])
    assert again.codes[0].tolist() == [0, 1]
    with pytest.raises(ValueError, match="'day' was a time in training and is int64 here"):
        open_table(frame | {"day": [20240101] * 40}, columns=table.columns)


def test_words_for_missing_are_counted_in_every_reader_and_may_be_kept(tmp_path: Path) -> None:
    words = ["NA", "x", "None", "", "x", "y", "?", "y"]
    columns = {"a": [1.5, 2, 3, 4, 5, 6, 7, 9], "w": words}
    text = "a,w\n" + "".join(f"{a},{w}\n" for a, w in zip(*columns.values(), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for data in (write(tmp_path, "a.csv", text), tmp_path / "a.parquet", columns, pa.table(columns)):
        table = open_table(data)
        assert table.columns.categories[0].values == ("x", "y")
        assert table.codes[:, 0].tolist() == [2, 0, 2, 2, 0, 1, 2, 1]
        assert any("3 cells of 'w' are ? or NA or None" in n and "--keep-words ? NA None" in n for n in table.notes)
        kept = open_table(data, keep=["NA"])
        assert kept.columns.categories[0].values == ("NA", "x", "y")
        assert open_table(data, columns=kept.columns).codes.equal(kept.codes)


@pytest.mark.parametrize("garbage", ["1e9,zzz", "unknown,?", "007,x", "-3,", "1.5,x"])
def test_what_test_rows_hold_changes_nothing_that_is_learned(tmp_path: Path, garbage: str) -> None:
    lines = [f"{i},{i / 7:.3f},{'xyz'[i % 3]},Train" for i in range(30)]
    specs = [
        open_table(
            write(tmp_path, "a.csv", "\n".join(["id,a,b,split", *lines, *[f"5,{test}, TESTING "] * 3]))
        ).columns.spec()
        for test in ("2.0,y", garbage)
    ]
    assert specs[0] == specs[1]
    assert [c["name"] for c in specs[0]] == ["a", "b"]  # id counts the rows that are learned from


def test_splits_that_cannot_be_followed(tmp_path: Path) -> None:
    data = {"a": [1.0, 2.0, 3.0], "split": ["train", "holdout", "train"]}
    with pytest.raises(ValueError, match=r"'holdout'; understood are train, .*--drop split"):
        open_table(data)
    assert open_table(data, drop=["split"]).split == ["", "", ""]
    tested = data | {"split": ["test"] * 3}
    with pytest.raises(ValueError, match="no row of the table may be learned from: all are of the split test"):
        open_table(tested)
    assert open_table(tested, every=True).columns.names == ["a"]


def test_names_of_columns(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a.csv", rows(head="a,b, LABEL ")))
    assert (table.classes, table.columns.names) == (["0", "1"], ["a", "b"])
    assert open_table({"A ": [1.0], "b": ["x"]}, columns=table.columns).numbers.shape == (1, 1)
    twice = pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a "])
    pq.write_table(twice, tmp_path / "a.parquet")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    for data in (twice, tmp_path / "a.parquet", pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])):
        with pytest.raises(ValueError, match="two columns are called 'a'"):
            open_table(data)
    with pytest.raises(ValueError, match="has no column 'income'; it has 'a'"):
        open_table({"a": [1, 2]}, label_column="income")
    with pytest.raises(ValueError, match=r"'red', 'big'.*put a line of names above"):
        open_table(write(tmp_path, "a.csv", "red,big\nblue,small\nred,big\n"))


class Frame:
    """A frame as polars has them: with columns, but known to pyarrow only by the stream that it gives."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.columns = table, table.column_names

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_other_frames(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    columns = {"a": [1.5, 2.5, 4.0, 7.0], "b": ["x", "y", "x", "y"], "label": ["no", "yes", "no", "yes"]}
    first = open_table(columns)
    views = pa.table(columns).set_column(1, "b", pa.array(columns["b"]).cast(pa.string_view()))
    assert digests(open_table(Frame(views))) == digests(first)
    known = pa.DictionaryArray.from_arrays([0, 1, 0, 1], pa.array(["x", "y"]).cast(pa.string_view()))
    assert digests(open_table(Frame(views.set_column(1, "b", known)))) == digests(first)
    typed = datasets.Features(
        a=datasets.Value("float64"), b=datasets.Value("string"), label=datasets.ClassLabel(names=["yes", "no"])
    )
    named = open_table(datasets.Dataset.from_dict(columns, features=typed))
    assert digests(named) == digests(first)
    assert (named.classes, named.label.tolist()) == (first.classes, first.label.tolist())
    for strange, message in ((5, "a int is no table"), ({"a": [1], "b": [1, 2]}, "columns of 1 and 2 values")):
        with pytest.raises(ValueError, match=message):
            open_table(strange)


def test_what_was_left_out_in_training_stays_out(tmp_path: Path) -> None:
    lines = [f"{i % 7}.5,{i % 5},{'AB'[i % 2]},g{i % 3}" for i in range(20)]
    path = write(tmp_path, "t.csv", "a,b,split,group\n" + "\n".join(lines) + "\n")
    first = open_table(path, drop=("split", "group"))
    assert (first.group == MISSING).all()
    again = open_table(path, drop=("split", "group"), columns=first.columns)
    assert (again.split, again.group.tolist()) == (first.split, first.group.tolist())
    later = open_table({"a": [1.5, 2.5], "b": [1, 2]}, drop=("split", "group"), columns=first.columns)
    assert len(later) == 2


def test_a_number_beyond_single_precision_counts_as_infinite() -> None:
    a = [*np.linspace(0, 1, 39).tolist(), 1.7e308]
    table = open_table({"a": a, "b": list(range(0, 120, 3))})
    assert table.columns.numbers[0].std == pytest.approx(np.std(a[:-1]))
    assert any("1 of 40 values of 'a' are infinite, and count as missing" in note for note in table.notes)
    assert torch.isfinite(table.numbers[:39, 0]).all()


@pytest.mark.parametrize("odd", ["unknown", "2021-02-31"])
def test_a_stray_among_times_is_missing_and_many_make_names_of_them(tmp_path: Path, odd: str) -> None:
    days = [f"2021-01-{1 + i % 28:02}" for i in range(40)]
    few, many = [odd, *days[1:]], [odd] * 10 + days[10:]
    for name, cells in (("few.csv", few), ("many.csv", many)):
        write(tmp_path, name, "when,b\n" + "\n".join(f"{day},{i % 5}" for i, day in enumerate(cells)) + "\n")
    table = open_table(tmp_path / "few.csv")
    assert [column.time for column in table.columns.numbers] == [True, False]
    assert any("1 of 40 values of 'when' are not a time" in note and odd in note for note in table.notes)
    names = open_table(tmp_path / "many.csv")
    assert [column.name for column in names.columns.categories] == ["when"]
    assert any("30 of 40 values of 'when' are times" in note and odd in note for note in names.notes)
