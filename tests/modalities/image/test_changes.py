"""Changes of named views: what is refused, what becomes of the views, and the new operations beside slow ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nearfar.modalities.image import named
from nearfar.modalities.image.changes import CHANGES, changed, parsed
from nearfar.modalities.image.kind import laid_out
from nearfar.modalities.image.plan import ALL, FIELDS, Affine, View, make_plan
from nearfar.modalities.image.settings import Settings
from nearfar.modalities.image.views import Views, plain

from .test_views import images, seeded


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rotat=90", "no 'rotat'; did you mean rotate"),
        ("rotate", "NAME=VALUE is wanted"),
        ("rotate=181", "a number of 0 to 180 is needed"),
        ("rotate=nan", "a number of 0 to 180"),
        ("rotate=1,2", "a number of 0 to 180"),
        ("flip=much", "a number of 0 to 1 is needed"),
        ("hue=0.6", "a number of 0 to 0.5"),
        ("area=0", "LOW,HIGH or one number, each a number above 0 to 1"),
        ("area=0.9,0.1", "the lower end comes first, 0.1,0.9"),
        ("area=0.1,0.2,0.3", "LOW,HIGH"),
        ("quarter_turns=0.5", "a whole number of 0 to 1"),
        ("randaugment=9", "a whole number of 0 to 8"),
        ("magnitude=31", "a whole number of 0 to 30"),
        ("color=-1", "a number of 0 or more"),
    ],
)
def test_unknown_names_and_values_out_of_range_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError) as error:
        Settings(set=(text,))
    assert repr(text) in str(error.value)
    assert told in str(error.value)
    if "no 'rotat'" in told:
        assert all(name in str(error.value) for name in CHANGES)


def test_changes_are_laid_over_each_view() -> None:
    before = named.simclr(32).views[0]
    after = changed(named.simclr(32), ["color=0.5", "rotate=90", "vflip=0.5", "area=0.3", "hue=0.25"], "simclr").views
    wanted = replace(
        before,
        **{name: 0.5 * getattr(before, name) for name in ("brightness", "contrast", "saturation", "gray")},
        hue=0.25,
        vflip=0.5,
        area=(0.3, 0.3),
        affine=Affine(rotate=90, fill=None),
    )
    assert after == (wanted, wanted)
    assert not changed(named.simclr(32), ["color=0"], "simclr").views[0].colored
    assert changed(named.drawing(32), ["shear=0"], "drawing").views[0].affine == Affine(
        rotate=10, scale=(0.85, 1.1), shear=0, shift=0.05
    )
    assert parsed(["flip=0.1", "flip=0.2"]) == {"flip": 0.2}
    as_is, *others = changed(named.excon(32), ["vflip=1"], "excon").views  # what shows the image as it is still does
    assert as_is == plain(32).views[0]
    assert [view.vflip for view in others] == [1, 1]
    assert changed(named.looc(32), ["vflip=1"], "looc").shared == named.looc(32).shared


@pytest.mark.parametrize(
    ("views", "texts", "told"),
    [
        (named.cmc, ["color=2"], "change no colors"),
        (named.cmc, ["hue=0.1"], "jitter=0.8 too"),
        (named.cmc, ["jitter=0.5"], "no strengths of colors"),
        (named.cmc, ["sigma=2"], "no blur: give --set blur="),
        (named.simclr, ["hole=0.2"], "no cutout"),
        (named.simclr, ["magnitude=3"], "no randaugment"),
        (named.simclr, ["fill=1"], "uncover nothing"),
        (plain, ["ratio=1"], "do not crop"),
        (named.moco_v1, ["color=2"], "the hue would change by 0.8"),
    ],
)
def test_what_would_change_nothing_or_too_much_is_refused(views, texts: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        changed(views(32), texts, "those")


@pytest.mark.parametrize("size", [32, 96])  # 96: by torch's own resize of bytes
@pytest.mark.parametrize("affine", [None, Affine(rotate=30, fill=None)])
def test_turns_are_those_of_torch(size: int, affine: Affine | None) -> None:
    pixels, aspect = images(12, 3, 64), torch.linspace(0.5, 2, 12)
    still = View(size=size, area=(0.3, 1.0), affine=affine)
    turned = Views([replace(still, vflip=0.5, quarter_turns=True)])
    draws = turned.draw(12, seeded())
    (before,), (after,) = (Views([view])(pixels, aspect, draws) for view in (still, turned.views[0]))
    down, quarters = draws.fields(0)["vflip"][:, 0] < 0.5, (4 * draws.fields(0)["turn"][:, 0]).long()
    assert set(quarters.tolist()) == {0, 1, 2, 3}
    assert 0 < down.sum() < 12
    for x, y, flipped, k in zip(before, after, down, quarters.tolist(), strict=True):
        x = x.flip(1) if flipped else x
        torch.testing.assert_close(torch.rot90(x, k, (1, 2)), y, atol=2e-6, rtol=0)


def test_places_know_views_that_are_upside_down() -> None:
    rows = torch.arange(64.0).view(1, 1, 64, 1).expand(8, 3, 64, 64).byte()
    views = Views([View(size=16, area=(0.2, 0.6), flip=0.5, vflip=0.5, affine=Affine(rotate=20), quarter_turns=True)])
    draws, aspect = views.draw(8, seeded()), torch.ones(8)
    (view,), (place,) = views(rows, aspect, draws), views.places(rows, aspect, draws)
    at = (2 * torch.tensor([5, 10]) + 1) / 16 - 1  # two cells of the view, in its coordinates
    for x, matrix in zip(view, place, strict=True):
        for column, row in ((5, 10), (10, 5)):
            u, v = at[[5, 10].index(column)], at[[5, 10].index(row)]
            down = float(matrix[1] @ torch.stack((u, v, torch.tensor(1.0))))
            if abs(down) < 0.9:
                assert 255 * float(x[0, row, column]) == pytest.approx((down + 1) / 2 * 64 - 0.5, abs=0.6)


def test_cutout_is_that_of_a_slow_loop() -> None:
    pixels, aspect, size = images(20, 3, 40), torch.ones(20), 20
    still = View(size=size, area=(0.5, 1.0))
    views = Views([replace(still, cutout=0.7, hole=0.35)])
    draws = views.draw(20, seeded())
    (before,), (after,) = Views([still])(pixels, aspect, draws), views(pixels, aspect, draws)
    for x, y, (whether, across, down) in zip(before, after, draws.fields(0)["cutout"].tolist(), strict=True):
        wanted = x.clone()
        if whether < 0.7:
            middle = math.floor(across * size), math.floor(down * size)
            for row in range(size):
                for column in range(size):
                    if -3 <= column - middle[0] < 4 and -3 <= row - middle[1] < 4:  # seven pixels wide
                        wanted[:, row, column] = x.mean((1, 2))
        torch.testing.assert_close(y, wanted)
    assert (after != before).flatten(1).any(1).sum() in range(10, 19)


def test_a_mirrored_border_shows_no_fill() -> None:
    white, aspect = torch.full((4, 1, 32, 32), 255, dtype=torch.uint8), torch.ones(4)
    for fill, least in ((None, 1.0), (0.0, 0.0)):
        views = Views([View(size=32, affine=Affine(rotate=180, fill=fill))])
        (x,) = views(white, aspect, views.draw(4, seeded()))
        assert float(x.min()) == pytest.approx(least, abs=1e-6)


def test_views_depend_on_their_own_draws_alone() -> None:
    views = changed(named.simclr(24), ["vflip=0.5", "cutout=0.5", "randaugment=2", "rotate=40", "blur=0.5"], "simclr")
    pixels, aspect = images(9, 3, 32), torch.linspace(0.7, 1.4, 9)
    draws = views.draw(9, seeded())
    whole, part = views(pixels, aspect, draws), views(pixels[4:], aspect[4:], draws.rows(slice(4, None)))
    for x, y in zip(whole, part, strict=True):
        assert x.min() >= 0
        assert x.max() <= 1
        torch.testing.assert_close(x[4:], y, atol=1.01 / 255, rtol=0)  # of RandAugment's rounding to bytes
    assert torch.equal(draws.numbers[:3], views.draw(3, seeded()).numbers)
    with pytest.raises(ValueError, match="draws were made for other views"):
        views(pixels, aspect, named.simclr(24).draw(9, seeded()))


def test_views_without_new_operations_have_the_numbers_that_they_always_had() -> None:
    draws = named.simclr(32).draw(3, seeded())
    assert torch.equal(draws.numbers, torch.rand(3, 2, 40, generator=seeded()))
    assert sum(FIELDS.values()) == 40
    plan = make_plan(named.simclr(32).views[0], draws.fields(0), torch.ones(3), 32)
    assert plan.vflip is plan.hole is plan.operations is plan.reverse is None
    assert list(ALL)[: len(FIELDS)] == list(FIELDS)


def test_large_and_small_crops_of_any_views() -> None:
    views = named.multi_crop(named.byol(112), 3, 4)
    first, second = named.byol(112).views
    assert views.views[:3] == (first, second, first)
    assert views.views[3:5] == tuple(replace(view, size=48, area=(0.05, 0.14)) for view in (first, second))
    assert len(views) == 7
    with pytest.raises(ValueError, match="--view-count 4 and --crops 2 6"):
        laid_out(named.byol(112), Settings(view_count=4, crops=(2, 6)))
    assert Settings(view_count=1, crops=(2, 6)).taken_over({"crops"}).view_count == 0  # that of a recipe
    assert Settings(view_count=4, crops=(2, 6)).taken_over({"crops", "view_count"}).view_count == 4
