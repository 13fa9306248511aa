"""Transforms of other libraries as views: the same on any number of processes, and refused where they give none."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nearfar.modalities.image import named
from nearfar.modalities.image.foreign import TransformedViews, own_views, tried
from nearfar.modalities.image.samples import Images, open_images

from .test_views import images, seeded

CROP = v2.Compose([v2.RandomResizedCrop(12), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)])


def data(channels: int = 3, n: int = 10) -> Images:
    return open_images(images(n, channels, 16).permute(0, 2, 3, 1).numpy())


def albumentations() -> Any:
    """A pipeline of albumentations, which has generators of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the network for its newest version
        A = pytest.importorskip("albumentations")
    return A.Compose([A.RandomResizedCrop((12, 12)), A.HorizontalFlip(), A.GaussNoise(p=1.0), A.CoarseDropout(p=0.5)])


def kornia() -> Any:
    """A pipeline of kornia, which takes batches."""
    K = pytest.importorskip("kornia.augmentation")
    return K.AugmentationSequential(K.RandomResizedCrop((12, 12)), K.RandomHorizontalFlip(), K.ColorJitter(0.4, 0.4))


def on_pillow(picture: Image.Image) -> Image.Image:
    return picture.rotate(random.uniform(0, 90)).resize((12, 12))


def on_arrays(array: np.ndarray) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise TypeError("an array is wanted")
    return array[2:14, 2:14] / 255 * np.random.uniform(0.2, 1)  # noqa: NPY002 (as strangers draw)


def on_batches(x: torch.Tensor) -> torch.Tensor:
    if not isinstance(x, torch.Tensor) or x.dim() != 4:
        raise TypeError("a batch is wanted")
    return x[:, :, 1:13, 1:13] * torch.rand(len(x), 1, 1, 1)


MAKERS: dict[str, tuple[Callable[[], Any], str]] = {
    "torchvision": (lambda: CROP, "bytes"),
    "albumentations": (albumentations, "named"),
    "kornia": (kornia, "batch"),
    "pillow": (lambda: [on_pillow, on_pillow], "picture"),
    "array": (lambda: [on_arrays, on_arrays], "array"),
    "batch": (lambda: [on_batches, on_batches], "batch"),
}


@pytest.mark.parametrize("of", MAKERS)
def test_a_view_follows_from_the_seed_of_its_sample_alone(of: str) -> None:
    make, form = MAKERS[of]
    views = tried(own_views(make(), 12, 0, "mine"), samples := data(), 12, "mine")
    assert views.found["called with"] == [form]
    assert views.found["exact"]
    assert [view.size for view in views.views] == [12, 12]
    pixels, aspect = samples.fetch(torch.arange(10))
    draws = views.draw(10, seeded())
    whole = views(pixels, aspect, draws)
    assert [tuple(x.shape) for x in whole] == [(10, 3, 12, 12)] * 2
    assert all(x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1 for x in whole)
    assert not torch.equal(whole[0], whole[1])
    for rows in (slice(0, 5), slice(5, 10)):  # as two processes would make them
        random.random(), torch.rand(3)
        part = views(pixels[rows], aspect[rows], draws.rows(rows))
        assert all(torch.equal(x[rows], y) for x, y in zip(whole, part, strict=True))
    assert torch.equal(draws.numbers[:4], views.draw(4, seeded()).numbers)
    other = views(pixels, aspect, views.draw(10, seeded(1)))
    assert not torch.equal(whole[0], other[0])


def test_what_torchvision_makes_is_what_it_makes_by_itself() -> None:
    views = tried(own_views(CROP, 12, 0, "mine"), samples := data(), 12, "mine")
    pixels, aspect = samples.fetch(torch.arange(10))
    draws = views.draw(10, seeded())
    made = views(pixels, aspect, draws)
    for i, seeds in enumerate(draws.numbers.tolist()):
        for v, seed in enumerate(seeds):
            torch.manual_seed(seed)
            assert torch.equal(made[v][i], CROP(pixels[i]).float() / 255)


def test_generators_of_the_process_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 (the one that is to be kept)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    views = tried(own_views([on_pillow, on_arrays], 12, 0, "mine"), samples := data(), 12, "mine")
    views(*samples.fetch(torch.arange(4)), views.draw(4, seeded()))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted  # noqa: NPY002


