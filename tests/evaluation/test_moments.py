from __future__ import annotations

import pytest
import torch

from nearfar.evaluation.moments import nearest_moments


def test_equal_videos_agree_and_reversed_ones_are_half_a_video_off() -> None:
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    found = nearest_moments(rows, rows)
    assert (found.nearest.tolist(), float(found.error.sum())) == (list(range(40)), 0.0)
    back = nearest_moments(rows, rows.flip(0))
    assert back.nearest.tolist() == list(range(39, -1, -1))
    assert float(back.error.mean()) == pytest.approx(0.5)


def test_the_error_is_that_of_a_loop_and_a_third_at_random() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 300, 5, generator=generator)
    found, off = nearest_moments(a, b), []
    for t in range(300):
        near = min(range(300), key=lambda s: float((a[t] - b[s]).square().sum()))
        off.append(abs(near - t) / 300)
    torch.testing.assert_close(found.error, torch.tensor(off, dtype=torch.float64))
    assert float(found.error.mean()) == pytest.approx(1 / 3, abs=0.04)


def test_ties_go_to_the_first_and_lengths_must_be_the_same() -> None:
    assert nearest_moments(torch.zeros(3, 2), torch.zeros(3, 2)).nearest.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="3 and 4 frames"):
        nearest_moments(torch.zeros(3, 2), torch.zeros(4, 2))
