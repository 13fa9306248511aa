from __future__ import annotations

import math
from itertools import pairwise

import pytest

from nearfar.optim import cosine_ramp, step_decay, warmup_cosine


def test_warm_up_is_a_line_and_the_rest_a_cosine() -> None:
    factors = [warmup_cosine(step, steps=100, warmup=10) for step in range(101)]
    assert factors[0] == 0
    assert factors[:11] == pytest.approx([i / 10 for i in range(11)])
    assert max(factors) == factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert warmup_cosine(10, steps=100) == pytest.approx((1 + math.cos(math.pi / 10)) / 2)


def test_start_and_floor() -> None:
    # SwAV: 0.3 to 4.8 in the warm-up, then down to 0.0048.
    factor = lambda step: 4.8 * warmup_cosine(step, steps=1000, warmup=100, start=0.3 / 4.8, floor=0.001)
    assert factor(0) == pytest.approx(0.3)
    assert factor(100) == pytest.approx(4.8)
    assert factor(1000) == factor(1500) == pytest.approx(0.0048)


@pytest.mark.parametrize(("steps", "warmup"), [(0, 0), (1, 0), (1, 1), (5, 5)])
def test_short_runs(steps: int, warmup: int) -> None:
    factors = [warmup_cosine(step, steps=steps, warmup=warmup) for step in range(steps + 2)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[-1] == 0


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="got 11"):
        warmup_cosine(0, steps=10, warmup=11)


def test_step_decay() -> None:
    factors = [step_decay(step, milestones=[120, 160]) for step in (0, 119, 120, 159, 160, 199)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_byols_momentum_rises_to_one() -> None:
    ramp = [cosine_ramp(0.996, i / 50) for i in range(51)]
    assert ramp[0] == pytest.approx(0.996)
    assert ramp[25] == pytest.approx(0.998)
    assert ramp[50] == 1
    assert all(a <= b for a, b in pairwise(ramp))
    assert cosine_ramp(1.0, 0.3) == 1
