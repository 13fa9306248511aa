"""One run and two classifiers from it, which all tests of this room share. Look, but change nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

import nearfar
from nearfar.fewlabels.classifier import Classifier
from nearfar.modalities.image.samples import Images, open_images
from nearfar.run import Run
from tests.tiny import SETTINGS, tiny_images


class Stop:
    """A `watch` that sends this process a signal after so many calls: what Ctrl-C or a scheduler does."""

    def __init__(self, calls: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.left, self.number = calls, number

    def __call__(self, step: int, steps: int, numbers: dict[str, float]) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), self.number)


VARYING = ("environment.json", "report.html", "metrics.jsonl")
"""Files of a classifier that are others when it is made again: of the time it took."""

QUIET: dict[str, Any] = {"say": lambda text: None}


def samples(n: int = 96, classes: int = 4, split: Sequence[str] = ("", "test")) -> Images:
    """Bars at four angles, by turns of the given splits. The first 48 are those of the run."""
    images = open_images((tiny_images(n, classes), [f"angle{i % classes}" for i in range(n)]))
    images.split = [split[i // classes % len(split)] for i in range(n)]
    return images


def with_val() -> Images:
    """60 samples, a fifth of them of the split val, and a fifth of test."""
    return samples(60, split=("", "train", "", "val", "test"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SimCLR on 48 of the samples."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return nearfar.fit(tiny_images(), "simclr", out=out, recipe="paper", dim=32, **QUIET, **SETTINGS)


@pytest.fixture(scope="session")
def linear(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A linear layer behind the projector's first, from 48 labels."""
    return nearfar.finetune(run, samples(), layer=1, out=tmp_path_factory.mktemp("linear") / "c", **QUIET)


@pytest.fixture(scope="session")
def tuned(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The whole network, from 36 labels, and 12 others that choose the epoch."""
    out = tmp_path_factory.mktemp("tuned") / "c"
    return nearfar.finetune(run, with_val(), train="full", layer=1, epochs=2, batch=16, lr=1e-3, out=out, **QUIET)
