from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.seeds import series, usual

from nearfar.evaluation.intervals import USUAL_FREEDOM, USUAL_SPREAD


def test_the_prior_is_found_again() -> None:
    rng = np.random.default_rng(0)
    spread = 2 * (5 / rng.chisquare(5, 4000)) ** 0.5  # a deviation of 2, worth 5 degrees of freedom
    found, freedom = usual([(50 + s * rng.normal(size=3)).tolist() for s in spread])
    assert found == pytest.approx(2, rel=0.05)
    assert freedom == pytest.approx(5, rel=0.2)
    found, freedom = usual([rng.normal(size=3).tolist() for _ in range(400)])
    assert found == pytest.approx(1, rel=0.1)
    assert freedom > 20 or math.isinf(freedom)


def test_intervals_claim_no_more_than_the_results_say() -> None:
    found, freedom = usual(series())
    assert found <= USUAL_SPREAD
    assert freedom >= USUAL_FREEDOM
