"""The views, held to torchvision's transforms: equal pixels for equal parameters, equal distributions of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from nearfar import machine
from nearfar.modalities.image import color as color
from nearfar.modalities.image import named
from nearfar.modalities.image import views as image
from nearfar.modalities.image.plan import Affine, View, ViewPlan, make_plan
from nearfar.modalities.image.views import Views

GRAY_LEVEL = 1 / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Images with both edges and smooth parts."""
    coarse = torch.rand(n, channels, 5, 5, generator=seeded(seed))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    noise = torch.rand(n, channels, side, side, generator=seeded(seed + 1))
    return ((0.8 * smooth + 0.2 * noise) * 255).to(torch.uint8)


def one(view: View, pixels: Tensor, aspect: Tensor | None = None, seed: int = 0) -> tuple[Tensor, ViewPlan]:
    """One view of each image, and the parameters it was made with."""
    views = Views([view])
    draws = views.draw(len(pixels), seeded(seed))
    aspect = torch.ones(len(pixels)) if aspect is None else aspect
    return views(pixels, aspect, draws)[0], make_plan(view, draws.fields(0), aspect, pixels.shape[-1])


@pytest.mark.parametrize(("side", "size"), [(32, 32), (40, 24), (24, 40), (97, 64), (64, 97)])
def test_crops_equal_torchvision(side: int, size: int) -> None:
    pixels = images(16, side=side)
    out, plan = one(View(size=size, area=(0.05, 1.0), flip=0.5), pixels)
    for i, (left, top, width, height) in enumerate(plan.box.int().tolist()):
        wanted = tv.resized_crop(pixels[i] / 255, top, left, height, width, [size, size], antialias=True)
        wanted = tv.horizontal_flip(wanted) if plan.flip[i] else wanted
        assert (out[i] - wanted).abs().max() < (1e-4 if size < 96 else 1.01 * GRAY_LEVEL)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", ["brightness", "contrast", "saturation", "gray", "solarize"])
def test_color_steps_equal_torchvision(step: str, channels: int) -> None:
    view = {
        "brightness": View(size=32, jitter=1, brightness=0.8),
        "contrast": View(size=32, jitter=1, contrast=0.8),
        "saturation": View(size=32, jitter=1, saturation=0.8),
        "gray": View(size=32, gray=0.5),
        "solarize": View(size=32, solarize=0.5),
    }[step]
    pixels = images(16, channels)
    out, plan = one(view, pixels)
    factors = plan.factors.tolist()
    for i, one_image in enumerate(pixels / 255):
        wanted = {
            "brightness": lambda x, i=i: tv.adjust_brightness(x, factors[i][0]),
            "contrast": lambda x, i=i: tv.adjust_contrast(x, factors[i][1]),
            "saturation": lambda x, i=i: tv.adjust_saturation(x, factors[i][2]),
            "gray": lambda x, i=i: tv.rgb_to_grayscale(x, num_output_channels=channels) if plan.gray[i] else x,
            "solarize": lambda x, i=i: tv.solarize(x, 0.5) if plan.solarize[i] else x,
        }[step](one_image)
        assert (out[i] - wanted).abs().max() < 1e-3
    assert 0 < plan.gray.float().mean() < 1 or step != "gray"


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("affine", [None, Affine()])
def test_blur_equals_torchvision(channels: int, affine: Affine | None) -> None:
    pixels = images(8, channels, 64)
    out, plan = one(View(size=64, blur=0.5, kernel=7, affine=affine), pixels)
    assert 0 < (plan.sigma > 0).sum() < 8
    for i, sigma in enumerate(plan.sigma.tolist()):
        wanted = tv.gaussian_blur(pixels[i] / 255, [7, 7], [sigma, sigma]) if sigma else pixels[i] / 255
        assert (out[i] - wanted).abs().max() < 1e-4


