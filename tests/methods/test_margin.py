from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.metric import pairs

from .small import form, sgd, step

plain = form("margin")
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0, 1, MISSING])


@pytest.mark.parametrize("arguments", [{}, {"margin": 0.6, "linear": True, "active": True}, {"positive_margin": 0.3}])
def test_loss_is_that_of_unit_embeddings_of_both_views(arguments: dict[str, Any]) -> None:
    method, made = form("margin", **arguments).build().double(), plain.batch(8, dtype=torch.float64)
    z = normalize(method.get_submodule("projector")(method.encoder(torch.cat(made.views))))
    given: dict[str, Any] = {"margin": 1.0} | arguments
    want = pairs(list(z.chunk(2)), LABEL, **given)
    torch.testing.assert_close(method(Batch(made.views, made.index, LABEL)).loss, want)


@pytest.mark.parametrize(("arguments", "margin"), [({"margin": 0.6}, 0.36), ({"margin": 0.6, "linear": True}, 0.6)])
def test_its_margin_is_the_loss_of_a_network_that_makes_one_row_of_all(
    arguments: dict[str, Any], margin: float
) -> None:
    method = form("margin", **arguments).build().double()
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
        list(method.get_submodule("projector").parameters())[-1].fill_(1.0)
    assert method.margin == pytest.approx(margin)
    assert method(plain.batch(8, dtype=torch.float64)).loss.item() == pytest.approx(margin, abs=1e-5)


def test_classes_draw_together_and_move_apart_as_far_as_the_margin() -> None:
    method, batch = plain.build(), plain.batch(8)
    batch = Batch(batch.views, batch.index, torch.arange(8) // 2)
    optimizer = sgd(method, lr=0.1)
    for _ in range(150):
        step(method, optimizer, batch)
    z = normalize(method.get_submodule("projector")(method.encoder(torch.cat(batch.views)))).detach()
    d, label = torch.cdist(z, z), batch.label.repeat(2)
    same = label[:, None] == label
    assert d[same].mean() < 0.3
    assert d[~same].mean() > 0.9
