from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from nearfar.batch import to
from nearfar.modalities.audio import views as audio
from nearfar.modalities.audio.mel import hertz_to_mel
from nearfar.modalities.audio.samples import Recordings, open_audio
from nearfar.modalities.audio.views import NAMED, NUMBERS, View, Views, plain

from .small import RATE, samples, tones

EVERY = torch.arange(8)


def given(n: int = 8, **changed: object) -> Recordings:
    return samples(n, **changed).fetch(torch.arange(n))[0]


def waves(n: int = 4, length: int = 1000) -> torch.Tensor:
    return torch.randn(n, length, generator=torch.Generator().manual_seed(0)) / 10


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize("name", NAMED)
def test_views_of_a_sample_follow_from_its_row_of_the_draws_alone(name: str) -> None:
    known = samples()
    make = audio.views(name, 1000, RATE, known)
    draws = make.draw(8, torch.Generator().manual_seed(1))
    whole = make(known.fetch(EVERY)[0], draws=draws)
    assert [view.shape for view in whole] == [(8, 1000)] * 2
    assert all(view.isfinite().all() for view in whole)
    assert not torch.equal(*whole)
    part = make(known.fetch(torch.arange(3, 6))[0], draws=draws.rows(slice(3, 6)))
    for view, rows in zip(whole, part, strict=True):
        torch.testing.assert_close(view[3:6], rows)
    read = make.read(known.fetch(EVERY)[0], draws=draws)
    for view, rows in zip(whole, make(*read, draws=draws), strict=True):
        assert torch.equal(view, rows)
    few = make.draw(3, torch.Generator().manual_seed(1))
    assert torch.equal(few.numbers, draws.numbers[:3])


def test_the_plain_view_is_the_middle_with_silence_at_both_ends() -> None:
    wave = torch.arange(1, 6).float()
    known = open_audio([wave / 8, torch.ones(2) / 2], array_rate=10)
    long, short = plain(3, 10)(*known.fetch(torch.arange(2)))[0]
    torch.testing.assert_close(long, wave[1:4] / 8)
    torch.testing.assert_close(short, torch.tensor([0.0, 0.5, 0.5]))
    (wide,) = plain(6, 10)(*known.fetch(torch.tensor([1])))
    torch.testing.assert_close(wide, torch.tensor([[0, 0, 0.5, 0.5, 0, 0]]))


def test_crops_are_parts_of_the_recording_at_places_all_over_it() -> None:
    known = open_audio([torch.arange(1, 101) / 128], array_rate=10)
    make = Views([View(crop=True)], 20, 10)
    draws = make.draw(400, torch.Generator().manual_seed(0))
    (crops,) = make(known.fetch(torch.zeros(400, dtype=torch.int64))[0], draws=draws)
    torch.testing.assert_close(crops.diff(dim=1), torch.full((400, 19), 1 / 128))
    starts = (crops[:, 0] * 128).round() - 1
    assert (starts.min(), starts.max()) == (0, 80)
    torch.testing.assert_close(starts.mean(), torch.tensor(40.0), atol=4, rtol=0)
    shifted = Views([View(crop=True, shift=0.5)], 20, 10)
    (crops,) = shifted(known.fetch(torch.zeros(400, dtype=torch.int64))[0], draws=draws)
    silent = (crops == 0).sum(1)
    assert 0 < (silent > 0).float().mean() < 0.5
    assert silent.max() == 10


def test_speed_changes_the_pitch() -> None:
    known = open_audio([torch.sin(2 * math.pi * 100 * torch.arange(4000) / 2000)], array_rate=2000)
    for speed in (0.8, 1.25):
        make = Views([View(speed=(speed, speed * 1.000001))], 1000, 2000)
        (view,) = make(known.fetch(torch.tensor([0]))[0], draws=make.draw(1, torch.Generator()))
        peak = torch.fft.rfft(view[0] * torch.hann_window(1000)).abs().argmax() * 2
        torch.testing.assert_close(float(peak), 100 * speed, atol=2, rtol=0)


def test_noise_has_the_power_that_was_asked_for() -> None:
    x, noise = waves(), waves(4) * 7
    for decibel in (-3.0, 10.0, 30.0):
        made = audio.with_noise(x, noise, torch.full((4, 1), decibel)) - x
        ratio = 10 * (x.square().mean(1) / made.square().mean(1)).log10()
        torch.testing.assert_close(ratio, torch.full((4,), decibel), atol=0.1, rtol=0)
    silent = audio.with_noise(torch.zeros(1, 50), noise[:1, :50], torch.zeros(1, 1))
    assert torch.equal(silent, torch.zeros(1, 50))


