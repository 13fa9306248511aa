from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from nearfar.batch import MISSING
from nearfar.evaluation.intervals import Interval, bootstrap, difference, over_seeds, wilson


def test_bootstrap_agrees_with_scipy():
    x = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    ours = bootstrap(x, seed=0)
    theirs = scipy_bootstrap((x.numpy(),), lambda v, axis: v.mean(axis), method="percentile", rng=0).confidence_interval
    assert ours.mean == pytest.approx(float(x.mean()))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours == bootstrap(x, seed=0)
    assert bootstrap(x, seed=0, level=0.5).low > ours.low


def test_bootstrap_in_pieces_has_the_right_width(monkeypatch):
    from nearfar.evaluation import intervals

    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(intervals, "_ENTRIES", 1700)
    out = bootstrap(x, seed=0, draws=2000)
    assert out.high - out.low == pytest.approx(2 * 1.96 * float(x.std()) / 500**0.5, rel=0.1)


def test_groups_widen_the_interval():
    unit = torch.randn(20, generator=torch.Generator().manual_seed(0))
    x, group = unit.repeat_interleave(50), torch.arange(20).repeat_interleave(50)
    alone, together = bootstrap(x, seed=0, draws=2000), bootstrap(x, seed=0, group=group, draws=2000)
    assert alone.mean == pytest.approx(together.mean)
    assert together == pytest.approx(bootstrap(unit, seed=0, draws=2000), abs=1e-6)
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert bootstrap(unit, seed=0, group=torch.full((20,), MISSING)).high == pytest.approx(
        bootstrap(unit, seed=0).high, abs=0.02
    )


def test_bootstrap_edges():
    assert bootstrap([3.0], seed=0) == (3, 3, 3)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([], seed=0)


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (7, 10), (10, 10), (913, 1000)])
def test_wilson_agrees_with_scipy(hits, total):
    theirs = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-6)


def test_wilson_error():
    with pytest.raises(ValueError, match="5 hits out of 0"):
        wilson(5, 0)


def test_over_seeds_by_hand():
    """1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027."""
    out = over_seeds([1, 2, 3])
    assert out == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    with pytest.raises(ValueError, match="1 seed gives no spread"):
        over_seeds([1.0])


def test_difference_is_paired_and_says_when_there_is_none():
    g = torch.Generator().manual_seed(0)
    a = 10 * torch.randn(100, generator=g)
    gain = difference(a, a + 1 + 0.1 * torch.randn(100, generator=g), seed=0)
    assert gain.seen
    assert gain.mean == pytest.approx(1, abs=0.05)
    assert str(gain).startswith("+1.0")
    none = difference(a, a + torch.randn(100, generator=g), seed=0)
    assert not none.seen
    assert str(none).startswith("no difference seen")
    with pytest.raises(ValueError, match="100 and 99 units cannot be paired"):
        difference(a, a[:99], seed=0)


def test_an_interval_is_written_with_its_mean():
    it = Interval(2.25, -1.0, 5.5)
    assert f"{it:.1f}" == "2.2 [-1.0, 5.5]"
    assert f"{it:+.0f}" == "+2 [-1, +6]"
