from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.supervised import supcon
from nearfar.methods import unicon as file
from nearfar.methods.unicon import UniCon

from .small import clock, form, freeze_norms, statistics

LABEL = torch.tensor([0, 1, 2, 0, 1, MISSING, 2, MISSING])
MODES = [{}, {"pull": False}, {"mix": "cutmix"}]


def build(**arguments: Any) -> UniCon:
    method = cast(UniCon, form("unicon").build(**arguments)).double()
    freeze_norms(method)
    return method


def a_batch(label: Tensor = LABEL) -> Batch:
    made = form("unicon").batch(len(label), dtype=torch.float64)
    return Batch(made.views, made.index, label)


def embedded(method: UniCon, views: list[Tensor]) -> list[Tensor]:
    return list(normalize(method.projector(method.encoder(torch.cat(views)))).chunk(len(views)))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_images_and_mixtures_pass_in_two_batches(mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch, seen = build(mix=mix, lam=0.4), a_batch(), []
    given: list[Any] = []
    monkeypatch.setattr(file, "universum", lambda *args, **kwargs: given.append((args, kwargs)) or args[0][0].sum())
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method(batch)
    assert torch.equal(seen[0], torch.cat(batch.views))
    partner = given[0][0][3]
    own = torch.cat(batch.views)
    other = batch.views[0][partner]
    assert (LABEL[partner] != LABEL.repeat(2))[LABEL.repeat(2) >= 0].all()
    if mix == "mixup":
        torch.testing.assert_close(seen[1], 0.6 * own + 0.4 * other)
    else:
        assert ((seen[1] == own) | (seen[1] == other)).all()
    (views, mixed, label, _), options = given[0]
    torch.testing.assert_close(torch.cat(views), torch.cat(embedded(method, [own])))
    torch.testing.assert_close(torch.cat(mixed), torch.cat(embedded(method, [seen[1]])))
    assert label is batch.label
    assert options == {"temperature": 0.1, "pull": True, "base_temperature": None, "group": None}


def test_without_the_other_half_it_is_supcon() -> None:
    method, batch = build(lam=0.0), a_batch()
    torch.testing.assert_close(method(batch).loss, supcon(embedded(method, batch.views), LABEL, temperature=0.1))


@pytest.mark.parametrize("arguments", MODES)
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_a_batch_of_one_class_has_the_loss_of_supcon(arguments: dict[str, Any], rows: int) -> None:
    label = torch.zeros(rows, dtype=torch.int64)
    method, batch = build(base_temperature=0.07, **arguments), a_batch(label)
    want = supcon(embedded(method, batch.views), label, temperature=0.1, base_temperature=0.07)
    torch.testing.assert_close(method(batch).loss, want)


@pytest.mark.parametrize("arguments", MODES)
def test_mixtures_get_a_gradient_and_follow_the_step(arguments: dict[str, Any]) -> None:
    method, batch = build(**arguments), a_batch()
    inputs: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, given: inputs.append(given[0].requires_grad_()) or given)
    for slope in torch.autograd.grad(method(batch).loss, inputs):
        assert slope.flatten(1).any(1).all()
    method.clock = clock(1)
    method(batch)
    assert torch.equal(inputs[0], inputs[2])
    assert not torch.equal(inputs[1], inputs[3]), "another step has other partners"


def test_running_statistics_are_of_images_and_of_mixtures_in_turn() -> None:
    method, batch = cast(UniCon, form("unicon").build(lam=1.0)), form("unicon").batch(8)
    batch.views = [view + number for number, view in enumerate(batch.views)]  # partners are of the darker view
    means = []
    for number in range(2):
        method.clock = clock(number)
        before = method.state_dict()["encoder.norm.running_mean"].clone()
        method(batch)
        means.append(method.state_dict()["encoder.norm.running_mean"] - 0.9 * before)
    assert len(statistics(method)) == 3
    conv = cast(torch.nn.Conv2d, method.encoder.conv)
    whole = conv(torch.cat(batch.views)).mean((0, 2, 3)).detach() * 0.1
    torch.testing.assert_close(means[0], whole)
    assert not torch.allclose(means[1], whole, atol=1e-3)
