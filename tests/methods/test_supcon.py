from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Method
from nearfar.methods.supcon import SupCon

from .small import Form, form, sgd, step

supcon, inside = form("supcon"), form("supcon", mean="inside")
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0, 1, MISSING])


def batch(label: Tensor = LABEL, *views: Tensor) -> Batch:
    made = supcon.batch(len(label), dtype=torch.float64)
    return Batch(list(views) or made.views, made.index, label, made.group)


def embeddings(method: Method, batch: Batch) -> Tensor:
    h = method.encoder(torch.cat(batch.views))
    return torch.nn.functional.normalize(method.get_submodule("projector")(h)).detach()


def slow(z: Tensor, label: list[int], *, inside: bool) -> float:
    """Both losses, anchor by anchor, as the paper writes them."""
    terms = []
    for i in range(len(z)):
        s = [float(z[i] @ z[j]) / 0.1 for j in range(len(z))]
        positives = [j for j in range(len(z)) if j != i and label[j] == label[i]]
        everyone = math.log(sum(math.exp(s[j]) for j in range(len(z)) if j != i))
        if inside:
            terms.append(everyone - math.log(sum(math.exp(s[p]) for p in positives) / len(positives)))
        else:
            terms.append(sum(everyone - s[p] for p in positives) / len(positives))
            assert terms[-1] >= math.log(len(positives)) - 1e-12
    return sum(terms) / len(terms)


@pytest.mark.parametrize("form", [supcon, inside], ids=["outside", "inside"])
@pytest.mark.parametrize("label", [LABEL, torch.zeros(6, dtype=torch.long)], ids=["some", "one class"])
def test_loss_is_that_of_a_loop_over_anchors(form: Form, label: Tensor) -> None:
    method, these = form.build().double(), batch(label)
    names = [value if value != MISSING else -10 - i for i, value in enumerate(label.tolist())]
    want = slow(embeddings(method, these), names * 2, inside=form is inside)
    torch.testing.assert_close(method(these).loss.item(), want)


@pytest.mark.parametrize("form", [supcon, inside], ids=["outside", "inside"])
@pytest.mark.parametrize("label", [torch.arange(6), torch.full((6,), MISSING)], ids=["unique", "missing"])
def test_where_no_two_share_a_label_the_loss_is_that_of_simclr(form: Form, label: Tensor) -> None:
    method, these = form.build().double(), batch(label)
    want = nt_xent(*embeddings(method, these).chunk(2), temperature=0.1)
    torch.testing.assert_close(method(these).loss.detach(), want)


def test_inside_is_never_larger_than_outside() -> None:
    assert inside.build().double()(batch()).loss < supcon.build().double()(batch()).loss


def test_swapped_views_and_permuted_samples_have_the_same_loss() -> None:
    method, these = supcon.build().double(), batch()
    want = method(these).loss
    torch.testing.assert_close(method(batch(LABEL, *these.views[::-1])).loss, want)
    order = torch.tensor([7, 2, 4, 0, 1, 3, 6, 5])
    torch.testing.assert_close(method(batch(LABEL[order], *(view[order] for view in these.views))).loss, want)
    renamed = torch.tensor([5, 3, 5, MISSING, 0, 5, 3, MISSING])
    torch.testing.assert_close(method(batch(renamed)).loss, want)


def test_base_temperature_scales_the_loss() -> None:
    scaled = form("supcon", base_temperature=0.07)
    torch.testing.assert_close(scaled.build()(supcon.batch(8)).loss, supcon.build()(supcon.batch(8)).loss * 0.1 / 0.07)


def test_one_view_counts_the_anchors_that_have_a_positive() -> None:
    method = supcon.build().double()
    alone = method(batch(LABEL, supcon.batch(8, dtype=torch.float64).views[0]))
    assert alone.log["with_positive"].item() == pytest.approx(5 / 8)
    assert alone.loss.isfinite()
    assert method(batch()).log["with_positive"] == 1
    nobody = method(batch(torch.arange(8), supcon.batch(8, dtype=torch.float64).views[0]))
    assert nobody.loss == 0
    nobody.loss.backward()
    assert all(not p.grad.any() for p in method.parameters() if p.grad is not None)


