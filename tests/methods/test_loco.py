from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from nearfar.distributed import normalize
from nearfar.losses.pairwise import nt_xent
from nearfar.method import frozen_statistics
from nearfar.methods.loco import LoCo
from nearfar.methods.simclr import SimCLR
from nearfar.modalities.image.encoder import image_encoder

from .small import form, norms

batch = form("loco").batch(6, dtype=torch.float64)
BOTH = torch.cat([nn.functional.interpolate(view, 16) for view in batch.views])
batch.views = list(BOTH.chunk(2))


def build(**arguments: int) -> LoCo:
    torch.manual_seed(0)
    return LoCo(image_encoder("conv4", size=16), dim=8, **arguments).double().train()


def of_stages(method: LoCo) -> list[list[nn.Parameter]]:
    return [list(stage.parameters()) for stage in method.encoder.stages()[:-1]]


def each_unit(method: LoCo) -> list[Tensor]:
    """The losses of the units, of one pass through the whole network that nothing cuts."""
    *stages, pool = method.encoder.stages()
    reach, h, losses = len(stages) - len(method.decoders) + 1, BOTH, []
    for number, stage in enumerate(stages):
        h = stage(h)
        if (u := number + 1 - reach) >= 0:
            top = method.decoders[u](h)
            top = pool(top) if number + 1 == len(stages) else top.mean((2, 3))
            losses.append(nt_xent(*normalize(method.projectors[u](top)).chunk(2), temperature=0.1))
    return losses


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("reach", [1, 2, 3])
def test_gradients_are_those_of_each_loss_within_its_unit_summed(reach: int, blocks: int) -> None:
    method = build(reach=reach, blocks=blocks)
    method.requires_grad_()
    with frozen_statistics(method):
        losses = each_unit(method)
        assert len(losses) == 5 - reach
        parts = of_stages(method)
        want = [[torch.zeros_like(p) for p in part] for part in parts]
        for u, loss in enumerate(losses):
            for s in range(u, u + reach):
                for total, g in zip(want[s], torch.autograd.grad(loss, parts[s], retain_graph=True), strict=True):
                    total += g
        got = method(batch).loss
    torch.testing.assert_close(got, torch.stack(losses).sum())
    got.backward()
    for part, wanted in zip(parts, want, strict=True):
        torch.testing.assert_close([p.grad for p in part], wanted)


@pytest.mark.parametrize("reach", [1, 2])
def test_a_loss_reaches_the_stages_of_its_unit_alone_though_all_below_change_it(reach: int) -> None:
    method = build(reach=reach)
    parts = of_stages(method)
    for u in range(len(method.projectors)):
        method.zero_grad(set_to_none=True)
        weights = iter([float(other == u) for other in range(len(method.projectors))])
        method.loss = lambda z, batch, weights=weights: LoCo.loss(method, z, batch) * next(weights)
        method(batch).loss.backward()
        reached = [s for s, part in enumerate(parts) if any(p.grad is not None and p.grad.any() for p in part)]
        assert reached == list(range(u, u + reach))
    with frozen_statistics(method):
        before = [float(loss.detach()) for loss in each_unit(method)]
        with torch.no_grad():
            parts[0][0].mul_(1 + torch.rand_like(parts[0][0]))
        after = [float(loss.detach()) for loss in each_unit(method)]
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("reach", [4, 9])
def test_one_unit_of_all_stages_is_simclr(reach: int) -> None:
    method = build(reach=reach, blocks=0)
    torch.manual_seed(1)
    simclr = SimCLR(image_encoder("conv4", size=16), dim=8).double().train()
    simclr.encoder.load_state_dict(method.encoder.state_dict())
    simclr.projector.load_state_dict(method.projectors[0].state_dict())
    losses = [m(batch).loss for m in (method, simclr)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for p, other in zip(method.encoder.parameters(), simclr.encoder.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad)


def test_what_is_looked_at_is_what_the_encoder_makes_and_its_statistics_move_once() -> None:
    method = build()
    with frozen_statistics(method):
        want = method.encoder(BOTH)
    method.representations = []
    method(batch)
    (seen,) = method.representations
    torch.testing.assert_close(seen, want)
    assert {int(norm.get_buffer("num_batches_tracked")) for norm in norms(method).values()} == {1}


def test_encoders_without_stages_and_units_without_any_are_refused() -> None:
    with pytest.raises(ValueError, match="test_vit cannot be had in stages"):
        LoCo(image_encoder("test_vit", size=96))
    with pytest.raises(ValueError, match="reach 0"):
        build(reach=0)


def test_a_unit_is_freed_before_the_next_begins() -> None:
    method = build()
    held: list[int] = []

    def watched(module: nn.Module, inputs: object, out: Tensor) -> None:
        gone.append(weakref.ref(out))
        held.append(sum(ref() is not None for ref in gone))

    gone: list[weakref.ref[Tensor]] = []
    for projector in method.projectors:
        projector.register_forward_hook(watched)
    out = method(batch)
    assert held == [1, 1, 1]
    assert all(p.grad is None for p in method.parameters())
    out.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
