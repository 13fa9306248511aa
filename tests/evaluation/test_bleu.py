"""BLEU against numbers that are known, and against a loop."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.evaluation.bleu import bleu, counts

WRITTEN = ["The dog bit the man .", "It wasn't surprising .", "The man had just bitten him ."]
REFERENCES = (
    ["The dog bit the man .", "It was not unexpected .", "The man bit him first ."],
    ["The dog had bit the man .", "No one was surprised .", "The man had bitten the dog ."],
)


def total(written: list[str], references: list[list[str]]) -> float:
    rows = [counts(w.split(), [r.split() for r in refs]) for w, refs in zip(written, references, strict=True)]
    return float(bleu(torch.stack(rows).sum(0, keepdim=True)))


def test_the_value_of_sacrebleus_own_example() -> None:
    references = [list(own) for own in zip(*REFERENCES, strict=True)]
    assert total(WRITTEN, references) == pytest.approx(48.530827009929865, abs=1e-9)


def test_words_count_as_often_as_in_one_reference_and_short_texts_pay() -> None:
    references = [text.split(" ") for text in ("the cat is on the mat", "there is a cat")]
    found = counts(["the"] * 7, references)
    assert found.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 6]  # 2 of 7, as in the paper
    assert total(["a b c d e"], [["a b c d e"]]) == pytest.approx(100)
    assert total(["a b c d"], [["a b c d e f"]]) == pytest.approx(100 * math.exp(1 - 6 / 4))
    assert total(["a b c d"], [["a b c x"]]) == 0
    assert total([""], [["a b"]]) == 0
