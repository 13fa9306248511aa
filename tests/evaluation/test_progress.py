from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.evaluation.intervals import apart, of_answers
from nearfar.evaluation.progress import Progress, binomial, gain_between
from nearfar.evaluation.protocol import packed


def line(step: int, knn: float, samples: int = 400, *, paired: bool = True) -> dict[str, Any]:
    """A probe; those who are right in one are so in all that are higher."""
    right = torch.arange(samples) < knn * samples / 100
    return {"step": step, "knn": knn, "knn_samples": samples} | ({"knn_right": packed(right)} if paired else {})


def test_a_gain_is_of_the_same_samples_where_their_answers_are_known() -> None:
    first, last = line(0, 50), line(9, 53)
    right = [torch.arange(400) < n for n in (200, 212)]
    assert gain_between(first, last) == of_answers(right[1], over=right[0])
    alone = [line(0, 50, paired=False), line(9, 53)]
    assert gain_between(*alone) == apart(binomial(53, 400), binomial(50, 400))
    assert gain_between({"step": 0, "knn": 50.0}, last) is None
    wide = gain_between(first, last | {"knn_low": 53 - 9.8, "knn_high": 53 + 9.8})  # of groups
    assert wide is not None
    assert wide.high - wide.low == pytest.approx(2 * (of_answers(right[1], over=right[0]).high - 3) * 2, rel=0.5)


@pytest.mark.parametrize(
    ("probes", "told"),
    [
        ([(0, 60), (10, 50), (30, 50), (50, 50), (90, 50), (100, 50)], {50: "worse"}),  # once, from a third on
        ([(0, 60), (40, 50), (50, 60), (60, 50), (100, 60)], {40: "worse", 50: "no gain"}),
        ([(0, 60), (20, 60), (40, 60), (60, 60), (80, 60), (100, 60)], {60: "no gain"}),  # once, from half on
        ([(0, 60), (60, 70), (100, 70)], {}),
        ([(0, 60), (60, 62.5), (100, 62)], {}),
        ([(0, 60), (100, 50)], {}),  # that is what the end of the run says
        ([(10, 60), (60, 50)], {}),  # nothing to compare with
    ],
)
def test_what_does_not_help_is_said_once_each(probes: list[tuple[int, float]], told: dict[int, str]) -> None:
    progress, found = Progress(100), {}
    for step, knn in probes:
        progress.see({"step": step, "loss": 1.0})
        progress.see(line(step, knn))
        if progress.news:
            found[step] = progress.news
        assert progress.worse == (34 <= step < 100 and knn == 50 and bool(told))
    assert found.keys() == told.keys()
    assert all(word in found[step] for step, word in told.items())


def test_few_samples_do_not_say_that_neighbors_are_worse() -> None:
    progress = Progress(100)
    for probe in (line(0, 60, 40, paired=False), line(50, 50, 40, paired=False)):
        progress.see(probe)
    assert not progress.worse
    assert "no gain is seen" in progress.news


def test_of_given_weights_an_alarm_says_that_they_were_better() -> None:
    progress = Progress(100, given=True)
    for step, knn in ((0, 60), (40, 50)):
        progress.see(line(step, knn))
    assert (progress.worse, progress.news) == (True, "")
    progress.see(line(60, 60))
    assert "the given weights may do as well" in progress.news
