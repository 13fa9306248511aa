from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from nearfar.batch import MISSING, Batch
from nearfar.memory.slow_queue import SlowQueue
from nearfar.method import Encoder, Method


class Plain(Method):
    """An encoder and a projector."""

    def __init__(self) -> None:
        super().__init__(cast(Encoder, nn.Linear(3, 4)))
        self.projector = nn.Linear(4, 2)


def build(*, labeled: bool = True) -> tuple[Plain, SlowQueue]:
    torch.manual_seed(0)
    method = Plain()
    return method, SlowQueue(10, 2, method.encoder, method.projector, momentum=0.9, labeled=labeled)


def batch() -> Batch:
    views = list(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1)))
    return Batch(views, torch.arange(3), torch.tensor([1, MISSING, 0]), torch.tensor([4, 4, MISSING]))


def test_keys_are_unit_rows_of_the_copy_view_by_view() -> None:
    method, queue = build()
    want = [queue.slow.projector(queue.slow.encoder(view)) for view in batch().views]
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()  # the copy stands on its own
    keys = queue.embed(method, batch().views)
    assert not any(rows.requires_grad for rows in keys)
    for got, rows in zip(keys, want, strict=True):
        torch.testing.assert_close(got, rows.detach() / rows.detach().norm(dim=1, keepdim=True))


@pytest.mark.parametrize("labeled", [True, False])
def test_after_a_step_the_copy_follows_and_the_keys_are_written_view_after_view(labeled: bool) -> None:
    method, queue = build(labeled=labeled)
    keys = queue.embed(method, batch().views)
    assert queue.count == 0
    before = [p.clone() for p in queue.parameters()]
    assert not any(p.requires_grad for p in queue.parameters())
    with torch.no_grad():
        for p in method.parameters():
            p.add_(1)
    queue.update(method, keys, batch())
    for old, new in zip(before, queue.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
    assert torch.equal(queue.keys[:6], torch.cat(keys))
    assert queue.group.tolist() == [4, 4, MISSING] * 2 + [MISSING] * 4
    assert not labeled or queue.label.tolist() == [1, MISSING, 0] * 2 + [MISSING] * 4
