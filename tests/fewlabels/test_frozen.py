"""A linear classifier on features, and the temperature from rows that it has not learned from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.evaluation.calibration import nll
from nearfar.evaluation.linear import linear_fit
from nearfar.fewlabels.frozen import frozen


def features(n: int, classes: int, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % classes
    middle = torch.randn(classes, 8, generator=torch.Generator().manual_seed(1))
    return middle[label] + noise * torch.randn(n, 8, generator=generator), label


def test_it_is_the_linear_classifier_on_all_rows() -> None:
    x, y = features(60, 3)
    layer, calibration, facts = frozen(x, y, seed=3)
    fit = linear_fit(x, y, scales=("one",), seed=3)
    torch.testing.assert_close(layer(x), fit.scores(x), atol=1e-4, rtol=1e-4)
    assert facts["strength"] == fit.config["strength"]
    assert calibration.temperature is not None
    assert calibration.rows == 60  # each was named by a classifier of the others


def test_its_temperature_comes_from_rows_that_were_not_learned_from() -> None:
    x, y = features(80, 4, noise=2.0)
    layer, calibration, _ = frozen(x, y)
    new, truth = features(4000, 4, noise=2.0, seed=9)
    with torch.no_grad():
        own, other = layer(x), layer(new)
    assert nll(own, y) < nll(other, truth)  # it is surer of its own rows than it may be
    assert calibration.temperature is not None
    assert nll(other / calibration.temperature, truth) <= nll(other, truth) + 0.01
    same, given, _ = frozen(x, y, held=(new, truth))
    torch.testing.assert_close(same.weight, layer.weight)
    assert given.rows == 4000
    assert given.temperature is not None
    beside = min(nll(other / t, truth) for t in (given.temperature * 0.8, given.temperature * 1.25))
    assert nll(other / given.temperature, truth) < beside


@pytest.mark.parametrize(("n", "rows"), [(4, 0), (12, 12)])
def test_with_too_few_rows_nothing_is_calibrated(n: int, rows: int) -> None:
    _, calibration, _ = frozen(*features(n, 4))
    assert (calibration.temperature, calibration.rows) == (None, rows)


def test_groups_stay_on_one_side_of_the_folds() -> None:
    x, y = features(60, 3)
    assert frozen(x, y, group=torch.arange(60) // 3)[1].rows == 60
    assert frozen(x, y, group=torch.zeros(60, dtype=torch.int64))[1].rows == 0  # one group cannot be parted
