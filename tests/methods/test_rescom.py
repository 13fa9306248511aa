from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from nearfar import methods
from nearfar.batch import MISSING, Batch
from nearfar.losses.supervised import supcon
from nearfar.methods.rescom import ResCom

from .small import TinyEncoder, form, freeze_norms, sgd, step

rescom = form("rescom")


def build(counts: tuple[int, ...] = (10, 10, 10), **arguments: Any) -> ResCom:
    torch.manual_seed(0)
    flags = form("rescom", **arguments).arguments
    return cast(ResCom, methods.build(methods.load("rescom"), TinyEncoder(), flags, classes=3, counts=counts)).train()


def test_without_contrast_it_is_the_balanced_softmax_of_both_views() -> None:
    batch = rescom.batch(8)
    known = batch.label.repeat(2) >= 0
    for counts in ((10, 10, 10), (100, 10, 1)):
        method = build(counts, weight=0.0)
        logits = method.classify(torch.cat(batch.views))[known]
        want = F.cross_entropy(logits + torch.tensor(counts).div(sum(counts)).log(), batch.label.repeat(2)[known])
        torch.testing.assert_close(method(batch).loss, want)
        if counts[0] == counts[2]:  # then the shares change nothing
            torch.testing.assert_close(want, F.cross_entropy(logits, batch.label.repeat(2)[known]))


def test_without_mining_and_weights_the_contrast_is_supcon() -> None:
    method, batch = build(positives=0, negatives=0, effective=0.0).double(), rescom.batch(8, dtype=torch.float64)
    z = F.normalize(method.projector(method.encoder(torch.cat(batch.views))), dim=1)
    want = supcon(list(z.chunk(2)), batch.label, temperature=0.2)
    torch.testing.assert_close(method(batch).log["contrast"], want.detach())


def test_rare_classes_weigh_more() -> None:
    batch, few = rescom.batch(8, dtype=torch.float64), (1000, 1000, 1)
    for y, more in ((0, False), (2, True)):
        one = Batch(batch.views, batch.index, torch.full((8,), y))
        weighted, plain = (build(few, effective=beta).double()(one).log["contrast"] for beta in (0.999, 0.0))
        assert (weighted > plain) == more
    nobody = Batch(batch.views, batch.index, torch.full((8,), MISSING))
    weighted, plain = (build(few, effective=beta).double()(nobody).log["contrast"] for beta in (0.999, 0.0))
    torch.testing.assert_close(weighted, plain)


def test_the_first_views_enter_the_slots_of_their_classes() -> None:
    method, batch = build(slots=2), rescom.batch(8, grouped=True)
    before = method.queue.keys.clone()
    made: list[torch.Tensor] = []
    method.projector.register_forward_hook(lambda module, args, out: made.append(out.detach()))
    label = torch.tensor([0, 0, 0, 2, MISSING, MISSING, 2, 0])
    step(method, sgd(method), Batch(batch.views, batch.index, label, batch.group))
    z = F.normalize(made[0], dim=1)
    want = torch.stack([z[2], z[7], before[2], before[3], z[3], z[6]])
    torch.testing.assert_close(method.queue.keys, want)
    assert method.queue.count.tolist() == [4, 0, 2]
    assert batch.group is not None
    assert method.queue.group.tolist() == [
        int(batch.group[2]),
        int(batch.group[7]),
        -1,
        -1,
        *batch.group[[3, 6]].tolist(),
    ]


def test_permuted_samples_have_the_same_loss() -> None:
    method, batch = build((30, 10, 5)).double(), rescom.batch(8, dtype=torch.float64)
    freeze_norms(method)
    order = torch.tensor([7, 2, 4, 0, 1, 3, 6, 5])
    other = Batch([view[order] for view in batch.views], batch.index[order], batch.label[order])
    torch.testing.assert_close(method(other).loss, method(batch).loss)


def test_more_hard_positives_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hard positives were asked for, and a class has 2 slots"):
        build(positives=3, slots=2)
