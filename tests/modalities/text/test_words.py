from __future__ import annotations

import math

import pytest
import torch

from nearfar.modalities.text.words import MOST, counted


def test_words_are_counted_and_rare_ones_weigh_more() -> None:
    rows = counted(["the film the film", "the plot", "the \U0001f600", "\u4f60 \u597d"])
    bag, weighted = rows["bag of words"], rows["TF-IDF"]
    assert bag.sum(1).tolist() == [4, 2, 2, 2]
    assert bag.shape == (4, 6)
    torch.testing.assert_close(weighted.norm(dim=1), torch.ones(4))
    common = int(bag.gt(0).sum(0).argmax())  # "the", of three texts
    own = int((bag[1] * torch.arange(6).ne(common)).argmax())
    want = (math.log(5 / 2) + 1) / (math.log(5 / 4) + 1)
    assert float(weighted[1, own] / weighted[1, common]) == pytest.approx(want, rel=1e-5)


def test_no_more_words_are_counted_than_fit() -> None:
    rows = counted([f"word{i} common" for i in range(MOST + 100)])
    assert rows["bag of words"].shape == (MOST + 100, MOST)
