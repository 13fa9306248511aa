from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.inter_image import draw_negatives, draw_positive, margin_nce
from nearfar.method import start_epoch
from nearfar.methods.interclr import InterCLR
from nearfar.methods.moco import MoCo

from .small import Form, clock, form, freeze_norms, sgd, step

interclr = form("interclr", queue=20, negatives=6, pool=15)


def build(form: Form = interclr, **arguments: Any) -> InterCLR:
    method = cast(InterCLR, form.build(**arguments)).double()
    start_epoch(method, form.look(method))
    freeze_norms(method)
    return method


def batch(n: int = 8, *, seed: int = 0) -> Batch:
    made = interclr.batch(n, seed=seed, dtype=torch.float64)
    return Batch(made.views, made.index + 11, made.label)


def test_the_bank_starts_from_all_samples_and_is_not_made_anew() -> None:
    method = build()
    x = interclr.look(method.eval())(lambda view: normalize(method.slow.projector(method.slow.encoder(view))))
    torch.testing.assert_close(method.bank.rows, x)
    assert len(method.clusters.label.unique()) == 4  # one for ten samples
    method.train()
    step(method, sgd(method), batch())
    before, label = method.bank.rows.clone(), method.clusters.label.clone()
    start_epoch(method, interclr.look(method))
    assert torch.equal(method.bank.rows, before)
    assert torch.equal(method.clusters.label, label)
    method.offline = True
    start_epoch(method, interclr.look(method))
    assert not torch.equal(method.bank.rows, before)


def test_a_step_replaces_the_rows_of_its_samples_and_moves_them_to_the_nearest_centroid() -> None:
    method, seen = build(least=1), batch()
    before, centroids = method.bank.rows.clone(), method.clusters.centroids.clone()
    out = step(method, sgd(method), seen)
    (v,) = out.carry[0]
    for row in range(40):
        want = before[row] if row not in seen.index else v[seen.index == row][0]
        torch.testing.assert_close(method.bank.rows[row], want)
    torch.testing.assert_close(method.clusters.label[seen.index], (v @ centroids.T).argmax(1))
    assert torch.equal(method.clusters.centroids, centroids)  # this was the first step of ten


def test_centroids_are_taken_anew_every_so_many_steps_and_not_at_all_offline() -> None:
    for offline in (False, True):
        method = build(recenter=3, least=1, offline=offline)
        optimizer, moved = sgd(method), []
        for number in range(6):
            method.clock = clock(number)
            before = method.clusters.centroids.clone()
            step(method, optimizer, batch(seed=number))
            moved.append(not torch.equal(before, method.clusters.centroids))
        assert moved == [not offline and number % 3 == 2 for number in range(6)]


def test_no_cluster_stays_small() -> None:
    method = build(least=5)
    assert method.clusters.least == 5
    method.clusters.label.fill_(0)
    step(method, sgd(method), batch())
    assert len(method.clusters.label.unique()) == 4


@pytest.mark.parametrize("arc", [False, True])
def test_the_loss_is_moco_s_and_the_other_one(*, arc: bool) -> None:
    method, seen = build(weight=0.4, margin=-0.3, arc=arc), batch()
    q, k = method.query(seen.views[0]), method.key(seen.views[1])
    draws = method.clock.generator(1)
    bank, label = method.bank.rows, method.clusters.label
    mine = label[seen.index]
    p = draw_positive(mine, label, torch.rand(8, generator=draws))
    u = torch.rand(40, generator=draws).double()
    chosen = draw_negatives(q, bank, (mine, label), u, count=6, pool=15, sampling="semi-hard")
    assert (label[p] == mine).all()
    assert not (chosen & (label == mine[:, None])).any()
    assert (chosen.sum(1) <= 6).all()
    assert chosen.any()
    inter = margin_nce(q, bank[p], bank, chosen, temperature=0.2, margin=-0.3, arc=arc)
    torch.testing.assert_close(method(seen).loss, 0.6 * MoCo.loss(method, q, k, seen) + 0.4 * inter)


def test_without_the_second_term_it_is_moco() -> None:
    method, seen = build(weight=0.0), batch()
    q, k = method.query(seen.views[0]), method.key(seen.views[1])
    torch.testing.assert_close(method(seen).loss, MoCo.loss(method, q, k, seen))


def test_positives_differ_from_step_to_step() -> None:
    method, seen = build(weight=1.0), batch()
    first = method(seen).loss
    method.clock = clock(1)
    assert not torch.isclose(first, method(seen).loss)
