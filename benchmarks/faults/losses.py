"""Losses in half precision, and the level that a loss is compared with. Methods are those of the tests, in small."""

from __future__ import annotations

import random
from itertools import cycle, islice
from pathlib import Path

import torch
from tests.losses.ranks import unit
from tests.losses.test_four_ranks import LOSSES, D, N
from tests.methods.border import constant, hold_half_precision_to_float32, loss_and_chance
from tests.methods.small import Form, forms

from benchmarks.faults import Faults
from nearfar.batch import MISSING, Batch


def half_precision(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """bf16 and fp16: loss and gradient of a method against float32, on the same embeddings"""
    for form in islice(cycle(_shuffled(random)), many):
        half, batch = random.choice(("bf16", "fp16")), _batch(form, random)
        try:
            hold_half_precision_to_float32(form, batch, half)
            faults.tell(True, "")
        except (AssertionError, RuntimeError) as error:
            faults.tell(False, f"{form} in {half}: {error}")


def autocast_around_a_loss(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """A user's own autocast around a loss: value and gradient against float32"""
    for name in islice(cycle(LOSSES), many):
        seed, results = random.randrange(10**6), []
        for on in (True, False):
            a, b = (unit(N, D, seed + side).float().requires_grad_() for side in (0, 1))
            with torch.autocast("cpu", torch.bfloat16, enabled=on):
                loss = LOSSES[name](a, b, torch.arange(N), None)
            gradients = torch.autograd.grad(loss, (a, b), allow_unused=True)
            results.append(torch.cat([loss.detach()[None], *(g.flatten() for g in gradients if g is not None)]))
        size = results[1].abs().max().clamp(min=1e-12)  # without positives a loss is 0, and so is its gradient
        apart = float((results[0] - results[1]).abs().max() / size)
        faults.tell(apart < 1e-6, f"{name}: {apart:.1e} apart")


def chance_level(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Constant encoders, 1 to 4 views, repeated and missing labels, groups: loss = chance level"""
    for form in islice(cycle(_shuffled(random)), many):
        with constant(form) as method:
            views, batch = random.choice((0, 1, 2, 4)), _batch(form, random)
            both = loss_and_chance(method, batch, views) or loss_and_chance(method, batch, 0)
        assert both is not None
        loss, chance = both
        well = chance is None or abs(loss - chance) <= 2e-5 * max(1.0, abs(chance))
        faults.tell(well, f"{form}, {views} views, labels {batch.label.tolist()}: {loss}, not {chance}")


def _shuffled(random: random.Random) -> list[Form]:
    every = forms()
    return random.sample(every, len(every))


def _batch(form: Form, random: random.Random) -> Batch:
    """Of 4 to 12 samples, with some labels or none, in groups or not."""
    n = random.randint(4, 12)
    batch = form.batch(n, seed=random.randrange(10**6), grouped=random.random() < 0.5)
    known = random.choice(((0,), (MISSING,), (0, 1, 2), (0, 0, 0, 1), (MISSING, 0, 1)))
    batch.label = torch.tensor(random.choices(known, k=n))
    return batch
