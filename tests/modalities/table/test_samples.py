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
    for column, cell in (("age", 21), ("size", 0.1 + 1e-12), ("town", "None"), ("town", None), ("town", "Ulm ")):
        other = {name: [cell if name == column else values[0], *values[1:]] for name, values in cells.items()}
        new = digests(open_table(other, columns=first.columns))
        assert (new[0] != known[0], new[1:]) == (True, known[1:]), (column, cell)
    swapped = {"size": cells["age"], "age": cells["size"], "town": cells["town"]}
    assert not set(digests(open_table(swapped))) & set(known[:3])


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
