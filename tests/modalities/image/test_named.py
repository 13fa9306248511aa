"""The views of papers."""

from __future__ import annotations

import pytest
import torch

from nearfar.modalities.image import named
from nearfar.modalities.image import views as image
from nearfar.modalities.image.plan import STEPS
from nearfar.modalities.image.views import Views

from .test_views import images, seeded

RECIPES = [
    named.simclr,
    named.moco_v1,
    named.moco_v2,
    named.byol,
    named.barlow,
    named.swav,
    named.supcon,
    named.sce,
    named.cmc,
    named.drawing,
    named.ink_drawing,
    named.colorful,
    named.sign,
    named.turned,
    named.spectrogram,
    named.looc,
    named.looc_drawing,
    named.relicv2,
    named.excon,
    named.excon_drawing,
    named.mirrored,
    image.plain,
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("channels", "size"), [(1, 64), (3, 32), (5, 32)])
def test_recipes(recipe, channels: int, size: int) -> None:
    pixels, aspect = images(6, channels, 48), torch.tensor([0.3, 0.5, 1.0, 1.5, 2.0, 7.0])
    views: Views = recipe(size)
    draws = views.draw(6, seeded())
    out = views(pixels, aspect, draws)
    assert [tuple(x.shape) for x in out] == [(6, channels, view.size, view.size) for view in views.views]
    for x in out:
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        assert x.min() >= 0
        assert x.max() <= 1
    again = views(pixels, aspect, views.draw(6, seeded()))
    assert all(torch.equal(x, y) for x, y in zip(out, again, strict=True))
    part = views(pixels[2:5], aspect[2:5], draws.rows(slice(2, 5)))
    assert all(torch.allclose(x[2:5], y, atol=1e-6) for x, y in zip(out, part, strict=True))


def test_recipes_have_the_papers_numbers() -> None:
    view = named.simclr(224).views[0]
    assert (view.area, view.jitter, view.brightness, view.hue, view.gray) == ((0.08, 1.0), 0.8, 0.8, 0.2, 0.2)
    assert (view.blur, view.kernel, view.sigma) == (0.5, 23, (0.1, 2.0))
    small = named.simclr(32).views[0]
    assert (small.blur, small.saturation, small.hue) == (0.0, 0.4, 0.1)
    first, second = named.byol(224).views
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    crops = named.swav(224).views
    assert [x.size for x in crops] == [224] * 2 + [96] * 6
    assert crops[-1].area == (0.05, 0.14)
    crops = named.relicv2(224).views
    assert [x.size for x in crops] == [224] * 4 + [96] * 2
    assert [x.solarize for x in crops[:4]] == [0.0, 0.2, 0.0, 0.2]


def test_views_by_nature_flip_turn_and_fill_as_it_allows() -> None:
    made = {recipe: recipe(32).views[0] for recipe in (named.sign, named.colorful, named.turned, named.spectrogram)}
    assert [view.flip for view in made.values()] == [0.0, 0.5, 0.5, 0.0]
    assert [view.quarter_turns for view in made.values()] == [False, False, True, False]
    assert [view.hue for view in made.values()] == [0.05, 0.05, 0.05, 0.0]
    assert named.turned(32, area=(0.1, 0.5)).views[1].area == (0.1, 0.5)
    white = torch.full((4, 1, 32, 32), 255, dtype=torch.uint8)
    for recipe, least in ((named.drawing, 0.0), (named.ink_drawing, 1.0)):
        views = recipe(32)
        assert min(x.min() for x in views(white, torch.ones(4), views.draw(4, seeded()))) == pytest.approx(least)


@pytest.mark.parametrize(
    ("recipe", "steps"), [(named.looc, ("color", "turn")), (named.looc_drawing, ("affine", "turn"))]
)
def test_each_key_of_looc_shares_one_step_with_the_query_and_no_more(recipe, steps: tuple[str, str]) -> None:
    views: Views = recipe(32)
    draws = views.draw(50, seeded())
    first = draws.fields(0)
    for view, step in ((1, None), (2, steps[0]), (3, steps[1])):
        same = {name for name, numbers in draws.fields(view).items() if numbers.equal(first[name])}
        assert same == set(STEPS[step] if step else ())
        other = [name for name in first if name not in same]
        assert not any((draws.fields(view)[name] == first[name]).any() for name in other)


@pytest.mark.parametrize(("recipe", "pair"), [(named.excon, named.supcon), (named.excon_drawing, named.drawing)])
@pytest.mark.parametrize("size", [32, 96])
def test_excon_begins_with_the_image_as_it_is(recipe, pair, size: int) -> None:
    views: Views = recipe(size)
    assert views.views[1:] == pair(size).views
    pixels, aspect = images(4, 3, 48), torch.tensor([0.5, 1.0, 1.5, 2.0])
    (want,) = image.plain(size)(pixels, aspect)
    for seed in (0, 1):
        out = views(pixels, aspect, views.draw(4, seeded(seed)))
        torch.testing.assert_close(out[0], want)
