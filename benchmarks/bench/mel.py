"""Log-mel spectrograms of recordings."""

from __future__ import annotations

import torch

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar.modalities.audio.mel import log_mel

RATE, WINDOW, HOP, BANDS = 16_000, 640, 256, 64


def contenders(n: int, seconds: float) -> dict[str, Contender]:
    """Of n recordings in memory; the value is the mean of all."""
    waves = torch.randn(n, round(seconds * RATE), generator=torch.Generator().manual_seed(0)) / 10

    def librosa() -> Run:
        import librosa
        import numpy as np

        form = {"sr": RATE, "n_fft": WINDOW, "hop_length": HOP, "n_mels": BANDS, "pad_mode": "constant"}

        def run() -> float:
            made = [np.log(librosa.feature.melspectrogram(y=wave, **form) + 1e-6) for wave in waves.numpy()]
            return float(np.mean(made))

        return run

    def ours() -> Run:
        layer = log_mel(RATE, WINDOW, HOP, BANDS)
        return lambda: float(torch.cat([layer(part) for part in waves.split(32)]).mean())

    return {"librosa": librosa, OURS: ours}


def measure(setting: Setting) -> Found:
    """1,000 recordings of a second."""
    found, n = Found(), 32 if setting.quick else 1000
    row = compare(
        "log-mel",
        {"Recordings": n, "Bands": BANDS},
        contenders(n, 1.0),
        clock=clock_for(setting.threads),
        seconds=0.5 if setting.quick else 30,
        rate=(n, "recordings/s"),
    )
    found.add(row, "log-mel of 1,000 recordings")
    return found
