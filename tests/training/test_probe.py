from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.distributed import world
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.training import probe as probing
from tests.two_ranks import RANKS, Pool


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
