from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from nearfar.data.labels import (
    alike,
    array_labels,
    folder_labels,
    given_labels,
    meet,
    natural,
    no_labels,
    places,
    split_names,
    table_labels,
)

NAMES = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/10.jpg"]


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_natural_order():
    names = ["a10", "a2", "A3", "a", "b", "a/z", "10", "9", "", "a2b10", "a2b9", "-1"]
    assert sorted(names, key=natural) == ["", "9", "10", "-1", "a", "a/z", "a2", "a2b9", "a2b10", "A3", "a10", "b"]


def test_folders_give_classes_in_natural_order():
    labels = folder_labels(["class10/a.png", "class9/a.png", "class9/b.png", "loose.png", "x/y/a.png"])
    assert labels.classes == ["class9", "class10", "x/y"]
    assert labels.label.tolist() == [1, 0, 0, -1, 2]
    assert labels.notes == ["1 sample is in no class folder: no label."]
    assert set(labels.split) == {""}


def test_top_folders_train_and_test_are_splits():
    labels = folder_labels(["Train/cat/1.png", "test/cat/1.png", "test/dog/1.png", "valid/dog/2.png", "train/3.png"])
    assert labels.classes == ["cat", "dog"]
    assert labels.label.tolist() == [0, 0, 1, 1, -1]
    assert labels.split == ["train", "test", "test", "val", "train"]


def test_a_row_of_a_file_is_for_all_its_pages(tmp_path):
    names, files = ["a.tif#1", "a.tif#2", "b.png", "c.tif#1", "c.tif#2"], ["a.tif", "a.tif", "b.png", "c.tif", "c.tif"]
    path = table(tmp_path, "path,label\na.tif,old\nb.png,young\nc.tif#2,young\nc.tif#3,old\n")
    labels = table_labels(path, names, files=files)
    assert labels.label.tolist() == [0, 0, 1, -1, 1]
    assert "1 of 4 rows" in labels.notes[0]


def test_a_folder_named_train_among_others_is_a_class():
    labels = folder_labels(["train/1.png", "car/1.png"])
    assert labels.classes == ["car", "train"]
    assert labels.split == ["", ""]


def test_folder_labels_without_folders():
    with pytest.raises(ValueError, match=r"but a.png, b.png lie in no class folder"):
        folder_labels(["a.png", "b.png"])


def test_one_class_is_noted():
    assert "one class cannot be told" in folder_labels(["cat/1.png", "cat/2.png"]).notes[0]


def test_no_labels_hints_at_folders_that_look_like_classes():
    labels = no_labels(NAMES)
    assert labels.label.tolist() == [-1] * 4
    assert labels.classes == []
    assert labels.notes == [
        "The samples lie in 2 folders (cat, dog): if these are classes, --labels folders uses them as labels."
    ]
    assert no_labels(["cat/1.png", "dog/1.png"]).notes == []
    assert no_labels(["cat/1.png", "cat/2.png"]).notes == []
    assert no_labels(["train/1.png", "train/2.png", "test/1.png", "test/2.png"]).notes == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_some_labels(tmp_path, form):
    columns = {
        "label": ["dog", "cat", ""],
        "path": ["dog/1.jpg", "./cat/1.jpg", "cat\\2.jpg"],
        "other": ["a, b", "", "c"],
        "split": ["test", "train", ""],
        "group": ["clip 10", "clip 9", "clip 9"],
        "attribute": ["dark", "", "bright"],
    }
    if form == "parquet":
        path = tmp_path / "labels.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        columns["other"] = ['"a, b"', "", "c"]
        lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
        path = table(tmp_path, "\n".join(lines) + "\n")
    labels = table_labels(path, NAMES)
    assert labels.classes == ["cat", "dog"]
    assert labels.label.tolist() == [0, -1, 1, -1]
    assert labels.group.tolist() == [0, 0, 1, -1]
    assert labels.attribute.tolist() == [-1, 0, 1, -1]
    assert labels.split == ["train", "", "test", ""]
    assert labels.notes == [f"2 of 4 samples have no label in '{path}'."]


def test_labels_are_names_and_minus_one_is_one(tmp_path):
    labels = table_labels(table(tmp_path, "path,label\ncat/1.jpg,-1\ncat/2.jpg,1\ndog/1.jpg,\n"), NAMES)
    assert labels.classes == ["1", "-1"]
    assert labels.label.tolist() == [1, 0, -1, -1]


def test_numbers_with_gaps_from_a_parquet_table_are_read_as_integers(tmp_path):
    path = tmp_path / "labels.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": NAMES, "label": [3.0, None, float("nan"), 10.0]}), path)
    labels = table_labels(path, NAMES)
    assert labels.classes == ["3", "10"]
    assert labels.label.tolist() == [0, -1, -1, 1]


