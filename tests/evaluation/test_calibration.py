from __future__ import annotations

import math

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.calibration import brier, calibration_error, fit_temperature, nll

P = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
Y = torch.tensor([0, 1, 1, 1])


def test_calibration_error_by_hand():
    """Two bins: 0.5 to 1 holds all four, accuracy 3/4, confidence 2.95/4."""
    assert calibration_error(P, Y, bins=2) == pytest.approx((3 - 2.95) / 4)
    # Four bins: 0.5-0.75 holds 0.7 and 0.55, both right; 0.75-1 holds 0.9, right, and 0.8, wrong.
    assert calibration_error(P, Y, bins=4) == pytest.approx((0.75 + 0.7) / 4)
    assert calibration_error(P, Y) == pytest.approx((0.1 + 0.8 + 0.3 + 0.45) / 4)  # fifteen: each has its own


def test_an_edge_belongs_to_the_bin_below():
    """0.5 and 0.4 share the lower of two bins: |1 - 0.9| / 2; in different ones it would be (0.5 + 0.4) / 2."""
    p = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3]])
    assert calibration_error(p, torch.tensor([0, 1]), bins=2) == pytest.approx(0.05)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    sure, y = torch.eye(3), torch.arange(3)
    assert calibration_error(sure, y) == brier(sure, y) == 0
    assert calibration_error(sure, (y + 1) % 3) == 1
    assert brier(sure, (y + 1) % 3) == 2
    # One confidence that is its accuracy: nothing is amiss though a quarter is wrong.
    assert calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 1, 0])) == 0


def test_brier_and_nll_by_hand():
    assert brier(P, Y) == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.45**2) / 4)
    want = -(math.log(0.9) + math.log(0.2) + math.log(0.7) + math.log(0.55)) / 4
    assert nll(P.log(), Y) == pytest.approx(want)
    assert nll(P.log() + 7, Y) == pytest.approx(want)
    assert nll(torch.tensor([[0.0, -math.inf]]), torch.tensor([1])) == math.inf


def test_temperature_by_hand():
    """Logits of 2 that are right 3 times of 4: the best says 3/4, so exp(2 / T) = 3."""
    logits, label = torch.tensor([[2.0, 0]] * 4), torch.tensor([0, 1, 0, 0])
    assert fit_temperature(logits, label) == pytest.approx(2 / math.log(3))
    assert calibration_error((logits / fit_temperature(logits, label)).softmax(1), label) == pytest.approx(0, abs=1e-6)


def test_temperature_is_the_best_of_a_grid():
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 5, generator=g)
    label = torch.where(torch.rand(200, generator=g) < 0.5, logits.argmax(1), torch.randint(5, (200,), generator=g))
    grid = torch.linspace(0.5, 10, 951, dtype=torch.float64)
    best = min(grid.tolist(), key=lambda t: nll(logits / t, label))
    t = fit_temperature(logits, label)
    assert t == pytest.approx(best, abs=0.01)
    assert fit_temperature(10 * logits, label) == pytest.approx(10 * t)
    assert torch.equal((logits / t).argmax(1), logits.argmax(1))


def test_temperature_at_its_bounds_and_with_absent_classes():
    assert fit_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(0.01)
    assert fit_temperature(torch.eye(3), (torch.arange(3) + 1) % 3) == pytest.approx(100)
    logits, label = torch.tensor([[2.0, 0]] * 4), torch.tensor([0, 1, 0, 0])
    absent = torch.cat([logits, torch.full((4, 1), -math.inf)], 1)
    assert fit_temperature(absent, label) == pytest.approx(2 / math.log(3))
    assert fit_temperature(torch.cat([absent, absent[:1]]), torch.cat([label, torch.tensor([2])])) == pytest.approx(
        2 / math.log(3)
    )
    with pytest.raises(ValueError, match="every row is of a class"):
        fit_temperature(absent, torch.full((4,), 2))


@pytest.mark.parametrize("measure", [calibration_error, brier, nll, fit_temperature])
def test_missing_types_and_errors(measure):
    some = torch.tensor([0, MISSING, 1, 1])
    assert measure(P, some) == pytest.approx(measure(P[[0, 2, 3]], Y[[0, 2, 3]]))
    assert measure(P.double(), Y.int().long()) == pytest.approx(measure(P, Y), rel=1e-5)
    with pytest.raises(ValueError, match="none of the 4 rows"):
        measure(P, torch.full((4,), MISSING))
    with pytest.raises(ValueError, match="wanted N x C and N"):
        measure(P[0], Y)
    with pytest.raises(ValueError, match="a label is 2, and there are 2 columns"):
        measure(P, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="1 of 4 rows hold"):
        measure(torch.where(P == 0.9, torch.nan, P), Y)
