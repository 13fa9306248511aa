from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.losses.temporal import time_contrast

from .small import form, freeze_norms

tcn = form("tcn")


def test_frames_are_embedded_alone() -> None:
    method, batch = tcn.build().double(), tcn.batch(3, dtype=torch.float64)
    freeze_norms(method)
    rows = [
        torch.stack([method.get_submodule("projector")(method.encoder(view[:, t : t + 1])) for t in range(8)], 1)
        for view in batch.views
    ]
    want = time_contrast([F.normalize(row, dim=2) for row in rows], margin=0.2)
    torch.testing.assert_close(method(batch).loss, want)
    method = tcn.build(near=1, far=2).double()
    freeze_norms(method)
    want = time_contrast([F.normalize(row, dim=2) for row in rows], margin=0.2, near=1, far=2)
    torch.testing.assert_close(method(batch).loss, want)


def test_n_pairs_are_a_softmax_over_the_frames_of_the_other_view() -> None:
    method, batch = tcn.build(loss="npairs", penalty=0.002).double(), tcn.batch(3, dtype=torch.float64)
    freeze_norms(method)
    a, p = (
        method.get_submodule("projector")(method.encoder(view.flatten(0, 1)[:, None])) for view in batch.views
    )  # 24 x dim
    length = 0.001 * (a.square().sum(1) + p.square().sum(1)).mean()
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(a @ p.T, torch.arange(24)) + length)
    assert method.margin is None
    assert tcn.build().margin == 0.2
