"""Boxes are read as tables, VOC and COCO write them, held to their images, and refused with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearfar.data.boxes import Boxes, place_boxes, read_boxes
from nearfar.errors import NotFound, UserError

NAMES = ["a/one.png", "a/two.png", "b/two.png"]


def size(i: int) -> tuple[int, int]:
    return (20, 10)


def open_boxes(path: Path, origin: int = 0) -> Boxes:
    return place_boxes(read_boxes(path, origin), NAMES, size)


def table(path: Path, *rows: str, head: str = "path,xmin,ymin,xmax,ymax,label") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_a_table_is_counted_from_0_or_from_1(tmp_path: Path) -> None:
    file = table(tmp_path / "b.csv", "a/one.png,1,1,20,10,cell", "one.png,3,2,5,4.5,other", "b/two.png,2,2,3,3,cell")
    zero, one = (open_boxes(file, origin) for origin in (0, 1))
    assert zero.classes == one.classes == ["cell", "other"]
    assert [own.tolist() for own in zero.boxes] == [[[1, 1, 20, 10], [3, 2, 5, 4.5]], [], [[2, 2, 3, 3]]]
    assert [own.tolist() for own in one.boxes] == [[[0, 0, 20, 10], [2, 1, 5, 4.5]], [], [[1, 1, 3, 3]]]
    assert [own.tolist() for own in one.label] == [[0, 1], [], [0]]
    assert one.boxes[1].shape == (0, 4)
    assert not one.notes


def test_boxes_are_cut_or_left_out_and_counted(tmp_path: Path) -> None:
    rows = ["-3,2,5,12", "30,2,35,5", "5,5,4,9", "5,5,5,9", "nan,1,2,3"]
    file = table(tmp_path / "b.csv", *(f"a/one.png,{row},x" for row in rows), "strange.png,1,1,2,2,x")
    made = open_boxes(file)
    assert made.boxes[0].tolist() == [[0, 2, 5, 10]]
    cut, lost, strange = made.notes
    assert cut.startswith("Cut at the edges of their images: 1 box, such as")
    assert "line 2: (-3, 2, 5, 12) in 20 x 10" in cut
    assert lost.startswith("Left out: 4 boxes, such as")
    assert "line 3: (30, 2, 35, 5), outside its image of 20 x 10" in lost
    assert "line 4: (5, 5, 4, 9), without area, or swapped" in lost
    assert strange == "Left out: 1 box of images that DATA do not hold, such as 'strange.png'."


def test_a_table_says_the_split_of_its_images(tmp_path: Path) -> None:
    head = "path,xmin,ymin,xmax,ymax,label,split"
    made = open_boxes(table(tmp_path / "b.csv", "a/one.png,1,1,2,2,x,Testing", head=head))
    assert made.split == ["test", "", ""]


def test_boxes_of_another_folder_are_not_those_of_an_image_of_the_same_name(tmp_path: Path) -> None:
    rows = ["train/1.png,1,1,3,2,x", "train/2.png,1,1,3,2,x", "test/1.png,1,1,9,2,x", "test/2.png,1,1,9,2,x"]
    written = read_boxes(table(tmp_path / "b.csv", *rows, "1.png,4,4,5,5,x"))
    made = place_boxes(written, ["1.png"], size, tmp_path / "train")  # DATA is the folder train alone
    assert made.boxes[0].tolist() == [[1, 1, 3, 2], [4, 4, 5, 5]]
    assert made.notes[0].startswith("Left out: 3 boxes of images that DATA do not hold")
    made = place_boxes(written, ["train/1.png", "train/2.png"], size)
    assert [own[:, 2].tolist() for own in made.boxes] == [[3, 5], [3]]
    with pytest.raises(UserError, match=r"'test/1.png'.*'train/1.png'.*which of them the image '1.png' is cannot"):
        place_boxes(read_boxes(table(tmp_path / "b.csv", *rows)), ["1.png"], size, tmp_path / "elsewhere")


def test_voc_and_coco_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    box = "<object><name>cell</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object>"
    (tmp_path / "voc/one.xml").write_text(f"<annotation><filename>one.png</filename>{box}</annotation>")
    (tmp_path / "voc/none.xml").write_text("<annotation><filename>a/two.png</filename></annotation>")
    coco = {
        "images": [{"id": 7, "file_name": "one.png"}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 1, 3, 3]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [2, 1, 3, 3], "iscrowd": 1},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    voc, other = open_boxes(tmp_path / "voc"), open_boxes(tmp_path / "coco.json")
    for made in (voc, other):
        assert made.boxes[0].tolist() == [[2, 1, 5, 4]]
        assert made.classes == ["cell"]
    assert other.notes == ["Left out: 1 box of crowds."]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b.csv", "path,xmin,label\n", r"line 1: no column 'ymin', 'xmax', 'ymax'.*there are path, xmin, label"),
        ("b.csv", "path,xmin,ymin,xmax,ymax,label\na/one.png,1,x,3,4,c\n", r"line 2: ymin is 'x'"),
        ("b.csv", "path,xmin,ymin,xmax,ymax,label\na/one.png,1,1,3,4,\n", r"line 2: the label is empty"),
        ("b.csv", "path,xmin,ymin,xmax,ymax,label\n", r"holds no boxes"),
        ("b.csv", "path,xmin,ymin,xmax,ymax,label\ntwo.png,1,1,3,4,c\n", r"2 images are called 'two.png'"),
        ("b.csv", "path,xmin,ymin,xmax,ymax,label\nx.png,1,1,3,4,c\n", r"none of 1 box.*'x.png'.*'a/one.png'"),
        ("b.json", '{"images": [],\n "x": }', r"line 2: no JSON"),
        ("b.json", '{"images": []}', r"lacks 'categories'"),
        (
            "b.json",
            '{"images": [{"id": 1, "file_name": "one.png"}], "categories": [{"id": 1, "name": "c"}], '
            '"annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}',
            r"annotation 5: bbox \[1, 2, 3\]",
        ),
        ("v/b.xml", "<annotation>\n<object></annotation>", r"line 2: no XML"),
        ("v/b.xml", "<annotation><object><name>c</name></object></annotation>", r"object 1: no bndbox"),
        ("v/b.txt", "", r"a folder without .xml files"),
    ],
)
def test_what_cannot_be_understood_is_named_with_its_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        open_boxes(path if path.parent == tmp_path else path.parent)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or folder"):
        open_boxes(tmp_path / "gone.csv")