def test_what_is_mixed_has_its_share_of_the_power() -> None:
    time = torch.arange(1000) / 1000
    x, other = (torch.sin(2 * math.pi * f * time)[None] for f in (10, 25))
    for share in (0.0, 0.3, 1.0):
        made = audio.mixed(x, 5 * other, torch.tensor([[share]]))
        own, theirs = (2 * (made * tone).mean() for tone in (x, other))
        torch.testing.assert_close(float(own) ** 2, 1 - share, atol=1e-4, rtol=0)
        torch.testing.assert_close(float(theirs) ** 2, share, atol=1e-4, rtol=0)
    assert torch.equal(audio.mixed(x, torch.zeros_like(x), torch.tensor([[0.5]])), x)
    assert torch.equal(audio.mixed(0 * x, other, torch.tensor([[0.5]])), 0 * x)


def test_a_time_mask_is_silent_where_it_is_and_nowhere_else() -> None:
    x = waves() + 1
    made = audio.time_masked(x, column(0.0, 0.1, 0.25, 1.0), column(0.5, 0.0, 1.0, 0.3))
    assert ((made == 0) | (made == x)).all()
    assert (made == 0).sum(1).tolist() == [0, 100, 250, 1000]
    assert (made[1, :100] == 0).all()
    assert (made[2, 750:] == 0).all()


def test_a_band_mask_takes_the_frequencies_of_its_band_and_no_others() -> None:
    x = waves(2, 1024)
    made = audio.band_masked(x, RATE, column(0.0, 0.3), column(0.5, 0.6))
    torch.testing.assert_close(made[0], x[0], atol=1e-6, rtol=0)
    top = float(hertz_to_mel(torch.tensor(RATE / 2)))
    mel = hertz_to_mel(torch.arange(513) * RATE / 1024) / top
    before, after = (torch.fft.rfft(wave[1]).abs() for wave in (x, made))
    inside = (mel >= 0.42 + 0.01) & (mel < 0.72 - 0.01)
    outside = (mel < 0.42 - 0.01) | (mel >= 0.72 + 0.01)
    assert inside.sum() > 50
    assert after[inside].max() < 1e-3 * before.mean()
    torch.testing.assert_close(after[outside], before[outside], atol=1e-3, rtol=1e-3)


def test_gain_is_in_decibel() -> None:
    make = Views([View(gain=(-6, 6))], 1000, RATE)
    draws = make.draw(8, torch.Generator().manual_seed(0))
    (loud,), (as_is,) = make(given(), draws=draws), plain(1000, RATE)(given())
    decibel = 20 * (loud.square().mean(1) / as_is.square().mean(1)).sqrt().log10()
    torch.testing.assert_close(decibel, -6 + 12 * draws.numbers[:, 0, NUMBERS.index("gain")], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["gain", "noise", "mix", "time", "band", "speed"])
def test_each_change_alone_changes_some_views(name: str) -> None:
    known = samples()
    value = {"gain": (-6.0, 6.0), "speed": (0.8, 1.2)}.get(name, 0.5)
    make = Views([dataclasses.replace(View(), **{name: value})], 1000, RATE, known)
    (view,) = make(given(), draws=make.draw(8, torch.Generator().manual_seed(0)))
    (as_is,) = plain(1000, RATE)(given())
    assert (view != as_is).any(1).sum() >= 3


def test_what_cannot_be_a_view_is_refused() -> None:
    for odd, words in (
        (View(mix=0.1), "to be given those"),
        (View(time=1.5), "time=1.5; wanted: from 0 to 1"),
        (View(speed=(2, 1)), "from the lower to the higher"),
        (View(speed=(0, 1)), "more than 0"),
    ):
        with pytest.raises(ValueError, match=words):
            Views([odd], 100, RATE)
    make = Views([View(crop=True)], 100, RATE)
    with pytest.raises(ValueError, match="8 recordings and 1 views need draws for 8 x 1"):
        make(given(), draws=make.draw(3, torch.Generator()))


def test_recordings_are_moved_as_views_are() -> None:
    moved = to(given(), "cpu")
    assert torch.equal(moved.select(torch.tensor([2, 2])).index, torch.tensor([2, 2]))
    assert moved.count() == len(tones(8))
