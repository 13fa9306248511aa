from __future__ import annotations

from typing import Any, cast

import torch

from nearfar.batch import Batch
from nearfar.methods.relativeposition import NEIGHBORS, RelativePosition
from nearfar.ops.patches import cut

from .small import clock, form, freeze_norms

relative = form("relativeposition")


def build(**arguments: Any) -> RelativePosition:
    return cast(RelativePosition, relative.build(**arguments))


def test_the_eight_classes_are_the_eight_sides_and_opposites_are_seven_apart() -> None:
    steps = [(cell // 3 - 1, cell % 3 - 1) for cell in NEIGHBORS]
    assert len(set(steps)) == 8
    assert (0, 0) not in steps
    for k, (down, right) in enumerate(steps):
        assert steps[7 - k] == (-down, -right)  # seen from the neighbor, the center lies on the opposite side


def test_loss_is_that_of_a_loop() -> None:
    method, batch = build(single=False).double(), relative.batch(4, dtype=torch.float64)
    freeze_norms(method)
    terms, right = [], 0
    for patches in cut(batch.views[0], 3, share=2 / 3, generator=method.clock.generator()):
        for k, cell in enumerate(NEIGHBORS):
            pair = torch.cat([method.encoder(patches[4][None]), method.encoder(patches[cell][None])], 1)
            logits = method.head(pair)[0]
            terms.append(logits.exp().sum().log() - logits[k])
            right += int(logits.argmax()) == k
    out = method(batch)
    torch.testing.assert_close(out.loss, torch.stack(terms).mean())
    assert abs(float(out.log["solved"]) - right / 32) < 1e-6


def test_one_channel_of_each_patch_is_kept_and_the_others_are_flat() -> None:
    method, patches = build(), torch.rand(50, 9, 3, 6, 6)
    out = method.one_channel(patches)
    kept = (out == patches).flatten(3).all(3)  # N x 9 x 3
    assert (kept.sum(2) == 1).all()
    assert (kept.flatten(0, 1).sum(0) > 100).all()  # of 450: each channel in its turn
    torch.testing.assert_close(out.mean((3, 4)), patches.mean((3, 4)))
    assert (out[~kept].std((1, 2)) < 1e-6).all()
    method.clock = clock(1)
    assert not torch.equal(method.one_channel(patches), out)


def test_gray_images_have_nothing_to_drop() -> None:
    patches = torch.rand(4, 9, 1, 6, 6)
    assert torch.equal(build().one_channel(patches), patches)


def test_only_the_first_view_counts() -> None:
    method, batch = build(), relative.batch(4)
    other = Batch([batch.views[0]], batch.index, batch.label)
    assert torch.equal(method(batch).loss, method(other).loss)
