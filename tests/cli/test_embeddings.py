"""Embeddings as a product, by the command line."""

from __future__ import annotations

import csv
import errno
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nearfar.cli import main
from nearfar.embeddings import shards
from nearfar.embeddings.search import Found, Index, nearest
from nearfar.embeddings.shards import Embeddings
from nearfar.run import Run, load
from tests.tiny import contents, folder, tiny_images


@pytest.fixture(scope="module")
def place(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, photos with a copy across the splits, and their embeddings."""
    place = tmp_path_factory.mktemp("product")
    shutil.copytree(run, place / "run")
    for i, image in enumerate(tiny_images(30)):
        path = place / "photos" / ("test" if i < 6 else "train") / f"class{i % 4}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    shutil.copyfile(place / "photos/test/class1/01.png", place / "photos/train/class1/90.png")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(place / "photos/train/class0/91.png")
    words = ["embed", place / "run", place / "photos", "--labels", "folders", "--out", place / "emb", "--shard", "12"]
    assert main(list(map(str, words))) == 0
    return place


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, that a test may write to, and where it stands."""
    shutil.copytree(place, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


EMBED = "embed run photos --labels folders --shard 12"


def call(line: str) -> int:
    return main(shlex.split(line))


def table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_shards_hold_what_the_run_makes_of_each_sample(here: Path) -> None:
    held = Embeddings("emb")
    samples = load("run").open("photos", labels="folders")
    assert [len(block) for block in held.blocks()] == [12, 12, 8]
    assert held.names == samples.names
    assert held.rows["split"] == samples.split
    torch.testing.assert_close(held.unit, torch.nn.functional.normalize(load("run").rows(samples), dim=1))
    assert torch.equal(held.label, samples.label)
    assert held.classes == samples.classes
    written = pq.read_table(here / "emb" / "shard-00001.parquet")
    assert written.column_names == ["index", "name", "label", "split", "group", "digest", "vector"]
    assert written.column("index").to_pylist() == list(range(12, 24))
    assert call(f"{EMBED} --out half --precision float16") == 0
    half = Embeddings("half")
    assert half.index["precision"] == "float16"
    assert str(pq.read_schema(here / "half" / "shard-00000.parquet").field("vector").type.value_type) == "halffloat"
    assert float((half.unit * held.unit).sum(1).min()) > 0.999


def test_a_killed_one_goes_on_and_ranks_share_the_shards(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, made = Run.rows, []

    def killed(self: Run, samples: Any) -> Any:
        made.append(len(samples))
        if len(made) == 2:
            raise KeyboardInterrupt
        return rows(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "rows", killed)
        assert call(f"{EMBED} --out new") == 130
    assert sorted(path.name for path in Path("new").iterdir()) == ["index.json", "shard-00000.parquet"]
    assert call("search new 0") == 2
    assert "2 of 3 shards of 'new' are missing, such as 'shard-00001.parquet'" in capsys.readouterr().err
    assert call(f"{EMBED} --out new") == 0
    assert "in 2 shards written now; 1 shard" in capsys.readouterr().out
    assert contents(here / "new") == contents(here / "emb")
    for rank in ("1", "0"):  # in any order, and none waits
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert call(f"{EMBED} --out ranks") == 0
        assert len(list(Path("ranks").glob("shard-*"))) == {"1": 1, "0": 3}[rank]
    assert contents(here / "ranks") == contents(here / "emb")


def test_other_embeddings_are_refused_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(here / "others", 14)
    before = contents(here / "emb")
    for line, said in (
        ("embed run others --out emb --shard 12", "theirs: other data"),
        (f"{EMBED} --out emb --precision float16", "theirs: --precision float32"),
        ("embed run others --out photos", "'photos' holds other files"),
        ("embed run others --out x.csv", "a directory of Parquet shards"),
    ):
        assert call(line) == 2
        assert said in capsys.readouterr().err
    assert contents(here / "emb") == before
    assert call("embed run others --out mixed --shard 12") == 0
    shutil.copyfile("emb/shard-00001.parquet", "mixed/shard-00001.parquet")
    assert call("embed run others --out mixed --shard 12") == 2
    assert "'mixed/shard-00001.parquet' is not of this run and these data" in capsys.readouterr().err
    assert call("search mixed 0") == 2
    assert "'mixed/shard-00001.parquet' is of other embeddings" in capsys.readouterr().err
    assert call(f"{EMBED} --out mixed --force") == 0
    assert contents(here / "mixed").keys() == before.keys()
    assert call("embed run others --out mixed --shard 12 --force") == 0
    assert len(Embeddings("mixed")) == 14


def test_what_is_damaged_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard, index = here / "emb" / "shard-00001.parquet", here / "emb" / "index.json"
    whole = shard.read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    for content in (bytes(broken), whole[:100]):
        shard.write_bytes(content)
        assert call("search emb 0") == 2
        assert "'emb/shard-00001.parquet' is damaged" in capsys.readouterr().err
    shard.write_bytes(whole)
    index.write_text(index.read_text().replace('"width": ', '"width": 1'))
    assert call("outliers emb") == 2
    assert "'emb/index.json' is damaged" in capsys.readouterr().err
    assert call(f"{EMBED} --out emb") == 0  # as the error says
    assert call("outliers emb") == 0
    assert call("duplicates photos") == 2
    assert "'photos' is no directory of embeddings, as it has no index.json" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(table: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "_write", full)
    assert call(f"{EMBED} --out new") == 2
    assert "the disk is full" in capsys.readouterr().err
    assert [path.name for path in Path("new").iterdir()] == ["index.json"]


def test_search_finds_rows_files_and_vectors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = Embeddings("emb")
    row = held.names.index("train/class1/90.png")
    exact = (held.unit @ held.unit[row]).argsort(descending=True, stable=True)
    exact = exact[exact != row]
    assert call(f"search emb {row} --k 3 --save rows.csv --page rows.html") == 0
    found = table("rows.csv")
    assert [int(one["row"]) for one in found] == exact[:3].tolist()
    assert found[0]["path"] == "test/class1/01.png"
    assert float(found[0]["similarity"]) == 1
    page = Path("rows.html").read_text()
    assert len(re.findall(r'<img src="data:image/jpeg', page)) == 4
    assert "train/class1/90.png" in page
    np.save("vector.npy", held.unit[row].numpy())
    for query in ("photos/train/class1/90.png", "vector.npy"):
        assert call(f"search emb {query} --k 2 --save file.csv --force") == 0
        assert {one["path"] for one in table("file.csv")} == {"test/class1/01.png", "train/class1/90.png"}
    assert call("search emb photos/test/class2 --k 1 --save many.csv --page many.html") == 0
    assert [one["path"] for one in table("many.csv")] == [n for n in held.names if n.startswith("test/class2/")]
    capsys.readouterr()
    for query, said in (
        ("32", "rows are 0 to 31"),
        ("cat", "cannot be asked for in words"),
        ("nine.png", "there is no file 'nine.png'"),
    ):
        assert call(f"search emb {shlex.quote(query)}") == 2
        assert said in capsys.readouterr().err
    assert call("search emb 1 --save rows.csv") == 2
    assert "is there already: name another --save" in capsys.readouterr().err


def test_a_run_that_moved_or_changed_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").rename(here / "elsewhere")
    assert call("search emb 1") == 0  # which takes no run
    assert call("search emb photos/test/class2/02.png") == 2
    assert "say where by --run" in capsys.readouterr().err
    assert call("search emb photos/test/class2/02.png --run elsewhere") == 0
    words = (
        "train simclr photos --encoder conv4 --epochs 1 --batch 16 --probe-every 0 --views drawing --seed 5 --out run"
    )
    assert call(words) == 0
    capsys.readouterr()
    assert call("search emb photos/test/class2/02.png") == 2
    assert "has another encoder than the one that made 'emb'" in capsys.readouterr().err


def test_the_nearest_are_the_same_in_any_blocks() -> None:
    unit = torch.nn.functional.normalize(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    unit[40] = unit[3]
    exact = (unit[:5] @ unit.T).sort(dim=1, descending=True, stable=True)
    found = nearest(unit[:5], unit.split(7), 9)
    assert torch.equal(found.index, exact.indices[:, :9])
    torch.testing.assert_close(found.cosine, exact.values[:, :9])
    assert found.index[3, :2].tolist() == [3, 40]
    assert nearest(unit[:1], unit[:4].split(3), 9).index.shape == (1, 4)


def test_an_inverted_file_is_made_once_and_its_recall_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import faiss  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        assert call("search emb 1 --index ivf") == 2
        assert "pip install 'nearfar[fast]'" in capsys.readouterr().err
        return
    assert call("search emb 1 --k 3 --index ivf") == 0
    assert "Recall@3 against an exact search, on 32 rows that look for others: 100.0 %" in capsys.readouterr().out
    stamp = (here / "emb" / "ivf.faiss").stat().st_mtime_ns
    assert call("search emb 1 --k 3 --index ivf") == 0
    assert (here / "emb" / "ivf.faiss").stat().st_mtime_ns == stamp


def test_leaks_are_told_first_and_groups_are_labels(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("duplicates emb --threshold 1 --save groups.csv --page groups.html") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Leak: 1 of 6 images of the split test have a near-duplicate in train."
    assert said[1].startswith("2 of 32 images are near-duplicates, at a cosine of 1, in 1 group")
    assert "Across splits" in Path("groups.html").read_text()
    groups = {row["path"]: row["group"] for row in table("groups.csv")}
    assert {name for name, group in groups.items() if group} == {"test/class1/01.png", "train/class1/90.png"}
    samples = load("run").open("photos", labels="groups.csv")
    assert samples.names == list(groups)
    together = (samples.group != -1).nonzero()[:, 0].tolist()
    assert [samples.names[i] for i in together] == ["test/class1/01.png", "train/class1/90.png"]
    assert torch.equal(samples.label, Embeddings("emb").label)
    assert call("duplicates emb --threshold 1.5") == 2


def test_a_copy_in_three_splits_leaks_from_each_into_each_before_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "photos" / "val" / "class1").mkdir(parents=True)
    shutil.copyfile("photos/test/class1/01.png", "photos/val/class1/92.png")
    assert call(f"{EMBED} --out three") == 0
    capsys.readouterr()
    assert call("duplicates three --threshold 1") == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "Leak: 1 of 6 images of the split test have a near-duplicate in train.",
        "Leak: 1 of 6 images of the split test have a near-duplicate in val.",
        "Leak: 1 of 1 images of the split val have a near-duplicate in train.",
    ]


def test_the_recall_of_an_approximate_search_does_not_count_the_row_itself(here: Path) -> None:
    index = Index.__new__(Index)
    index.held, index.seed = Embeddings("emb"), 0
    index.search = lambda query, k: nearest(query, index.held.blocks(), k)
    assert index.recall(1) == (1, 32)

    def itself(query: torch.Tensor, k: int) -> Found:
        own = nearest(query, index.held.blocks(), 1)
        return Found(own.cosine.repeat(1, k), own.index.repeat(1, k))

    index.search = itself
    assert index.recall(1)[0] < 0.1  # two rows are copies of each other


def test_the_farthest_is_the_outlier(here: Path) -> None:
    assert call("outliers emb --count 3 --save far.csv --page far.html") == 0
    rows = table("far.csv")
    assert len(rows) == 32
    held = Embeddings("emb")
    cosine = (held.unit @ held.unit.T).fill_diagonal_(-2).topk(10).values.mean(1)
    assert [row["path"] for row in rows[:3]] == [held.names[i] for i in cosine.argsort()[:3].tolist()]
    assert float(rows[0]["similarity"]) == pytest.approx(float(cosine.min()), abs=1e-3)
    assert rows[2]["path"] in Path("far.html").read_text()
    assert rows[3]["path"] not in Path("far.html").read_text()


def test_a_curated_list_is_data_and_a_table_of_arrays_are_labels(here: Path, data: Path) -> None:
    (here / "lists").mkdir()
    assert call("curate emb --keep 9 --clusters 6 2 --dedup 0.9999 --out lists/some.csv") == 0
    samples = load("run").open("lists/some.csv")
    assert [samples.split.count(name) for name in ("train", "test")] == [9, 6]
    assert set(samples.classes) <= set(Embeddings("emb").classes)
    names = [row["path"] for row in table("lists/some.csv")]
    assert all((here / "lists" / name).is_file() for name in names)
    assert call("curate emb --keep 9 --clusters 6 2 --dedup 0.9999 --out lists/again.csv") == 0
    assert Path("lists/again.csv").read_text() == Path("lists/some.csv").read_text()
    assert call("curate emb --keep 27 --out lists/more.csv") == 2
    held = Embeddings("emb")
    rows = [["path", "label", "group"], *([name, "x", f"day{i % 7}"] for i, name in enumerate(held.names))]
    Path("days.csv").write_text("\n".join(map(",".join, rows)))
    assert call("embed run photos --labels days.csv --out days") == 0
    assert call("curate days --keep 9 --clusters 6 2 --out lists/days.csv") == 0
    samples = load("run").open("lists/days.csv")
    day = [held.names.index(Path(name).as_posix().split("photos/")[1]) % 7 for name in samples.names]
    assert (samples.group[:, None] == samples.group).tolist() == [[a == b for b in day] for a in day]
    assert call(f"embed run {shlex.quote(str(data))} --out arrays") == 0
    assert call("curate arrays --keep 10 --out arrays.csv") == 0
    assert load("run").open(str(data), labels="arrays.csv").split.count("train") == 10


def test_suspects_are_written_with_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(here / "more", 96, nested=True)
    names = sorted(path.relative_to(here / "more").as_posix() for path in (here / "more").rglob("*.png"))
    turned = {names[5]: "class2", names[30]: "class3", names[60]: "class0", names[80]: "class1"}
    rows = [[name, turned.get(name, name.split("/")[0])] for name in names]
    Path("turned.csv").write_text("\n".join(",".join(row) for row in [["path", "label"], *rows]))
    assert call("suspects run more --labels turned.csv --save wrong.csv --page wrong.html") == 0
    found = {row["path"]: (row["label"], row["proposed"]) for row in table("wrong.csv")}
    assert found.items() <= {name: (label, name.split("/")[0]) for name, label in turned.items()}.items()
    assert len(found) >= 2
    name, (given, proposed) = next(iter(found.items()))
    assert f"{given} → {proposed}" in Path("wrong.html").read_text()
    assert name in Path("wrong.html").read_text()
    assert call("suspects run photos --labels none") == 2
    assert "none are known" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "line",
    [
        "embed run photos --out a.npz",
        "embed run photos --out a",
        "evaluate run photos --labels folders",
        "look run photos --kind kernels",
        "report run --data photos",
        "label-plan run photos --labels none",
        "finetune run photos --labels folders --out c",
        "suspects run photos --labels folders",
        "search emb photos/test/class2/02.png",
    ],
)
def test_a_device_that_is_not_there_is_said_before_anything_is_done(
    line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(here)
    assert call(f"{line} --device cuda:7") == 2
    assert "--device cuda:7: torch finds no GPU here; use --device cpu or auto" in capsys.readouterr().err
    assert contents(here) == before
