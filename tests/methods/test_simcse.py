from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.pairwise import hard_info_nce, info_nce_batch
from nearfar.method import Encoder
from nearfar.methods.simcse import SimCSE

from .small import clock, form

plain = form("simcse")


def batch(views: int = 2) -> Batch:
    """Views of images, which stand for sentences."""
    made = plain.batch(8, dtype=torch.float64)
    return Batch([*made.views, made.views[0].flip(0)][:views], made.index, made.label)


def rows(method: nn.Module, given: Batch) -> list[Tensor]:
    h = method.get_submodule("encoder")(torch.cat(given.views))
    return list(method.get_submodule("projector")(h).chunk(len(given.views)))


def test_loss_is_one_direction_of_cosines_between_first_and_second_views() -> None:
    method = plain.build().double()
    z1, z2 = rows(method, batch())
    logits = F.cosine_similarity(z1[:, None], z2[None], dim=2) / 0.05
    torch.testing.assert_close(method(batch()).loss, F.cross_entropy(logits, torch.arange(8)))
    both = form("simcse", both=True).build().double()
    want = (F.cross_entropy(logits, torch.arange(8)) + F.cross_entropy(logits.T, torch.arange(8))) / 2
    torch.testing.assert_close(both(batch()).loss, want)


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_hard_negatives_are_columns_of_their_own_and_the_weight_is_an_offset_on_their_diagonal(weight: float) -> None:
    method = form("simcse", hard_negatives=True, hard_weight=weight).build().double()
    z1, z2, z3 = rows(method, batch(3))
    near, far = (F.cosine_similarity(z1[:, None], z[None], dim=2) / 0.05 for z in (z2, z3))
    logits = torch.cat([near, far + weight * torch.eye(8)], 1)
    torch.testing.assert_close(method(batch(3)).loss, F.cross_entropy(logits, torch.arange(8)))
    assert float(method.chance(batch(3))) == pytest.approx(math.log(15 + math.exp(weight)))


def test_without_the_layer_rows_are_the_representation_and_their_length_does_not_count() -> None:
    method = form("simcse", mlp=False).build().double()
    z1, z2 = rows(method, batch())
    torch.testing.assert_close(z1, method.encoder(torch.cat(batch().views)).chunk(2)[0])
    want = info_nce_batch(F.normalize(5 * z1), F.normalize(z2), temperature=0.05)
    torch.testing.assert_close(method(batch()).loss, want)
    assert len(list(method.projector.parameters())) == 0
    widths = [tuple(p.shape) for p in plain.build().projector.parameters()]
    assert widths == [(24, 24), (24,)]


def test_other_numbers_of_views_are_refused() -> None:
    with pytest.raises(UserError, match="2 views"):
        plain.build().double()(batch(3))
    two = form("simcse", hard_negatives=True).build().double()(batch(2))
    torch.testing.assert_close(two.loss, plain.build().double()(batch(2)).loss)
    assert (plain.build().fewest_views, plain.build().most_views) == (2, 2)


class Restoring(Encoder):
    """An encoder that has a head to restore what is hidden."""

    dim = 24

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, view: Tensor) -> Tensor:
        return self.net(view)

    def restorer(self) -> nn.Module:
        return Head()


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, encoder: nn.Module, view: Tensor, generator: torch.Generator, most: int = 0) -> Tensor:
        return self.weight.sum() * encoder(view).square().mean() * torch.rand((), generator=generator)


class Mute(Encoder):
    dim = 24


def test_hidden_tokens_are_restored_beside_the_loss_and_before_it() -> None:
    encoder = Restoring(plain.build().encoder)
    method = SimCSE(encoder, mlm=0.1, warm_start_epochs=2).double()
    method.clock = clock(1)
    step = method(batch())
    want = Head().double()(encoder, batch().views[0], method.clock.generator())
    torch.testing.assert_close(step.loss, want)
    step.loss.backward()
    assert all(p.grad is not None for p in method.parameters()), "on several processes each weight needs a gradient"
    method.clock = clock(2)
    step = method(batch())
    z1, z2 = (F.normalize(z) for z in rows(method, batch()))
    want = hard_info_nce(z1, z2, temperature=0.05) + 0.1 * Head().double()(
        encoder, batch().views[0], method.clock.generator()
    )
    torch.testing.assert_close(step.loss, want)
    with pytest.raises(UserError, match="masked language modeling is for sentences"):
        SimCSE(Mute(), mlm=0.1)


def test_after_a_warm_start_alone_nothing_is_restored_and_all_weights_have_a_gradient() -> None:
    method = SimCSE(Restoring(plain.build().encoder), warm_start_epochs=2).double()
    method.clock = clock(2)
    step = method(batch())
    z1, z2 = (F.normalize(z) for z in rows(method, batch()))
    torch.testing.assert_close(step.loss, hard_info_nce(z1, z2, temperature=0.05))
    step.loss.backward()
    assert all(p.grad is not None for p in method.parameters())
