from __future__ import annotations

import torch

from nearfar.nn.forecast import Forecast


def test_predictions_are_fed_back_as_if_they_had_been_seen() -> None:
    torch.manual_seed(0)
    forecast, seen = Forecast(8, 3), torch.randn(2, 2, 5, 8)
    ahead = forecast(seen)
    assert ahead.shape == (2, 3, 5, 8)
    later = forecast(torch.cat([seen, ahead[:, :1]], 1))
    torch.testing.assert_close(later[:, :2], ahead[:, 1:])
    order = torch.tensor([3, 1, 4, 0, 2])  # cells do not see each other
    torch.testing.assert_close(forecast(seen[:, :, order]), ahead[:, :, order])


def test_it_is_orthogonal_at_first() -> None:
    state = Forecast(8, 2).state
    for gates in (state.weight_ih, state.weight_hh):
        torch.testing.assert_close(gates.T @ gates, torch.eye(8), atol=1e-5, rtol=0)
