from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.method import Encoder, Look, start_epoch
from nearfar.methods.spcl import SpCL

from .small import clock, sgd, step


class Rows(Encoder):
    """An encoder that gives what it gets, turned a little."""

    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.01 * self.line(x)


def clustered(label: Tensor | None = None, **flags: Any) -> tuple[SpCL, Tensor]:
    """The method after its first look at six groups of ten rows, far from each other; and the rows."""
    torch.manual_seed(0)
    x = 4 * torch.randn(6, 8).repeat_interleave(10, 0) + 0.3 * torch.randn(60, 8)
    arguments: dict[str, Any] = {"k1": 12, "k2": 3} | flags
    method = SpCL(Rows(), samples=60, classes=0 if label is None else 3, **arguments)
    method.clock = clock(0)
    start_epoch(method, Look(lambda network: network(x), label))
    return method, x


def batch_of(x: Tensor, index: Tensor, views: int = 1) -> Batch:
    return Batch([x[index] + 0.01 * v for v in range(views)], index, torch.full((len(index),), MISSING))


def test_without_labels_it_finds_the_clusters() -> None:
    method, x = clustered()
    names = method.identities()
    assert len(names) == 60
    group = torch.arange(60) // 10
    for i in range(60):
        assert not (names == names[i])[group != group[i]].any()
    assert len(names.unique()) < 20  # nearly all rows are in a cluster
    assert not method.memory.source.any()
    torch.testing.assert_close(method.memory.rows, normalize(method.norm.eval()(method.encoder(x))))
    assert 0 <= method.threshold <= 1


def test_samples_with_a_label_are_the_source_and_the_others_are_clustered() -> None:
    label = torch.where(torch.arange(60) < 30, torch.arange(60) // 10, MISSING)
    method, _ = clustered(label)
    names = method.identities()
    assert torch.equal(names[:30], label[:30])
    assert names[30:].min() >= 3
    assert len(names[30:].unique()) < 10
    assert torch.equal(method.memory.source, label >= 0)


def test_all_labeled_it_learns_from_the_classes_alone() -> None:
    label = torch.arange(60) % 3
    method, x = clustered(label)
    assert torch.equal(method.identities(), label)
    loss = method(batch_of(x, torch.arange(8))).loss
    assert loss.isfinite()
    assert len(method.memory.prototypes().centroids) == 3


def test_the_loss_against_a_slow_loop() -> None:
    label = torch.where(torch.arange(60) < 25, torch.arange(60) // 10, MISSING)
    method, x = clustered(label, temperature=0.3)
    index = torch.tensor([0, 12, 59, 31, 32, 44, 13, 24])
    batch = batch_of(x, index, views=2)
    names, memory = method.identities(), method.memory
    rows: dict[int, list[Tensor]] = {}
    for row, name in zip(memory.rows, memory.identity.tolist(), strict=True):
        if name >= 0:
            rows.setdefault(name, []).append(row)
    f = normalize(method.norm(method.encoder(torch.cat(batch.views))))
    domain: dict[bool, list[float]] = {True: [], False: []}
    for row, i in zip(f, index.repeat(2).tolist(), strict=True):
        logit = {name: (row @ torch.stack(own).mean(0)).item() / 0.3 for name, own in rows.items()}
        lost = math.log(sum(map(math.exp, logit.values()))) - logit[int(names[i])]
        domain[bool(label[i] >= 0)].append(lost)
    want = sum(sum(losses) / len(losses) for losses in domain.values())
    assert method(batch).loss.item() == pytest.approx(want, rel=1e-5)


def test_memory_takes_each_view_in_turn_and_labels_stay_until_the_next_epoch() -> None:
    method, x = clustered(momentum=0.5)
    index = torch.tensor([3, 50, 3])
    batch, before, names = batch_of(x, index, views=2), method.memory.rows.clone(), method.identities()
    out = method(batch)
    f = normalize(method.norm(method.encoder(torch.cat(batch.views)))).detach()
    method.after_step(out)
    for i, row in zip(index.repeat(2).tolist(), f, strict=True):
        before[i] = F.normalize(0.5 * before[i] + 0.5 * row, dim=0)
    torch.testing.assert_close(method.memory.rows, before)
    assert torch.equal(method.identities(), names)


def test_the_memory_is_filled_once_and_the_threshold_is_kept() -> None:
    method, x = clustered()
    step(method, sgd(method), batch_of(x, torch.arange(0, 60, 7), views=2))
    rows, threshold = method.memory.rows.clone(), method.threshold.clone()

    def never(network: object) -> Tensor:
        raise AssertionError("it has looked already")

    start_epoch(method, Look(never, None))
    torch.testing.assert_close(method.memory.rows, rows)
    assert torch.equal(method.threshold, threshold)


def test_chance_is_the_number_of_identities() -> None:
    for label, domains in ((None, 1), (torch.where(torch.arange(60) < 30, 0, MISSING), 2)):
        method, _ = clustered() if label is None else clustered(label)
        index = torch.arange(20, 40)
        known = float(method.chance(Batch([index], index, index)))
        assert known == pytest.approx(domains * math.log(len(method.identities().unique())))


def test_the_offset_of_its_norm_stays_at_0() -> None:
    method, x = clustered()
    optimizer = sgd(method, lr=1.0)
    before = method.norm.weight.detach().clone()
    step(method, optimizer, batch_of(x, torch.arange(0, 60, 7)))
    assert not method.norm.bias.any()
    assert not torch.equal(method.norm.weight, before)
