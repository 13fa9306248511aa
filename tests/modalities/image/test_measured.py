from __future__ import annotations

import pytest

from nearfar.modalities.image.recipes import measured_images as measured
from nearfar.modalities.image.settings import Facts


@pytest.mark.parametrize(("samples", "batch"), [(60, 16), (300, 32), (972, 64), (1100, 128), (50_000, 128)])
def test_few_samples_are_taken_in_small_batches_of_which_the_rate_grows_with_the_root(samples: int, batch: int) -> None:
    settings = measured.simclr(Facts(samples=samples)).settings
    assert settings.batch == batch
    assert settings.lr * batch / 256 == pytest.approx(1.5e-3 * (batch / 128) ** 0.5, rel=1e-3)
    given = measured.simclr(Facts(samples=samples, batch=32)).settings
    assert given.batch == 32
    assert given.lr * 32 / 256 == pytest.approx(0.75e-3, rel=1e-3)


def test_a_run_has_two_thousand_steps_where_no_epochs_are_given_and_the_rise_is_a_tenth() -> None:
    settings = measured.simclr(Facts(samples=5000)).settings
    assert settings.epochs * (5000 // settings.batch) == pytest.approx(2000, rel=0.02)
    assert settings.warmup == settings.epochs / 10
    assert measured.simclr(Facts(samples=5000, epochs=7)).settings.epochs == 7


def test_slow_copies_follow_by_the_number_of_steps() -> None:
    momenta = [
        (measured.moco(facts).method["momentum"], measured.byol(facts).method["momentum"])
        for facts in (Facts(samples=1280, epochs=epochs) for epochs in (5, 200, 2000, 1_000_000))
    ]  # ten steps an epoch of MoCo, twenty of BYOL
    assert momenta == [(0.9, 0.9), (0.99, 0.995), (0.999, 0.996), (0.999, 0.996)]


def test_views_are_those_that_suit_and_the_reason_is_kept() -> None:
    recipe = measured.barlow(Facts(views="sign", why_views="mirrors are told"))
    assert recipe.settings.views == "sign"
    assert recipe.reasons["views"] == "mirrors are told"


@pytest.mark.parametrize(("samples", "queue"), [(40, 16), (972, 128), (1100, 256), (5000, 1024), (50_000, 1024)])
def test_a_queue_holds_few_keys_of_the_anchors_own(samples: int, queue: int) -> None:
    assert measured.moco(Facts(samples=samples)).method["queue"] == queue