def test_the_column_can_be_chosen(tmp_path):
    path = table(tmp_path, "path,fine,coarse\ncat/1.jpg,tabby,cat\ndog/1.jpg,poodle,dog\n")
    assert table_labels(path, NAMES, column="fine").classes == ["poodle", "tabby"]
    assert table_labels(path, NAMES, column="coarse").classes == ["cat", "dog"]
    with pytest.raises(ValueError, match=r"has the columns 'path', 'fine', 'coarse' but no label. .*--label-column"):
        table_labels(path, NAMES)


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"columns 'file', 'class' but no path \(or index\) and no label"):
        table_labels(table(tmp_path, "file,class\na,b\n"), NAMES)
    with pytest.raises(ValueError, match=r"columns none but no path"):
        table_labels(table(tmp_path, ""), NAMES)
    with pytest.raises(ValueError, match="a header but no rows"):
        table_labels(table(tmp_path, "path,label\n"), NAMES)


def test_unknown_paths_are_counted_and_named(tmp_path):
    text = "path,label\ncat/1.jpg,cat\n" + "".join(f"bird/{i}.jpg,bird\n" for i in range(5))
    path = table(tmp_path, text)
    labels = table_labels(path, NAMES)
    assert labels.notes[0] == (
        f"5 of 6 rows of '{path}' name no sample of DATA and were ignored "
        "(line 3: 'bird/0.jpg', line 4: 'bird/1.jpg', line 5: 'bird/2.jpg', ...)."
    )
    assert labels.classes == ["cat"]


def test_a_table_of_other_images_is_an_error_with_an_example_of_each_side(tmp_path):
    with pytest.raises(
        ValueError, match=r"(?s)No row of .* The file names agree .* says 'pets/cat/1.jpg', DATA holds 'cat/1.jpg'"
    ):
        table_labels(table(tmp_path, "path,label\npets/cat/1.jpg,cat\n"), NAMES)
    with pytest.raises(ValueError, match=r"DATA. the table says 'bird.jpg'"):
        table_labels(table(tmp_path, "path,label\nbird.jpg,cat\n"), NAMES)


def test_absolute_paths_and_other_unicode_forms_are_understood(tmp_path):
    path = table(tmp_path, f"path,label\n{tmp_path}/data/cafe\u0301.jpg,x\n")
    labels = table_labels(path, ["caf\u00e9.jpg"], root=tmp_path / "data")
    assert labels.label.tolist() == [0]


def test_two_labels_of_one_image_are_an_error_that_names_the_rows(tmp_path):
    text = "path,label\ncat/1.jpg,cat\ndog/1.jpg,dog\n./cat/1.jpg,dog\n"
    with pytest.raises(ValueError, match=r"'cat/1.jpg' two values of 'label': 'cat' in line 2 and 'dog' in line 4"):
        table_labels(table(tmp_path, text), NAMES)
    same = table_labels(table(tmp_path, "path,label\ncat/1.jpg,cat\ncat/1.jpg,cat\n"), NAMES)
    assert same.label.tolist() == [0, -1, -1, -1]


def test_line_numbers_are_those_of_the_file(tmp_path):
    text = 'path,note,label\ncat/1.jpg,"two\nlines",cat\ncat/1.jpg,,dog\n'
    with pytest.raises(ValueError, match="'cat' in line 2 and 'dog' in line 4"):
        table_labels(table(tmp_path, text), NAMES)


def test_images_of_an_array_are_named_by_index(tmp_path):
    labels = table_labels(table(tmp_path, "index,label\n2,a\n0,b\n"), ["0", "1", "2"])
    assert labels.label.tolist() == [1, -1, 0]


def test_a_bad_index_is_named(tmp_path):
    for bad in ("3", "-1", "x", ""):
        with pytest.raises(ValueError, match=rf"an index that is none of 0 to 2: line 3: '{bad}'"):
            table_labels(table(tmp_path, f"index,label\n0,b\n{bad},a\n"), ["0", "1", "2"])


def test_the_wrong_way_to_name_samples_is_told_with_their_noun(tmp_path):
    with pytest.raises(ValueError, match="names images by index, but those of DATA have paths: give a column path"):
        table_labels(table(tmp_path, "index,label\n0,a\n"), NAMES, noun="image")
    with pytest.raises(ValueError, match="names rows by path, but those of DATA have no paths: give a column index"):
        table_labels(table(tmp_path, "path,label\na.png,a\n"), ["0", "1"], noun="row")
    with pytest.raises(ValueError, match="3 rows want 3 labels"):
        array_labels([1, 2], 3, noun="row")


