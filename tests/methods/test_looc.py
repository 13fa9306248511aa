from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.methods.looc import LooC
from nearfar.methods.moco import MoCo

from .small import form, freeze_norms, grown, sgd, step


def build(**arguments: Any) -> LooC:
    method = cast(LooC, grown(form("looc", **arguments), dtype=torch.float64))
    freeze_norms(method)
    return method


def a_batch(n: int = 8, views: int = 4) -> Batch:
    batch = form("looc").batch(n, dtype=torch.float64)
    return Batch(batch.views[:views], batch.index, batch.label)


def by_hand(method: LooC, batch: Batch, *, intra: bool = True) -> list[Tensor]:
    """The loss of each space, by loops over samples; without `intra`, against the queue alone."""
    queues = method.queue.keys.chunk(1 + method.n, 1)
    heads = list(zip(cast(nn.ModuleList, method.projector), cast(nn.ModuleList, method.slow.projector), strict=True))
    losses = []
    for v, (head, key_head) in enumerate(heads):
        q = normalize(head(method.encoder(batch.views[0])))
        k = [normalize(key_head(method.slow.encoder(view))) for view in batch.views[1:]]
        rows = []
        for i in range(len(batch)):
            own = [k[w][i] for w in range(len(k)) if w != v] if v and intra else []
            if v and intra and method.negatives == "batch":
                own = [row for w in range(len(k)) if w != v for row in k[w]]
            logits = torch.stack([q[i] @ row for row in (k[v][i], *own, *normalized(queues[v]))]) / method.temperature
            rows.append(nn.functional.cross_entropy(logits[None], torch.tensor([0])))
        losses.append(torch.stack(rows).mean())
    return losses


def normalized(rows: Tensor) -> Tensor:
    return normalize(rows.contiguous())


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_the_loss_is_the_mean_over_spaces_of_one_key_against_the_others(negatives: str) -> None:
    method, batch = build(negatives=negatives), a_batch()
    torch.testing.assert_close(method(batch).loss, torch.stack(by_hand(method, batch)).mean())
    assert not torch.allclose(method(batch).loss, torch.stack(by_hand(method, batch, intra=False)).mean())


def test_without_augmentations_it_is_moco() -> None:
    method = cast(LooC, form("looc", augmentations=0).build()).double()
    moco = cast(MoCo, form("moco", queue=len(method.queue.keys)).build()).double()
    state = {key.replace("projector.0.", "projector."): value for key, value in method.state_dict().items()}
    moco.load_state_dict(state)
    batch = a_batch(views=2)
    torch.testing.assert_close(method(batch).loss, moco(batch).loss)


def test_the_order_of_augmentations_does_not_matter() -> None:
    method, batch = build(), a_batch()
    want = method(batch).loss
    q, k0, k1, k2 = batch.views
    for heads in (method.projector, method.slow.projector):
        modules = cast(nn.ModuleList, heads)
        modules[1], modules[2] = modules[2], modules[1]
    parts = method.queue.keys.chunk(3, 1)
    method.queue.keys.copy_(torch.cat([parts[0], parts[2], parts[1]], 1))
    torch.testing.assert_close(method(Batch([q, k0, k2, k1], batch.index, batch.label)).loss, want)


def test_a_space_moves_its_own_head_and_the_encoder_only() -> None:
    method, batch = build(), a_batch()
    heads = cast(nn.ModuleList, method.projector)
    for v, loss in enumerate(by_hand(method, batch)):
        grads = torch.autograd.grad(loss, list(method.parameters())[:1] + list(heads.parameters()), allow_unused=True)
        assert grads[0] is not None
        moved = [g is not None for g in grads[1:]]
        each = len(moved) // 3
        assert moved == [number // each == v for number in range(len(moved))]


def test_each_space_collects_its_own_keys() -> None:
    method, batch = build(), a_batch()
    start = int(method.queue.count) % len(method.queue.keys)
    before = cast(nn.ModuleList, method.slow.projector)
    h = [method.slow.encoder(view) for view in batch.views[1:]]
    want = [normalize(head(rows)) for head, rows in zip(before, h, strict=True)]
    step(method, sgd(method), batch)
    slots = (start + torch.arange(8)) % len(method.queue.keys)
    torch.testing.assert_close(method.queue.keys[slots], torch.cat(want, 1))


def test_every_space_is_shuffled_alike_for_batch_norm() -> None:
    method, batch = build(), a_batch(16)
    method.train()
    one, two = (method.key(batch.views[1]) for _ in range(2))
    torch.testing.assert_close(one, two)


def test_too_few_views_are_named() -> None:
    with pytest.raises(ValueError, match="2 augmentations want 4 views, not 2; --views looc: 4"):
        build()(a_batch(views=2))