def test_affine_equals_torchvision() -> None:
    pixels = images(16, 1)
    spec = Affine(rotate=30, scale=(0.7, 1.3), shear=20, shift=0.2)
    views = Views([View(size=32, affine=spec)])
    draws = views.draw(16, seeded())
    out = views(pixels, torch.ones(16), draws)[0]
    angle, scale, shear, x, y = draws.fields(0)["affine"].unbind(1)
    for i in range(16):
        wanted = tv.affine(
            pixels[i] / 255,
            angle=float(2 * angle[i] - 1) * 30,
            translate=[float(2 * u[i] - 1) * 0.2 * 32 for u in (x, y)],
            scale=float(0.7 + 0.6 * scale[i]),
            shear=[float(2 * shear[i] - 1) * 20, 0.0],
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        assert (out[i] - wanted)[:, 4:-4, 4:-4].abs().median() < 1e-4


def through_torchvision(pixels: Tensor, plan: ViewPlan) -> Tensor:
    """The color steps of a plan, one after the other, each clamped: N x 3 x S x S."""
    steps = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    out = []
    for i, one_image in enumerate(pixels):
        early = [k for k in (1, 2) if plan.first[i, k - 1]]
        order = [*early, 3, *(k for k in (1, 2) if k not in early)]
        order.insert(i % 4, 0)
        x = one_image / 255
        for k in order:
            x = steps[k](x, float(plan.factors[i, k]))
        out.append(tv.rgb_to_grayscale(x, num_output_channels=3) if plan.gray[i] else x)
    return torch.stack(out)


def test_jitter_without_hue_and_clamping_equals_torchvision_in_every_order() -> None:
    pixels = images(48) // 2 + 64  # far from 0 and 255
    out, plan = one(View(size=32, jitter=1, brightness=0.2, contrast=0.2, saturation=0.2), pixels)
    assert (out - through_torchvision(pixels, plan)).abs().max() < 2e-3


@pytest.mark.parametrize(("strength", "near"), [(0.5, 0.03), (1.0, 0.04)])
def test_whole_jitter_is_near_torchvision(strength: float, near: float) -> None:
    s = strength
    view = View(
        size=32, jitter=1, brightness=0.8 * s, contrast=0.8 * s, saturation=0.8 * s, hue=0.2 * s, gray=0.2
    )  # fmt: skip
    pixels = images(200)
    out, plan = one(view, pixels)
    wanted = through_torchvision(pixels, plan)
    away = (out - wanted).abs().mean()
    changed = (wanted - pixels / 255).abs().mean()
    assert away < near
    assert away < 0.25 * changed


def test_matrix_equals_the_steps_one_by_one() -> None:
    n, side = 64, 8
    x = torch.rand(n, 3, side * side, generator=seeded(), dtype=torch.float64)
    factors = torch.rand(n, 4, generator=seeded(1), dtype=torch.float64) + 0.5
    factors[:, 3] -= 1
    first = torch.rand(n, 2, generator=seeded(2)) < 0.5
    luma = torch.tensor(color.LUMA, dtype=torch.float64)
    luma = luma / luma.sum()
    linear, offset = color.affine(
        x.mean(2), *factors.unbind(1), contrast_first=first[:, 0], saturation_first=first[:, 1],
        gray=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip
    out = linear @ x + offset[:, :, None]
    for i in range(n):
        brightness, contrast, saturation, hue = factors[i]

        def contrasted(y: Tensor, contrast: Tensor = contrast) -> Tensor:
            return contrast * y + (1 - contrast) * (luma @ y).mean()

        def saturated(y: Tensor, saturation: Tensor = saturation) -> Tensor:
            return saturation * y + (1 - saturation) * (luma @ y)

        y = brightness * x[i]
        before = [step for step, early in ((contrasted, first[i, 0]), (saturated, first[i, 1])) if early]
        after = [step for step, early in ((contrasted, first[i, 0]), (saturated, first[i, 1])) if not early]
        for step in before:
            y = step(y)
        y = color.rotation(hue[None])[0] @ y
        for step in after:
            y = step(y)
        assert (out[i] - y).abs().max() < 2e-3


def test_hue_is_torchvisions_at_thirds_and_near_it_between() -> None:
    x = torch.rand(1, 3, 100, 100, generator=seeded())

    def away(hue: float) -> float:
        out = (color.rotation(torch.tensor([hue]))[0] @ x[0].flatten(1)).clamp(0, 1)
        turns = (hue + 0.5) % 1 - 0.5
        return float((out - tv.adjust_hue(x, turns)[0].flatten(1)).abs().mean())

    assert away(0) < 1e-6
    assert away(1 / 3) < 1e-4
    assert away(-1 / 3) < 1e-4
    assert away(0.1) < 0.07
    assert away(0.2) < 0.09


def test_crops_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    wide = torch.zeros(1, 1, 1).expand(1, 2000, 4000)
    wanted = torch.tensor(
        [list(v2.RandomResizedCrop(8).make_params([wide]).values()) for _ in range(3000)],
        dtype=torch.float32,
    )  # top, left, height, width
    side = 4000
    plan = one_plan(View(size=8, area=(0.08, 1.0)), 3000, 2.0, side)
    left, top, width, height = (plan.box / side).unbind(1)
    for ours, theirs in (
        (width * height, wanted[:, 3] * wanted[:, 2] / (2000 * 4000)),
        (2 * width / height, wanted[:, 3] / wanted[:, 2]),
        (left, wanted[:, 1] / 4000),
        (top, wanted[:, 0] / 2000),
    ):
        assert ks_2samp(ours, theirs).pvalue > 0.01


def one_plan(view: View, n: int, aspect: float = 1.0, side: int = 32, seed: int = 0) -> ViewPlan:
    drawn = Views([view]).draw(n, seeded(seed)).fields(0)
    return make_plan(view, drawn, torch.full((n,), aspect), side)


@pytest.mark.parametrize("aspect", [0.1, 10.0])
def test_a_crop_that_never_fits_is_the_middle(aspect: float) -> None:
    plan = one_plan(View(size=8, area=(0.9, 1.0)), 50, aspect, 1000)
    left, top, width, height = plan.box[0].tolist()
    assert (plan.box == plan.box[0]).all()
    assert aspect * width / height == pytest.approx(3 / 4 if aspect < 1 else 4 / 3, rel=0.02)
    assert left == pytest.approx((1000 - width) / 2, abs=1)
    assert top == pytest.approx((1000 - height) / 2, abs=1)


def test_jitter_is_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    jitter = v2.ColorJitter(0.8, 0.4, 1.5, 0.2)
    params = [jitter.make_params([]) for _ in range(2000)]
    names = ["brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"]
    plan = one_plan(View(size=8, jitter=1, brightness=0.8, contrast=0.4, saturation=1.5, hue=0.2), 2000)
    for i, name in enumerate(names):
        assert ks_2samp(plan.factors[:, i], [p[name] for p in params]).pvalue > 0.01
    orders = torch.stack([p["fn_idx"] for p in params]).argsort(1)  # place of each step
    theirs = (orders[:, 1:3] < orders[:, 3:]).float()
    assert (plan.first.float().mean(0) - theirs.mean(0)).abs().max() < 0.05
    both, wanted = plan.first.all(1).float().mean(), theirs.all(1).float().mean()
    assert abs(both - wanted) < 0.05


def test_probabilities_are_kept() -> None:
    n = 4000
    view = View(size=8, flip=0.5, jitter=0.8, brightness=0.4, gray=0.2, blur=0.1, solarize=0.3, sigma=(0.1, 2.0))
    plan = one_plan(view, n)
    shares = [plan.flip, plan.factors[:, 0] != 1, plan.gray, plan.sigma > 0, plan.solarize]
    for share, wanted in zip(shares, (0.5, 0.8, 0.2, 0.1, 0.3), strict=True):
        assert abs(share.float().mean() - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / n)
    blurred = plan.sigma[plan.sigma > 0]
    assert 0.1 <= blurred.min() < blurred.max() <= 2.0


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("view", [View(size=64), View(size=64, area=(0.2, 0.6), ratio=(1.0, 1.0))])
def test_a_circle_stays_a_circle(aspect: float, view: View) -> None:
    side, n = 256, 8
    y, x = torch.meshgrid(*[(torch.arange(side) + 0.5) / side - 0.5] * 2, indexing="ij")
    # The squashed square holds the circle as an ellipse.
    radius = 0.15 if view.area is None else 0.6
    width, height = max(aspect, 1.0), max(1 / aspect, 1.0)
    disc = ((x * width) ** 2 + (y * height) ** 2) * 1.0
    ring = disc.expand(n, 1, -1, -1).mul(255).clamp(0, 255).to(torch.uint8)
    out, plan = one(view, ring, torch.full((n,), aspect))
    shown = plan.box[:, 2:] / side * torch.tensor([width, height])
    assert torch.allclose(shown[:, 0], shown[:, 1], rtol=0.03), radius
    if view.area is None:
        assert torch.allclose(out, out.mT, atol=0.02)


def test_plain_is_resize_and_center_crop() -> None:
    pixels = images(4, side=256)
    wanted = tv.center_crop(tv.resize(pixels / 255, [256, 256], antialias=True), [224, 224])
    assert (image.plain(224)(pixels, torch.ones(4))[0] - wanted).abs().max() < 1e-4
    small = images(4, side=32)
    assert (image.plain(32)(small, torch.ones(4))[0] - small / 255).abs().max() < 1e-5


def test_plain_shows_the_middle_of_a_wide_image() -> None:
    wide = images(4, side=256)
    true = tv.resize(wide / 255, [128, 256], antialias=True)  # 2:1
    wanted = tv.center_crop(tv.resize(true, [64], antialias=True), [64, 64])
    assert (image.plain(64)(wide, torch.full((4,), 2.0))[0] - wanted).abs().mean() < 0.02


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 5),
    channels=st.sampled_from([1, 2, 3, 4]),
    side=st.integers(1, 70),
    size=st.integers(1, 70),
    aspect=st.floats(0.05, 20),
    affine=st.booleans(),
)
def test_any_shape(n: int, channels: int, side: int, size: int, aspect: float, affine: bool) -> None:
    view = View(
        size=size, area=(0.05, 1.0), flip=0.5, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2,
        gray=0.3, blur=0.5, solarize=0.3, affine=Affine(rotate=20, scale=(0.5, 1.5), shear=20, shift=0.3) if affine
        else None,
    )  # fmt: skip
    out, _ = one(view, images(n, channels, side), torch.full((n,), aspect))
    assert out.shape == (n, channels, size, size)
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_draws_depend_on_position_only() -> None:
    views = named.simclr(32)
    assert torch.equal(views.draw(100, seeded()).numbers[:7], views.draw(7, seeded()).numbers)
    assert len(views.draw(100, seeded()).rows(slice(50, 75))) == 25


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    views, pixels, aspect = named.byol(64), images(9, side=64), torch.ones(9)
    draws = views.draw(9, seeded())
    whole = views(pixels, aspect, draws)
    monkeypatch.setattr(image, "_chunk", lambda *_: 2)
    for x, y in zip(whole, views(pixels, aspect, draws), strict=True):
        assert torch.allclose(x, y, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_both_ways_to_resize_agree(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    views, pixels, aspect = named.swav(224), images(5, channels, 150), torch.tensor([0.5, 1, 1, 1.5, 2])
    draws = views.draw(5, seeded())
    kernel = views(pixels, aspect, draws)
    monkeypatch.setattr(image, "_native", lambda *_: False)
    # Jitter of strength 0.8 may multiply the rounding to bytes by 1.8 * 1.8 * 1.8, and blur comes before clamping.
    for x, y in zip(kernel, views(pixels, aspect, draws), strict=True):
        assert (x - y).abs().mean() < 0.5 * GRAY_LEVEL
        assert ((x - y).abs() < 6 * GRAY_LEVEL).float().mean() > 0.99


@pytest.mark.skipif(machine.opencv() is None, reason="OpenCV is not installed (the extra fast)")
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_opencv_rounds_and_changes_nothing_else(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    views, pixels, aspect = named.byol(112), images(8, channels, 150), torch.tensor([0.5, 1, 1, 2] * 2)
    draws = views.draw(8, seeded())
    fast = views(pixels, aspect, draws)
    monkeypatch.setattr(image, "opencv", lambda: None)
    for view, x, y in zip(views.views, fast, views(pixels, aspect, draws), strict=True):
        if view.solarize:  # a level apart may be on either side of the threshold
            x, y = torch.minimum(x, 1 - x), torch.minimum(y, 1 - y)
        # Half a level is rounding; OpenCV's color matrix has 10 bits, which adds at most 3 * 255 / 2048 of a level.
        assert (x - y).abs().max() < 0.9 * GRAY_LEVEL
        assert (x - y).abs().mean() < 0.3 * GRAY_LEVEL


@pytest.mark.parametrize("side", [24, 100])
def test_turns_equal_torchs_and_are_equally_likely(side: int) -> None:
    pixels = images(400, side=32)
    out, plan = one(View(size=side, quarter_turns=True, solarize=0.3), pixels)
    still, _ = one(View(size=side), pixels)
    for i in range(len(pixels)):
        wanted = still[i].rot90(int(plan.turn[i]), (1, 2))
        wanted = torch.minimum(wanted, 1 - wanted) if plan.solarize[i] else wanted
        assert (out[i] - wanted).abs().max() < 1e-6
    assert (torch.bincount(plan.turn, minlength=4) > 70).all()
    for quarters in range(4):
        assert abs(plan.solarize[plan.turn == quarters].float().mean() - 0.3) < 0.2


def test_shared_parameters_make_the_same_view() -> None:
    pixels = images(12)
    color_only = View(size=32, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2)
    turn_only, affine_only = View(size=32, quarter_turns=True), View(size=32, affine=Affine(rotate=20, shift=0.1))
    for step, view in (("color", color_only), ("turn", turn_only), ("affine", affine_only)):
        views = Views([view] * 3, shared=[(2, step)])
        query, free, kept = views(pixels, torch.ones(12), views.draw(12, seeded()))
        assert torch.equal(kept, query)
        assert not torch.allclose(free, query)


def test_wrong_input_is_named() -> None:
    views = named.simclr(32)
    draws = views.draw(2, seeded())
    with pytest.raises(ValueError, match="uint8"):
        views(torch.rand(2, 3, 32, 32), torch.ones(2), draws)
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 30\)"):
        views(torch.zeros(2, 3, 32, 30, dtype=torch.uint8), torch.ones(2), draws)
    with pytest.raises(ValueError, match=r"draws\.rows"):
        views(images(3), torch.ones(3), draws)


@pytest.mark.parametrize(
    "view",
    [
        View(size=24, area=(0.1, 0.6), flip=0.5),
        View(size=96, area=(0.3, 1.0), flip=0.5, quarter_turns=True),  # by torch's own resize
        View(size=32, center=0.8, flip=0.5, quarter_turns=True),
        View(size=32, area=(0.2, 0.8), flip=0.5, affine=Affine(rotate=30, scale=(0.6, 0.9), shear=10, shift=0.1)),
    ],
    ids=["crop", "native", "middle", "affine"],
)
def test_places_are_where_views_were_taken(view: View) -> None:
    """Of images whose colors tell their own place."""
    n, side, aspect = 12, 128, torch.tensor([0.5, 1.0, 3.0]).repeat(4)
    level = torch.arange(side, dtype=torch.uint8) * 2
    pixels = torch.stack((level.expand(side, side), level[:, None].expand(side, side)))[None].repeat(n, 1, 1, 1)
    views = Views([View(size=8), view])
    draws = views.draw(n, seeded(3))
    seen = (views(pixels, aspect, draws)[1] * 255 / 2 + 0.5) * 2 / side - 1  # N x 2 x s x s, in the squashed image
    seen = seen * torch.stack((aspect.sqrt(), aspect.rsqrt()), 1)[:, :, None, None]
    at = (torch.arange(view.size) + 0.5) * 2 / view.size - 1
    down, across = torch.meshgrid(at, at, indexing="ij")
    place = torch.einsum(
        "nij,jhw->nihw", views.places(pixels, aspect, draws)[1], torch.stack((across, down, torch.ones_like(at * down)))
    )
    inside = slice(view.size // 6, -view.size // 6)  # the borders are resized with fewer pixels
    within = (place.abs() < 0.9 * torch.stack((aspect.sqrt(), aspect.rsqrt()), 1)[:, :, None, None]).all(
        1, keepdim=True
    )
    error = ((seen - place) * within)[:, :, inside, inside]
    assert within.float().mean() > 0.5
    assert float(error.abs().max()) < 0.04
