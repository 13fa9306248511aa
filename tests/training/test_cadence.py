from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nearfar.method import Encoder
from nearfar.modalities.image.samples import open_images
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.cadence import (
    FEWEST,
    LEAST,
    SCORED,
    SHARE,
    cadence,
    cost,
    multiplications,
    parts,
    scored,
    scoring,
)
from nearfar.training.journal import Journal
from tests.tiny import SETTINGS, tiny_images

CONV, MLP = (5e6, 256), (2e5, 256)


@pytest.mark.parametrize("work", [CONV, MLP])
@pytest.mark.parametrize("views", [2, 8])
@pytest.mark.parametrize("samples", [1000, 5000, 50_000])
@pytest.mark.parametrize("epochs", [4, 20, 300])
def test_probes_take_a_small_share_of_training(epochs: int, samples: int, views: int, work: tuple[float, int]) -> None:
    after, rows = cadence(epochs, samples=samples, labeled=samples, classes=10, views=views, work=work)
    training = 3 * views * samples * epochs * work[0]
    assert rows == LEAST or len(after) * cost(rows, work) <= SHARE * training
    assert after == sorted(set(after))
    assert (after[0], after[-1]) == (0, epochs)
    assert min(samples, LEAST) <= rows <= samples
    gaps = [b - a for a, b in pairwise(after[1:])]
    assert gaps == sorted(gaps)


def test_a_longer_run_takes_larger_probes_and_many_classes_fewer_of_them() -> None:
    few, small = cadence(3, samples=1000, labeled=1000, classes=10, views=2, work=CONV)
    many, large = cadence(100, samples=1000, labeled=1000, classes=10, views=2, work=CONV)
    assert few == [0, 3]
    halved, least = cadence(9, samples=1000, labeled=1000, classes=10, views=2, work=CONV)
    assert halved == [0, 5, 9]  # few samples each, but one that tells before the end
    assert LEAST <= least < 500
    assert many[:3] == [0, 1, 2]
    assert small < large == 1000
    short, wide = cadence(20, samples=13_000, labeled=13_000, classes=650, views=2, work=CONV)
    usual, narrow = cadence(20, samples=13_000, labeled=13_000, classes=10, views=2, work=CONV)
    assert len(short) < len(usual)
    assert wide > narrow
    assert cadence(1, samples=50, labeled=40, classes=2, views=2, work=CONV) == ([0, 1], 40)


class Known(Encoder):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, view: Tensor) -> Tensor:
        return self.net(view)

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 3, 8, 8, generator=generator)


def test_multiplications_are_those_of_the_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(80, 7, bias=False))
    assert multiplications(Known(net)) == 5 * 3 * 9 * 16 + 80 * 7
    assert net.training


def test_an_encoder_without_an_example_counts_its_parameters() -> None:
    class Own(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 5)

    assert multiplications(Own()) == 25


def test_the_size_of_the_probe_stays_when_a_run_goes_on(tmp_path: Path) -> None:
    labels = torch.arange(300).numpy() % 4
    plan = {"data": (tiny_images(300), labels), "recipe": None}

    def train(epochs: int, *, resume: bool) -> list[dict[str, float]]:
        flags = SETTINGS | {"epochs": epochs, "probe_every": "auto"}
        made = plans.make("simclr", plan["data"], None, flags)
        assert training.train(made, tmp_path / "run", resume=resume, say=lambda text: None)
        return [line for line in Journal(tmp_path / "run" / "metrics.jsonl").read() if "knn" in line]

    first, last = train(1, resume=False)
    assert parts(200) == (40, 160)  # of which 30 are a tenth
    lines = train(2, resume=True)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert {(line["knn_samples"], line["knn_bank"]) for line in lines} == {(30, 170)}
    assert lines[:2] == [first, last]


def test_a_probe_takes_so_many_samples() -> None:
    images = open_images((tiny_images(200), torch.arange(200).numpy() % 4))
    settings = plans.make("simclr", "drawings", None, SETTINGS).settings
    seen, bank, queries = training.hold_out(images, settings, print, (), 50)
    assert queries is not None
    assert (len(queries), len(bank)) == (10, 40)
    assert int((seen.label < 0).sum()) == 20  # all of the tenth that is held back


@pytest.mark.parametrize("work", [CONV, MLP])
@pytest.mark.parametrize(("epochs", "every"), [(8, 1), (300, 10)])
@pytest.mark.parametrize("samples", [1000, 50_000])
def test_scores_take_half_of_what_probes_may(epochs: int, every: int, samples: int, work: tuple[float, int]) -> None:
    after, rows = scored(epochs, every, samples=samples, views=2, work=work)
    training = 3 * 2 * samples * epochs * work[0]
    assert rows == LEAST or len(after) * scoring(rows, work) <= SHARE / 2 * training
    assert len(after) == FEWEST or len(after) * scoring(LEAST, work) <= SHARE / 2 * training
    assert {0, epochs} <= set(after) <= {*range(0, epochs, every), epochs}
    assert LEAST <= rows <= SCORED
    if samples == 50_000 and work == CONV:
        assert after == list(range(0, epochs + 1, every))
