from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from nearfar.modalities.table.columns import Column, Columns
from nearfar.modalities.table.views import Draws, View, Views, expand, plain, views

NUMBERS = [Column("x", gaps=True), Column("y")]
COLUMNS = Columns([*NUMBERS, Column("k", ("a", "b", "c"), gaps=True), Column("m", ("p", "q"))])


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(n, 2, generator=generator)
    numbers[:, 1] += 2 * numbers[:, 0]  # so that the two belong together
    numbers[::9, 0] = math.nan
    kinds, m = (torch.randint(low, high, (n,), generator=generator) for low, high in ((-1, 4), (0, 2)))
    return numbers, torch.stack([kinds, m], 1)


def made(name: str, n: int = 400, **options: float) -> tuple[Views, Draws]:
    viewer = views(name, COLUMNS, rows(300, seed=1), **options)
    return viewer, viewer.draw(n, torch.Generator().manual_seed(2))


def test_inputs_are_numbers_gaps_and_categories() -> None:
    numbers = torch.tensor([[math.nan, 1.5], [0.5, -1.0]])
    x = expand(COLUMNS, numbers, torch.tensor([[3, 0], [-1, 1]]))
    assert x.shape == (2, COLUMNS.width) == (2, 2 + 1 + 4 + 2)
    assert x.tolist() == [[0, 1.5, 1, 0, 0, 0, 1, 1, 0], [0.5, -1, 0, 0, 0, 0, 0, 0, 1]]
    assert torch.equal(plain(COLUMNS)(numbers, torch.tensor([[3, 0], [-1, 1]]))[0], x)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.6, 1.0])
def test_a_share_of_the_columns_gives_way_to_training_values(share: float) -> None:
    viewer, draws = made("scarf", corruption=share)
    numbers, codes = rows(400)
    new_numbers, new_codes = viewer.changed(viewer.views[1], numbers, codes, draws.numbers[:, 1])
    other = torch.cat([new_numbers != numbers, new_codes != codes], 1)
    other[:, :2] &= ~(new_numbers.isnan() & numbers.isnan())
    count = int(share * 4)
    assert other.sum(1).max() == count
    for part, reference in zip((new_numbers, new_codes), viewer.reference or (), strict=True):
        for column in range(2):
            known = set(reference[:, column].nan_to_num(99.0).tolist())
            changed = other[:, :2] if part is new_numbers else other[:, 2:]
            assert set(part[changed[:, column], column].nan_to_num(99.0).tolist()) <= known
    first, second = viewer(numbers, codes, draws)
    assert torch.equal(first, expand(COLUMNS, numbers, codes))
    assert torch.equal(first, second) == (count == 0)


def test_marginals_stay_and_what_belongs_together_comes_apart() -> None:
    viewer, draws = made("scarf", 4000, corruption=1.0)
    numbers, codes = rows(4000)
    new, _ = viewer.changed(viewer.views[1], numbers, codes, draws.numbers[:, 1])
    reference = rows(300, seed=1)[0]
    for column in range(2):
        a, b = (x[~x[:, column].isnan(), column].numpy() for x in (new, reference))
        assert ks_2samp(a, b).pvalue > 0.01
    known = ~new[:, 0].isnan() & ~numbers[:, 0].isnan()
    before, after = (np.corrcoef(x[known].T)[0, 1] for x in (numbers.numpy(), new.numpy()))
    assert before > 0.8
    assert abs(after) < 0.1


def test_blanked_numbers_stand_at_their_mean() -> None:
    viewer, draws = made("blanked", 4000)
    numbers, codes = rows(4000)
    new, same = viewer.changed(viewer.views[0], numbers, codes, draws.numbers[:, 0])
    assert torch.equal(same, codes)
    assert torch.equal(new.isnan(), numbers.isnan())
    blank = (new == 0).float().mean(0)
    torch.testing.assert_close(blank, torch.full((2,), 0.2), atol=0.04, rtol=0)


def test_mixed_rows_are_mostly_their_own() -> None:
    viewer, draws = made("mixed")
    numbers, codes = rows(400)
    own = expand(COLUMNS, numbers, codes)
    x = viewer(numbers, codes, draws)[0]
    others = expand(COLUMNS, *rows(300, seed=1))
    assert bool((draws.weights >= 0.5).all())
    assert float(draws.weights.max()) < 1
    weight = draws.weights[:, 0]
    rest = (x - weight[:, None] * own) / (1 - weight)[:, None]  # what was mixed in is a training row
    clear = weight < 0.95
    assert float(torch.cdist(rest[clear].double(), others.double()).amin(1).max()) < 1e-3


def test_draws_are_those_of_the_first_rows_and_can_be_cut() -> None:
    for name in ("scarf", "corrupted", "blanked"):
        viewer, draws = made(name, 10)
        numbers, codes = rows(10)
        whole = viewer(numbers, codes, draws)
        part = viewer(numbers[4:7], codes[4:7], draws.rows(slice(4, 7)))
        for a, b in zip(whole, part, strict=True):
            assert torch.equal(a[4:7], b)


def test_views_that_need_others_say_so() -> None:
    with pytest.raises(ValueError, match="give them as reference"):
        Views([View(corrupt=0.5)], COLUMNS)
    with pytest.raises(ValueError, match=r"--views 'simclr' is not for tables: choose one of scarf"):
        views("simclr", COLUMNS, rows(3))
