from __future__ import annotations

from typing import cast

import torch

from nearfar.batch import MISSING, Batch
from nearfar.methods.arrowoftime import ArrowOfTime

from .small import form, freeze_norms

arrow = form("arrowoftime")


def test_reversed_clips_have_the_other_label() -> None:
    method, batch = cast(ArrowOfTime, arrow.build()).double(), arrow.batch(4, dtype=torch.float64)
    freeze_norms(method)
    view = batch.views[0]
    assert method.target(view).tolist() == [0] * 4 + [1] * 4
    logits = method.classifier(method.encoder(torch.cat([view, view.flip(1)])))
    want = torch.nn.functional.cross_entropy(logits, torch.tensor([0] * 4 + [1] * 4))
    torch.testing.assert_close(method(batch).loss, want)
    back = method(Batch([view.flip(1)], batch.index, batch.label)).loss
    logits = logits.flip(1)
    torch.testing.assert_close(back, torch.nn.functional.cross_entropy(logits, torch.tensor([0] * 4 + [1] * 4)))


def test_still_clips_count_for_nothing() -> None:
    method, batch = cast(ArrowOfTime, arrow.build()), arrow.batch(4)
    batch.views[0][1] = batch.views[0][1, :1]
    assert (method.target(batch.views[0]) == MISSING).nonzero()[:, 0].tolist() == [1, 5]