queued = form("supcon", queue=16, momentum=0.5)


def test_without_a_queue_there_is_no_second_network() -> None:
    method = supcon.build()
    assert {name.split(".")[0] for name in method.state_dict()} == {"encoder", "projector"}
    assert method(batch(LABEL, *(view.float() for view in supcon.batch(8).views))).carry is None


def test_a_queue_that_is_not_yet_written_is_further_negatives() -> None:
    method, these = queued.build().double(), batch()
    z, queue = embeddings(method, these), method.get_buffer("queue.keys")
    s = torch.cat([z @ z.T / 0.1, z @ queue.T / 0.1], 1)
    s[:, :16].fill_diagonal_(-math.inf)
    names = torch.where(LABEL == MISSING, -10 - torch.arange(8), LABEL).repeat(2)
    positive = (names[:, None] == names).fill_diagonal_(False)
    pull = torch.where(positive, s[:, :16], 0).sum(1) / positive.sum(1)
    torch.testing.assert_close(method(these).loss.detach(), (s.logsumexp(1) - pull).mean())
    chance = cast(SupCon, method).chance(these)
    assert chance is not None
    assert float(chance) == pytest.approx(math.log(15 + 16))


def test_the_queue_gets_what_the_copy_made_of_each_view_with_labels_and_groups() -> None:
    method, made = queued.build(), supcon.batch(4, grouped=True)
    these = Batch(made.views, made.index, LABEL[:4], made.group)
    with torch.no_grad():
        h = method.get_submodule("queue.slow.encoder")(torch.cat(these.views))
        keys = torch.nn.functional.normalize(method.get_submodule("queue.slow.projector")(h))
    slow = [p.clone() for p in method.get_submodule("queue.slow.projector").parameters()]
    step(method, sgd(method), these)
    torch.testing.assert_close(method.get_buffer("queue.keys")[:8], keys)
    assert method.get_buffer("queue.label").tolist() == [*LABEL[:4].tolist() * 2, *[MISSING] * 8]
    assert these.group is not None
    assert method.get_buffer("queue.group").tolist() == [*these.group.tolist() * 2, *[MISSING] * 8]
    now = zip(
        slow, *(method.get_submodule(f"{name}projector").parameters() for name in ("", "queue.slow.")), strict=True
    )
    for before, fast, after in now:
        torch.testing.assert_close(after, (before + fast) / 2)


def test_keys_of_a_class_are_positives_wherever_they_stand() -> None:
    method, these = queued.build().double(), batch()
    step(method, sgd(method), these)
    z, queue = embeddings(method, these), method.get_buffer("queue.keys")
    names = torch.where(LABEL == MISSING, -10 - torch.arange(8), LABEL).repeat(2)
    every = torch.cat([names, torch.where(LABEL == MISSING, -99, LABEL).repeat(2)])
    s = torch.cat([z @ z.T, z @ queue.T], 1) / 0.1
    s.fill_diagonal_(-math.inf)
    positive = names[:, None] == every
    positive.fill_diagonal_(False)
    want = s.logsumexp(1) - torch.where(positive, s, 0).sum(1) / positive.sum(1)
    torch.testing.assert_close(method(these).loss.detach(), want.mean())
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for name in ("keys", "label", "group"):
        method.get_buffer(f"queue.{name}").copy_(method.get_buffer(f"queue.{name}")[shuffle])
    torch.testing.assert_close(method(these).loss.detach(), want.mean())


@pytest.mark.parametrize("norm", [False, True])
def test_batch_norm_keeps_the_embeddings_of_like_representations_apart(norm: bool) -> None:
    method = form("supcon", norm=norm).build()
    like = 1 + 1e-3 * torch.randn(32, method.encoder.dim, generator=torch.Generator().manual_seed(0))
    z = torch.nn.functional.normalize(method.train().get_submodule("projector")(like))
    assert bool((z @ z.mT).min() < 0) == norm
