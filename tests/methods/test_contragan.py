from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar import methods, optim
from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.conditional import conditional_contrastive, data_to_data, hinge
from nearfar.method import in_turn
from nearfar.methods.contragan import ContraGAN
from nearfar.nn.biggan import Generator
from nearfar.run import fit
from nearfar.training import loop
from tests.tiny import tiny_images
from tests.two_ranks import Pool

from .ranks import hold_two_ranks_to_one
from .small import Form, copied_state, form

PLAYERS = {"discriminator": ("encoder.", "critic."), "generator": ("generator.",)}


def built(**arguments: Any) -> ContraGAN:
    return cast(ContraGAN, plain(**arguments).build()).double()


def plain(**arguments: Any) -> Form:
    return form("contragan", width=2, dim=6, **arguments)


def batch(n: int = 8) -> Batch:
    return plain().batch(n, dtype=torch.float64)


@pytest.mark.parametrize(("optimizer", "steps"), [("sgd", 1), ("adamw", 2), ("lars", 1)])
def test_a_step_moves_one_player_and_nothing_else(optimizer: str, steps: int) -> None:
    method = built(discriminator_steps=steps)
    groups = optim.parameter_groups(method, 0.1)  # decay and momentum move what has no gradient
    made = getattr(optim, optimizer)(groups, 0.1, **({"rate_in_momentum": True} if optimizer == "lars" else {}))
    turns = []
    for number in range(2 * (steps + 1)):
        method.clock.step = number
        before = copied_state(method)
        loop.step(method, batch(), made)
        moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
        moved = {name for name in moved if not name.endswith(("._u", "._v"))}
        (player,) = (name for name, parts in PLAYERS.items() if any(part.startswith(parts) for part in moved))
        copy = {"slow."} if player == "generator" else set()
        assert all(name.startswith((*PLAYERS[player], *copy)) for name in moved)
        own = {name: p for name, p in method.named_parameters() if name.startswith(PLAYERS[player])}
        assert {name for name, p in own.items() if p.ndim > 1} <= moved  # before a batch norm no bias need move
        assert all(p.requires_grad for name, p in method.named_parameters() if not name.startswith("slow."))
        turns.append(player)
    assert turns == 2 * (steps * ["discriminator"] + ["generator"])


