from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nearfar.distributed import world
from nearfar.errors import Lost
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.training import probe as probing
from tests.tiny import folder
from tests.two_ranks import RANKS, Pool


class Flat(nn.Module):
    """The pixels as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, view: Tensor) -> Tensor:
        return view.flatten(1) * self.one


def images(n: int) -> Images:
    return open_images(np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8))


def _looked(n: int) -> Tensor:
    assert world() == RANKS
    return _look(n)


def _look(n: int) -> Tensor:
    return probing.look(lambda view: view.flatten(1).double(), plain(8), images(n), torch.device("cpu"), batch=3)


@pytest.mark.parametrize("n", [1, 10, 13])
def test_a_look_is_at_every_sample_in_order_on_every_rank(two_ranks: Pool, n: int) -> None:
    data = images(n)
    want = plain(8)(*data.fetch(torch.arange(n)))[0].flatten(1).double()
    torch.testing.assert_close(_look(n), want)
    for got in two_ranks.run(_looked, n):
        torch.testing.assert_close(got, want)


def test_what_can_be_read_no_more_keeps_its_place_in_a_look_and_is_left_out_of_a_probe(tmp_path: Path) -> None:
    data = open_images(folder(tmp_path / "p", 24, nested=True), labels="folders", memory=0)
    view, first = plain(16), data.subset(range(1, 24))
    before = probing.embed(Flat(), view, data)
    knn = probing.probe(Flat(), view, first, first.subset(range(1, 23)))
    (tmp_path / "p" / data.names[0]).unlink()
    looked = probing.look(Flat(), view, data, torch.device("cpu"), batch=6)
    assert torch.equal(looked[1:], before[1:])
    assert torch.equal(looked[0], before[1])
    assert probing.probe(Flat(), view, data, data.subset([0, *range(2, 24)])) == knn
    with pytest.raises(Lost, match=data.names[0]):
        probing.embed(Flat(), view, data)
