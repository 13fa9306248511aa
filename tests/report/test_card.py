from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_run import HOSTILE
from markdown_it import MarkdownIt
from tests.tiny import FLAGS, folder

from nearfar.cli import main
from nearfar.files import read_yaml, replace_yaml
from nearfar.report.card import FILL, card, open_lines, write_card
from nearfar.report.record import outline


def settle(run: Path, **more: Any) -> Path:
    """Give a made-up run the configuration of a real one."""
    config = read_yaml(run / "config.yaml", "")
    made = {"samples": 3670, "steps": 1400, "labeled": 367, "needs_labels": False, "probe_samples": 367, "given": ""}
    config |= {"method": "moco", "kind": "image", "encoder": "resnet18", "arguments": {"queue": 4096}, "code": {}}
    config |= {"settings": {"lr": 0.06, "seed": 0}, "made": made | {"classes": ["a", "b"], "processes": 1}}
    config |= {"data": "elsewhere/flowers"}
    for name, value in more.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    replace_yaml(run / "config.yaml", config)
    return run


def head(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_head_is_what_hubs_read_and_no_license_is_made_up(run: Path) -> None:
    text = card(outline(settle(run)))
    made = head(text)
    assert made["license"].startswith(FILL)
    assert (made["library_name"], made["pipeline_tag"]) == ("nearfar", "image-feature-extraction")
    assert made["tags"] == ["contrastive-learning", "self-supervised-learning", "moco", "image"]
    (one,) = made["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in one["metrics"]}
    assert values == {"kNN accuracy (%)": 80.7, "10 labels a class (%)": 76.3, "mean average precision": 0.641}
    assert [metric["type"] for metric in one["metrics"]][1:] == ["accuracy", "mean_average_precision"]
    assert one["dataset"]["name"] == "flowers"
    assert text.count(FILL) == 6


def test_results_stand_beside_the_untrained_encoder_with_intervals(run: Path) -> None:
    text = card(outline(settle(run)))
    assert "| untrained encoder | 43.9 (41.5 to 46.2) | 35.2 (32.1 to 38.2) |" in text
    assert "| **trained (moco)** | 80.7 (78.3 to 83.0) |" in text
    assert "not seen in training; 367 samples have one" in text
    assert "[arXiv 1911.05722](https://arxiv.org/abs/1911.05722)" in text
    assert "| Device | NVIDIA RTX 4090 |" in text
    assert "elsewhere" not in text


def test_labels_and_given_weights_are_told(run: Path) -> None:
    text = card(outline(settle(run, made={"needs_labels": True}, settings={"weights": "secret/dino.pth"})))
    assert "seen in training, of 367 samples" in text
    assert "self-supervised-learning" not in head(text)["tags"]
    assert "(`dino.pth`): FILL IN" in text
    assert len(open_lines(outline(run))) == 4
    assert "secret" not in text


def test_no_name_of_a_user_is_markup(written: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    run = settle(Path(shutil.copytree(written["hostile"], tmp_path / "hostile")), data=f"x{HOSTILE}")
    text = card(outline(run))
    assert head(text)["tags"]
    assert "onerror" in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text.split("---\n", 2)[2])
    every = [inner for token in tokens for inner in [token, *(token.children or [])]]
    markup = {token.content.strip() for token in every if token.type in ("html_inline", "html_block")}
    assert markup == {"<details><summary>Protocol</summary>", "</details>"}
    assert not [token for token in every if token.type == "image"]
    assert any(HOSTILE.split("`")[0][:20] in token.content for token in every if token.type == "text")


def test_what_is_damaged_is_said_and_left_out(run: Path) -> None:
    settle(run)
    (run / "results" / "demo.json").write_text("{}")
    said: list[str] = []
    write_card(run, run / "README.md", said.append)
    assert "results/demo.json" in said[-1]
    text = (run / "README.md").read_text()
    assert "model-index" not in head(text)
    assert "None were measured" in text
    (run / "config.yaml").write_text("method: x\n")
    assert main(["card", str(run), "--force"]) == 2
    assert (run / "README.md").read_text() == text


def test_a_card_of_a_real_run_loads_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 24)
    assert main(["train", "simclr", "photos", *FLAGS, "--out", "run"]) == 0
    assert main(["card", "run"]) == 0
    text = (tmp_path / "run" / "README.md").read_text()
    assert main(["card", "run"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["card", "run", "--force", "--out", "card.md"]) == 0
    assert (tmp_path / "card.md").read_text() == text
    assert "it makes a vector of 512 numbers of a sample" in text
    assert not re.findall(r"\w`\w", text.partition("## Licenses")[0]), "code without a space before it"
    with_us, alone = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"data": "photos"}
    exec(with_us, names)
    assert names["vectors"].shape == (24, 512)
    import torch

    monkeypatch.syspath_prepend(str(tmp_path / "run"))
    other: dict[str, Any] = {"x": torch.zeros(2, 1, 16, 16)}
    exec(alone, other)
    assert other["vectors"].shape == (2, 512)
    import sys

    sys.modules.pop("encoder")
    for line in re.findall(r"`(nearfar [^`]+)`", text):
        assert shlex.split(line)[1] in ("evaluate", "views", "card", "label-plan", "look", "train", "finetune")
