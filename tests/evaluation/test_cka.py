from __future__ import annotations

import pytest
import torch

from nearfar.errors import UserError
from nearfar.evaluation.cka import cka


def test_is_one_for_what_was_turned_and_scaled_and_little_for_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert cka(x, 3 * x @ turn + 5) == pytest.approx(1, abs=1e-6)
    assert cka(x, torch.randn(400, 6, generator=generator)) < 0.05


@pytest.mark.parametrize("rows", [5, 40])
def test_agrees_with_the_definition_by_kernels(rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(rows, 12, generator=generator), torch.randn(rows, 9, generator=generator)
    center = torch.eye(rows) - 1 / rows
    k, other = (center @ (x @ x.T) @ center for x in (a, b))
    assert cka(a, b) == pytest.approx(float((k * other).sum() / k.norm() / other.norm()), rel=1e-4)
    assert cka(a, b) == pytest.approx(cka(b, a))


def test_a_hand_made_case() -> None:
    a = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    b = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # b'a is (2, 0), a'a is 2 and b'b is 2 I: 4 / (2 * 2 sqrt 2)
    assert cka(a, b) == pytest.approx(1 / 2**0.5)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(UserError, match=r"\(3, 2\) and \(4, 2\)"):
        cka(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(UserError, match="the same"):
        cka(torch.ones(4, 2), torch.eye(4))
