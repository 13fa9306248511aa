from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from nearfar.losses.pairwise import nt_xent
from nearfar.methods.simclrv2 import SimCLRv2

from .small import form, sgd, step

v2 = form("simclrv2")


def build(**arguments: Any) -> SimCLRv2:
    return cast(SimCLRv2, form("simclrv2", **arguments).build())


def test_with_two_layers_and_no_memory_it_is_simclr() -> None:
    one, two, batch = form("simclr").build(), build(layers=2), v2.batch(8)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(batch).loss, two(batch).loss)


def test_the_middle_of_the_head() -> None:
    method, view = build(), v2.batch(8).views[0]
    method.eval()
    h = method.encoder(view)
    linear, norm, relu = list(method.projector)[:3]
    assert isinstance(relu, nn.ReLU)
    torch.testing.assert_close(method.middle(0)(view), h)
    torch.testing.assert_close(method.middle()(view), norm(linear(h)).relu())
    assert method.middle(2)(view).shape == (8, method.encoder.dim)
    torch.testing.assert_close(method.middle(3)(view), method.projector(h))
    torch.testing.assert_close(method.middle(-1)(view), method.projector(h))
    with pytest.raises(ValueError, match="layer 4 of a projector of 3 layers"):
        method.middle(4)
    own = {id(p) for p in method.parameters()}
    assert all(id(p) in own for p in method.middle(1).parameters())  # tuned in place


def test_memory_adds_negatives() -> None:
    method, batch = build(memory=20).double(), v2.batch(6, dtype=torch.float64)
    assert method.queue is not None
    z = nn.functional.normalize(method.projector(method.encoder(torch.cat(batch.views))))
    terms = []
    for i in range(12):
        others = torch.stack([z[i] @ z[j] for j in range(12) if j != i] + [z[i] @ q for q in method.queue.keys])
        terms.append((others / 0.1).logsumexp(0) - z[i] @ z[(i + 6) % 12] / 0.1)
    loss = method(batch).loss
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    assert loss > nt_xent(*z.chunk(2), temperature=0.1)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_copy_follows_and_fills_the_memory_after_the_step(momentum: float) -> None:
    method, batch = build(memory=20, momentum=momentum), v2.batch(8)
    assert method.queue is not None
    rows = torch.cat(method.queue.embed(method, batch.views))
    before = [p.clone() for p in method.queue.encoder.parameters()]
    step(method, sgd(method), batch)
    torch.testing.assert_close(method.queue.keys[:16], rows)
    for old, slow, fast in zip(before, method.queue.encoder.parameters(), method.encoder.parameters(), strict=True):
        torch.testing.assert_close(slow, momentum * old + (1 - momentum) * fast)
        assert slow.grad is None