def condition(method: ContraGAN, h: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """D of what the encoder gives, and the loss of the condition, by hand."""
    critic: Any = method.critic
    weights = critic.state_dict()
    score = h @ critic.real[0].weight.T + weights["real.0.bias"]
    if critic.condition in ("none", "projection"):
        known = 0 if critic.proxies is None else (h * critic.proxies.weight[label.clamp(min=0)]).sum(1)
        return score[:, 0] + torch.where(label >= 0, known, 0), torch.zeros(())
    z = h @ critic.projector[0].weight.T + weights["projector.0.bias"]
    if critic.condition == "classifier":
        return score[:, 0], F.cross_entropy(z[label >= 0], label[label >= 0])
    z, proxy = normalize(z), normalize(critic.proxies.weight[label.clamp(min=0)])
    if critic.condition == "2c":
        return score[:, 0], conditional_contrastive(z, proxy, label, temperature=0.5)
    return score[:, 0], data_to_data(z, proxy, label, temperature=0.5, margin=0.9)


SIZES = {"2c": 25 + 150 + 18, "d2dce": 25 + 150 + 18, "projection": 25 + 72, "classifier": 25 + 75, "none": 25}
"""Weights of each head: 24 numbers of the encoder, 3 classes, an embedding of 6."""


@pytest.mark.parametrize("name", SIZES)
def test_the_losses_of_both_players(name: str) -> None:
    method, given = built(condition=name, weight=0.3, temperature=0.5, positive_margin=0.9), batch()

    def made() -> tuple[Tensor, Tensor, Tensor]:
        z, label = method.generator.draw(8, method.clock.generator())
        return *condition(method, method.encoder(method.generator(z.double(), label)), label), label

    real, asked = condition(method, method.encoder(given.views[0]), given.label)
    torch.testing.assert_close(method(given).loss, hinge(real, made()[0]) + 0.3 * asked)
    method.clock.step = 1
    fake, asked, label = made()
    assert name == "none" or len(label.unique()) == 3
    torch.testing.assert_close(method(given).loss, -fake.mean() + 0.3 * asked)
    assert sum(p.numel() for p in method.critic.parameters()) == SIZES[name]


def test_only_the_direction_of_an_embedding_and_of_a_proxy_counts() -> None:
    critic: Any = built().critic
    label = batch().label
    with torch.no_grad():
        critic.projector[0].bias.zero_()
    h = torch.randn(8, 24, dtype=torch.float64)
    first = critic.asked(h, label)
    with torch.no_grad():
        critic.proxies.parametrizations.weight.original.mul_(torch.tensor([[3.0], [0.1], [1.0]]))
    torch.testing.assert_close(critic.asked(7 * h, label), first)


def test_the_copy_follows_the_generator_when_it_has_moved() -> None:
    method = built(ema=0.15)
    name = "start.parametrizations.weight.original"
    optimizer = optim.adam([{"params": [p for p in method.parameters() if p.requires_grad]}], 0.01)
    for number, kept in enumerate((1, 1 / 10, 1, 0.15)):  # of two turns of the generator
        method.clock.step, before = number, method.slow.get_parameter(name).clone()
        loop.step(method, batch(), optimizer)
        now = method.generator.get_parameter(name)
        torch.testing.assert_close(method.slow.get_parameter(name), kept * before + (1 - kept) * now)


@pytest.mark.parametrize("name", ["2c", "projection"])
def test_two_ranks_are_one_over_a_whole_round(two_ranks: Pool, name: str) -> None:
    of = plain(condition=name, discriminator_steps=2)
    method = of.build().double()
    hold_two_ranks_to_one(
        two_ranks, of, method, [of.batch(8, seed=s, dtype=torch.float64) for s in range(4)], tolerance=1e-10
    )


def test_what_a_player_gets_in_half_precision_is_no_number_for_the_other() -> None:
    method = built()
    for step in range(2):
        method.clock.step = step
        with in_turn(method):
            method(batch()).loss.backward()
        got = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
        assert got == ({"generator"} if step else {"encoder", "critic"})
        method.zero_grad(set_to_none=True)


def test_missing_labels_are_refused_and_need_not_be_there_for_no_condition(tmp_path: Path) -> None:
    known = {"channels": 3, "size": 8, "classes": 0}
    encoder = built().encoder
    with pytest.raises(ValueError, match="--condition none"):
        methods.build(ContraGAN, encoder, {}, **known)
    assert methods.build(ContraGAN, encoder, {"condition": "none", "width": 2}, **known)
    flags = {"encoder": "biggan2", "width": 2, "latent": 8, "epochs": 1, "batch": 8, "say": lambda text: None}
    images = tiny_images(16)
    with pytest.raises(ValueError, match="learns from labels"):
        fit(images, "contragan", out=tmp_path / "no", **flags)
    assert not (tmp_path / "no").exists()
    run = fit(images, "contragan", out=tmp_path / "run", condition="none", **flags)
    assert run.made["needs_labels"] is False
    assert isinstance(run.method.get_submodule("slow"), Generator)


def test_a_view_of_another_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) are made, and views are \(3, 16, 16\)"):
        built()(replace(batch(), views=[torch.rand(8, 3, 16, 16, dtype=torch.float64)]))


def test_a_run_that_is_taken_up_again_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """From the middle of a round, too: seven steps an epoch, three a round."""
    data = (tiny_images(56), [MISSING if i == 5 else i % 4 for i in range(56)])
    flags: dict[str, Any] = {
        "encoder": "biggan2",
        "width": 2,
        "dim": 4,
        "latent": 8,
        "discriminator_steps": 2,
        "batch": 8,
    }
    flags |= {"probe_every": 0, "say": lambda text: None}
    whole = fit(data, "contragan", out=tmp_path / "whole", epochs=2, **flags)
    fit(data, "contragan", out=tmp_path / "parts", epochs=1, **flags)
    parts = fit(data, "contragan", out=tmp_path / "parts", epochs=2, resume=True, **flags)
    again = parts.state()
    for name, value in whole.state().items():
        assert torch.equal(value, again[name]), name
