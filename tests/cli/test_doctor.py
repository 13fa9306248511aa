"""Doctor does no harm: the command that it prints runs as it stands, on the rows that it should."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nearfar
from nearfar.cli import doctor, main
from nearfar.cli.train import named_in, parse
from nearfar.data.csv import read_records
from nearfar.data.digests import digests
from nearfar.data.samples import Samples
from nearfar.modalities import kind as kinds
from nearfar.run import Run, load
from nearfar.training import pace as pacing
from nearfar.training import plan as plans
from nearfar.training.build import open_samples
from nearfar.training.directory import read_config, read_samples
from tests.modalities.image.test_duplicates import scene

NAMES = [f"{stem} {i}{end}" for i, (stem, end) in enumerate([("it's", ".png"), ("a, b", ".png"), ("é=", ".png")] * 8)]
"""Names of 24 images that want quoting in tables."""

SPLIT = ["test" if i % 4 == 3 else "val" if i % 12 == 5 else "train" for i in range(24)]


@dataclasses.dataclass
class Case:
    """words: for doctor.  rows: the names of the samples to train on.  columns: of the table that is written."""

    words: list[str]
    rows: set[str]
    columns: set[str]


def pace(plan: object, samples: object) -> pacing.Pace:
    """A step takes an eighth of a second with conv4, two with any other network of images."""
    encoder = plan.settings.encoder  # pyright: ignore[reportAttributeAccessIssue]
    step = 2.0 if encoder == "resnet18" else 0.125
    return pacing.Pace(step=step, epoch=0.0, per_epoch=4, batch=8, memory=1e6, device="cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pacing, "pace", pace)
    monkeypatch.setattr(doctor, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # nothing takes time to open


def images(folder: Path, names: list[str], *, copy: int = 3, side: int = 32) -> Path:
    """An image for each name; the fourth, or another, is a copy of the first."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        scene(0 if i == copy else i, side).save(folder / name)
    return folder


