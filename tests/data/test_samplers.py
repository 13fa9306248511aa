from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.samplers import order

LABEL = torch.tensor([0] * 60 + [1] * 30 + [2] * 6 + [MISSING] * 24)


def drawn(sampler: str, *, batch: int = 12, steps: int = 10, per_class: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return order(sampler, LABEL, batch=batch, steps=steps, per_class=per_class, generator=generator)


@pytest.mark.parametrize("sampler", ["shuffled", "balanced", "aware", "pk"])
def test_it_is_drawn_from_the_generator_alone(sampler: str) -> None:
    assert torch.equal(drawn(sampler), drawn(sampler))
    assert not torch.equal(drawn(sampler), drawn(sampler, seed=1))
    assert drawn(sampler).shape == (120,)


def test_shuffled_draws_each_once() -> None:
    assert drawn("shuffled").sort().values.tolist() == list(range(120))


def test_balanced_makes_classes_as_likely_and_leaves_the_unlabeled_their_share() -> None:
    known = LABEL[drawn("balanced", steps=1000)]
    share = torch.stack([(known == c).float().mean() for c in (0, 1, 2, MISSING)])
    torch.testing.assert_close(share, torch.tensor([0.8 / 3, 0.8 / 3, 0.8 / 3, 0.2]), rtol=0, atol=0.02)


def test_aware_goes_round_the_classes_and_through_each_before_any_comes_again() -> None:
    chosen = drawn("aware")
    known = LABEL[chosen]
    rounds = known[known >= 0]
    for start in range(0, len(rounds) - 2, 3):
        assert sorted(rounds[start : start + 3].tolist()) == [0, 1, 2]
    rare = chosen[known == 2]
    for start in range(0, len(rare) - 5, 6):
        assert len(set(rare[start : start + 6].tolist())) == 6


def test_pk_draws_k_of_p_classes_and_nothing_twice_in_a_step() -> None:
    label = torch.arange(200) % 20
    chosen = order("pk", label, batch=12, steps=16, per_class=4, generator=torch.Generator().manual_seed(0))
    for batch in chosen.split(12):
        assert len(set(batch.tolist())) == 12
        _, count = torch.unique(label[batch], return_counts=True)
        assert all(n % 4 == 0 for n in count.tolist())
    assert len(set(chosen.tolist())) > 150


def test_pk_takes_a_sample_without_a_label_alone_and_small_classes_whole() -> None:
    for batch in drawn("pk", batch=40, steps=3).split(40):
        assert len(set(batch.tolist())) == 40
        assert int((LABEL[batch] == 2).sum()) <= 6


@given(
    label=st.lists(st.integers(-1, 4), min_size=2, max_size=40),
    per_class=st.integers(1, 6),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_pk_fills_every_batch(label: list[int], per_class: int, batch: int, seed: int) -> None:
    batch = min(batch, len(label))
    chosen = order(
        "pk", torch.tensor(label), batch=batch, steps=3, per_class=per_class,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    for part in chosen.split(batch):
        assert len(set(part.tolist())) == batch


def test_without_any_label_it_is_shuffled() -> None:
    label = torch.full((8,), MISSING)
    for sampler in ("balanced", "aware"):
        chosen = order(sampler, label, batch=4, steps=2, per_class=4, generator=torch.Generator().manual_seed(0))
        assert chosen.sort().values.tolist() == list(range(8))


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'sorted' is none of shuffled"):
        drawn("sorted")
