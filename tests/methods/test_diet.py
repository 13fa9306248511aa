from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.evaluation.alarms import readings

from .small import clock, form

DIET = form("diet")


def test_every_view_is_told_by_the_index_of_its_sample() -> None:
    method, batch = DIET.build(), DIET.batch(8)
    batch = Batch(batch.views * 2, batch.index, batch.label)
    with torch.no_grad():
        logits = method.classifier(method.encoder(torch.cat(batch.views)))
        want = F.cross_entropy(logits, batch.index.repeat(len(batch.views)), label_smoothing=0.8)
        torch.testing.assert_close(method(batch).loss, want)


def test_mixed_views_have_both_indices_by_their_shares() -> None:
    method, batch = DIET.build(mix="both", mixed=1.0), DIET.batch(8)
    seen = set()
    for number in range(8):
        method.clock = clock(number)
        views, other, lam = method.mixtures(batch)
        assert torch.isin(other, batch.index).all()
        assert ((lam >= 0) & (lam <= 1)).all()
        seen.add("one box" if bool((lam == lam[0]).all()) else "averages")
        assert not torch.equal(views[0], batch.views[0])
    assert seen == {"one box", "averages"}
    never = DIET.build(mix="mixup", mixed=0.0).mixtures(batch)
    assert never[0] is batch.views
    assert torch.equal(never[1], batch.index.repeat(len(batch.views)))


def test_mixed_views_are_not_looked_at_as_two_of_a_sample() -> None:
    """They are not alike: how often one finds the other would tell of the mixture, not of the encoder."""
    batch = DIET.batch(8)
    batch = Batch([*batch.views, batch.views[0].clone()][:2], batch.index, batch.label)
    seen = {}
    for mixed in (0.0, 1.0):
        method = DIET.build(mix="mixup", mixed=mixed)
        method.representations = []
        method(batch)
        seen[mixed] = readings(method.representations, 8)
    assert "accuracy" in seen[0.0]
    assert seen[1.0].keys() == {"spread", "effective_rank"}
