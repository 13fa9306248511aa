from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.losses.supervised import supcon
from nearfar.method import Encoder
from nearfar.methods.excon import ExCon

from .small import TinyEncoder, clock, copied_state, form, freeze_norms, statistics

LABEL = torch.tensor([0, 1, 2, 0, 1, 2, MISSING, MISSING])
MODES = ["none", "negatives", "class"]


def build(answer: int | None = None, *, classes: int = 3, **arguments: Any) -> ExCon:
    """In double precision, with norms at rest and from the start; answer: what the classifier always says."""
    method = cast(ExCon, form("excon", after=0.0).build(**arguments))
    method.classifier = nn.Linear(method.encoder.dim, classes)
    method.double()
    freeze_norms(method)
    if answer is not None:
        with torch.no_grad():
            method.classifier.bias.copy_(1e6 * F.one_hot(torch.tensor(answer), method.classifier.out_features))
    return method


def a_batch(label: Tensor = LABEL) -> Batch:
    made = form("excon").batch(len(label), dtype=torch.float64)
    return Batch(made.views, made.index, label, made.group)


def embedded(method: ExCon, x: Tensor) -> Tensor:
    return F.normalize(method.projector(method.encoder(x)), dim=1)


def contrast(method: ExCon, batch: Batch) -> Tensor:
    """The loss without that of the classifier."""
    out = method(batch)
    return (out.loss - out.log["entropy"]).detach()


def test_nothing_masked_and_all_recognized_is_supcon_on_the_image_and_a_view() -> None:
    label = torch.zeros(6, dtype=torch.int64)
    method, batch = build(0), a_batch(label)
    method.threshold = -1.0  # below all maps: these may hold zeros
    x, v1, _ = batch.views
    out = method(batch)
    want = supcon([embedded(method, v1), embedded(method, x)], label, temperature=0.1)
    torch.testing.assert_close(out.loss - out.log["entropy"], want)
    assert out.log["explained"] == 1


@pytest.mark.parametrize("late", [False, True])
def test_nothing_recognized_or_too_early_is_supcon_on_two_random_views(late: bool) -> None:
    # A fourth class that nobody has, or an after that is yet to come.
    method, batch = build(3, classes=4) if late else build(after=0.5), a_batch()
    _, v1, v2 = batch.views
    want = supcon([embedded(method, v1), embedded(method, v2)], LABEL, temperature=0.1).detach()
    torch.testing.assert_close(contrast(method, batch), want)
    assert method(batch).log["explained"] == 0


@pytest.mark.parametrize("background", MODES)
def test_what_is_recognized_gives_its_image_and_what_is_not_its_other_view(background: str) -> None:
    method, batch = build(0, background=background), a_batch()
    x, v1, v2 = batch.views
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method(batch)
    right = LABEL == 0
    first, second, *rest = seen[-1].split(8)
    assert torch.equal(first, v1)
    assert torch.equal(second[~right], v2[~right])
    kept = (second == x).all(1)[right]  # N x H x W: whole pixels are kept or are 0.5
    assert (second.movedim(1, -1)[right][~kept] == 0.5).all()
    assert 0 < kept.double().mean() < 1
    assert len(rest) == (background != "none")
    if rest:
        assert torch.equal(rest[0][right], second[right])


def slow(z1: Tensor, z2: Tensor, back: Tensor, label: list[int], wrong: list[bool], *, anchors: bool) -> float:
    """The loss as the released code builds it: wrong images are appended to both views, under one new label."""
    extra = [b for b, bad in zip(back, wrong, strict=True) if bad]
    names = [y if y != MISSING else -10 - i for i, y in enumerate(label)]
    rows = [*z1, *extra, *z2, *extra]
    names = (names + [99] * len(extra)) * 2
    terms = []
    for i, anchor in enumerate(rows):
        if names[i] == 99 and not anchors:
            continue
        s = {j: (anchor @ rows[j] / 0.1) for j in range(len(rows)) if j != i}
        positives = [value for j, value in s.items() if names[j] == names[i]]
        terms.append(torch.stack(list(s.values())).logsumexp(0) - torch.stack(positives).mean())
    return torch.stack(terms).mean().item()


@pytest.mark.parametrize("background", ["negatives", "class"])
def test_background_is_that_of_a_loop(background: str) -> None:
    method, batch = build(1, background=background), a_batch()
    out = method(batch)
    right = LABEL == 1
    wrong = ~right & (LABEL >= 0)
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method(batch)
    z1, z2, back = (embedded(method, v).detach() for v in seen[-1].split(8))
    want = slow(z1, z2, back, LABEL.tolist(), wrong.tolist(), anchors=background == "class")
    assert (out.loss - out.log["entropy"]).item() == pytest.approx(want, rel=1e-9)
    assert int(wrong.sum()) == 4


