from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.losses.instances import nce
from nearfar.method import start_epoch
from nearfar.methods.cmc import CMC
from nearfar.modalities.image.encoder import image_encoder

from .small import clock, form, sgd, step

cmc = form("cmc")


def build(**arguments: Any) -> CMC:
    return cast(CMC, form("cmc", **arguments).build())


def of_sensors(name: str, channels: int, **arguments: Any) -> tuple[CMC, Batch]:
    """On an encoder whose networks see different channels, and a batch of images with so many."""
    torch.manual_seed(0)
    encoder = image_encoder(name, channels=channels, size=16)
    method = CMC(encoder, samples=12, dim=8, negatives=20, **arguments).double().train()
    views = [torch.rand(6, channels, 16, 16, dtype=torch.float64) for _ in range(2)]
    return method, Batch(views, torch.arange(6), torch.zeros(6, dtype=torch.long))


def test_each_part_is_scored_against_the_bank_of_the_other() -> None:
    method, batch = of_sensors("ycbcr:conv4", 3)
    step(method, sgd(method), batch)  # from here on Z is known
    method.clock = clock(1)
    light, color = method.encoder.streams()
    with torch.no_grad():
        v = [
            F.normalize(project(stream(view)))
            for project, stream, view in zip(method.projectors, (light, color), batch.views, strict=True)
        ]
    picked = torch.randint(12, (20,), generator=method.clock.generator())
    banks = [bank.rows for bank in method.stored]
    assert method.log_z.shape == (2,)
    want = [
        nce(v[a], banks[b][:6], banks[b][picked], temperature=0.07, log_z=method.log_z[n], samples=12)
        for n, (a, b) in enumerate([(0, 1), (1, 0)])
    ]
    torch.testing.assert_close(method(batch).loss, sum(want, torch.zeros(())).double())


@pytest.mark.parametrize(("core", "pairs"), [(False, 6), (True, 4)])
def test_pairs_of_three_sensors(core: bool, pairs: int) -> None:
    method, batch = of_sensors("0+1+2,3:conv4", 4, contrast="softmax", core=core)
    assert len(method.pairs) == pairs
    assert all(not core or 0 in pair for pair in method.pairs)
    with torch.no_grad():
        for bank in method.stored:
            bank.rows[:] = bank.rows[:1]
    torch.testing.assert_close(float(method(batch).loss.detach()), pairs * math.log(12))
    chance = method.chance(batch)
    assert chance is not None
    assert float(chance) == pytest.approx(pairs * math.log(12))


def test_of_two_sensors_the_core_is_all() -> None:
    losses = [of_sensors("0+1:conv4", 2, core=core)[0](of_sensors("0+1:conv4", 2)[1]).loss for core in (False, True)]
    assert torch.equal(losses[0], losses[1])


def test_twice_the_same_part_is_twice_instdisc() -> None:
    method, batch = build(contrast="infonce"), cmc.batch(8)
    one, two = method.encoder.get_submodule("nets").children()
    two.load_state_dict(one.state_dict())
    method.projectors[1].load_state_dict(method.projectors[0].state_dict())
    method.stored[1].load_state_dict(method.stored[0].state_dict())
    same = Batch([batch.views[0]] * 2, batch.index, batch.label)
    v, bank = method.parts(same.views)[0], method.stored[0].rows
    picked = torch.randint(40, (method.contrast.negatives,), generator=method.clock.generator())
    logits = torch.cat([(v * bank[:8]).sum(1, keepdim=True), v @ bank[picked].T], 1) / method.contrast.temperature
    want = 2 * F.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(method(same).loss, want)


def test_each_bank_gets_its_own_part() -> None:
    method, batch = build(momentum=0.5), cmc.batch(8)
    before = [bank.rows.clone() for bank in method.stored]
    out = step(method, sgd(method), batch)
    for bank, old, v in zip(method.stored, before, out.carry[0], strict=True):
        torch.testing.assert_close(bank.rows[:8], F.normalize(old[:8] + v.detach()))
        assert torch.equal(bank.rows[8:], old[8:])


def test_a_look_fills_every_bank_with_its_own_part() -> None:
    method = build(first="look")
    look = cmc.look(method)
    start_epoch(method, look)
    method.eval()
    for number, bank in enumerate(method.stored):

        def part(view: Tensor, number: int = number) -> Tensor:
            return method.parts([view])[number]

        torch.testing.assert_close(bank.rows, look(part).detach())


def test_what_is_looked_at_is_what_the_encoder_gives() -> None:
    method, batch = of_sensors("0+0:conv4", 1)
    method.eval()
    method.representations = []
    method.parts([batch.views[0]])
    torch.testing.assert_close(method.representations[0], method.encoder(batch.views[0]))


def test_an_encoder_of_one_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one network.* such as ycbcr:resnet18"):
        of_sensors("conv4", 3)
