from __future__ import annotations

import torch

from nearfar.batch import Batch
from nearfar.losses.pairwise import nt_xent

from .small import form, freeze_norms

cvrl = form("cvrl")


def test_the_loss_is_the_sum_of_the_means_over_both_clips() -> None:
    method, batch = cvrl.build().double(), cvrl.batch(5, dtype=torch.float64)
    freeze_norms(method)
    z = [torch.nn.functional.normalize(method.get_submodule("projector")(method.encoder(v))) for v in batch.views]
    candidates = torch.cat(z) @ torch.cat(z).T / 0.1
    candidates.fill_diagonal_(-1e9)
    means = [
        torch.nn.functional.cross_entropy(candidates[5 * a : 5 * a + 5], torch.arange(5) + 5 * (1 - a)) for a in (0, 1)
    ]
    loss = method(batch).loss
    torch.testing.assert_close(loss, means[0] + means[1])
    torch.testing.assert_close(loss, 2 * nt_xent(*z, temperature=0.1))
    swapped = method(Batch(batch.views[::-1], batch.index, batch.label)).loss
    torch.testing.assert_close(swapped, loss)


def test_one_video_has_nothing_to_be_told_from() -> None:
    method = cvrl.build().double()
    freeze_norms(method)
    torch.testing.assert_close(method(cvrl.batch(1, dtype=torch.float64)).loss.item(), 0.0, atol=1e-12, rtol=0)


def test_the_projector_has_three_hidden_layers() -> None:
    layers = [m for m in cvrl.build().get_submodule("projector") if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 4
    assert layers[-1].out_features == cvrl.arguments["dim"]
