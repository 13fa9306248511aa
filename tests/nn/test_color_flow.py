from __future__ import annotations

import torch

from nearfar.nn.color_flow import ColorFlow


def flow(*, wild: bool = True) -> ColorFlow:
    torch.manual_seed(0)
    made = ColorFlow().double()
    if wild:
        for p in made.parameters():
            p.data.add_(torch.randn_like(p), alpha=0.3)
    return made


def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 4, 5, dtype=torch.float64)


def test_what_was_done_can_be_undone() -> None:
    g, x = flow(), pixels()
    assert (g(x) - x).abs().mean() > 0.1
    torch.testing.assert_close(g.inverse(g(x)), x)


def test_volumes_stay() -> None:
    g = flow()
    jacobian = torch.autograd.functional.jacobian(lambda x: g(x.view(1, 3, 1, 1)).flatten(), pixels()[0, :, 0, 0])
    torch.testing.assert_close(torch.linalg.det(jacobian), torch.ones((), dtype=torch.float64))
    assert (jacobian - torch.eye(3)).abs().max() > 0.05


def test_each_pixel_changes_by_itself() -> None:
    g, x = flow(), pixels()
    other = x.clone()
    other[0, :, 1, 2] += 0.5
    changed = (g(other) != g(x)).any(1)
    assert changed.sum() == 1
    assert changed[0, 1, 2]


def test_it_begins_near_the_identity() -> None:
    x = pixels()
    torch.testing.assert_close(flow(wild=False)(x), x, atol=0.1, rtol=0)
