from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.modalities.audio.mel import hertz_to_mel, log_mel, mel_filters, mel_to_hertz


@pytest.mark.parametrize(("rate", "window", "hop", "bands"), [(8000, 320, 128, 40), (16000, 641, 100, 30)])
def test_log_mel_is_that_of_librosa(rate: int, window: int, hop: int, bands: int) -> None:
    librosa: Any = pytest.importorskip("librosa", reason="librosa is not installed (the extra dev)")
    wave = torch.randn(2, rate // 2 + 17, generator=torch.Generator().manual_seed(0)) / 10
    own = log_mel(rate, window, hop, bands)
    np.testing.assert_allclose(
        own.filters, librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands), atol=1e-8, rtol=1e-5
    )
    for row, found in zip(wave.numpy(), own.log(wave).numpy(), strict=True):
        power = librosa.feature.melspectrogram(
            y=row, sr=rate, n_fft=window, hop_length=hop, n_mels=bands, center=True, pad_mode="constant", power=2.0
        )
        np.testing.assert_allclose(found, np.log(power + 1e-6), atol=1e-4)


def test_log_mel_is_that_of_a_slow_transform() -> None:
    wave = torch.randn(1, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own = log_mel(1000, 32, 20, 5, mean=-2.0, std=3.0)
    padded = torch.cat([torch.zeros(16), wave[0], torch.zeros(16)]).double()
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * t / 32) for t in range(32)]
    for frame in range(1 + 90 // 20):
        power = []
        for f in range(17):
            turns = [2 * math.pi * f * t / 32 for t in range(32)]
            parts = [float(padded[20 * frame + t]) * hann[t] for t in range(32)]
            real = sum(p * math.cos(a) for p, a in zip(parts, turns, strict=True))
            imaginary = sum(p * math.sin(a) for p, a in zip(parts, turns, strict=True))
            power.append(real**2 + imaginary**2)
        bands = mel_filters(1000, 32, 5).double() @ torch.tensor(power, dtype=torch.float64)
        want = ((bands + 1e-6).log() + 2) / 3
        torch.testing.assert_close(own(wave)[0, :, frame].double(), want, atol=1e-4, rtol=1e-4)


def test_filters_are_triangles_of_equal_area_on_a_scale_that_has_an_inverse() -> None:
    hertz = torch.tensor([0.0, 100, 1000, 2500, 8000], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(hertz)), hertz)
    filters = mel_filters(16000, 2048, 40)
    assert (filters >= 0).all()
    assert (filters.argmax(1).diff() > 0).all()
    torch.testing.assert_close(filters.sum(1) * 16000 / 2048, torch.ones(40), atol=0.05, rtol=0)
    with pytest.raises(ValueError, match=r"of 200 mel bands are narrower than the 25 Hz.*--bands"):
        mel_filters(8000, 320, 200)


def test_silence_is_the_floor() -> None:
    silent = log_mel(8000, 320, 128, 20).log(torch.zeros(1, 800))
    torch.testing.assert_close(silent, torch.full_like(silent, math.log(1e-6)))