def table(path: Path, columns: dict[str, list]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def known(names: list[str], key: str = "path") -> dict[str, list]:
    """A table of labels: every second sample of the test, and none of the last four, has no label."""
    label = ["" if i > 19 or i % 8 == 7 else f"class {i % 2}" for i in range(24)]
    more = {
        "Group": [f"{part} {i // 8}" for i, part in enumerate(SPLIT)],
        "attribute": [f"camera {i % 3}" for i in range(24)],
    }
    return {key: names, "label": label, "split": SPLIT} | more | {"note": [f"=seen, {i}" for i in range(24)]}


COLUMNS = {"label", "split", "Group", "attribute", "note"}


def trained(names: list[str]) -> set[str]:
    return {name for name, part in zip(names, SPLIT, strict=True) if part == "train"}


def labeled_folder(path: Path) -> Case:
    images(path / "my photos", NAMES)
    table(path / "what's known.csv", known(NAMES))
    words = ["my photos", "--labels", "what's known.csv"]
    return Case(words, trained(NAMES), {"path", *COLUMNS})


def split_folders(path: Path) -> Case:
    names = [f"{part}/class {i % 2}/{i}.png" for i, part in enumerate(SPLIT)]
    images(path / "photos", names)
    return Case(["photos", "--labels", "folders"], trained(names), {"path", "label", "split", "group"})


def listed(path: Path) -> Case:
    images(path / "photos", NAMES)
    names = [f"photos/{name}" for name in NAMES]
    table(path / "list.csv", known(names))
    return Case(["list.csv"], trained(names), {"path", *COLUMNS})


def archive(path: Path) -> Case:
    images(path / "photos", NAMES)
    with tarfile.open(path / "photos.tar", "w") as file:
        file.add(path / "photos", "photos")
    names = [f"photos/{name}" for name in NAMES]
    pq.write_table(pa.table(known(names)), path / "labels.parquet")
    return Case(["photos.tar", "--labels", "labels.parquet"], trained(names), {"path", *COLUMNS})


def parquet(path: Path) -> Case:
    images(path / "photos", NAMES)
    content = known(NAMES) | {"image": [(path / "photos" / name).read_bytes() for name in NAMES]}
    pq.write_table(pa.table(content), path / "photos.parquet")
    return Case(["photos.parquet"], trained(NAMES), {"path", *COLUMNS})


def array(path: Path) -> Case:
    pixels = np.stack([np.asarray(scene(0 if i == 3 else i, 32)) for i in range(24)])
    group = [f"{part} {i // 8}" for i, part in enumerate(SPLIT)]
    np.savez(
        path / "a.npz", images=pixels, labels=np.arange(24) % 2, split=SPLIT, group=group, attribute=np.arange(24) % 3
    )
    names = list(map(str, range(24)))
    return Case(["a.npz"], trained(names), {"index", "label", "split", "group", "attribute"})


def rows(n: int = 48) -> dict[str, list]:
    """Rows of a table; the fourth is the first again."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, n)
    size, color = kind + random.normal(size=n), random.integers(0, 3, n)
    size[3], color[3], kind[3] = size[0], color[0], kind[0]
    return {"size": size.tolist(), "hue": [f"c{c}" for c in color], "kind": [f"k{k}" for k in kind]}


def plain_table(path: Path) -> Case:
    table(path / "people.csv", rows() | {"split": SPLIT * 2})
    names = list(map(str, range(48)))
    wanted = {name for name, part in zip(names, SPLIT * 2, strict=True) if part == "train"}
    return Case(["people.csv", "--label-column", "kind"], wanted, {"index", "kind", "split", "group"})


def labeled_table(path: Path) -> Case:
    content = rows(24)
    kind = content.pop("kind")
    pq.write_table(pa.table(content), path / "people.parquet")
    names = list(map(str, range(24)))
    table(path / "labels.csv", known(names, "index") | {"Kind": kind})
    words = ["people.parquet", "--labels", "labels.csv", "--label-column", "kind", "--drop", "hue"]
    return Case(words, trained(names), {"index", "Kind", *COLUMNS})


CASES = [
    *(labeled_folder, split_folders, listed, archive, parquet, array),
    *(plain_table, labeled_table),
]


def advised(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[list[str], str]:
    """The words of the command that doctor prints, and all that it says."""
    capsys.readouterr()
    assert main(["doctor", *map(str, words)]) == 0
    said = capsys.readouterr().out
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:2] == ["nearfar", "train"]
    return command[1:], said


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What doctor's command trained, by the kind of data: to open other data as these were."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacing, "pace", pace)
        for kind, case in (("image", labeled_folder), ("table", plain_table)):
            folder = tmp_path_factory.mktemp(kind)
            patch.chdir(folder)
            made, heard = case(folder), io.StringIO()
            with contextlib.redirect_stdout(heard):
                assert main(["doctor", *made.words]) == 0
            command = shlex.split(heard.getvalue().strip().splitlines()[-1])
            assert main([*command[1:], "--epochs", "1", "--out", "run"]) == 0
            runs[kind] = load(folder / "run")
            seen = read_samples(folder / "run", read_config(folder / "run"))
            assert set(seen["name"].to_pylist()) == made.rows
    return runs


@pytest.mark.parametrize("case", CASES)
def test_the_command_trains_on_the_rows_it_should(
    case: Callable[[Path], Case], tmp_path: Path, trained_on: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of the commands are carried out, by `trained_on`; of the others the samples are opened as training does."""
    made = case(tmp_path)
    command, said = advised(capsys, *made.words)
    assert " of the split test is in train as well" in said or "are in train as well" in said
    file = Path(command[command.index("--labels") + 1])
    assert set(read_records(file)[0].cells) == made.columns
    assert file == doctor.beside(made.words[0])
    place, settings, _ = parse(command[1], command[2:])
    assert (place.data, settings.labels) == (made.words[0], str(file))
    flags = {k: v for k, v in dataclasses.asdict(settings).items() if k in named_in(command)}
    plan = plans.make(command[1], place.data, None, flags)
    assert set(open_samples(plan, lambda text: None).names) == made.rows
    assert command[1] == "supcon"
    # The copy of the first sample that is in the test is not tested: what it is was learned.
    run = trained_on[plan.kind]
    opened = run.open(place.data, labels=settings.labels, label_column=settings.label_column)
    known = digests(opened)
    learned = {known[i] for i in opened.of_split("train").nonzero()[:, 0].tolist()}
    copied = [i for i in opened.of_split("test").nonzero()[:, 0].tolist() if known[i] in learned]
    assert len(copied) == 1
    assert opened.label[copied[0]] >= 0
    _, tested = run.splits(opened, 0)
    assert copied[0] not in tested.tolist()
    assert len(tested) > 0


def test_the_advice_is_what_training_does_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No flag is printed that training would not need; what it would take is shown with both times."""
    images(tmp_path / "photos", NAMES, copy=0)
    command, said = advised(capsys, "photos")
    assert command == ["train", "simclr", "photos"]
    assert re.search(r"encoder +conv4 .*125 ms a step; resnet18 takes 2 s", said)
    command, said = advised(capsys, "photos", "--encoder", "resnet18", "--size", "16")
    assert command == ["train", "simclr", "photos", "--size", "16", "--encoder", "resnet18", "--epochs", "225"]


def test_it_is_said_where_no_label_is_left_to_test_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, parts in (("photos", [""]), ("parted", ["train/", "test/"])):
        images(tmp_path / name, [f"{parts[i % len(parts)]}{'ab'[i // 6]}/{i}.png" for i in range(12)], copy=0)
        command, said = advised(capsys, name, "--labels", "folders")
        assert command[1] == "supcon"
        assert ("none are left to test with" in said) == (parts == [""])


def test_a_fifth_of_the_labels_is_held_out_where_all_would_be_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each class alike, a copy on the side of its like; and the command that is printed trains on the others."""
    images(tmp_path / "photos", [f"{'ab'[i // 30]}/{i}.png" for i in range(60)], copy=7)
    command, said = advised(capsys, "photos", "--labels", "folders")
    assert "none are left to test with" not in said
    rows = [row for _, row in read_records(tmp_path / "photos-labels.csv")[1]]
    test = [row for row in rows if row["split"] == "test"]
    assert 10 <= len(test) <= 14
    assert {row["label"] for row in test} == {"a", "b"}
    copies = [row["split"] for row in rows if row["group"]]
    assert len(copies) == 2
    assert len(set(copies)) == 1
    place, settings, _ = parse(command[1], command[2:])
    plan = plans.make("supcon", place.data, None, {"labels": settings.labels})
    assert len(open_samples(plan, lambda text: None)) == 60 - len(test)
    command, said = advised(capsys, "photos", "--labels", "folders", "--hold-out", "0", "--force")
    assert "none are left to test with" in said
    command, said = advised(capsys, "photos")
    assert command[1] == "simclr", "without labels nothing is held out"


def test_what_is_held_out_leaves_every_class_something_to_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes of one image among others; a copy without a label goes where its like goes; a class an image: none."""
    names = [f"{'ab'[i % 2]}{i}.png" for i in range(60)] + [f"only{i}.png" for i in range(12)]
    images(tmp_path / "photos", names, copy=7)
    label = ["" if i == 7 else "ab"[i % 2] if i < 60 else names[i] for i in range(72)]
    table(tmp_path / "known.csv", {"path": names, "label": label})
    advised(capsys, "photos", "--labels", "known.csv")
    rows = [row for _, row in read_records(tmp_path / "photos-labels.csv")[1]]
    test = [row for row in rows if row["split"] == "test"]
    assert len(test) >= 10
    assert {row["label"] for row in test if row["label"]} == {"a", "b"}
    assert len({row["split"] for row in rows if row["group"]}) == 1
    table(tmp_path / "apart.csv", {"path": names, "label": names})
    command, said = advised(capsys, "photos", "--labels", "apart.csv", "--force")
    assert command[1] == "supcon"
    assert "none are left to test with" in said


def test_the_time_is_that_of_all_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(tmp_path / "photos", NAMES, copy=0)
    _, said = advised(capsys, "photos")  # 300 epochs of 4 steps of 1/8 s
    assert re.search(r"whole run +about 2 min: 300 epochs, 1,200 steps", said)
    assert re.search(r"in 5 min +300 epochs", said)
    command, said = advised(capsys, "photos", "--minutes", "1")
    assert command[-2:] == ["--epochs", "120"]
    assert re.search(r"whole run +about 60 s: 120 epochs, 480 steps, ", said)
    assert re.search(r"in 5 min +600 epochs, 2,400 steps", said)
    assert advised(capsys, "photos", "--minutes", "60")[0][-2:] == ["--epochs", "1000"]
    slow, said = advised(capsys, "photos", "--encoder", "resnet18", "--minutes", "0.1")
    assert slow[-2:] == ["--epochs", "1"]
    assert re.search(r"whole run +about 8 s: 1 epoch, 4 steps", said)
    assert "4 steps are too few to gain much: give --minutes 7 or more" in said  # 200 steps of 2 s


@pytest.mark.parametrize(("words", "size"), [(["90"], []), (["30"], ["32"]), (["0.01", "--size", "96"], ["96"])])
def test_views_are_smaller_where_too_few_steps_would_fit_unless_a_size_is_given(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    size: list[str],
) -> None:
    def by_size(plan: plans.Plan, samples: Samples) -> pacing.Pace:
        side = kinds.of("image").facts(samples, plan.settings)["size"]
        return pacing.Pace(step=(side / 32) ** 2, epoch=0.0, per_epoch=4, batch=8, memory=1e6, device="cpu")

    monkeypatch.setattr(pacing, "pace", by_size)
    images(tmp_path / "photos", NAMES[:8], side=100)
    command, _ = advised(capsys, "photos", "--minutes", *words)
    assert [value for name, value in pairwise(command) if name == "--size"] == size


def test_its_own_table_may_be_written_again_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = labeled_folder(tmp_path)
    file = Path("my photos-labels.csv")
    first = (advised(capsys, *made.words)[0], file.read_bytes())
    assert (advised(capsys, *made.words)[0], file.read_bytes()) == first
    words = [made.words[0], "--labels", str(file)]  # its own earlier table is all that it was given
    assert (advised(capsys, *words)[0], file.read_bytes()) == first
    file.write_text(file.read_text(encoding="utf-8").replace("class 1", "cat"), encoding="utf-8")
    assert main(["doctor", *made.words]) == 2
    assert "--force" in capsys.readouterr().err
    assert "cat" in file.read_text(encoding="utf-8")
    advised(capsys, *made.words, "--force")
    assert file.read_bytes() == first[1]
    assert main(["doctor", "my photos", "--labels", str(file), "--out", "my photos", "--force"]) == 2
    command, _ = advised(capsys, *made.words, "--out", "deep/er.csv")
    assert command[command.index("--labels") + 1] == "deep/er.csv"
    assert Path("deep/er.csv").read_bytes() == first[1]


def test_what_was_known_stands_in_the_table_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = labeled_folder(tmp_path)
    advised(capsys, *made.words)
    given = {row["path"]: row for _, row in read_records(tmp_path / "what's known.csv")[1]}
    written = {row["path"]: row for _, row in read_records(Path("my photos-labels.csv"))[1]}
    assert written.keys() == given.keys()
    together = {NAMES[0], NAMES[3]}
    for name, row in written.items():
        assert {k: v for k, v in row.items() if k != "Group"} == {k: v for k, v in given[name].items() if k != "Group"}
        joined = given[name]["Group"] in {given[other]["Group"] for other in together}
        assert row["Group"] == ("test 0+train 0" if joined else given[name]["Group"])


@pytest.mark.parametrize("words", [["--labels", "folders"], []])
def test_too_little_ends_with_a_word_and_no_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "p", ["a/1.png"])
    assert main(["doctor", "p", *words]) == 0
    said = capsys.readouterr().out
    assert "Too little to learn from. 1 image" in said
    assert "nearfar train" not in said


def test_names_survive_a_shell() -> None:
    words = ["it's", "a b", "$HOME", "é", "caf\udce9 '\\.png", "tab\t"]
    line = doctor.shell(["printf", "%s\\0", *words])
    out = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert out.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    assert all(character.isprintable() for character in line)


COMMANDS = {
    "doctor": ["doctor", "DATA"],
    "train": ["train", "simclr", "DATA"],
    "views": ["views", "DATA"],
    "compare": ["compare", "simclr,moco", "DATA", "--out", "study"],
    "helps": ["helps", "DATA", "--out", "study"],
}


@pytest.mark.parametrize(
    ("command", "data"),
    [
        *(("doctor", data) for data in ("photos", "list.csv", "a.npz", "photos.parquet", "people.csv")),
        *((command, data) for command in COMMANDS if command != "doctor" for data in ("a.npz", "people.csv")),
    ],
)
def test_a_label_column_that_is_absent_is_an_error_everywhere(
    command: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    makers = {"photos": labeled_folder, "list.csv": listed, "a.npz": array, "photos.parquet": parquet}
    makers.get(data, plain_table)(tmp_path)
    data = "my photos" if data == "photos" else data
    words = [data if word == "DATA" else word for word in COMMANDS[command]]
    assert main([*words, "--label-column", "breed"]) == 2
    said = capsys.readouterr().err
    assert "no column 'breed'; it has" in said
    listed_columns = {"list.csv": "'note'", "a.npz": "'labels'", "photos.parquet": "'note'", "people.csv": "'kind'"}
    assert listed_columns.get(data, "no columns") in said


@pytest.mark.parametrize("given", ["photos", "list.csv", "a.npz", "photos.parquet", "people.csv", "people.parquet"])
def test_so_it_is_for_the_usual_name_once_it_is_asked_for(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not asked for, no source needs it."""
    names = [f"photos/{i}.png" for i in range(4)]
    images(tmp_path, names)
    people = {"a": [1.5, 2.5, 3.5, 4.5], "kind": ["x", "y", "x", "y"]}
    columns = {"path": names, "kind": people["kind"]}
    table(tmp_path / "list.csv", columns)
    table(tmp_path / "people.csv", people)
    np.savez(tmp_path / "a.npz", images=np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8), kind=np.arange(4))
    pq.write_table(pa.table(people), tmp_path / "people.parquet")
    pq.write_table(pa.table(columns), tmp_path / "photos.parquet")
    kind = kinds.of("table" if given.startswith("people") else "image")
    assert main(["doctor", given, "--label-column", "label"]) == 2
    assert f"'{given}' has no column 'label'; it has" in capsys.readouterr().err
    asked = kind.Settings(label_column="label")
    with pytest.raises(ValueError, match="no column 'label'"):
        kind.open(given, asked)
    assert kind.samples(given, kind.Settings()).classes == []


def test_so_it_is_for_what_is_in_memory() -> None:
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    numbers = {"a": [1.5, 2.5, 3.5, 4.5], "b": [1.5, 2.5, 3.5, 5.5]}
    for data in (pixels, list(pixels), numbers, pa.table(numbers)):
        with pytest.raises(ValueError, match="no column 'label'"):
            nearfar.fit(data, "simclr", label_column="label", out="run")
        assert not Path("run").exists()


@pytest.mark.parametrize(
    "words", ["embed RUN DATA", "evaluate RUN DATA", "report RUN --data DATA", "finetune RUN DATA"]
)
def test_so_it_is_for_data_of_a_run(
    words: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The column of training may be absent from other data, one that is asked for may not."""
    given = [{"RUN": str(run), "DATA": str(data)}.get(word, word) for word in words.split()]
    more = ["--out", str(tmp_path / "out")] if given[0] in ("embed", "finetune") else []
    assert main([*given, *more, "--label-column", "breed"]) == 2
    assert "no column 'breed'; it has 'labels'" in capsys.readouterr().err