def test_without_a_background_the_three_are_one_and_negatives_only_add() -> None:
    batch = a_batch(torch.zeros(6, dtype=torch.int64))
    assert len({round(contrast(build(0, background=mode), batch).item(), 10) for mode in MODES}) == 1
    plain, more = (contrast(build(0, background=mode), a_batch()) for mode in ("none", "negatives"))
    assert more > plain


def test_as_negatives_background_pushes_and_pulls_nothing() -> None:
    method, batch = build(background="negatives"), a_batch()
    wrong = torch.tensor([True, False, False, True, True, False, False, False])
    torch.manual_seed(0)
    z = [F.normalize(torch.randn(8, 5, dtype=torch.float64), dim=1).requires_grad_() for _ in range(3)]
    (slope,) = torch.autograd.grad(method.contrast(z, batch, wrong), z[2])
    assert not slope[~wrong].any()
    # It stands in the denominators of the 16 samples alone, twice in each.
    rows = torch.cat(z[:2]).detach()
    own = (rows @ rows.T / 0.1).exp().fill_diagonal_(0).sum(1, keepdim=True)
    back = 2 * (rows @ z[2].detach()[wrong].T / 0.1).exp()  # 16 x 3
    weight = back / (own + back.sum(1, keepdim=True)) / 16 / 0.1
    torch.testing.assert_close(slope[wrong], weight.T @ rows)
    one, none = wrong.clone(), torch.zeros_like(wrong)
    one[1:] = False
    values = [method.contrast(z, batch, w).item() for w in (none, one, wrong)]
    assert values == sorted(values)
    assert len(set(values)) == 3


def test_groups_spare_their_own_background() -> None:
    method = build(background="negatives")
    batch = replace(a_batch(), group=torch.arange(8))
    wrong = LABEL >= 0
    torch.manual_seed(0)
    z = [F.normalize(torch.randn(8, 5, dtype=torch.float64), dim=1) for _ in range(3)]
    apart = method.contrast(z, batch, wrong)
    assert apart < method.contrast(z, replace(batch, group=None), wrong)
    far = [*z[:2], -(z[0] + z[1])]
    gain = method.contrast(far, replace(batch, group=None), wrong) - method.contrast(far, batch, wrong)
    assert 0 <= gain < 1e-2, "a background far from its own sample hardly pushes it"


def test_the_classifier_learns_and_nothing_else_learns_from_it() -> None:
    method, batch = build(), a_batch()
    out = method(batch)
    names = [name for name, _ in method.named_parameters()]
    got = dict(zip(names, torch.autograd.grad(out.loss, list(method.parameters())), strict=True))
    h = method.encoder(batch.views[1]).detach()[:6]
    entropy = F.cross_entropy(method.classifier(h), LABEL[:6])
    torch.testing.assert_close(out.log["entropy"], entropy.detach())
    want = torch.autograd.grad(entropy, list(method.classifier.parameters()))
    torch.testing.assert_close([got["classifier.weight"], got["classifier.bias"]], list(want))
    rest = {name: p for name, p in method.named_parameters() if not name.startswith("classifier")}
    method.classifier.requires_grad_(False)
    alone = torch.autograd.grad(method(batch).loss, list(rest.values()))
    torch.testing.assert_close([got[name] for name in rest], list(alone))


def test_explaining_moves_no_statistics_and_sees_the_running_ones() -> None:
    method, early = form("excon", after=0.0).build(), form("excon", after=1.0).build()
    batch = form("excon").batch(8)
    batch.label[:] = MISSING  # nothing is recognized: both see the same views
    for one in (method, early):
        one.clock = clock(0)
        one(batch)
    for name in statistics(method):
        assert torch.equal(copied_state(method)[name], copied_state(early)[name])
    assert all(part.training for part in method.modules())


def test_it_classifies_with_a_gradient() -> None:
    method = build()
    x = a_batch().views[0].requires_grad_()
    logits = method.classify(x)
    assert logits.shape == (8, 3)
    (slope,) = torch.autograd.grad(logits.sum(), x)
    assert slope.any()


def test_wrong_views_and_stages_are_named() -> None:
    method, batch = build(), a_batch()
    batch.views.pop()
    with pytest.raises(ValueError, match="not 2 views: --views excon"):
        method(batch)
    for stage, words in ((0, "stage 0: .* 1 or more"), (4, "stage=4 .* 1 to 3")):
        with pytest.raises(ValueError, match=words):
            ExCon(cast(Encoder, TinyEncoder()), classes=3, stage=stage)
    ExCon(cast(Encoder, TinyEncoder()), classes=3, stage=9, explain="saliency")
