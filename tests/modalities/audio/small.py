"""Recordings in small, for the tests of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.modalities.audio.encoder import AudioEncoder
from nearfar.modalities.audio.samples import AudioSamples, open_audio

soundfile: Any = pytest.importorskip("soundfile", reason="soundfile is not installed (the extra audio)")

RATE = 4000
TINY = (
    *("--encoder", "melconv-8", "--bands", "12", "--seconds", "0.25"),
    *("--epochs", "1", "--batch", "16", "--probe-every", "0"),
)
SPEC = {"kind": "audio", "name": "melconv-8", "rate": RATE, "length": 1000, "bands": 12, "window": 160, "hop": 64}
SPEC |= {"mean": -5.0, "std": 3.0}


def tones(n: int, classes: int = 4, seed: int = 0) -> list[np.ndarray]:
    """N recordings of 0.2 to 0.3 s, float: a tone whose pitch is that of the class, beside noise."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        time = np.arange(random.integers(800, 1200)) / RATE
        tone = np.sin(2 * np.pi * (200 + 300 * (i % classes)) * random.uniform(0.95, 1.05) * time)
        made.append((0.3 * random.uniform(0.5, 1) * tone + 0.01 * random.normal(size=len(time))).astype(np.float32))
    return made


def folder(path: Path, n: int = 32, classes: int = 4, suffix: str = ".wav", rate: int = RATE) -> Path:
    """A folder of such files, one folder a class below it."""
    for i, wave in enumerate(tones(n, classes)):
        file = path / f"class{i % classes}" / f"{i:03d}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, wave, rate)
    return path


def samples(n: int = 8, **changed: Any) -> AudioSamples:
    """N of them in memory."""
    return open_audio(tones(n), **{"array_rate": RATE} | changed)


def tiny(**changed: Any) -> AudioEncoder:
    """A few hundred weights."""
    torch.manual_seed(0)
    return AudioEncoder(SPEC | changed)
