from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nearfar.distributed import world
from nearfar.errors import Lost
from nearfar.method import Encoder
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


class Net(nn.Module):
    """Pixels as they are, times a scale, behind an offset."""

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.tensor(scale)), offset

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale + self.offset


def same(n: int) -> Images:
    return open_images(np.full((n, 8, 8), 7, dtype=np.uint8))


@pytest.mark.parametrize("n", [2, 300])  # less than a batch, and more
@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Net(0.0), "one and the same row for all {n} samples, which differ"),
        (Net(1e-9, offset=1.0), "one and the same row for all {n} samples, which differ"),  # nothing but rounding
        (Net(torch.nan), "not finite for {n} of {n} samples, such as '0': its weights"),
        (Net(torch.inf), "not finite for {n} of {n} samples, such as '0': its weights"),
    ],
)
def test_an_encoder_that_is_no_longer_alive_is_refused(net: Net, said: str, n: int) -> None:
    with pytest.raises(ValueError, match=said.format(n=n)):
        probing.embed(net, plain(8), images(n))
    assert len(probing.passed(net, plain(8), images(n))) == n


def test_equal_rows_of_equal_samples_are_right() -> None:
    assert probing.embed(Net(1.0), plain(8), same(3)).shape == (3, 64)
    assert probing.embed(Net(0.0), plain(8), images(1)).shape == (1, 64)
    assert probing.embed(Net(1.0), plain(8), images(3)).unique(dim=0).shape == (3, 64)


class Numbers(list[float]):
    """Samples of one number each."""

    names = ("a", "b", "c")

    def fetch(self, index: Tensor) -> tuple[Tensor]:
        return (torch.tensor(self)[index],)


def test_a_sample_that_holds_nan_is_named_itself() -> None:
    with pytest.raises(ValueError, match="1 of 3 samples, such as 'b': that sample itself holds NaN"):
        probing.embed(Net(1.0), lambda x: [x[:, None]], Numbers([1, np.nan, 2]))  # pyright: ignore[reportArgumentType]


class Known(Encoder):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, view: Tensor) -> Tensor:
        return self.net(view)

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 4, generator=generator)


def test_an_encoder_is_tried_on_noise() -> None:
    probing.insist_alive(Known(Net(1.0)), "run")
    probing.insist_alive(Encoder(), "one that knows no example")
    for scale, said in ((0.0, "one and the same row"), (torch.nan, "not finite")):
        with pytest.raises(ValueError, match=f"the encoder of 'run' makes .*{said}"):
            probing.insist_alive(Known(Net(scale)), "run")


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
