from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.relic import relic
from nearfar.methods.relicv2 import ReLICv2
from nearfar.optim import cosine_ramp

from .small import clock, form, freeze_norms, grown, sgd, step


def build(**arguments: Any) -> ReLICv2:
    method = cast(ReLICv2, grown(form("relicv2", **arguments), dtype=torch.float64))
    freeze_norms(method)
    return method


def a_batch(n: int = 8, seed: int = 0) -> Batch:
    """Two large crops and two small ones."""
    return form("relicv2").batch(n, seed=seed, dtype=torch.float64)


def with_views(batch: Batch, views: list[Tensor]) -> Batch:
    return Batch(views, batch.index, batch.label, batch.group)


def rows(method: ReLICv2, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    o = [normalize(method.projector(method.encoder(view))) for view in batch.views]
    return o, [normalize(method.slow.projector(method.slow.encoder(view))) for view in batch.views[:2]]


@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("negatives", [0, 3])
def test_the_loss_is_the_mean_over_crops_and_large_crops(negatives: int, itself: bool) -> None:
    method, batch = build(negatives=negatives, itself=itself), a_batch()
    columns = method.candidates(a_batch())[0]
    o, t = rows(method, batch)

    def logits(v: int, w: int) -> Tensor:
        return torch.stack(
            [torch.stack([o[v][i] @ t[w][j] for j in columns[i].tolist()]) / method.temperature for i in range(8)]
        )

    losses = []
    for v in range(4):
        for w in range(2):
            if v == w and not itself:
                continue
            losses.append(relic(logits(v, w), logits(w, v) if v < 2 else logits(w, w)))
    assert len(losses) == (8 if itself else 6)
    torch.testing.assert_close(method(batch).loss, torch.stack(losses).mean())


def test_two_views_without_divergence_are_info_nce_with_a_slow_copy() -> None:
    method, batch = build(negatives=0, itself=False), a_batch()
    method.loss = partial(relic, beta=0)
    batch = with_views(batch, batch.views[:2])
    o, t = rows(method, batch)
    want = [torch.nn.functional.cross_entropy(o[v] @ t[1 - v].T / 0.2, torch.arange(8)) for v in (0, 1)]
    torch.testing.assert_close(method(batch).loss, torch.stack(want).mean())


def test_candidates_are_the_row_itself_and_different_others() -> None:
    method = build(negatives=5)
    columns = method.candidates(a_batch())[0]
    assert columns.shape == (8, 6)
    assert torch.equal(columns[:, 0], torch.arange(8))
    assert all(len(set(row)) == 6 for row in columns.tolist())
    method.clock = clock(3)
    assert not torch.equal(method.candidates(a_batch())[0], columns), "others in the next step"
    assert build(negatives=50).candidates(a_batch())[0].shape == (8, 8)
    every = build(negatives=0).candidates(a_batch())[0]
    assert (every.sort(1).values == torch.arange(8)).all()


def test_candidates_of_the_same_group_do_not_count() -> None:
    method, batch = build(negatives=0), a_batch(6)
    batch.group = torch.tensor([4, 4, 4, 4, 4, 4])
    assert method(batch).loss.item() == pytest.approx(0, abs=1e-9)
    batch.group = torch.tensor([-1, -1, -1, -1, -1, -1])
    plain = method(batch).loss
    batch.group = None
    torch.testing.assert_close(method(batch).loss, plain)
    batch.group = torch.tensor([1, 1, -1, -1, 3, 3])
    assert method(batch).loss < plain


def test_small_crops_are_never_targets_and_keys_pass_no_gradient() -> None:
    method, batch = build(), a_batch()
    seen: list[torch.Size] = []
    method.slow.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    method(batch).loss.backward()
    assert seen == [batch.views[0].shape] * 2
    assert batch.views[3].shape != batch.views[0].shape
    assert all(p.grad is None for p in [*method.slow.encoder.parameters(), *method.slow.projector.parameters()])


def test_equal_crops_of_equal_networks_do_not_diverge() -> None:
    method, batch = build(), a_batch()
    method.slow.encoder.load_state_dict(method.encoder.state_dict())
    method.slow.projector.load_state_dict(method.projector.state_dict())
    batch = with_views(batch, [batch.views[0]] * 2)
    with_divergence = method(batch).loss
    method.loss = partial(relic, beta=0)
    torch.testing.assert_close(method(batch).loss, with_divergence)


def test_the_copy_follows_with_a_momentum_that_rises() -> None:
    method = build(momentum=0.9)
    method.clock = clock(100)
    before = [p.clone() for p in method.slow.projector.parameters()]
    step(method, sgd(method), a_batch())
    m = cosine_ramp(0.9, method.clock.progress)
    assert 0.9 < m < 1
    for old, p, source in zip(before, method.slow.projector.parameters(), method.projector.parameters(), strict=True):
        torch.testing.assert_close(p, m * old + (1 - m) * source)
