from __future__ import annotations

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.evaluation.similarity import closeness, correlations, cosines, pearson, similarity, spearman
from tests.losses.ranks import unit

G = torch.Generator().manual_seed(0)
SCORE = torch.randint(0, 6, (60,), generator=G).double()  # with ties
COSINE = SCORE / 5 + torch.randn(60, generator=G, dtype=torch.float64)
PART = ["a"] * 30 + ["b"] * 20 + ["c"] * 9 + ["alone"]


def test_correlations_are_those_of_scipy() -> None:
    assert float(spearman(COSINE, SCORE)) == pytest.approx(spearmanr(COSINE, SCORE)[0])
    assert float(pearson(COSINE, SCORE)) == pytest.approx(pearsonr(COSINE, SCORE)[0])
    assert float(spearman(COSINE.exp() * 3 - 1, SCORE)) == pytest.approx(float(spearman(COSINE, SCORE)))
    assert float(pearson(torch.ones(60), SCORE)) == 0
    # Weights of whole numbers are pairs that are there so often.
    weight = torch.randint(0, 3, (2, 60), generator=G).double()
    for row, got in zip(weight, pearson(COSINE, SCORE, weight).tolist(), strict=True):
        often = torch.arange(60).repeat_interleave(row.long())
        assert got == pytest.approx(pearsonr(COSINE[often], SCORE[often])[0])


def test_subsets_are_joined_or_averaged_as_they_are_or_by_their_sizes() -> None:
    got = correlations(COSINE, SCORE, PART)
    for title, of in (("Spearman", spearmanr), ("Pearson", pearsonr)):
        cut = [slice(0, 30), slice(30, 50), slice(50, 59)]
        each = [100 * of(COSINE[rows], SCORE[rows])[0] for rows in cut]
        assert float(got[f"{title}, all"]) == pytest.approx(100 * of(COSINE, SCORE)[0])
        assert float(got[f"{title}, mean"]) == pytest.approx(sum(each) / 3)
        assert float(got[f"{title}, wmean"]) == pytest.approx((30 * each[0] + 20 * each[1] + 9 * each[2]) / 59)
    assert list(correlations(COSINE, SCORE, ["a"] * 60)) == ["Spearman, all", "Pearson, all"]


def test_intervals_hold_the_value_and_gains_are_paired() -> None:
    got = similarity(COSINE, SCORE, PART)
    for cell in got.values():
        assert cell["low"] < cell["value"] < cell["high"]
        assert cell["high"] - cell["low"] < 100
    near = COSINE + 0.01 * torch.randn(60, generator=G)
    gain = similarity(COSINE, SCORE, over=near)["Spearman, all"]
    assert gain["high"] - gain["low"] < 0.2 * (got["Spearman, all"]["high"] - got["Spearman, all"]["low"])
    assert similarity(COSINE, SCORE) == similarity(COSINE, SCORE)
    for score in (SCORE[:2], torch.ones(60)):
        with pytest.raises(UserError, match="three pairs or more"):
            similarity(COSINE[: len(score)], score)


def test_cosines_of_zeros_are_zero_and_closeness_is_of_the_highest_pairs() -> None:
    a, b = unit(4, 3, 0), unit(4, 3, 1)
    a[2] = 0
    got = cosines(7 * a, b)
    assert got[2] == 0
    torch.testing.assert_close(got, F.cosine_similarity(a, b))
    score = torch.tensor([5.0, 4.0, 0.0, 4.5])
    want = (F.normalize(a) - F.normalize(b)).square().sum(1)[[0, 3]].mean()
    assert closeness(a, b, score)["alignment"] == pytest.approx(float(want))
    with pytest.raises(UserError, match="the same N x D"):
        cosines(a, b[:2])
