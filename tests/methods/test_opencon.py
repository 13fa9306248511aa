from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.losses.open_world import unfamiliar
from nearfar.losses.pairwise import nt_xent
from nearfar.losses.supervised import supcon
from nearfar.methods.opencon import OpenCon
from tests.two_ranks import Pool

from .ranks import hold_two_ranks_to_one
from .small import OLD, clock, copied_state, form, grown, sgd, step

LABEL = torch.tensor([0, 1, MISSING, MISSING, 2, 0, MISSING, 1, MISSING, MISSING])
EVERY, NONE = torch.arange(10) % 3, torch.full((10,), MISSING)
ONLY: dict[str, dict[str, float]] = {
    term: {f"lambda_{other}": 0.0 for other in "uln" if other != term} | {"prior": 0.0} for term in "uln"
}
"""Arguments that leave one term alone."""


def build(**arguments: Any) -> OpenCon:
    method = cast(OpenCon, form("opencon", **{"novel": 2, "ratio": 0.5} | arguments).build()).double()
    method.clock = clock(OLD)
    return method


def batch(label: Tensor = LABEL, order: Tensor | None = None) -> Batch:
    made = form("opencon").batch(len(label), dtype=torch.float64)
    order = torch.arange(len(label)) if order is None else order
    return Batch([view[order] for view in made.views], made.index, label[order])


def embeddings(method: OpenCon, batch: Batch) -> list[Tensor]:
    h = method.encoder(torch.cat(batch.views))
    return list(torch.nn.functional.normalize(method.projector(h)).detach().chunk(2))


def with_prototypes_in_place(method: OpenCon) -> OpenCon:
    """Each known class has its prototype where a row of it is, and each new one where an unlabeled row is."""
    method.prototypes.weight.copy_(embeddings(method, batch())[0][[0, 1, 4, 2, 6]])
    return method


def slow(z: Tensor, rows: list[int], name: list[int], temperature: float) -> float:
    """The mean over some rows of 2N; positives are the rows of the same name or sample."""
    n, terms = len(z) // 2, []
    for i in rows:
        s = {j: float(z[i] @ z[j]) / temperature for j in rows if j != i}
        positive = [x for j, x in s.items() if j % n == i % n or (name[j % n] == name[i % n] != MISSING)]
        terms.append(math.log(sum(math.exp(x) for x in s.values())) - sum(positive) / len(positive))
    return sum(terms) / len(terms) if terms else 0.0


def test_the_loss_is_that_of_loops_over_the_three_sets_and_the_divergence() -> None:
    method, these = with_prototypes_in_place(build(prior=0.5, lambda_n=0.7, percentile=5.0)), batch()
    z = embeddings(method, these)
    score = z[0] @ method.prototypes.weight.T
    labeled = LABEL != MISSING
    new = unfamiliar(score, labeled, known=3, percentile=5)
    assert new.sum() > 1

    def both(keep: Tensor) -> list[int]:
        return [i for i in range(20) if keep[i % 10]]

    p = torch.stack([row.softmax(0) for row in 10 * score[~labeled]]).mean(0)
    kl = sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, method.q, strict=True))
    want = slow(torch.cat(z), both(~labeled), NONE.tolist(), 0.4)
    want += 0.2 * slow(torch.cat(z), both(labeled), LABEL.tolist(), 0.1)
    want += 0.7 * slow(torch.cat(z), both(new), score.argmax(1).tolist(), 0.7)
    out = method(these)
    assert out.loss.item() == pytest.approx(want + 0.5 * kl)
    assert out.log["new"].item() == pytest.approx(float(new[~labeled].double().mean()))
    assert out.log["divergence"].item() == pytest.approx(kl)


def test_without_labels_it_is_nt_xent() -> None:
    method, these = build(**ONLY["u"]), batch(NONE)
    torch.testing.assert_close(method(these).loss.detach(), nt_xent(*embeddings(method, these), temperature=0.4))


def test_with_every_label_it_is_supcon() -> None:
    method, these = build(lambda_l=1.0), batch(EVERY)
    want = supcon(embeddings(method, these), EVERY, temperature=0.1)
    torch.testing.assert_close(method(these).loss.detach(), want)


def test_where_all_look_new_and_prototypes_are_right_it_is_supcon_with_the_temperature_of_new_ones() -> None:
    # The labeled row is familiar: its class has a prototype where it stands, and the others stand elsewhere.
    method = build(**ONLY["n"] | {"lambda_n": 1.0, "percentile": 100.0})
    label = torch.tensor([0, *[MISSING] * 9])
    these = batch(label)
    z = embeddings(method, these)
    method.prototypes.weight[0] = z[0][0]
    method.prototypes.weight[1:3] = -z[0][1:].mean(0)
    method.prototypes.weight[3:] = z[0][[2, 5]]
    score = z[0] @ method.prototypes.weight.T
    new = unfamiliar(score, label == 0, known=3, percentile=100)
    assert new.sum() > 5
    want = supcon([part[new] for part in z], score.argmax(1)[new], temperature=0.7)
    torch.testing.assert_close(method(these).loss.detach(), want)


