"""Pairs in memory: from where they come, and what belongs together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.errors import Lost
from nearfar.modalities import kind as kinds
from nearfar.modalities.pair.kind import PairKind
from nearfar.modalities.pair.samples import PairSamples
from nearfar.modalities.pair.settings import Settings
from tests.modalities.pair.small import rows, table


def opened(data: Any, pair: str = "image=path,text=caption", **settings: Any) -> PairSamples:
    samples = PairKind().samples(data, Settings(pair=pair, **settings))
    assert isinstance(samples, PairSamples)
    return samples


def captions(samples: PairSamples, side: str = "text") -> list[list[str]]:
    k, held = list(samples.sides).index(side), samples.sides[side]
    return [[held.texts[i][0] for i in row[k]] for row in samples.rows]  # pyright: ignore[reportAttributeAccessIssue]


def test_two_columns_of_a_table_are_two_sides_with_what_is_known_of_a_row(tmp_path: Path) -> None:
    made = rows(8)
    samples = opened(table(tmp_path / "t.jsonl", made))
    assert captions(samples) == [[row["caption"]] for row in made]
    assert samples.names == [str(i) for i in range(8)]
    assert [samples.classes[i] for i in samples.label.tolist()] == [row["label"] for row in made]
    assert samples.split == [row["split"] for row in made]
    image, text = samples.fetch(torch.tensor([3, 1]))
    assert torch.equal(image.inputs[0][0], torch.from_numpy(made[3]["picture"]).permute(2, 0, 1))
    assert list(text.inputs[0].texts) == [made[3]["caption"], made[1]["caption"]]
    assert (samples.group == MISSING).all()
    with pytest.raises(ValueError, match=r"no column 'words'.*'caption'"):
        opened(tmp_path / "t.jsonl", "image=path,text=words")


def test_arrays_in_order_a_mapping_an_archive_and_a_folder_hold_the_same(tmp_path: Path) -> None:
    made = rows(6)
    pictures, texts = np.stack([row["picture"] for row in made]), [row["caption"] for row in made]
    np.savez(tmp_path / "a.npz", x=pictures, caption=np.array(texts), split=np.array(["train"] * 6))
    folder = tmp_path / "folder"
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
    table(folder / "t.jsonl", made)
    for i, text in enumerate(texts):
        part = folder / made[i]["split"]
        (folder / f"{i}.png").rename(part / f"{i}.png")
        (part / f"{i}.txt").write_text(f"{text}\n\nsecond {i}\n")
    parts = [(tmp_path / "folder" / row["split"] / f"{i}.png").read_bytes() for i, row in enumerate(made)]
    ends = np.cumsum([0, *map(len, parts)])
    about = np.array("where they come from")  # one for all, which is no column
    encoded = np.frombuffer(b"".join(parts), np.uint8)
    np.savez(tmp_path / "b.npz", x=encoded, offsets=ends, caption=np.array(texts), about=about)
    named = "image=x,text=caption"
    for samples in (
        opened(tmp_path / "b.npz", named),
        opened((pictures, texts), "image,text"),
        opened({"x": pictures, "caption": texts}, named),
        opened(tmp_path / "a.npz", named),
    ):
        assert captions(samples) == [[text] for text in texts]
        assert torch.equal(
            samples.fetch(torch.tensor([5]))[0].inputs[0][0], torch.from_numpy(pictures[5]).permute(2, 0, 1)
        )
    samples = opened(folder, "image,text")
    assert sorted(captions(samples)) == sorted([text, f"second {i}"] for i, text in enumerate(texts))
    assert sorted(samples.names) == sorted(f"{row['split']}/{i}" for i, row in enumerate(made))
    assert samples.split == [name.partition("/")[0] for name in samples.names]


def test_an_array_of_several_numbers_a_row_is_a_side_of_as_many_columns() -> None:
    sensors = np.random.default_rng(0).normal(size=(8, 3)), torch.randn(8, 2)
    samples = opened(sensors, "table,table")
    one, two = samples.sides.values()
    assert [len(side.columns.numbers) for side in (one, two)] == [3, 2]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"'table1'.*unequal length"):
        opened(([np.zeros(3), np.zeros(2)], [np.zeros(1), np.ones(1)]), "table,table")


def test_a_list_in_a_cell_and_rows_of_one_first_side_are_several_entries_of_one_sample(tmp_path: Path) -> None:
    made = rows(4)
    several = [[row["caption"], f"another {i}"] for i, row in enumerate(made)]
    for data in (
        table(tmp_path / "lists.jsonl", made, caption=several),
        {
            "path": [str(tmp_path / f"{i}.png") for i in range(4) for _ in range(2)],
            "caption": [text for own in several for text in own],
        },
    ):
        samples = opened(data)
        assert captions(samples) == several
        (_, text) = samples.fetch(torch.tensor([2, 0]))
        assert text.entries.tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"rows 0 and 1 .* same image, .*differ in their split"):
        opened({"path": [str(tmp_path / "0.png")] * 2, "caption": ["a", "b"], "split": ["train", "test"]})


def test_samples_that_hold_the_same_are_one_group_however_they_are_joined(tmp_path: Path) -> None:
    made = rows(7)
    texts = ["one", "two", "one", "three", "two", "four", "five"]
    samples = opened(table(tmp_path / "t.jsonl", made, caption=texts, group=["", "", "g", "g", "", "h", ""]))
    group = samples.group.tolist()
    assert group[0] == group[2] == group[3] != group[1] == group[4]
    assert MISSING not in group[:6]
    assert group[6] == MISSING
    assert len(set(group[:6])) == 3
    assert any("hold what another one holds" in note for note in samples.notes)


def test_what_lacks_a_side_is_left_out_and_counted(tmp_path: Path) -> None:
    made = rows(40)
    path = table(tmp_path / "t.jsonl", made, caption=[None, "  ", *(row["caption"] for row in made[2:])])
    (tmp_path / "2.png").write_bytes(b"no image")
    samples = opened(path)
    assert samples.names == [str(i) for i in range(3, 40)]
    assert [(name, "text" in why, "image" in why) for name, why in samples.skipped] == [
        ("0", True, False),
        ("1", True, False),
        ("2", False, True),
    ]
    assert len(samples.sides["image"]) == len(samples.sides["text"]) == 37
    with pytest.raises(ValueError, match="nothing of the side 'text'"):
        opened(table(tmp_path / "none.jsonl", made, caption=[""] * 40))


REFUSED: list[tuple[Callable[[Path], Any], str, str]] = [
    (lambda path: (np.zeros((3, 8, 8), np.uint8), ["a", "b"]), "image,text", "unequal length, 3 of 'image' and 2 of"),
    (lambda path: (np.zeros((3, 8, 8), np.uint8),), "image,text", "a tuple of 1 .* names 2"),
    (lambda path: {"x": [1], "y": [2]}, "image,text", "must name the column of each side"),
    (lambda path: path, "image=path,text=caption", "is a folder and has no column 'path'"),
    (lambda path: path, "image,text", "has no files of these kinds"),
    (lambda path: path, "text,text", "do not tell sides of one kind apart"),
    (lambda path: path / "nothing.csv", "image=path,text=caption", "nothing at"),
    (lambda path: {"x": ["a"], "y": ["b"]}, "text=x+y,text=y", "sentences are in one column, and 2"),
    (lambda path: {"x": ["a", "b"], "y": [1, 2]}, "text=x,text=y", "the side 'text2': .* holds 1, a int"),
]


@pytest.mark.parametrize(("data", "pair", "words"), REFUSED)
def test_what_holds_no_pairs_is_refused(data: Callable[[Path], Any], pair: str, words: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        opened(data(tmp_path), pair)


def test_some_samples_take_their_part_of_each_side_with_them(tmp_path: Path) -> None:
    samples = opened(table(tmp_path / "t.jsonl", rows(8)))
    some = samples.subset([6, 1])
    assert len(some.sides["text"]) == len(some.sides["image"]) == 2
    assert captions(some) == [captions(samples)[6], captions(samples)[1]]
    assert some.digest == [samples.digest[6], samples.digest[1]]  # pyright: ignore[reportOptionalSubscript]
    for one, other in zip(some.fetch(torch.tensor([0])), samples.fetch(torch.tensor([6])), strict=True):
        assert repr(one.inputs) == repr(other.inputs)


def test_a_side_that_all_share_is_opened_and_kept_as_one() -> None:
    samples = opened({"a": ["x y", "z", "u"], "b": ["z", "w w", "v"]}, "text=a,text=b", shared=True)
    assert samples.sides["text1"] is samples.sides["text2"]
    some = samples.subset([0, 2])
    assert some.sides["text1"] is some.sides["text2"]
    assert captions(some, "text1") == [["x y"], ["u"]]
    assert captions(some, "text2") == [["z"], ["v"]]


class Gone(Samples):
    __slots__ = ()

    def fetch(self, index: torch.Tensor) -> tuple[Any, ...]:
        raise Lost({1: ("x.png", "gone"), 3: ("y.png", "gone")})


def test_what_is_lost_of_a_side_is_told_by_the_sample_that_holds_it() -> None:
    label = torch.full((5,), MISSING)
    side = Gone(names=list("abcde"), label=label, classes=[], group=label, split=[""] * 5)
    samples = PairSamples(
        names=list("uvw"),
        label=label[:3],
        classes=[],
        group=label[:3],
        split=[""] * 3,
        sides={"image": side},
        kinds={"image": "image"},
        rows=[((0, 1),), ((2,),), ((3, 4),)],
    )
    with pytest.raises(Lost) as lost:
        samples.fetch(torch.tensor([1, 0, 2]))
    assert set(lost.value.at) == {1, 2}
    assert kinds.of(samples.kinds["image"]).name == "image"


def test_what_belongs_together_across_sides_leaves_out_what_is_the_same() -> None:
    samples = opened({"a": [["p", "q"], ["r"]], "b": [["q", "s"], ["t", "r"]]}, "text=a,text=b")
    belongs, same = samples.across("text1", "text2")
    one, other = (side.texts for side in samples.sides.values())  # pyright: ignore[reportAttributeAccessIssue]
    assert {(one[i][0], other[j][0]) for i, j in belongs.tolist()} == {("p", "q"), ("p", "s"), ("q", "s"), ("r", "t")}
    assert {(one[i][0], other[j][0]) for i, j in same.tolist()} == {("q", "q"), ("r", "r")}
    assert samples.of_entries("text1").tolist() == [0, 0, 1]
