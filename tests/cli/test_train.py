"""The whole command: data as users have it, and the flags."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from nearfar import methods, ranges
from nearfar.cli import main
from nearfar.cli.train import parse
from nearfar.export.encoder import load_encoder
from nearfar.modalities import recipes
from tests.tiny import FLAGS, array_file, folder, tiny_images

COMMON = (
    *("out", "resume", "recipe", "kind", "log", "dim", "temperature"),
    *("epochs", "batch", "micro-batch", "encoder", "views", "view-count", "optimizer", "lr", "lr-1d", "sgd-momentum"),
    "beta1",
    *("weight-decay", "decay-1d", "warmup", "floor", "clip", "precision", "compile", "device", "seed", "labels"),
    *("label-column", "keep-words", "sampler", "per-class", "from-run", "groups", "split", "probe-every", "save-every"),
    *("keep", "keep-every", "timeout", "stop-if-worse", "layer-decay", "frozen", "start-pull"),
)
SIMCLR = {
    "audio": (*COMMON, "rate", "array-rate", "seconds", "cut", "bands", "window", "hop", "max-bad"),
    "image": (*COMMON, "weights", "set", "size", "crops", "max-bad", "white", "frames", "max-pixels"),
    "table": (*COMMON, "numbers", "corruption", "drop", "categorical"),
    "text": (
        *(*COMMON, "text-column", "positive-column", "negative-column", "tokenizer", "vocabulary", "length"),
        *("strength", "pooler", "encoder-dropout", "tagger", "concept-column"),
    ),
    "video": (
        *(
            *COMMON,
            "over-time",
            "pooling",
            "consistent",
            "frame-colors",
            "clip-frames",
            "stride",
            "power",
            "fps",
            "size",
            "max-bad",
        ),
        "no-consistent",
    ),
}
"""The flags of `nearfar train simclr`. Frozen: a new flag is a deliberate act."""


def train(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    status = main(["train", *map(str, argv)])
    heard = capsys.readouterr()
    return status, heard.out, heard.err


@pytest.mark.parametrize("kind", SIMCLR)
def test_the_flags_are_those_of_the_kind_that_were_agreed_on(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "simclr", "--kind", kind, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert set(re.findall(r"^\W*--([a-z0-9][a-z0-9-]*)", said, re.MULTILINE)) == set(SIMCLR[kind])
    assert "DATA" in said


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_help_with_its_own_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for flag in methods.flags(methods.load(name)):
        assert re.search(rf"--{flag.replace('_', '-')}[ ,]", said)


def test_help_shows_the_defaults_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, wanted in (
        (["simclr", "drawings", "--help"], "recipe drawings"),
        (["simclr", "--recipe", "imagenet", "--help"], "recipe imagenet"),
        (["simclr", "--help", "--recipe=imagenet"], "recipe imagenet"),
    ):
        with pytest.raises(SystemExit):
            main(["train", *argv])
        assert wanted in " ".join(capsys.readouterr().out.split())


def test_help_shows_what_these_data_get_where_they_open_in_a_moment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from nearfar import Recipe\nfrom nearfar.modalities.image.settings import Settings\n"
        "def by_facts(facts):\n"
        "    settings = Settings(encoder='conv4', epochs=facts.samples, batch=facts.batch or 16)\n"
        "    return Recipe(settings=settings, method={'dim': facts.side})\n"
    )
    words = ["train", "simclr", str(data), "--recipe", f"{tmp_path / 'mine.py'}:by_facts", "--batch", "12", "--help"]

    def shown() -> dict[str, int]:
        with pytest.raises(SystemExit):
            main(words)
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        return {n: int(re.findall(rf"--{n} INT .*?\(default: (\d+)\)", said)[0]) for n in ("epochs", "batch", "dim")}

    assert shown() == {"epochs": 48, "batch": 12, "dim": 16}
    monkeypatch.setattr("nearfar.cli.train.FEW_BYTES", 10)
    assert shown() == {"epochs": 5000, "batch": 16, "dim": 32}


def test_without_a_method_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(capsys)[0] == 2
    status, out, _ = train(capsys, "--help")
    assert status == 0
    assert "usage: nearfar train METHOD DATA" in out
    assert ", ".join(methods.names()) in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["simlcr", "drawings"], "there is no method 'simlcr'; did you mean simclr or"),
        (["./mine.py", "drawings"], "there is no method file './mine.py'"),
        (["simclr", "drawings", "--recipe", "photoes"], "there is no recipe 'photoes'; there are "),
        (["simclr", "drawings", "--lr", "-1"], r"--lr -1.0: a number of 0 or more"),
        (["simclr", "drawings", "--epochs", "0"], "--epochs 0: a whole number of 1 or more"),
        (["simclr", "drawings", "--views", "moco"], "did you mean moco_v"),
        (["simclr", "nowhere/"], "There is nothing at 'nowhere'"),
        (["simclr", "drawings", "--device", "warp"], "--device 'warp': torch knows no such device; use auto, cpu"),
        (["simclr", "drawings", "--size", "8"], "conv4 cannot take images of 8 x 8 px"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    argv: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = train(capsys, *argv)
    assert status == 2
    assert told in err
    assert err.startswith("nearfar train: ")
    assert err.count("\n") == 1
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--temprature", "0.1"], "--temperature"),
        (["--epochs", "many"], "many"),
        (["--resume=maybe"], "maybe"),
    ],
)
def test_wrong_flags_get_the_nearest_and_status_2(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "simclr", "drawings", *argv])
    assert end.value.code == 2
    heard = capsys.readouterr()
    assert told in heard.err
    assert "Traceback" not in heard.err


def test_data_may_stand_behind_any_flag(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 4)
    for argv in (
        [str(photos), "--compile"],
        ["--compile", str(photos)],
        ["--crops", "2", "6", str(photos), "--compile"],
        ["--epochs=3", "--compile", "--", str(photos)],
    ):
        place, settings, _ = parse("swav", argv)
        assert (place.data, place.recipe, settings.compile) == (str(photos), "measured_images", True)
    _, settings, arguments = parse("moco", [str(photos), "--sgd-momentum", "0.5", "--momentum", "0.75"])
    assert (settings.sgd_momentum, arguments["momentum"]) == (0.5, 0.75)


def test_a_run_tells_where_everything_went(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    status, said, _ = train(capsys, "moco", data, *FLAGS, "--queue", "32", "--out", out)
    assert status == 0
    for path in (out, out / "encoder.safetensors", out / "report.html"):
        assert str(path) in said
        assert path.exists()
    assert "MoCo on 48 samples: 2 epochs of 3 steps, 16 samples and 2 views a step" in said
    assert yaml.safe_load((out / "config.yaml").read_text())["arguments"]["queue"] == 32
    assert load_encoder(out)(torch.rand(2, 1, 16, 16)).shape == (2, load_encoder(out).dim)

    status, _, err = train(capsys, "moco", data, *FLAGS, "--queue", "32", "--out", out)
    assert status == 2
    assert "never overwritten" in err
    status, _, err = train(capsys, "moco", data, *FLAGS, "--queue", "64", "--out", out, "--resume")
    assert status == 2
    assert "queue was 32 and is 64" in err


def test_runs_are_numbered(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", "simclr", str(data), *FLAGS]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["simclr-images-1", "simclr-images-2"]


def test_a_stopped_run_tells_how_to_go_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nearfar.distributed.anywhere", lambda flag: True)  # as if Ctrl-C had come at once
    status, said, _ = train(capsys, "simclr", data, *FLAGS, "--labels", "")
    assert status == 130
    command = said.split("Go on with: ")[1].strip()
    assert command.endswith("--out runs/simclr-images-1 --resume")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert json.loads((tmp_path / "runs/simclr-images-1/environment.json").read_text())["finished"]


# Data as they come.


def test_one_image_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = train(capsys, "simclr", folder(tmp_path / "one", 1), *FLAGS, "--out", tmp_path / "run")
    assert status == 2
    assert "1 sample to train on" in err
    assert "at least 2" in err
    assert not (tmp_path / "run").exists()


def that_count() -> list[str]:
    """One method of each family, and those that are told how many samples or classes there are, or keep a queue."""
    first = {pages[0].name for pages in methods.by_family().values()}
    asked = {"samples", "classes", "counts", "queue"}
    return [name for name in methods.names() if name in first or asked & ranges.constructor(methods.load(name)).keys()]


@pytest.mark.parametrize("method", that_count())
def test_two_images_train(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--labels", "folders"] if methods.load(method).needs_labels else []
    views = ["--views", "swav", "--crops", "2", "1", "--size", "48"] if method == "swav" else []
    several = ":" in recipes.load("small_images", method, "image").settings.encoder
    networks = ["--encoder", "0+0:conv4"] if several else []  # the images are gray
    views = ["--views", method] if method in ("looc", "excon") else views
    views = ["--views", "plain"] if method == "contragan" else views
    two = folder(tmp_path / "two", 2, 2, nested=True)
    status, said, err = train(capsys, method, two, *FLAGS, *argv, *views, *networks, "--out", tmp_path / "run")
    if method == "colorization":
        assert status == 2
        assert "rotation" in err, "gray images have no colors to tell: another method is named"
        return
    if methods.load(method).needs_writer:
        assert (status, "has no decoder: give sentences and --encoder t5" in err) == (2, True)
        return
    if methods.load(method).needs_frames:
        assert (status, "give videos" in err) == (2, True)
        return
    if methods.load(method).needs_words:
        assert (status, "give pairs" in err) == (2, True)
        return
    assert (status, err) == (0, "")
    assert "The batch is 2, not 16: there are 2 samples" in said


def test_small_crops_that_are_too_small(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*FLAGS, "--views", "swav", "--crops", "2", "1", "--size", "16", "--out", tmp_path / "run"]
    status, _, err = train(capsys, "swav", data, *flags)
    assert status == 2
    assert "'conv4' cannot take views of 7 px" in err
    assert "give a larger --size" in err


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    status, _, err = train(capsys, "simclr", tmp_path / "empty", *FLAGS, "--out", tmp_path / "run")
    assert status == 2
    assert "is empty" in err


def test_a_few_bad_files_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 40, bad=1)
    (photos / '00"0, odd.png').write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "run"
    status, said, _ = train(capsys, "simclr", photos, *FLAGS, "--out", out)
    assert status == 0
    assert f"2 files could not be read: see {out / 'skipped.csv'}" in said
    assert "SimCLR on 39 samples" in said
    with open(out / "skipped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"]
    assert sorted(row[0] for row in rows[1:-1]) == ['00"0, odd.png', "000.png"]
    assert all(len(row) == 2 and row[1] for row in rows[:-1])
    assert rows[-1][0].startswith("# checksum: ")
    status, said, _ = train(capsys, "simclr", photos, *FLAGS, "--out", out, "--resume")
    assert status == 0


def test_many_bad_files_are_an_error_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 20, bad=6)
    status, _, err = train(capsys, "simclr", photos, *FLAGS, "--out", tmp_path / "run")
    assert status == 2
    assert "6 of 20 images" in err
    assert "--max-bad 0.3" in err
    status, said, _ = train(capsys, "simclr", photos, *FLAGS, "--max-bad", "0.3", "--out", tmp_path / "run")
    assert status == 0
    assert "SimCLR on 14 samples" in said


def test_folders_that_could_be_labels_get_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 24, nested=True)
    status, said, _ = train(capsys, "simclr", photos, *FLAGS, "--out", tmp_path / "run")
    assert status == 0
    assert "--labels folders" in said
    assert "knn" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_labels_for_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 40)
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{i:03d}.png,kind {i % 4}\n" for i in range(32)))
    for method in ("simclr", "supcon"):
        out = tmp_path / method
        status, _, err = train(capsys, method, photos, *FLAGS, "--labels", table, "--out", out)
        assert (status, err) == (0, "")
        made = yaml.safe_load((out / "config.yaml").read_text())["made"]
        assert (made["samples"], made["labeled"], len(made["classes"])) == (40, 32, 4)
        assert "knn" in (out / "metrics.jsonl").read_text()


def test_labels_of_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = array_file(tmp_path / "one.npz", 20, 1)
    for method in ("simclr", "supcon"):
        status, _, err = train(capsys, method, data, *FLAGS, "--out", tmp_path / method)
        assert (status, err) == (0, "")


@pytest.mark.parametrize("argv", [[], ["--labels", "none"]])
def test_what_learns_from_labels_asks_for_them(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = folder(tmp_path / "photos", 8)
    status, _, err = train(capsys, "supcon", photos, *FLAGS, *argv, "--out", tmp_path / "run")
    assert status == 2
    assert "'supcon' learns from labels and none are known: give --labels FILE, or --labels folders" in err
    assert not (tmp_path / "run").exists()


def test_only_the_training_part_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder(tmp_path / "photos", 40)
    table = tmp_path / "labels.csv"
    table.write_text(
        "path,label,split\n" + "".join(f"{i:03d}.png,{i % 4},{'test' if i < 8 else 'train'}\n" for i in range(40))
    )
    status, said, _ = train(capsys, "simclr", photos, *FLAGS, "--labels", table, "--out", tmp_path / "run")
    assert status == 0
    assert "Training on 32 of 40 samples: those that are not in another split." in said


def test_a_list_of_paths_and_color(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, image in enumerate(tiny_images(20)):
        Image.fromarray(image).convert("RGB").resize((20 + i, 16)).save(tmp_path / "in" / f"{i}.jpg")
    (tmp_path / "list.txt").write_text("".join(f"in/{i}.jpg\n" for i in range(20)))
    assert main(["train", "byol", str(tmp_path / "list.txt"), *FLAGS, "--out", str(tmp_path / "run")]) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["made"]["channels"] == 3


def test_a_method_of_ones_own(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(Path(methods.__file__).with_name("simclr.py").read_text())
    out = tmp_path / "run"
    status, _, _ = train(capsys, file, data, *FLAGS, "--temperature", "0.3", "--out", out)
    assert status == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["arguments"]["temperature"] == 0.3


def test_several_processes_need_a_name_to_agree_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = train(capsys, "simclr", data, *FLAGS)
    assert status == 2
    assert "name it with --out" in err


def test_views_draws_a_sheet(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "views.png"
    assert main(["views", str(data), "--out", str(sheet), "--views", "moco_v2", "--samples", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        f"3 of 48 samples and their views (moco_v2): {sheet}",
        "Views that suit these images: --views colorful",
    ]
    assert said[2].startswith("- 48 images are too few")
    with Image.open(sheet) as image:
        assert min(image.size) > 16
    assert main(["views", str(data), "--views", "moco"]) == 2
    assert "--views 'moco' is none of" in capsys.readouterr().err


def test_accumulation_is_refused_but_a_methods_own_flag_is_not(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    text = (Path(methods.__file__).parent / "simclr.py").read_text(encoding="utf-8")
    own.write_text(text.replace("dim: PositiveInt = 128,", "dim: PositiveInt = 128, accumulator: int = 2,", 1))
    _, _, arguments = parse(str(own), ["drawings", "--accumulator", "3"])
    assert arguments["accumulator"] == 3
    with pytest.raises(TypeError, match=r"--accumulate'.*another loss"):
        parse("simclr", ["drawings", "--accumulate", "4"])