def test_images_are_seen_in_their_true_shape() -> None:
    seen = []

    def crop(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x[:, :4, :4]

    views = TransformedViews([crop], "mine")
    views.forms = ["bytes"]
    views(images(3, 3, 16), torch.tensor([1.0, 2.0, 0.25]), views.draw(3, seeded()))
    assert seen == [(3, 16, 16), (3, 8, 16), (3, 16, 4)]


def test_how_many_views_there_are_is_found_out() -> None:
    def several(x: torch.Tensor) -> list[torch.Tensor]:
        return [CROP(x), CROP(x), CROP(x)[:, :6, :6]]

    class Several:
        __call__ = staticmethod(several)

    assert len(own_views(lambda size: v2.RandomCrop(size), 8, 0, "mine")) == 2
    assert len(own_views([CROP] * 3, 12, 0, "mine")) == 3
    assert len(own_views([CROP] * 3, 12, 2, "mine")) == 2
    assert len(own_views(lambda size: named.simclr(size), 12, 4, "mine")) == 4
    views = tried(own_views(Several(), 12, 0, "mine"), data(), 12, "mine")
    assert [view.size for view in views.views] == [12, 12, 6]
    assert views.found["exact"]
    with pytest.raises(ValueError, match="a transform gave 3 images at once; give it alone"):
        tried(own_views([several, CROP], 12, 0, "mine"), data(), 12, "mine")


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        (v2.Compose([CROP, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]), "Leave norm"),
        (v2.Compose([CROP, v2.Grayscale(1)]), "uint8, 1 x 12 x 12 numbers: a square image of 3 channels is wanted"),
        (v2.RandomCrop((6, 8)), "3 x 6 x 8 numbers: a square image"),
        (v2.Compose([CROP, v2.ToDtype(torch.float32)]), "numbers from 1"),
        (lambda x: None, "gave None: an image is wanted"),
        (lambda x: CROP(x).long(), "a Tensor of int64, 3 x 12 x 12 numbers: an image is wanted"),
        (lambda x: CROP(x) / 0.0, "NaN or infinite"),
        (lambda x: (CROP(x), 3), "gave a int"),
        (lambda: None, "takes an image in no form that was tried"),
    ],
)
def test_what_gives_no_views_is_refused_with_what_it_gave(transform: Any, told: str) -> None:
    with pytest.raises(ValueError) as error:
        tried(own_views([transform, transform], 12, 0, "mine.py:it"), data(), 12, "mine.py:it")
    assert "--views mine.py:it" in str(error.value)
    assert told in str(error.value)


def test_images_of_several_sides_are_refused_when_they_come() -> None:
    def odd(x: torch.Tensor) -> torch.Tensor:
        side = int(torch.randint(5, 9, ()))
        return x[:, :side, :side]

    with pytest.raises(ValueError, match=r"gave images of .* px: all images of a view must have one side"):
        tried(own_views([odd], 8, 0, "mine"), data(), 8, "mine")


def test_views_that_do_not_follow_from_the_seeds_are_found_out() -> None:
    own = np.random.default_rng(0)
    calls = []

    def of_its_own(x: torch.Tensor) -> torch.Tensor:
        return (x[:, :12, :12].float() / 255) * float(own.uniform(0.5, 1))

    def by_turns(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return x[:, :12, :12] // (1 + len(calls) % 3)

    for transform in (of_its_own, by_turns):
        views = tried(own_views([transform, transform], 12, 0, "mine"), data(), 12, "mine")
        assert not views.found["exact"]
        assert any("cannot be repeated bit for bit" in note for note in views.notes)
    still = tried(own_views([lambda x: x[:, :12, :12]] * 2, 12, 0, "mine"), data(), 12, "mine")
    assert still.found["exact"]
    assert any("are the same" in note for note in still.notes)


def test_views_by_the_protocol_are_tried_too() -> None:
    class Own:
        def __init__(self, made: Callable[[int], Any]) -> None:
            self.made = made

        def __len__(self) -> int:
            return 2

        def draw(self, n: int, generator: torch.Generator) -> None: ...

        def __call__(self, pixels: torch.Tensor, aspect: torch.Tensor, draws: None) -> Any:
            return self.made(len(pixels))

    right = Own(lambda n: [torch.rand(n, 3, 8, 8)] * 2)
    views = tried(own_views(right, 8, 0, "mine"), data(), 8, "mine")
    assert [view.size for view in views.views] == [8, 8]
    assert views.made is right.made
    for made, told in (
        (lambda n: torch.rand(n, 3, 8, 8), "a list of 2 views is wanted"),
        (lambda n: [torch.rand(n, 3, 8, 8)], "a list of 1: a list of 2"),
        (lambda n: [torch.rand(n, 1, 8, 8)] * 2, "8 x 1 x 8 x 8 numbers as view 1 of 8 images"),
        (lambda n: [torch.rand(n, 3, 8, 8) - 0.5] * 2, "numbers from 0 to 1 are wanted"),
    ):
        with pytest.raises(ValueError, match=told):
            tried(own_views(Own(made), 8, 0, "mine"), data(), 8, "mine")

    def lacking(size: int) -> Any:
        import no_such_library  # pyright: ignore[reportMissingImports]

        return no_such_library.crop(size)

    with pytest.raises(ValueError, match="needs 'no_such_library', which is not installed"):
        own_views(lacking, 8, 0, "mine")
    with pytest.raises(ValueError, match="gave a dict: a transform"):
        own_views(lambda size: {}, 8, 0, "mine")