def test_a_column_that_is_asked_for_and_there_twice_is_an_error(tmp_path):
    assert table_labels(table(tmp_path, "note,path,note,label\n1,cat/1.jpg,2,a\n"), NAMES).classes == ["a"]
    with pytest.raises(ValueError, match=r"labels.csv', line 1: two columns are called 'label'"):
        table_labels(table(tmp_path, "path,label,label\ncat/1.jpg,a,b\n"), NAMES)


def test_words_for_missing_are_no_classes_and_are_counted(tmp_path):
    words = ["NA", "null", "cat", "NA"]
    csv = table(tmp_path, "path,label\n" + "".join(f"{name},{word}\n" for name, word in zip(NAMES, words, strict=True)))
    pyarrow.parquet.write_table(pyarrow.table({"path": NAMES, "label": words}), tmp_path / "labels.parquet")
    for labels in (table_labels(csv, NAMES), table_labels(tmp_path / "labels.parquet", NAMES), array_labels(words, 4)):
        assert (labels.classes, labels.label.tolist()) == (["cat"], [-1, -1, 0, -1])
        assert any("3 labels say NA or null" in note and "--keep-words NA null" in note for note in labels.notes)


def test_split_folders_count_where_the_table_has_no_splits(tmp_path):
    names = ["train/1.jpg", "test/1.jpg"]
    assert table_labels(table(tmp_path, "path,label\ntrain/1.jpg,a\n"), names).split == ["train", "test"]


def test_short_and_long_rows(tmp_path):
    labels = table_labels(table(tmp_path, "path,label\ncat/1.jpg\ncat/2.jpg,a,more,still\n"), NAMES)
    assert labels.label.tolist() == [-1, 0, -1, -1]


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--labels wants 'folders' or a .csv or .parquet file; there is no 'x'"
    ):
        table_labels("x", NAMES)
    table(tmp_path, "path,label\n")
    with pytest.raises(FileNotFoundError, match=r"There is one in DATA: --labels '.*labels.csv'"):
        table_labels("labels.csv", NAMES, root=tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(ValueError, match=r"labels.csv', line 2: not UTF-8 \(the byte 0xff\)"):
        table_labels(tmp_path / "labels.csv", NAMES)
    (tmp_path / "labels.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot be read as a Parquet table"):
        table_labels(tmp_path / "labels.parquet", NAMES)


def test_arrays_of_labels():
    assert array_labels(np.array([10, 9, -1]), 3).classes == ["9", "10", "-1"]
    assert array_labels(torch.tensor([[1], [0]]), 2).label.tolist() == [1, 0]
    assert array_labels([1.0, float("nan")], 2).label.tolist() == [0, -1]
    assert array_labels(["b", None, "a", ""], 4).label.tolist() == [1, -1, 0, -1]
    named = array_labels(np.array([1, 0], np.uint8), 2, names=["z", "a"])
    assert (named.classes, named.label.tolist()) == (["z", "a"], [1, 0])


def test_arrays_of_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"3 samples want 3 labels; the labels have the shape \(2,\)"):
        array_labels([1, 2], 3)
    with pytest.raises(ValueError, match="The labels hold 2, -1, but there are 2 class names"):
        array_labels([0, 2, -1], 3, names=["a", "b"])


@pytest.mark.parametrize("extra", ["unlabeled/9.png", "train/unsup/9.png", "train/9.png", "Unlabeled/cat/9.png"])
def test_extras_without_a_label_beside_splits(extra):
    labels = folder_labels(["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", extra])
    assert labels.classes == ["cat", "dog"]
    assert labels.label.tolist() == [0, 1, 0, -1]
    assert labels.split == ["train", "train", "test", "train" if extra.startswith("train") else ""]
    assert len(labels.notes) == 1


def test_a_class_below_a_class_may_be_named_so():
    labels = folder_labels(["cat/unsup/1.png", "dog/1.png", "test/unlabeled/1.png"])
    assert labels.classes == ["cat/unsup", "dog"]


def test_folders_without_a_label_alone_give_no_classes():
    with pytest.raises(ValueError, match="lie in no class folder"):
        folder_labels(["unlabeled/1.png"])


