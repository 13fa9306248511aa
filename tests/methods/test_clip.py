"""CLIP in particular: its scale, a locked side, and several sides at once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.distributed import normalize
from nearfar.methods.clip import CLIP
from nearfar.nn.towers import Joint, Towers
from nearfar.nn.wrapped import Wrapped

from .small import TinyEncoder, TinyRows, clock, form, sgd, step

PAIRS = replace(form("clip"), kind="pair")


def loss_of(u: Tensor, v: Tensor, temperature: float) -> Tensor:
    logits, own = normalize(u) @ normalize(v).T / temperature, torch.arange(len(u))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def test_each_side_finds_the_other_by_its_own_network() -> None:
    method, batch = PAIRS.build(temperature=0.2), PAIRS.batch(8)
    method.eval()
    (view, *_) = batch.views
    towers = method.encoder
    assert isinstance(towers, Towers)
    # The second side sees the next view, where there is one.
    want = loss_of(towers.tower("image")(view["image"]), towers.tower("table")(batch.views[1]["table"]), 0.2)
    out = method(batch)
    torch.testing.assert_close(out.loss, want)
    assert float(out.log["temperature"]) == pytest.approx(0.2)
    with torch.no_grad():
        assert method.chance(batch) == pytest.approx(math.log(8))


def test_the_scale_is_held_between_one_and_a_hundred_after_a_step() -> None:
    method = PAIRS.build()
    assert isinstance(method, CLIP)
    for start, end in ((9.0, math.log(100)), (-3.0, 0.0)):
        with torch.no_grad():
            method.log_scale.fill_(start)
        step(method, sgd(method, lr=1e-6), PAIRS.batch(8))
        assert method.log_scale.item() == pytest.approx(end)


def test_more_than_two_sides_are_contrasted_pair_by_pair() -> None:
    torch.manual_seed(0)
    towers = Towers({name: Wrapped(TinyRows(), {}) for name in "abc"}).eval()
    method, batch = CLIP(towers, temperature=0.3).eval(), PAIRS.batch(6)
    rows = batch.views[0]["table"]
    view = {name: rows + k for k, name in enumerate("abc")}
    a, b, c = (towers.tower(name)(view[name]) for name in "abc")
    want = (loss_of(a, b, 0.3) + loss_of(a, c, 0.3) + loss_of(b, c, 0.3)) / 3
    torch.testing.assert_close(method(replace(batch, views=[view])).loss, want)


def test_of_a_locked_side_only_the_layer_into_the_shared_space_learns() -> None:
    torch.manual_seed(0)
    image = Joint(Wrapped(TinyEncoder(), {}), 8)
    method = CLIP(Towers({"image": image, "table": Joint(Wrapped(TinyRows(), {}), 8)}), lock="image").train()
    before = {name: value.clone() for name, value in image.state_dict().items()}
    method.clock = clock(0)
    step(method, sgd(method), PAIRS.batch(8))
    changed = {name for name, value in image.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"joint.weight"}


def test_sides_of_two_widths_and_a_lock_on_nothing_are_refused() -> None:
    towers = Towers({"image": Wrapped(TinyEncoder(), {}), "table": Joint(Wrapped(TinyRows(), {}), 8)})
    with pytest.raises(ValueError, match=r"24 and 8 numbers.*--space"):
        CLIP(towers)
    with pytest.raises(ValueError, match="no tower 'sound'"):
        CLIP(Towers({"a": Wrapped(TinyRows(), {}), "b": Wrapped(TinyRows(), {})}), lock="sound")


def test_a_network_for_two_sides_moves_its_statistics_once_a_step() -> None:
    torch.manual_seed(0)
    method = CLIP(Towers({"a": Wrapped(TinyRows(), {}), "b": "a"})).train()
    batch = PAIRS.batch(8)
    view = dict.fromkeys("ab", batch.views[0]["table"])
    method.clock = clock(0)
    step(method, sgd(method), replace(batch, views=[view]))
    (norm,) = (m for m in method.modules() if isinstance(m, torch.nn.BatchNorm1d))
    assert int(norm.num_batches_tracked) == 1  # pyright: ignore[reportArgumentType]
