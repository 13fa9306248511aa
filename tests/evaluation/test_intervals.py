from __future__ import annotations

import pytest
import torch
from scipy.stats import beta, binomtest, norm, t
from scipy.stats import bootstrap as scipy_bootstrap

from nearfar.batch import MISSING
from nearfar.evaluation.intervals import (
    PERCENT,
    POINTS,
    USUAL_FREEDOM,
    USUAL_SPREAD,
    Interval,
    bootstrap,
    drawn_often,
    judged,
    of_answers,
    of_drawn,
    over_seeds,
    wilson,
)


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


def test_accuracies_over_seeds_stay_inside_and_use_the_usual_spread():
    out = over_seeds([10.0, 14.0], bounds=POINTS)
    freedom = 1 + USUAL_FREEDOM
    half = t.ppf(0.975, freedom) * ((8 + USUAL_FREEDOM * USUAL_SPREAD**2) / freedom / 2) ** 0.5
    assert out == pytest.approx((12, 12 - half, 12 + half))
    assert over_seeds([99.0, 100.0, 96.0], bounds=PERCENT).high == 100 < over_seeds([99.0, 100.0, 96.0]).high
    assert over_seeds([1.0, 0.0, 4.0], bounds=PERCENT).low == 0
    same = over_seeds([71.0, 71.0], bounds=PERCENT)  # two seeds that agree by chance are no certainty
    assert same.low < 71 < same.high


def answers(seeds: int, samples: int, mean: float, spread: float = 0.0, seed: int = 0):
    """Of S seeds whose accuracies deviate by `spread` points, on the same samples: S x N, half of luck and half of the
    sample."""
    g = torch.Generator().manual_seed(seed)
    level = (mean + spread * torch.randn(seeds, 1, generator=g)).clamp(1, 99) / 100
    ease = torch.randn(samples, generator=torch.Generator().manual_seed(seed + 1000))
    luck = torch.randn(seeds, samples, generator=g)
    return 0.5**0.5 * (ease + luck) < torch.from_numpy(norm.ppf(level.double().numpy()))


@pytest.mark.parametrize(("hits", "total"), [(3, 10), (7, 10), (90, 100)])
def test_the_answers_of_one_seed_have_the_interval_of_jeffreys(hits, total):
    out = of_answers(torch.arange(total) < hits)
    low, high = 100 * beta.ppf([0.025, 0.975], hits + 0.5, total - hits + 0.5)
    assert out == pytest.approx((100 * hits / total, low, high), abs=1.0)


def test_few_answers_that_are_all_right_are_no_certainty():
    assert of_answers(torch.ones(20)).high == 100
    assert 80 < of_answers(torch.ones(20)).low < 95
    same = torch.arange(20) % 2
    assert judged(of_answers(same, over=same)) == "open"
    assert of_answers(same, over=same).mean == 0
    many = torch.arange(5000) % 2
    assert judged(of_answers(many, over=many)) == "alike"
    assert of_answers(torch.ones(8), over=torch.zeros(8)).high == 100
    assert of_answers(torch.zeros(8), over=torch.ones(8)).low == -100


def test_a_gain_is_paired():
    right = answers(1, 400, 60)[0]
    more = right | (torch.arange(400) % 20 == 0)
    assert judged(of_answers(more, over=right)) == "ahead"
    assert judged(of_answers(right, over=more)) == "behind"
    mixed = more[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    assert judged(of_answers(mixed, over=right)) == "open"  # the same numbers of right answers, of other samples


def test_groups_widen_the_interval_of_answers():
    unit = torch.rand(20, generator=torch.Generator().manual_seed(0)) < 0.5
    x, group = unit.repeat_interleave(50), torch.arange(20).repeat_interleave(50)
    alone, together = of_answers(x), of_answers(x, group=group)
    assert alone.mean == pytest.approx(together.mean)
    assert together == pytest.approx(of_answers(unit), abs=1.0)
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert of_answers(x, group=torch.full((1000,), MISSING)) == pytest.approx(alone)


@pytest.mark.parametrize("gains", [(24.0, 24.0), (20.0, 28.0), (19.0, 25.0, 28.0)])
def test_two_seeds_of_24_points_are_a_difference(gains):
    assert judged(over_seeds(gains, bounds=POINTS)) == "ahead"
    theirs = torch.arange(200).expand(len(gains), 200) < 80
    ours = torch.stack([torch.arange(200) < 80 + 2 * gain for gain in gains])
    found = of_answers(ours, over=theirs)
    assert found.mean == pytest.approx(24)
    assert judged(found) == "ahead"


@pytest.mark.parametrize(("seeds", "samples", "spread"), [(1, 60, 0.0), (2, 300, 1.0), (3, 60, 0.0), (3, 300, 2.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, samples, spread):
    """200 studies each: 95 % hold it, within what 200 tell and the handful of seeds allows."""
    held = gained = 0
    for study in range(200):
        ours, theirs = (answers(seeds, samples, mean, spread, seed=2 * study + k) for k, mean in enumerate((70, 60)))
        low, high = of_answers(ours, seed=study)[1:]
        held += low <= 70 <= high
        low, high = of_answers(ours, over=theirs, seed=study)[1:]
        gained += low <= 10 <= high
    assert held / 200 >= 0.9
    assert gained / 200 >= 0.9


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 9, "ahead"), (-9, -0.1, "behind"), (-1.5, 1.9, "alike"), (-1, 9, "open")]
)
def test_what_an_interval_says(low, high, said):
    assert judged(Interval((low + high) / 2, low, high)) == said


def test_an_interval_is_written_with_its_mean():
    it = Interval(2.25, -1.0, 5.5)
    assert f"{it:.1f}" == "2.2 [-1.0, 5.5]"
    assert f"{it:+.0f}" == "+2 [-1, +6]"


def test_a_number_that_is_no_mean_has_an_interval_of_what_was_drawn() -> None:
    values = torch.tensor([10.0, 30, 20, 60, 90, 40, 70, 80])
    often = drawn_often(8, seed=0)
    assert often.shape == (1001, 8)
    assert (often[0] == 1).all()
    assert (often.sum(1) == 8).all()
    means = often @ values.double() / often.sum(1)
    made, wanted = of_drawn(means), bootstrap(values, seed=1)
    assert made.mean == pytest.approx(50)
    assert abs(made.low - wanted.low) < 3
    assert abs(made.high - wanted.high) < 3
    group = torch.tensor([0, 0, 1, 1, MISSING, MISSING, 2, 2])
    together = drawn_often(8, seed=0, group=group)
    assert torch.equal(together[:, 0::2][:, [0, 1, 3]], together[:, 1::2][:, [0, 1, 3]])
    assert not torch.equal(together[:, 4], together[:, 5])
    several = of_drawn(torch.stack([means - 15, means + 15]))
    assert several.mean == pytest.approx(50)
    assert several.high - several.low > made.high - made.low
    assert of_drawn(torch.tensor([1.0, torch.nan, 0, 2])).mean == 1
    seeds = torch.tensor([[0.5], [1.5]]).expand(2, 500)
    assert of_drawn(seeds).low == 0  # no percentage is lower, however seeds differ
    assert of_drawn(seeds, bounds=POINTS).low < 0