def test_numbers_that_are_equal_are_one_class_and_this_is_said():
    labels = array_labels([1, 1.0, "1", "1.0", "1e0", "+1", "0.50", 0.5, "01"], 9)
    assert labels.classes == ["0.5", "01", "1"]
    assert labels.label.tolist() == [2, 2, 2, 2, 2, 2, 0, 0, 1]
    assert any("'1e0'" in note and "'1.0'" in note and "one class" in note for note in labels.notes)
    assert any("'01' and '1'" in note or ("'1' and '01'" in note and "apart" in note) for note in labels.notes)
    assert array_labels(np.array([0.1, 1.0, np.nan], np.float32), 3).classes == ["0.1", "1"]
    assert array_labels(np.ma.array([1, 2], mask=[True, False]), 2).label.tolist() == [-1, 0]
    assert array_labels(np.array([b"cat", b"dog"]), 2).classes == ["cat", "dog"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_number_is_the_same_class_in_every_form_of_table(tmp_path, form):
    if form == "csv":
        path = table(tmp_path, "index,label\n0,1.0\n1,\n2,2.0\n3,03\n")
    else:
        path = tmp_path / "labels.parquet"
        pyarrow.parquet.write_table(
            pyarrow.table({"index": [0.0, 1.0, 2.0, 3.0], "label": ["1.0", None, " 2 ", "03"]}), path
        )
    labels = table_labels(path, ["0", "1", "2", "3"])
    assert (labels.classes, labels.label.tolist()) == (["1", "2", "03"], [0, -1, 1, 2])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("New York", "New\xa0York"),
        ("caf\xe9", "cafe\u0301"),
        ("a", "a\u200b"),
        ("01", "1"),
        ("True", "true"),
        ("true", "1"),
        ("7", "\uff17"),
    ],
)
def test_classes_that_differ_in_form_are_apart_and_named_with_both_spellings(one: str, other: str) -> None:
    labels = array_labels([one, other, "else"], 3)
    assert len(labels.classes) == 3
    (note,) = (note for note in labels.notes if "apart" in note)
    assert all(repr(name) in note or ascii(name) in note for name in (one, other))
    (note, spelled) = meet([one, "else"], [other, "else"], ours="these", theirs="those")
    assert "1 of 2 classes of those are none of these" in note
    assert ascii(one) in spelled or repr(one) in spelled
    with pytest.raises(ValueError, match=r"no class is common to these .* and those .* how they are written"):
        meet([one], [other], ours="these", theirs="those")


def test_where_classes_meet_equal_numbers_are_the_same():
    assert places(["1", "b"], ["b", "1.0", "c", "01"]) == ([1, 0, 2, 3], ["c", "01"])
    assert meet(["1", "2"], ["2.0", "1e0"], ours="these", theirs="those") == []
    assert meet([], ["a"], ours="these", theirs="those") == []
    assert alike(["-1", "a"], ["1", "b"]) == []


def test_one_vocabulary_of_splits():
    given = ["Train", " TEST ", "testing", "val", "Validation", "DEV", "", None, "NA", "training"]
    assert split_names(given) == ["train", "test", "test", "val", "val", "val", "", "", "", "train"]
    for strange in ("holdout", 1, "0"):
        with pytest.raises(ValueError, match=rf"split holds '{strange}'; understood are train, .*validation"):
            split_names(["train", strange])


def test_words_for_missing_may_be_kept(tmp_path):
    path = table(tmp_path, "path,label\ncat/1.jpg,None\ncat/2.jpg,scratch\ndog/1.jpg,NA\n")
    assert table_labels(path, NAMES).classes == ["scratch"]
    assert table_labels(path, NAMES, keep=["None"]).classes == ["None", "scratch"]
    assert array_labels(["None", "a", "?"], 3, keep=["None", "?"]).classes == ["?", "a", "None"]


def test_columns_are_found_whatever_their_case(tmp_path):
    labels = table_labels(table(tmp_path, "PATH , Label,SPLIT\ncat/1.jpg,a,Test\n"), NAMES)
    assert (labels.classes, labels.split[0]) == (["a"], "test")
    assert any("'Label'" in note for note in labels.notes)
    with pytest.raises(ValueError, match="'Label' and 'LABEL' may both be the column 'label'"):
        table_labels(table(tmp_path, "path,Label,LABEL\ncat/1.jpg,a,b\n"), NAMES)
    with pytest.raises(ValueError, match="put a line of names above it"):
        table_labels(table(tmp_path, "cat/1.jpg,a\ncat/2.jpg,b\n"), NAMES)


def test_rows_of_a_table_lie_in_no_folders():
    with pytest.raises(ValueError, match=r"the rows of DATA lie in none.* columns index and label"):
        given_labels("folders", ["0", "1"], noun="row")


def test_numbers_of_single_precision_are_read_as_they_are_written(tmp_path: Path) -> None:
    values = pyarrow.array([0.1, 0.2, 0.1], pyarrow.float32())
    pyarrow.parquet.write_table(pyarrow.table({"index": [0, 1, 2], "label": values}), tmp_path / "l.parquet")
    names = ["0", "1", "2"]
    read = [table_labels(tmp_path / "l.parquet", names), array_labels(list(values.to_numpy()), 3)]
    assert [labels.classes for labels in read] == [["0.1", "0.2"]] * 2
