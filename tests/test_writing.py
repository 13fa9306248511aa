"""CALM from the command line: trained, gone on with, measured, shown, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra text)")

import nearfar
from nearfar.cli import main
from nearfar.training import loop as loops
from nearfar.writing import writing
from tests.methods.small import captions
from tests.tiny import folder

TINY = ("--encoder", "t5-1x16", "--length", "16", "--epochs", "1", "--batch", "16", "--vocabulary", "150")
COLUMNS = ("--text-column", "sentence", "--concept-column", "concepts")


def table(path: Path, n: int = 48, seed: int = 0) -> Path:
    """Sentences with their concepts, which are lists of words; of one there are none."""
    rows = [
        {"sentence": text, "concepts": [text.split()[k] for k in (1, -1)] if i else []}
        for i, text in enumerate(captions(n, seed))
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_from_a_table_with_concepts_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other, out = table(tmp_path / "some.jsonl"), table(tmp_path / "other.jsonl", seed=5), tmp_path / "run"
    assert main(["train", "calm", str(data), *COLUMNS, "--out", str(out), *TINY]) == 0
    shown = capsys.readouterr().out
    assert "1 sentence of 48 left out: it or its list is empty (0)" in shown
    assert nearfar.load(out).config["settings"]["views"] == "concepts"
    assert main(["evaluate", str(out), str(other)]) == 0
    (kept,) = (out / "results").glob("writing-other*.json")
    made = json.loads(kept.read_text())
    untrained, trained = (row["values"] for row in made["rows"])
    assert list(trained) == ["true sentence chosen (%)", "order recovered (%)", "concepts written (%)", "BLEU-4"]
    for name, cell in trained.items():
        gain = made["gains"]["untrained encoder"][name]
        assert gain["value"] == pytest.approx(cell["value"] - untrained[name]["value"])
        assert cell["low"] <= cell["value"] <= cell["high"]
    learned, looked = (set(path.read_text(encoding="utf-8").splitlines()[1:]) for path in (data, other))
    assert made["seen"]["samples"] == len([row for row in other.read_text().splitlines()[1:] if row in learned]) > 0
    assert looked - learned
    rows = json.loads((out / "results" / "written.json").read_text())["rows"]
    page = (out / "report.html").read_text()
    assert "Written for concepts" in page
    assert all(cell in page for cell in rows[0])
    assert {tuple(row[0].split()) for row in rows} <= {
        tuple(text.split()[k] for k in (1, -1)) for text in captions(48, 5)
    } | {tuple(text.split()[k] for k in (-1, 1)) for text in captions(48, 5)}
    run = nearfar.load(out)
    assert run.embed(["a dog runs near the lake"]).shape == (1, 16)  # without a column of concepts
    assert main(["export", str(out)]) == 0
    assert writing(run, ["a dog runs near the lake", "the car sits by the boat"])["seen"]["of"] == 2  # by the tagger


@pytest.mark.parametrize("stage", ["mix", "joint"])
def test_a_run_goes_on_bit_for_bit(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path / "some.jsonl", 32)
    words = ["train", "calm", str(data), *COLUMNS, *TINY, "--epochs", "2", "--batch", "8", "--stage", stage]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    step, made = loops.step, []

    def halted(*args: object, **more: object) -> object:
        made.append(1)
        if len(made) == 5:
            raise KeyboardInterrupt
        return step(*args, **more)  # pyright: ignore[reportArgumentType, reportCallIssue]

    with monkeypatch.context() as patched:
        patched.setattr(loops, "step", halted)
        assert main([*words, "--out", str(tmp_path / "parts")]) == 130
    assert main([*words, "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (nearfar.load(tmp_path / name).encoder for name in ("whole", "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_stages_follow_each_other_by_one_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, first = table(tmp_path / "some.jsonl", 32), tmp_path / "span"
    assert main(["train", "calm", str(data), *COLUMNS, *TINY, "--stage", "span", "--out", str(first)]) == 0
    words = ["train", "calm", "--from-run", str(first), *COLUMNS, *TINY]
    assert main([*words, str(data), "--out", str(tmp_path / "mix")]) == 0
    joint = [*words, str(data), "--recipe", "sentences:calm_joint", "--out", str(tmp_path / "joint")]
    assert main(joint) == 0
    assert nearfar.load(tmp_path / "joint").config["arguments"]["stage"] == "joint"
    capsys.readouterr()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"sentence": f"{t} today", "concepts": "dog"}) for t in captions(32, 9)))
    assert main([*words, str(other), "--out", str(tmp_path / "yes")]) == 0
    of = [nearfar.load(tmp_path / name).encoder.spec["tokenizer"] for name in ("span", "yes")]
    assert of[0] == of[1]
    assert main([*words, str(other), "--tokenizer", str(first), "--out", str(tmp_path / "no")]) == 2
    assert "--from-run brings its own" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_learned_is_refused_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path / "some.jsonl", 24)
    short = tmp_path / "short.txt"
    short.write_text("a dog\nthe lake\n" * 10)
    for words, said in (
        ([str(folder(tmp_path / "photos", 4))], "has no decoder: give sentences and --encoder t5"),
        ([str(data), *COLUMNS, *TINY, "--encoder", "bert-1x16"], "has no decoder"),
        ([str(data), *COLUMNS, *TINY, "--views", "dropout"], "--concept-column 'concepts' is for --views concepts"),
        ([str(data), *COLUMNS[:2], *TINY, "--views", "dropout"], "takes 4 views"),
        ([str(data), *COLUMNS, *TINY, "--tagger", "nltk"], "--tagger 'nltk'"),
        ([str(data), *COLUMNS, *TINY, "--pooler", "cls"], "give --pooler avg"),
        ([str(data), *COLUMNS, "--positive-column", "x", *TINY], "--concept-column 'concepts' is for --views concepts"),
        ([str(data), *COLUMNS, "--view-count", "3", *TINY], "4 views"),
        ([str(short), *TINY], "none has two nouns or two verbs"),
    ):
        assert main(["train", "calm", *words, "--out", str(tmp_path / "run")]) == 2, words
        assert said in " ".join(capsys.readouterr().err.split()), words
    out = tmp_path / "simcse"
    assert main(["train", "simcse", str(data), *COLUMNS[:2], *TINY[2:], "--encoder", "t5-1x16", "--out", str(out)]) == 0
    with pytest.raises(ValueError, match="is a run of simcse, which does not learn to write"):
        writing(nearfar.load(out), str(data))
