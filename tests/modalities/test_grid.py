"""Every method on every kind of data: it takes two steps, or is refused before the first with the reason.

A kind joins by a file `tests/modalities/KIND/few.py`, whose `few(folder)` writes sixteen samples of two classes or more
and gives their path, and what is set to train a tiny encoder on them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import methods, modalities
from nearfar.data.samples import Samples
from nearfar.errors import UserError
from nearfar.method import Look
from nearfar.modalities import kind as kinds
from nearfar.training import plan as plans
from nearfar.training.build import Built, build, insist_ready, open_samples, settled, unfit
from nearfar.training.loop import fit
from nearfar.training.optimization import make_optimizer
from nearfar.training.options import Loop
from nearfar.training.probe import look
from tests.methods.small import small

STEPS = 2


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a kind the samples, and what is set to train on them."""

    @cache
    def of(kind: str) -> tuple[Samples, dict[str, Any]]:
        data, given = few(kind, tmp_path_factory.mktemp(kind))
        plan = plans.make("simclr", data, None, given, kind=kind)
        return kinds.of(kind).samples(data, plan.settings), given

    return of


def few(kind: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    where = f"tests.modalities.{kind}.few"
    assert find_spec(where), f"write {where.replace('.', '/')}.py: see the head of this file"
    return import_module(where).few(folder)


def attempted(name: str, kind: str, samples: Samples, given: dict[str, Any]) -> tuple[plans.Plan, Built] | str:
    """What a run comes to before its first step, or why it is refused."""
    try:
        return made(name, kind, samples, given)
    except UserError as error:
        return str(error)


def made(name: str, kind: str, samples: Samples, given: dict[str, Any]) -> tuple[plans.Plan, Built]:
    flags = methods.flags(methods.load(name))
    less = {key: small(flag.default) for key, flag in flags.items() if small(flag.default) != flag.default}
    shape = {"epochs": 1, "batch": len(samples) // STEPS}
    plan = plans.make(name, samples, None, given | shape | less, kind=kind)
    insist_ready(plan)
    opened = open_samples(plan, lambda text: None)
    plan = settled(plan, opened)
    return plan, build(plan, opened, plan.settings.batch, Path(), lambda text: None)


NAMED = {
    *(("calm", "text"), ("clip", "image"), ("cmc", "image")),
    *(("cpc", "audio"), ("relicv2", "image"), ("tcn", "video")),
}
"""Cells that train by the method's own recipe, and not on the tiny encoder or the tiny images that are named here."""


@pytest.mark.parametrize("kind", modalities.names())
@pytest.mark.parametrize("name", methods.names())
def test_a_method_trains_or_says_why_not(name: str, kind: str, opened: Any) -> None:
    samples, given = opened(kind)
    cell = attempted(name, kind, samples, given)
    listed = not unfit(plans.make(name, None, None, {}, kind=kind))
    assert listed == (not isinstance(cell, str) or (name, kind) in NAMED), "as `nearfar methods --kind` says"
    if isinstance(cell, str):
        assert re.search(r"'.+'|--\w", cell), cell
        assert len(cell.split()) > 8, cell
        return
    plan, built = cell
    method, data, plain = built.method.train(), built.samples, built.kind.plain(built.encoder)
    before = {key: value.clone() for key, value in built.encoder.state_dict().items()}
    losses: list[float] = []
    device = torch.device("cpu")
    loop = Loop(
        epochs=1,
        batch=plan.settings.batch,
        clip=plan.settings.clip or None,
        sampler="" if plan.settings.sampler == "method" else plan.settings.sampler,
        look=Look(lambda encode: look(encode, plain, data, device), data.label, data.attribute),
        watch=lambda step, steps, numbers: losses.append(numbers.get("loss", 0.0)),
        quiet=True,
    )
    assert fit(method, data, built.views, make_optimizer(method, plan.settings, loop.batch), loop)
    assert method.clock.step == STEPS - 1
    assert losses
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    moved = [key for key, value in built.encoder.state_dict().items() if not torch.equal(value, before[key])]
    assert moved
