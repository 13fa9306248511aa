from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import MISSING, Batch
from nearfar.method import Clock, Method, Step, derive_seed, frozen_statistics
from nearfar.nn.norms import split_norms, synchronize_norms


class Plain(Method):
    """As little as a method can be."""

    def forward(self, batch: Batch) -> Step:
        return Step(torch.stack([h.square().mean() for h in self.each(self.embed, batch.views)]).sum())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2))


def batch(views: int) -> Batch:
    index = torch.arange(6)
    missing = torch.full((6,), MISSING)
    return Batch([torch.randn(6, 3) + v for v in range(views)], index, missing, missing)


def tracked(module: nn.Module) -> list[int]:
    return [int(m.num_batches_tracked) for m in module.modules() if isinstance(m, nn.BatchNorm1d)]


def test_the_moments_of_a_method_do_nothing_unless_they_are_filled() -> None:
    method = Plain(network())
    out = method(batch(2))
    before = copy.deepcopy(method.state_dict())
    method.before_step()
    method.after_step(out)
    torch.testing.assert_close(method.state_dict(), before)
    assert method.chance(batch(2)) is None
    assert method.needs_labels is False
    assert (out.log, out.carry) == ({}, None)
    assert len(batch(2)) == 6
    with pytest.raises(NotImplementedError):
        Method(network())(batch(2))


class Naming(Plain):
    classifies = True

    def __init__(self) -> None:
        super().__init__(network())
        self.classifier = nn.Linear(2, 3)


def test_who_classifies_goes_by_its_classifier() -> None:
    method, x = Naming().eval(), torch.randn(5, 3)
    assert torch.equal(method.classify(x), method.classifier(method.encoder(x)))
    with pytest.raises(NotImplementedError, match="Plain has no classifier"):
        Plain(network()).classify(x)


def test_each_view_has_its_own_statistics_and_one_of_them_moves_the_running_ones() -> None:
    method, these = Plain(network()), batch(3)
    for step in range(6):
        before = copy.deepcopy(method.encoder)
        method.clock = Clock(step=step, steps=6)
        out = method.each(method.embed, these.views)
        assert tracked(method) == [step + 1, step + 1]
        for view, got in zip(these.views, out, strict=True):
            torch.testing.assert_close(got, copy.deepcopy(before)(view))
        before(these.views[step % 3])
        torch.testing.assert_close(before.state_dict(), method.encoder.state_dict())


@pytest.mark.parametrize("kind", ["plain", "split", "global"])
def test_frozen_statistics_change_no_output_and_are_freed_again(kind: str) -> None:
    net, x = network(), torch.randn(6, 3)
    if kind != "plain":
        split_norms(net, 2) if kind == "split" else synchronize_norms(net, torch.device("cpu"))
    want = copy.deepcopy(net)(x)
    before = copy.deepcopy(net.state_dict())
    with frozen_statistics(net):
        torch.testing.assert_close(net(x), want)
        with frozen_statistics(net):
            net(x)
        net(x)
    with pytest.raises(RuntimeError), frozen_statistics(net):
        net(x[:, :2])
    torch.testing.assert_close(net.state_dict(), before)
    net(x)
    assert not torch.equal(net.state_dict()["1.running_mean"], before["1.running_mean"])
    # A norm that never had running statistics does not get them.
    bare = nn.BatchNorm1d(3, track_running_stats=False)
    with frozen_statistics(bare):
        bare(x)
    assert bare.track_running_stats is False


def test_the_clock_tells_how_much_is_done() -> None:
    assert Clock().progress == 0
    assert Clock(step=3, steps=12).progress == 0.25


def test_draws_follow_from_seed_step_and_purpose() -> None:
    def draw(seed: int, step: int, purpose: int) -> Tensor:
        return torch.rand(3, generator=Clock(seed=seed, step=step).generator(purpose))

    assert torch.equal(draw(1, 2, 3), draw(1, 2, 3))
    others = [draw(1, 2, 3), draw(2, 1, 3), draw(0, 2, 3), draw(1, 3, 3), draw(1, 2, 0), draw(3, 2, 1)]
    assert len({tuple(other.tolist()) for other in others}) == len(others)


def test_seeds_of_near_numbers_are_unrelated() -> None:
    seeds = [derive_seed(seed, step, purpose) for seed in range(20) for step in range(20) for purpose in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    differing = [(a ^ b).bit_count() for a, b in pairwise(seeds)]
    assert 29 < sum(differing) / len(differing) < 34
    assert derive_seed(-1) == derive_seed(2**64 - 1)
    assert derive_seed(1, 2) != derive_seed(2, 1)
