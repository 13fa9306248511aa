"""Pairs from the command line to the report: any two kinds, one network each or one for both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nearfar
from nearfar import modalities
from nearfar.cli import main
from nearfar.modalities.pair.settings import Settings, Side, sides
from nearfar.nn.towers import Joint, Towers
from tests.modalities.pair.small import rows, table

TINY = ("--epochs", "2", "--batch", "8", "--space", "8", "--optimizer", "adamw", "--lr", "0.1")
PICTURES = ("--pair", "image=path,text=caption", "--encoder", "image=conv4,text=bert-1x16", *TINY)
NUMBERS = ("--pair", "table=r+g+b,text=caption", "--encoder", "table=mlp-16x1,text=bert-1x16", *TINY)


def results(out: Path, name: str) -> dict[str, Any]:
    (path,) = out.glob(f"results/{name}-*.json")
    return json.loads(path.read_text())


def values(made: dict[str, Any], row: str) -> dict[str, float]:
    (own,) = (one["values"] for one in made["rows"] if one["name"] == row)
    return {name: cell["value"] for name, cell in own.items()}


def test_images_and_captions_train_evaluate_embed_export_and_report(tmp_path: Path) -> None:
    data, out = table(tmp_path / "pairs.jsonl", rows(32)), tmp_path / "run"
    assert main(["train", "clip", str(data), "--out", str(out), *PICTURES, "--sides", "text.length=12"]) == 0
    run = nearfar.load(out)
    assert run.sides == ["image", "text"]
    assert not (
        run.encoder.spec["towers"]["image"].keys()
        ^ {"kind", "name", "channels", "size", "mean", "std", "small_stem", "joint"}
    )
    assert main(["evaluate", str(out), str(data)]) == 0
    made = results(out, "retrieval")
    assert made["chance"]["image to text, R@5 (%)"] == pytest.approx(100 * 5 / 8)
    trained = values(made, "trained encoder")
    assert trained["text to image, R@1 (%)"] <= trained["text to image, R@5 (%)"] <= trained["text to image, R@10 (%)"]
    assert (made["seen"]["samples"], made["seen"]["of"]) == (0, 8)

    assert main(["embed", str(out), str(data), "--out", str(tmp_path / "both.npz")]) == 0
    both = np.load(tmp_path / "both.npz")["features"]
    assert main(["embed", str(out), str(data.parent), "--tower", "image", "--out", str(tmp_path / "image.npz")]) == 0
    held = np.load(tmp_path / "image.npz")
    order = [held["names"].tolist().index(f"{i}.png") for i in range(32)]
    np.testing.assert_allclose(held["features"][order], both[:, :8], atol=1e-5)
    shards, found = str(tmp_path / "shards"), tmp_path / "found.csv"
    assert main(["embed", str(out), str(data.parent), "--tower", "image", "--out", shards]) == 0
    words = "a large red square"
    page = ["--page", str(tmp_path / "found.html")]
    assert main(["search", shards, words, "--k", "3", "--save", str(found), *page]) == 0
    text = nearfar.load(out, tower="text")
    query = text.rows(text.open([words]))
    nearest = torch.nn.functional.cosine_similarity(query, torch.from_numpy(held["features"])).topk(3).indices
    told = [line.split(",") for line in found.read_text().splitlines()[1:]]
    assert [cells[:2] for cells in told] == [[words, "1"], [words, "2"], [words, "3"]]
    assert [cells[3] for cells in told] == held["names"][nearest.numpy()].tolist()
    assert words in (tmp_path / "found.html").read_text(encoding="utf-8")
    assert run.kind.method_advice(run.open(str(data))).value == "clip"
    named = run.kind.baselines([run.open(str(data))], run.encoder)
    assert {name.partition(":")[0]: len(rows) for name, rows in named.items()} == {"image": 32, "text": 32}
    for tower in ("image", "text"):
        assert main(["export", str(out), "--tower", tower, "--out", str(tmp_path / tower)]) == 0
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "square, number 31" in page  # a caption of the split test, by its picture
    assert "data:image/jpeg" in page
    assert "text to image</h3>" in page


def test_prompts_name_classes_without_a_label_that_is_learned_from(tmp_path: Path) -> None:
    data, out = table(tmp_path / "pairs.jsonl", rows(64)), tmp_path / "run"
    words = [*NUMBERS, "--epochs", "8", "--sides", "text.length=12", "--clip", "1", "--lr", "0.3"]
    assert main(["train", "clip", str(data), "--out", str(out), *words]) == 0
    columns = tmp_path / "numbers.csv"
    held = [",".join(map(str, (row["r"], row["g"], row["b"], row["label"], row["split"]))) for row in rows(64)]
    columns.write_text("\n".join(["r,g,b,label,split", *held]) + "\n")
    prompts = tmp_path / "prompts.csv"
    told = [
        f"a {size} {color} square,{color}" for color in ("red", "green", "blue", "white") for size in ("small", "large")
    ]
    prompts.write_text("\n".join(["text,label", *told]) + "\n")
    assert main(["evaluate", str(out), str(columns), "--tower", "table", "--prompts", str(prompts)]) == 0
    made = results(out, "zero-shot")
    assert values(made, "trained encoder")["zero-shot (%)"] > 60
    assert made["protocol"]["prompts"] == 8
    assert {row["name"] for row in made["per_class"]["rows"]} == {"red", "green", "blue", "white"}
    named, lines = tmp_path / "named.csv", tmp_path / "prompts.txt"
    lines.write_text("a large red square\na large green square\na large blue square\na large white square\n")
    held = columns.read_text().splitlines()
    columns.write_text("\n".join([held[0], *held[-16:]]) + "\n")
    words = ["predict", str(out), str(columns), "--prompts", str(lines), "--out", str(named)]
    assert main(words) == 2  # a table may hold sentences as well
    assert main([*words, "--tower", "table"]) == 0
    told = [row.split(",") for row in named.read_text().splitlines()[1:]]
    assert sum(own[1].split()[2] == row["label"] for own, row in zip(told, rows(64)[-16:], strict=True)) > 9
    assert all(own[1] == own[2] and own[4] >= own[7] for own in told)  # each prompt is a class, the nearest the first
    prompts.write_text("text,label\na red square,red\na blue square,blue\n")
    assert main(["evaluate", str(out), str(columns), "--tower", "table", "--prompts", str(prompts)]) == 2


def test_other_kinds_are_pairs_just_as_well_and_a_run_goes_on(tmp_path: Path) -> None:
    data, out = table(tmp_path / "pairs.jsonl", rows(32)), tmp_path / "run"
    assert main(["train", "clip", str(data), "--out", str(out), *NUMBERS, "--sigmoid"]) == 0
    words = ["--resume", "--sigmoid", "--epochs", "3"]
    assert main(["train", "clip", str(data), "--out", str(out), *NUMBERS, *words]) == 0
    run = nearfar.load(out)
    assert run.config["settings"]["epochs"] == 3
    words = ["--tower", "text", "--text-column", "caption", "--out", str(tmp_path / "text.npz")]
    assert main(["embed", str(out), str(data), *words]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "text.npz")["features"], run.embed(str(data))[:, 8:], atol=1e-5)


def test_recordings_and_captions_train_evaluate_and_export(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (the extra audio)")
    made = rows(16)
    for i in range(16):
        tone = np.sin(np.arange(600 + 20 * i) * (0.1 + 0.1 * (i % 4))) / 2
        soundfile.write(tmp_path / f"{i}.wav", tone, 4000)
    data, out = table(tmp_path / "pairs.jsonl", made, sound=[f"{i}.wav" for i in range(16)]), tmp_path / "run"
    sides = ("--pair", "audio=sound,text=caption", "--encoder", "audio=melconv-8,text=bert-1x16")
    assert main(["train", "clip", str(data), "--out", str(out), *sides, "--sides", "audio.bands=12", *TINY]) == 0
    assert main(["evaluate", str(out), str(data)]) == 0
    assert results(out, "retrieval")["chance"]["audio to text, R@1 (%)"] == 25
    assert main(["export", str(out), "--tower", "audio", "--out", str(tmp_path / "audio")]) == 0


def test_captions_are_written_of_images_and_clips_and_a_run_goes_on(tmp_path: Path) -> None:
    """A clip is an image whose channels are frames; the words are those of the side that is named."""
    rng, out = np.random.default_rng(0), tmp_path / "run"
    frames = rng.integers(0, 255, (16, 16, 16, 5), dtype=np.uint8)
    np.savez(tmp_path / "clips.npz", frames=frames, caption=np.array([row["caption"] for row in rows(16)]))
    words = ["train", "supportset", str(tmp_path / "clips.npz"), "--pair", "text=caption,image=frames", *TINY]
    words += ["--encoder", "image=conv4,text=bert-1x16", "--width", "16", "--layers", "1", "--out", str(out)]
    assert main(words) == 2  # the last side is none of words
    assert main([*words, "--write", "text", "--bank", "20", "--word-dropout", "0.2", "--epochs", "1"]) == 0
    resumed = [*words, "--write", "text", "--bank", "20", "--word-dropout", "0.2", "--resume"]
    assert main(resumed) == 0
    run = nearfar.load(out)
    assert (run.sides, run.config["settings"]["epochs"]) == (["text", "image"], 2)
    assert main(["evaluate", str(out), str(tmp_path / "clips.npz")]) == 0
    assert values(results(out, "retrieval"), "trained encoder")["text to image, R@10 (%)"] > 0


def test_methods_of_views_take_pairs_too(tmp_path: Path) -> None:
    data, out = table(tmp_path / "pairs.jsonl", rows(16)), tmp_path / "run"
    assert main(["train", "simclr", str(data), "--out", str(out), *NUMBERS, "--epochs", "1"]) == 0
    assert nearfar.load(out).embed(str(data)).isfinite().all()


def test_three_sides_of_which_two_are_sensors_of_one_kind_find_each_other(tmp_path: Path) -> None:
    data, out = table(tmp_path / "sensors.jsonl", rows(16)), tmp_path / "run"
    sides = ["--pair", "table=r+g,table=b,text=caption", "--encoder", "table1=mlp-8x1,table2=mlp-8x1,text=bert-1x16"]
    assert main(["train", "cmc", str(data), "--out", str(out), *sides, *TINY, "--epochs", "1"]) == 0
    assert main(["evaluate", str(out), str(data)]) == 0
    run = nearfar.load(out)
    assert run.sides == ["table1", "table2", "text"]
    assert {name.partition(",")[0] for name in results(out, "retrieval")["chance"]} == {
        f"{one} to {other}" for one in run.sides for other in run.sides if one != other
    }
    assert nearfar.load(out, tower="table2").embed(str(data)).shape == (16, 8)


def test_two_captions_of_one_picture_pass_one_network_and_find_each_other(tmp_path: Path) -> None:
    data, out = tmp_path / "captions.jsonl", tmp_path / "run"
    several = [[row["caption"], f"square number {i}", f"{i} is {row['label']}"] for i, row in enumerate(rows(16))]
    data.write_text("".join(json.dumps({"captions": own}) + "\n" for own in several))
    pair = ("--pair", "text=captions,text=captions", "--shared", "--encoder", "text1=bert-1x16,text2=bert-1x16")
    assert main(["train", "clip", str(data), "--out", str(out), *pair, *TINY]) == 0
    encoder = nearfar.load(out).encoder
    assert isinstance(encoder, Towers)
    assert encoder.tower("text1") is encoder.tower("text2")
    assert main(["evaluate", str(out), str(data)]) == 0
    made = results(out, "retrieval")
    # Of 47 other captions two belong to each: one of them comes first with probability 2/47.
    assert made["chance"]["text1 to text2, R@1 (%)"] == pytest.approx(100 * 2 / 47)
    assert made["seen"]["samples"] == 16


def test_a_side_begins_with_the_weights_of_another_run(tmp_path: Path) -> None:
    data, others = table(tmp_path / "pairs.jsonl", rows(16)), tmp_path / "others.txt"
    others.write_text("\n".join(f"Another sentence, of other words: {i}" for i in range(16)))
    first, out = tmp_path / "first", tmp_path / "run"
    words = ["--encoder", "bert-1x16", "--epochs", "1", "--batch", "8", "--length", "12"]
    assert main(["train", "simcse", str(others), "--out", str(first), *words]) == 0
    own = ["--sides", f"text.from_run={first}", "text.length=12", "--lock", "text"]
    assert main(["train", "clip", str(data), "--out", str(out), *NUMBERS, *own]) == 0
    text = nearfar.load(out, tower="text").encoder
    assert isinstance(text, Joint)
    given = nearfar.load(first).encoder.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in text.trunk.state_dict().items())
    # Its tokens mean what they meant there.
    assert text.spec["tokenizer"] == nearfar.load(first).encoder.spec["tokenizer"]


def test_a_side_begins_with_a_tower_and_the_layer_behind_it(tmp_path: Path) -> None:
    data = table(tmp_path / "pairs.jsonl", rows(16))
    first, tower, out = tmp_path / "first", tmp_path / "tower", tmp_path / "run"
    assert main(["train", "clip", str(data), "--out", str(first), *PICTURES]) == 0
    assert main(["export", str(first), "--tower", "image", "--out", str(tower)]) == 0
    assert main(["train", "clip", str(data), "--out", str(out), *PICTURES, "--sides", f"image.from_run={tower}"]) == 0
    given, image = nearfar.load(out).given(), nearfar.load(first, tower="image").encoder
    assert isinstance(given, Towers)
    own = given.tower("image").state_dict()
    assert own.keys() == image.state_dict().keys()
    assert all(torch.equal(value, own[name]) for name, value in image.state_dict().items())


WRONG = [
    ("clip pairs.jsonl", "contrasts what several networks see"),
    ("clip pairs.jsonl --pair image=path", "two sides are wanted"),
    ("clip pairs.jsonl --pair image=path,sound=caption", "the kind 'sound'"),
    ("clip pairs.jsonl --pair image=path,pair=caption", "the kind 'pair'"),
    ("clip pairs.jsonl --pair image=path,text=words", "no column 'words'"),
    ("clip pairs.jsonl --pair image=path,text=caption --encoder conv4", "SIDE=NAME is wanted"),
    ("clip pairs.jsonl --pair image=path,text=caption --encoder image=conv5,text=bert", 'no encoder is called "conv5"'),
    ("clip pairs.jsonl --pair image=path,text=caption --views image=nothing", "--views 'nothing'"),
    (
        "clip pairs.jsonl --pair image=path,text=caption --sides image.sice=3",
        "no such setting of its own; did you mean size",
    ),
    ("clip pairs.jsonl --pair image=path,text=caption --sides image.epochs=3", "one for all sides"),
    ("clip pairs.jsonl --pair image=path,text=caption --sides image.size=-3", "--size -3"),
    ("clip pairs.jsonl --pair image=path,text=caption --sides size=3", "SIDE.SETTING=VALUE"),
    ("clip pairs.jsonl --pair image=path,text=caption --shared", "of several kinds"),
    ("clip pairs.jsonl --pair image=path,text=caption --lock image", "--sides image.from_run=RUN"),
    ("clip pairs.jsonl --pair image=path,text=caption --lock sound", "the sides are image, text"),
    (
        "simclr pairs.jsonl --pair image=path,text=caption --view-count 1",
        "takes 2 views of each sample, and --view-count 1 makes 1",
    ),
    ("supportset pairs.jsonl --pair text=caption,image=path", "holds them by --write, of text, image"),
    ("rotation pairs.jsonl --pair image=path,text=caption", "views of pairs have none"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_what_cannot_be_is_said_in_a_sentence(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "pairs.jsonl", rows(8))
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words.split(), "--out", "run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_sides_are_named_by_their_kinds() -> None:
    assert sides("image=path,text=caption") == (
        Side("image", "image", ("path",)),
        Side("text", "text", ("caption",)),
    )
    assert [side.name for side in sides("text=en,text=de,table=a+b")] == ["text1", "text2", "table"]
    assert sides("table=a+b,text=c")[0].columns == ("a", "b")
    assert sides("image,text") == (Side("image", "image"), Side("text", "text"))
    own = Settings(
        pair="image=x,text=y", encoder="image=0,1+2:resnet18,text=bert-2x64", sides=("text.length=7",)
    ).each()
    assert own["image"].encoder == "0,1+2:resnet18"
    assert (own["text"].encoder, own["text"].length) == ("bert-2x64", 7)  # pyright: ignore[reportAttributeAccessIssue]


def test_data_are_pairs_only_where_that_is_asked_for(tmp_path: Path) -> None:
    data = table(tmp_path / "pairs.jsonl", rows(2))
    for given in (str(data), str(tmp_path), {"x": [1], "y": [2]}):
        assert modalities.kind_of(given) != "pair"
        assert modalities.kind_of(given, {"pair"}) == "pair"
