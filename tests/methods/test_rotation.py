from __future__ import annotations

from typing import cast

import numpy as np
import torch

from nearfar.batch import Batch
from nearfar.methods.rotation import Rotation

from .small import clock, form, freeze_norms

rotation = form("rotation")


def build(**arguments: bool) -> Rotation:
    return cast(Rotation, rotation.build(**arguments))


def test_all_turns_of_all_images_counter_clockwise() -> None:
    view = rotation.batch(3).views[0]
    turned, k = build().turn(view)
    assert k.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for row, quarter in enumerate(k.tolist()):
        image = view[row % 3].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(turned[row].permute(1, 2, 0).numpy(), np.rot90(image, quarter))


def test_one_more_turn_of_the_input_shifts_the_target_and_four_are_none() -> None:
    view = rotation.batch(5).views[0]
    turned, k = build().turn(view)
    again, _ = build().turn(torch.rot90(view, 1, (2, 3)))
    for quarter in range(4):
        assert torch.equal(again[k == quarter], turned[k == (quarter + 1) % 4])
    assert torch.equal(torch.rot90(turned[k == 3], 1, (2, 3)), view)


def test_one_turn_is_drawn_for_each_image_and_differs_from_step_to_step() -> None:
    method, view = build(all_turns=False), rotation.batch(64).views[0]
    turned, k = method.turn(view)
    assert turned.shape == view.shape
    assert set(k.tolist()) == {0, 1, 2, 3}
    for row, quarter in enumerate(k.tolist()):
        assert torch.equal(turned[row], torch.rot90(view[row], quarter, (1, 2)))
    method.clock = clock(1)
    assert not torch.equal(method.turn(view)[1], k)


def test_loss_is_that_of_a_loop() -> None:
    method, batch = build().double(), rotation.batch(4, dtype=torch.float64)
    freeze_norms(method)
    out, terms, right = method(batch), [], 0
    for image in batch.views[0]:
        for k in range(4):
            logits = method.classifier(method.encoder(torch.rot90(image, k, (1, 2))[None]))[0]
            terms.append(logits.exp().sum().log() - logits[k])
            right += int(logits.argmax()) == k
    torch.testing.assert_close(out.loss, torch.stack(terms).mean())
    assert float(out.log["solved"]) == right / 16


def test_only_the_first_view_counts() -> None:
    method, batch = build(), rotation.batch(4)
    other = Batch([batch.views[0]], batch.index, batch.label)
    assert torch.equal(method(batch).loss, method(other).loss)