@pytest.mark.parametrize("label", [NONE, EVERY, torch.tensor([MISSING] * 9 + [0])], ids=["none", "all", "one"])
def test_any_part_may_be_empty(label: Tensor) -> None:
    method, these = build(), batch(label)
    out = step(method, sgd(method), these)
    assert out.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert all(value.isfinite() for value in out.log.values())
    if label is EVERY:
        assert out.log["divergence"] == 0


def test_the_order_within_the_batch_changes_nothing_of_the_loss() -> None:
    method = build()
    order = torch.tensor([7, 1, 5, 0, 4, 9, 2, 8, 3, 6])
    torch.testing.assert_close(method(batch()).loss, method(batch(order=order)).loss)


def test_the_third_term_rises_from_0_in_the_first_epochs() -> None:
    method, these = with_prototypes_in_place(build(**ONLY["n"] | {"rise": 10, "percentile": 5.0})), batch()
    losses = []
    for epoch in (0, 5, 10, 20):
        method.clock = clock(epoch)
        losses.append(method(these).loss.item())
    assert losses[0] == 0
    assert losses[1] == pytest.approx(losses[2] / 2)
    assert losses[3] == losses[2] > 0
    at_once = build(**ONLY["n"] | {"rise": 0, "percentile": 5.0})
    at_once.load_state_dict(method.state_dict())
    at_once.clock = clock(0)
    assert at_once(these).loss.item() == pytest.approx(losses[2])


def test_labeled_rows_and_those_that_a_new_prototype_takes_move_the_prototypes() -> None:
    method, these = build(), batch()
    before, z = method.prototypes.weight.clone(), embeddings(method, these)[0]
    want = before.clone()
    for row, label in zip(z, LABEL.tolist(), strict=True):
        c = int((before @ row).argmax()) if label == MISSING else label
        if label != MISSING or c >= 3:
            moved = 0.9 * want[c] + 0.1 * row
            want[c] = moved / moved.norm()
    out = method(these)
    assert torch.equal(method.prototypes.weight, before)
    method.after_step(out)
    torch.testing.assert_close(method.prototypes.weight, want)
    torch.testing.assert_close(want[:3] != before[:3], torch.ones(3, before.shape[1], dtype=torch.bool))


def test_kept_whole_the_prototypes_stay() -> None:
    method = build(kept=1.0)
    before = method.prototypes.weight.clone()
    step(method, sgd(method), batch())
    torch.testing.assert_close(method.prototypes.weight, before)


def test_what_it_assigns_is_the_nearest_prototype() -> None:
    method, these = build().eval(), batch()
    z = embeddings(method, these)[0]
    got = method.assign(these.views[0])
    assert torch.equal(got, (z[:, None] - method.prototypes.weight).norm(dim=2).argmin(1))
    assert got.dtype == torch.int64


def test_only_the_last_stage_and_the_head_are_trained_where_that_is_asked_for() -> None:
    method = build(train="last")
    before = copied_state(method)
    step(method, sgd(method), batch())
    changed = {name for name, p in method.named_parameters() if not torch.equal(before[name], p)}
    inside = {name for name in changed if name.startswith("encoder.")}
    assert inside == {"encoder.norm.weight", "encoder.norm.bias"}  # the last of the tiny encoder that has weights
    assert any(name.startswith("projector.") for name in changed)


def test_more_than_two_views_are_all_used() -> None:
    method, these = build(**ONLY["l"] | {"lambda_l": 1.0}), batch(EVERY)
    three = Batch([*these.views, these.views[0].flip(3)], these.index, these.label)
    h = method.encoder(torch.cat(three.views))
    z = torch.nn.functional.normalize(method.projector(h)).detach().chunk(3)
    torch.testing.assert_close(method(three).loss.detach(), supcon(list(z), EVERY, temperature=0.1))


def test_two_ranks_are_one_where_many_look_new(two_ranks: Pool) -> None:
    many = form("opencon", percentile=2.0, lambda_n=1.0)
    method = grown(many, dtype=torch.float64)
    batches = [many.batch(16, seed=seed, dtype=torch.float64) for seed in range(2)]
    assert method(batches[0]).log["new"] > 0
    hold_two_ranks_to_one(two_ranks, many, method, batches, tolerance=1e-10)
