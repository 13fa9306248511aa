"""Fine-tuning a whole network: how it begins, which state is kept, and what it learns from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nearfar.fewlabels.settings import Tuning
from nearfar.fewlabels.tuned import Trainer, tune
from nearfar.method import Stage
from nearfar.run import Run
from tests.fewlabels.conftest import samples


def test_the_new_layer_begins_at_zero_and_the_best_state_is_kept(run: Run) -> None:
    data = samples(48, split=("",))
    learn, held = data.subset(range(32)), data.subset(range(32, 48))
    watched: list[dict[str, float]] = []
    trainer = Trainer(
        run=run,
        tuning=Tuning(epochs=6, batch=16, lr=2e-3),
        watch=lambda step, steps, numbers: watched.append(numbers),
    )
    method, facts = tune(Stage(run.untrained(), dim=run.encoder.dim), learn, held, trainer)
    tries = [numbers for numbers in watched if "held_out_accuracy" in numbers]
    scores = [(numbers["held_out_accuracy"], -numbers["held_out_loss"]) for numbers in tries]
    assert facts == {
        "epochs": 6,
        "batch": 16,
        "lr": 2e-3,
        "views": "drawing",
        "tries": 6,
        "epoch": 1 + scores.index(max(scores)),
    }
    (view,) = run.kind.plain(run.encoder)(*held.fetch(torch.arange(16)))
    with torch.no_grad():
        logits = method.classify(view)
    accuracy, likelihood = max(scores)
    assert float(100 * (logits.argmax(1) == held.label).double().mean()) == accuracy
    loss = torch.nn.functional.cross_entropy(logits, held.label)
    assert float(loss) == pytest.approx(-likelihood, rel=1e-4)
    first = next(numbers["loss"] for numbers in watched if "loss" in numbers)
    assert first <= np.log(4) + 0.2  # as of a layer of zeros
    assert not method.training


def test_without_held_out_rows_the_last_epoch_is_kept(run: Run) -> None:
    data = samples(16, split=("",))
    trainer = Trainer(run=run, tuning=Tuning(epochs=2, batch=16, views="simclr"))
    _, facts = tune(Stage(run.untrained(), dim=run.encoder.dim), data, None, trainer)
    assert (facts["epoch"], facts["tries"], facts["views"]) == (2, 0, "simclr")


def test_views_are_mild(run: Run) -> None:
    assert run.kind.mild_views(run.settings) == "drawing"  # as those it was trained with
    assert run.kind.mild_views(dataclasses.replace(run.settings, views="simclr")) == "cmc"
