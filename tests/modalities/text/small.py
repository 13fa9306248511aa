"""Sentences in small, for the tests of this room."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra text)")

from nearfar.modalities.text.encoder import TextEncoder, fresh
from nearfar.modalities.text.tokenizer import Tokenizer

PARTS = (
    ("the film", "this story", "her performance", "a dull script", "the slow music"),
    ("made me smile", "was a complete mess", "is a quiet masterpiece", "went on far too long"),
    ("all evening", "in every scene", "for the whole family", "as my friends agree", "to say the least"),
)


def sentences(n: int, seed: int = 0) -> list[str]:
    """N sentences of 6 to 11 words, of which every second is good."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        what = PARTS[1][2 * draw.randrange(2) + i % 2]
        made.append(f"{draw.choice(PARTS[0])} {what} {draw.choice(PARTS[2])}, {draw.choice(PARTS[0])} {i % 7}")
    return made


TOKENIZER = Tokenizer.learn(sentences(100), 200)
TINY = ("--encoder", "bert-1x16", "--epochs", "1", "--batch", "16")


def tiny(**changed: Any) -> TextEncoder:
    """One layer of 16."""
    form: dict[str, Any] = {"pooler": "avg", "length": 16, "dropout": 0.1}
    return fresh("bert-1x16", TOKENIZER, **form | changed)


def reviews(path: Path, n: int = 48) -> Path:
    """A table of sentences and their labels."""
    rows = [f'{i},"{text}",{"bad" if i % 2 else "good"}' for i, text in enumerate(sentences(n))]
    path.write_text("\n".join(["id,text,label", *rows]) + "\n", encoding="utf-8")
    return path
