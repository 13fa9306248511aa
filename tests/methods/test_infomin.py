from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.method import Encoder
from nearfar.methods.infomin import InfoMin
from nearfar.nn.color_flow import ColorFlow

from .small import Form, TinyEncoder, clock, copied_state, form, freeze_norms, sgd, step

infomin = form("infomin")


def build(form: Form = infomin, **arguments: Any) -> InfoMin:
    return cast(InfoMin, form.build(**arguments))


def value(method: InfoMin, batch: Batch) -> Tensor:
    return method(batch).loss.detach()


def test_without_patches_it_is_moco() -> None:
    method, moco = build(beta=0.0).double(), form("moco", temperature=0.15).build().double()
    moco.load_state_dict({name: x for name, x in method.state_dict().items() if not name.startswith("patches.")})
    batch = infomin.batch(8, dtype=torch.float64)
    torch.testing.assert_close(value(method, batch), moco(batch).loss.detach())


def test_patches_look_for_the_same_key_in_the_same_queue() -> None:
    method, batch = build(beta=0.3).double(), infomin.batch(6, dtype=torch.float64)
    freeze_norms(method)
    q, k = method.query(batch.views[0]), method.key(batch.views[1])
    want = 0.7 * method.loss(q, k, batch) + 0.3 * method.loss(method.shuffled(batch.views[0]), k, batch)
    torch.testing.assert_close(method(batch).loss, want)


def test_symmetric_patches_meet_the_key_of_the_other_view() -> None:
    method, batch = build(form("infomin", symmetric=True)).double(), infomin.batch(6, dtype=torch.float64)
    freeze_norms(method)
    both = value(method, batch)
    method.symmetric = False
    other = Batch(batch.views[::-1], batch.index, batch.label)
    torch.testing.assert_close(both, (value(method, batch) + value(method, other)) / 2)


def test_patches_never_enter_the_queue_and_move_no_statistics() -> None:
    method, moco, batch = build(beta=1.0), form("moco").build(), infomin.batch(8)
    moco.load_state_dict({name: x for name, x in method.state_dict().items() if not name.startswith("patches.")})
    for one in (method, moco):
        one.after_step(one(batch))
    want = moco.state_dict()
    for name, got in copied_state(method).items():
        if not name.startswith("patches."):
            torch.testing.assert_close(got, want[name], msg=name)


def test_learned_views_share_no_channel_and_an_identity_gives_those_of_the_image() -> None:
    method = build(learned=True)
    v1, v2 = infomin.batch(4).views
    first, rest = method.split(v1, v2)
    assert torch.equal(first[:, 0], v1[:, 0])
    assert (first[:, 1:] == 0.5).all()
    assert torch.equal(rest[:, 1:], v2[:, 1:])
    assert (rest[:, 0] == 0.5).all()


def test_the_generator_climbs_where_the_networks_descend() -> None:
    method, batch = build(learned=True).double(), infomin.batch(8, dtype=torch.float64)
    flow = cast(ColorFlow, method.flow)
    method(batch).loss.backward()
    down = [p.grad.clone() for p in flow.parameters() if p.grad is not None]
    rest = {name: p for name, p in method.named_parameters() if "flow" not in name}
    others = {name: p.grad.clone() for name, p in rest.items() if p.grad is not None}
    method.before_step()
    for p, gradient in zip(flow.parameters(), down, strict=True):
        torch.testing.assert_close(p.grad, -gradient)
    for name, gradient in others.items():
        assert torch.equal(cast(Tensor, method.get_parameter(name).grad), gradient)
    before = value(method, batch)
    with torch.no_grad():
        for p in flow.parameters():
            p -= 1e-3 * cast(Tensor, p.grad)  # a step of the optimizer
    assert value(method, batch) > before


def test_the_generator_moves_once_in_inner_steps() -> None:
    method = build(learned=True, inner=2)
    flow, optimizer, moved = cast(ColorFlow, method.flow), sgd(method), []
    for number in range(4):
        method.clock = clock(number)
        before = copied_state(flow)
        step(method, optimizer, infomin.batch(8))
        moved.append(any(not torch.equal(before[name], x) for name, x in flow.state_dict().items()))
    assert moved == [True, False, True, False]


def test_gray_images_have_no_views_to_learn() -> None:
    with pytest.raises(ValueError, match="3 channels, not 1"):
        InfoMin(cast(Encoder, TinyEncoder()), channels=1, learned=True, queue=8)
