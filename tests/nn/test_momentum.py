from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.nn.momentum import MomentumPair, follow, momentum_copy


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2, bias=False))


def test_a_copy_is_equal_and_is_never_trained() -> None:
    source = network()
    source[0].bias.requires_grad_(False)
    target = momentum_copy(source)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    assert not any(p.requires_grad for p in target.parameters())
    assert [p.requires_grad for p in source.parameters()].count(False) == 1
    with torch.no_grad():
        next(source.parameters()).zero_()
    assert next(target.parameters()).any()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999, 1.0])
def test_it_follows_by_parameters_alone(momentum: float) -> None:
    source, target = network(0), momentum_copy(network(1))
    source(torch.randn(8, 3))
    before = [p.clone() for p in target.parameters()]
    follow(target, source, momentum)
    for old, new, there in zip(before, target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(new, momentum * old + (1 - momentum) * there)
        if momentum in (0, 1):
            assert torch.equal(new, old if momentum else there)
    assert target[1].num_batches_tracked == 0
    assert not target[1].running_mean.any()


def test_following_from_float64_and_with_a_graph_at_hand() -> None:
    source = network().double()
    target = momentum_copy(source)
    loss = source(torch.randn(8, 3, dtype=torch.float64)).square().sum()
    follow(target, source, 0.9)
    loss.backward()
    assert all(p.grad is None for p in target.parameters())
    assert all(p.grad is not None for p in source.parameters())


class Small(nn.Module):
    """What a pair asks of a method."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.projector = network(0), nn.Linear(2, 5)

    def embed(self, view: torch.Tensor, encoder: nn.Module | None = None) -> torch.Tensor:
        return 2 * (self.encoder if encoder is None else encoder)(view)


def test_a_pair_embeds_through_the_method_without_gradient_and_follows_both_parts() -> None:
    method = Small().eval()
    pair, x = MomentumPair(method.encoder, method.projector).eval(), torch.randn(4, 3)
    out = pair(method, x)
    assert not out.requires_grad
    torch.testing.assert_close(out, method.projector(2 * method.encoder(x)))
    before = [p.clone() for p in pair.parameters()]
    with torch.no_grad():
        for p in method.parameters():
            p.add_(1)
    pair.follow(method, 0.75)
    for old, new in zip(before, pair.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
