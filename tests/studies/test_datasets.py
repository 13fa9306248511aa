from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.studies.datasets import DataSet, data_sets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of data sets of each form, and what is none."""
    for name in ("classes/a", "classes/b", "flat", "told/pictures", ".hidden"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    for name in ("told/labels.csv", "arrays.npz", "pictures.tar", "pictures.labels.csv", "README.md", "people.csv.gz"):
        (tmp_path / "sets" / name).touch()
    return tmp_path


def test_a_folder_holds_data_sets_with_the_labels_in_and_beside_them(root: Path) -> None:
    said: list[str] = []
    sets = str(root / "sets")
    assert data_sets(sets, said.append) == [
        DataSet(name="arrays", data=f"{sets}/arrays.npz"),
        DataSet(name="classes", data=f"{sets}/classes", labels="folders"),
        DataSet(name="flat", data=f"{sets}/flat"),
        DataSet(name="people", data=f"{sets}/people.csv.gz"),
        DataSet(name="pictures", data=f"{sets}/pictures.tar", labels=f"{sets}/pictures.labels.csv"),
        DataSet(name="told", data=f"{sets}/told", labels=f"{sets}/told/labels.csv"),
    ]
    assert len(said) == 1
    assert "README.md" in said[0]


LISTS = {
    "a.csv": "name,data,labels,label_column\n,sets/arrays.npz,,kind\nother,sets/flat,sets/told/labels.csv,\n",
    "a.yaml": "- {data: sets/arrays.npz, label_column: kind}\n"
    "- {name: other, data: sets/flat, labels: sets/told/labels.csv}\n",
    "b.yml": "arrays: {data: sets/arrays.npz, label_column: kind}\n"
    "other: {data: sets/flat, labels: sets/told/labels.csv}\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_them(name: str, root: Path) -> None:
    (root / name).write_text(LISTS[name])
    assert data_sets(str(root / name)) == [
        DataSet(name="arrays", data=str(root / "sets/arrays.npz"), label_column="kind"),
        DataSet(name="other", data=str(root / "sets/flat"), labels=str(root / "sets/told/labels.csv")),
    ]


BAD = {
    "nothing": (None, "there is nothing at"),
    "a.npz": ("", "no folder of data sets and no list"),
    "columns.csv": ("name,path\na,b\n", "has 'path'; a list of data sets has name, data"),
    "none.csv": ("name,labels\na,b\n", "names no data"),
    "empty.csv": ("name,data\na,\n", "line 2 names no data"),
    "no_rows.csv": ("name,data\n", "holds no data set"),
    "twice.csv": ("name,data\na,sets/flat\na,sets/classes\n", "two data sets are called 'a'.*flat.*classes"),
    "gone.csv": ("data\nsets/nowhere\n", r"nothing at '.*nowhere', the data of the data set 'nowhere'"),
    "labels.csv": ("data,labels\nsets/flat,l.csv\n", r"nothing at '.*l.csv', the labels of the data set 'flat'"),
    "masks.csv": ("data,masks\nsets/flat,m\n", r"nothing at '.*m', the masks"),
    "word.yaml": ("hello", "holds no list of data sets"),
    "bad.yaml": ("a: [", "is no YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_list_is_said(name: str, root: Path) -> None:
    text, said = BAD[name]
    if text is not None:
        (root / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        data_sets(str(root / name))


def test_a_folder_without_data_sets_is_none(tmp_path: Path) -> None:
    (tmp_path / "one.png").touch()
    with pytest.raises(ValueError, match=r"'one\.png'"):
        data_sets(str(tmp_path))
