from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch

from nearfar.methods.jigsaw import Jigsaw
from nearfar.ops.patches import alike, cut, permutations

from .small import clock, copied_state, form, freeze_norms

jigsaw = form("jigsaw")


def build(**arguments: Any) -> Jigsaw:
    return cast(Jigsaw, jigsaw.build(**arguments))


@pytest.mark.parametrize("level", [False, True])
def test_loss_is_that_of_a_loop(level: bool) -> None:
    method, batch = build(grid=2, alike=level).double(), jigsaw.batch(5, dtype=torch.float64)
    freeze_norms(method)
    view = batch.views[0]
    tiles = cut(view, 2, share=0.85, generator=method.clock.generator())
    if level:
        tiles = alike(tiles, view)
    terms = []
    for image, number in zip(tiles, method.draw(5).tolist(), strict=True):
        codes = [method.head.each(method.encoder(image[t][None])) for t in permutations(4, 24)[number].tolist()]
        logits = method.head.whole(torch.cat(codes, 1))[0]
        terms.append(logits.exp().sum().log() - logits[number])
    torch.testing.assert_close(method(batch).loss, torch.stack(terms).mean())


def test_every_order_of_the_list_is_drawn_anew_each_step() -> None:
    method = build(orders=24)
    assert sorted(set(method.draw(1000).tolist())) == list(range(24))
    first = method.draw(8)
    method.clock = clock(1)
    assert not torch.equal(method.draw(8), first)


def test_a_grid_of_two_has_all_orders_and_one_order_is_refused() -> None:
    assert build(grid=2, orders=100).chance(jigsaw.batch(8)) == math.log(24)
    with pytest.raises(ValueError, match=r"Jigsaw: orders 1: .* 2 or more"):
        build(orders=1)


def test_the_list_is_no_part_of_a_checkpoint_and_cannot_be_spoilt() -> None:
    method = build()
    assert not [name for name in copied_state(method) if "permutations" in name]
    assert method.permutations.data_ptr() != permutations(9, 28).data_ptr()
