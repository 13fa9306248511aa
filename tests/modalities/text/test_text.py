"""Sentences from the command line to a report, and what is refused before anything long begins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import nearfar
from nearfar.cli import main
from nearfar.modalities import kind as kinds
from nearfar.modalities import recipes
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.settings import Facts, Settings
from nearfar.training import loop as loops
from tests.tiny import evaluated

from .small import TINY, reviews, sentences

METHODS = ["simcse", "simclr", "moco", "byol", "barlow", "supcon", "hcl", "dcl", "alignuniform", "imix"]


def test_from_a_table_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = reviews(tmp_path / "reviews.csv", 60), tmp_path / "run"
    assert main(["train", "simcse", str(data), "--text-column", "text", "--out", str(out), *TINY]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["kind"], config["settings"]["views"]) == ("text", "deletion")
    assert main(["evaluate", str(out), str(data)]) == 0
    rows = {row["name"]: row["values"] for row in json.loads(evaluated(out).read_text())["rows"]}
    assert list(rows) == ["bag of words", "TF-IDF", "untrained encoder", "trained encoder"]
    assert rows["TF-IDF"]["linear (%)"]["value"] > 90
    assert main(["embed", str(out), str(data)]) == 0
    assert main(["export", str(out)]) == 0
    assert main(["report", str(out), "--data", str(data)]) == 0
    page = (out / "report.html").read_text()
    assert sentences(60)[7].split(",")[0] in page
    run = nearfar.load(out)
    other = run.embed([sentences(60)[3], "something else \U0001f600"])
    torch.testing.assert_close(other[0], run.embed(str(data))[3], rtol=1e-3, atol=1e-4)
    with pytest.warns(UserWarning, match="1 sample of 2"):
        assert run.embed(["", sentences(60)[3]]).shape == (1, 16)
    trained, first = (one.net.embeddings.word_embeddings.weight for one in (run.encoder, run.untrained()))
    assert not torch.equal(trained, first)
    shown = capsys.readouterr().out
    assert "alarm" not in shown
    assert "too easy" not in shown


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_steps_on_sentences(method: str, tmp_path: Path) -> None:
    data, out = reviews(tmp_path / "reviews.csv", 32), tmp_path / "run"
    small = {"moco": ("--queue", "16"), "byol": ("--hidden", "16"), "barlow": ("--dim", "16")}.get(method, ())
    assert main(["train", method, str(data), "--out", str(out), "--views", "deletion", *TINY, *small]) == 0
    features = nearfar.load(out).embed(str(data))
    assert features.isfinite().all()
    assert features.std(0).min() > 0


def test_a_run_goes_on_bit_for_bit_with_the_tokenizer_that_it_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = reviews(tmp_path / "reviews.csv")
    words = ["train", "simcse", str(data), "--views", "mask", *TINY[:2], "--batch", "16", "--epochs", "3"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    step, made = loops.step, []

    def halted(*args: object, **more: object) -> object:
        made.append(1)
        if len(made) == 6:
            raise KeyboardInterrupt
        return step(*args, **more)  # pyright: ignore[reportArgumentType, reportCallIssue]

    with monkeypatch.context() as patched:
        patched.setattr(loops, "step", halted)
        assert main([*words, "--out", str(tmp_path / "parts")]) == 130
    assert main([*words, "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (nearfar.load(tmp_path / name).encoder for name in ("whole", "parts"))
    assert whole.spec == parts.spec
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_triplets_are_trained_with_hard_negatives_and_read_singly_afterward(tmp_path: Path) -> None:
    data, out = tmp_path / "nli.csv", tmp_path / "run"
    texts = sentences(96)
    rows = [f'"{a}","{b}","{c}","no {a}"' for a, b, c in zip(texts[:32], texts[32:64], texts[64:], strict=True)]
    data.write_text("\n".join(["sent0,sent1,hard_neg,other", *rows]) + "\n")
    columns = ["--text-column", "sent0", "--positive-column", "sent1", "--negative-column", "hard_neg+other"]
    pooler = ["--pooler", "cls", "--no-mlp"]
    assert main(["train", "simcse", str(data), *columns, *pooler, "--out", str(out), *TINY]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["arguments"]["hard_negatives"] is True
    assert config["made"]["views"] == 4
    run = nearfar.load(out)
    assert run.embed(str(data)).shape == (32, 16)
    (tmp_path / "single.csv").write_text('sent0\n"' + '"\n"'.join(texts[:5]) + '"\n')
    torch.testing.assert_close(run.embed(str(tmp_path / "single.csv")), run.embed(str(data))[:5], rtol=1e-3, atol=1e-4)
    assert main(["train", "simclr", str(data), *columns[:4], "--out", str(tmp_path / "two"), *TINY]) == 0
    assert main(["train", "simclr", str(data), *columns, "--out", str(tmp_path / "three"), *TINY]) == 2


def test_words_are_deleted_where_a_network_begins_with_random_weights_and_sentences_are_single() -> None:
    made = {
        (columns, fresh): recipes.load("sentences", "simcse", "text", Facts(columns=columns, fresh=fresh))
        for columns in (1, 2, 3)
        for fresh in (True, False)
    }
    views = {key: (recipe.settings.views, recipe.method["hard_negatives"]) for key, recipe in made.items()}
    assert views.pop((1, True)) == ("deletion", False)
    assert views == {(c, fresh): ("dropout", c > 2) for c, fresh in views}
    for given, fresh in (
        ({"encoder": "bert-1x16"}, True),
        ({"encoder": "folder"}, False),
        ({"from_run": "run"}, False),
    ):
        settings = Settings(**given)
        facts = kinds.of("text").recipe_facts(open_texts(["a b", "c d"]), settings, {})
        assert facts.fresh == fresh


def test_pairs_with_scores_are_measured_by_correlation(tmp_path: Path) -> None:
    data, out, scored = reviews(tmp_path / "reviews.csv"), tmp_path / "run", tmp_path / "sts.csv"
    assert main(["train", "simcse", str(data), "--out", str(out), *TINY]) == 0
    texts = sentences(60, seed=5)
    rows = [
        f'"{a}","{b}",{5 * len(set(a.split()) & set(b.split())) / len(set(a.split())):.2f},{"x" if i % 3 else "y"}'
        for i, (a, b) in enumerate(zip(texts[:30], texts[30:], strict=True))
    ]
    scored.write_text("\n".join(["sentence1,sentence2,score,set", *rows, '"",b c,1,x']) + "\n")
    assert main(["evaluate", str(out), str(scored), "--part-column", "set"]) == 0
    (path,) = (out / "results").glob("pairs-*.json")
    table = json.loads(path.read_text())
    assert table["columns"][:3] == ["Spearman, all", "Spearman, mean", "Spearman, wmean"]
    values = {row["name"]: row["values"]["Spearman, all"]["value"] for row in table["rows"]}
    assert values["bag of words"] > 80
    assert table["seen"]["of"] == 30
    assert main(["evaluate", str(out), str(scored), "--score-column", "grade"]) == 2


def test_views_and_doctor_take_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "r.csv"
    data.write_text(reviews(tmp_path / "a.csv").read_text().replace("text", "review", 1))
    out = tmp_path / "views.png"
    assert main(["views", str(data), "--text-column", "review", "--views", "crop", "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 200
    assert main(["doctor", str(data), "--text-column", "review", "--out", str(tmp_path / "labels.csv")]) == 0
    shown = capsys.readouterr().out
    assert "--text-column review" in shown
    assert "unknown" in shown


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--text-column", "nothing"], r"no column 'nothing'.*'id', 'text', 'label'.*--text-column"),
        (["--text-column", "id"], r"'id'.*holds '0' and no sentences"),
        (["--encoder", "bert-base-uncased"], "Nothing is downloaded"),
        (["--tokenizer", "."], r"no tokenizer\.json"),
        (["--views", "dropout", "--encoder-dropout", "0"], "--views dropout: the encoder has no dropout"),
        (["--views", "blur"], "none of dropout, deletion"),
        (["--negative-column", "label"], "takes a --positive-column"),
        (["--view-count", "3"], "takes 2 views"),
        (["--length", "1"], "--length 1"),
        (["--mlm", "-1"], "mlm -1"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_begins(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reviews(tmp_path / "reviews.csv")
    assert main(["train", "simcse", "reviews.csv", "--out", "run", *TINY, *flags]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(words, error), error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_masked_language_modeling_beside_the_loss_and_before_it(tmp_path: Path) -> None:
    data, out = reviews(tmp_path / "reviews.csv"), tmp_path / "run"
    flags = [*TINY[:2], "--epochs", "2", "--batch", "16", "--mlm", "0.1", "--warm-start-epochs", "1"]
    assert main(["train", "simcse", str(data), "--out", str(out), *flags]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if line.strip()]
    losses = [line["mlm"] for line in lines if "mlm" in line]
    assert losses
    assert all(0 < loss < 10 for loss in losses)


def test_the_base_install_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar.modalities.text import settings

    monkeypatch.setattr(settings, "find_spec", lambda name: None if name == "tokenizers" else object())
    with pytest.raises(ModuleNotFoundError, match=r"tokenizers, which is not installed: pip install 'nearfar\[text\]'"):
        kinds.of("text").insist_encoder("bert")
