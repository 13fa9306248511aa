from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.losses.supervised import supcon
from nearfar.methods.esupcon import ESupCon

from .small import form, freeze_norms

LABEL = torch.tensor([0, 1, 2, 0, MISSING, 0, 1, MISSING])


def build(**arguments: Any) -> ESupCon:
    method = cast(ESupCon, form("esupcon").build(**arguments)).double()
    freeze_norms(method)
    return method


def a_batch(label: Tensor = LABEL, views: int = 2) -> Batch:
    made = form("esupcon").batch(len(label), dtype=torch.float64)
    return Batch(made.views[:views], made.index, label)


def embedded(method: ESupCon, batch: Batch) -> Tensor:
    return F.normalize(method.projector(method.encoder(torch.cat(batch.views)))).detach()


def slow(z: Tensor, w: Tensor, label: list[int], *, t: float, beta: float) -> float:
    """The formula, row by row and class by class."""
    names = [y if y != MISSING else -10 - i for i, y in enumerate(label)] * (len(z) // len(label))
    terms = []
    for i in range(len(z)):
        known = names[i] >= 0
        below = [z[i] @ z[a] / t for a in range(len(z)) if a != i] + [z[i] @ c / t for c in w if known]
        above = [z[i] @ z[p] / t for p in range(len(z)) if p != i and names[p] == names[i]]
        above += [z[i] @ w[names[i]] / t] if known else []
        if above:
            terms.append(torch.stack(below).logsumexp(0) - torch.stack(above).mean())
    classes = []
    for c in sorted({y for y in names if y >= 0}):
        logits = z @ w[c] / t
        classes.append(logits.logsumexp(0) - logits[[y == c for y in names]].mean())
    return float(torch.stack(terms).mean() + beta * torch.stack(classes).mean())


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.3])
def test_the_loss_is_that_of_a_loop(views: int, beta: float) -> None:
    method, batch = build(beta=beta), a_batch(views=views)
    w = F.normalize(method.prototypes).detach()
    want = slow(embedded(method, batch), w, LABEL.tolist(), t=0.1, beta=beta)
    assert method(batch).loss.item() == pytest.approx(want, rel=1e-10)


def test_one_sample_alone_has_the_entropy_of_a_classifier_of_cosines() -> None:
    method, batch = build(beta=0.0), a_batch(torch.tensor([2]), views=1)
    cosines = embedded(method, batch) @ F.normalize(method.prototypes).T
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(cosines / 0.1, torch.tensor([2])))
    torch.testing.assert_close(method.classify(batch.views[0]), cosines / 0.1)


def test_without_labels_it_is_supcon() -> None:
    method, batch = build(), a_batch(torch.full((8,), MISSING))
    z = list(embedded(method, batch).chunk(2))
    torch.testing.assert_close(method(batch).loss.detach(), supcon(z, batch.label, temperature=0.1))


def test_the_length_of_prototypes_does_not_matter_and_names_of_classes_neither() -> None:
    method, batch = build(joint=0.5), a_batch()
    want = method(batch).loss.detach()
    with torch.no_grad():
        method.prototypes *= torch.tensor([[3.0], [0.2], [1.0]])
    torch.testing.assert_close(method(batch).loss.detach(), want)
    order = torch.tensor([2, 0, 1])  # the new name of each class
    with torch.no_grad():
        method.prototypes[order] = method.prototypes.clone()
    renamed = torch.where(LABEL >= 0, order[LABEL.clamp(min=0)], MISSING)
    torch.testing.assert_close(method(a_batch(renamed)).loss.detach(), want)


def test_joint_adds_a_cross_entropy_and_the_prior_shifts_it() -> None:
    plain, joint = build(), build(joint=0.5)
    out = joint(a_batch())
    b = embedded(joint, a_batch()) @ F.normalize(joint.prototypes).T / 0.1
    want = F.cross_entropy(b, LABEL.repeat(2), ignore_index=MISSING)
    torch.testing.assert_close(out.loss, plain(a_batch()).loss + 0.5 * want)
    even, uneven = build(prior=True), build(prior=True, joint=0.5)
    torch.testing.assert_close(even.log_prior, torch.full((3,), -math.log(3)).double(), check_dtype=False)
    with torch.no_grad():
        uneven.log_prior.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
    want = F.cross_entropy(b + uneven.log_prior, LABEL.repeat(2), ignore_index=MISSING)
    torch.testing.assert_close(uneven(a_batch()).log["entropy"], want.detach())
    torch.testing.assert_close(uneven.classify(a_batch().views[0]), plain.classify(a_batch().views[0]))


def test_embeddings_that_are_all_alike_have_a_finite_loss() -> None:
    method, batch = build(beta=0.0), a_batch()
    batch.views = [torch.full_like(view, 0.5) for view in batch.views]
    out = method(batch)
    assert out.loss.isfinite()
    known = LABEL.repeat(2) >= 0
    # At best the prototypes are as near: then 15 rows and 3 prototypes, or 15 rows, are told apart by nothing.
    with torch.no_grad():
        method.prototypes.copy_(embedded(method, batch)[:3])
    least = torch.where(known, math.log(18), math.log(15)).mean().item()
    assert method(batch).loss.item() == pytest.approx(least, abs=1e-6)


def test_prototypes_of_absent_classes_are_pushed_alone() -> None:
    label = torch.zeros(8, dtype=torch.long)
    method, batch = build(), a_batch(label)
    (slope,) = torch.autograd.grad(method(batch).loss, method.prototypes)
    z = embedded(method, batch).mean(0)
    w = F.normalize(method.prototypes).detach()
    away = -slope - (-slope * w).sum(1, keepdim=True) * w
    assert (away[1:] @ z < 0).all(), "downhill, they leave the samples"
    assert away[0] @ z > 0
