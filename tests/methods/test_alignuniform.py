from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nearfar.batch import Batch

from .small import form, statistics

alignuniform = form("alignuniform")


def test_loss_is_that_of_loops_over_pairs() -> None:
    method = form("alignuniform", align=3.0, uniform=0.5, alpha=1.5, t=3.0).build().double()
    batch = alignuniform.batch(5, dtype=torch.float64)
    h = method.encoder(torch.cat(batch.views))
    z = nn.functional.normalize(method.get_submodule("projector")(h)).tolist()
    x, y = z[:5], z[5:]
    near = sum(math.dist(a, b) ** 1.5 for a, b in zip(x, y, strict=True)) / 5
    spread = []
    for rows in (x, y):
        terms = [math.exp(-3 * math.dist(rows[i], rows[j]) ** 2) for i in range(5) for j in range(i)]
        spread.append(math.log(sum(terms) / len(terms)))
    out = method(batch)
    assert out.loss.item() == pytest.approx(3 * near + 0.5 * sum(spread) / 2)
    assert out.log["align"].item() == pytest.approx(near)
    assert out.log["uniform"].item() == pytest.approx(sum(spread) / 2)


def test_views_are_spread_each_for_itself() -> None:
    """Where views come in another order, what is spread stays as it was, and what is aligned does not."""
    method, batch = alignuniform.build().double(), alignuniform.batch(6, dtype=torch.float64)
    v1, v2 = batch.views
    want = method(batch).log
    swapped = method(Batch([v2, v1], batch.index, batch.label)).log
    mixed = method(Batch([v1, v2.roll(1, 0)], batch.index, batch.label)).log
    for name in ("align", "uniform"):
        torch.testing.assert_close(swapped[name], want[name])
    torch.testing.assert_close(mixed["uniform"], want["uniform"])
    assert not torch.isclose(mixed["align"], want["align"])


def test_the_head_is_linear_and_nothing_is_remembered() -> None:
    heads = [form("alignuniform", head=head).build() for head in ("linear", "mlp")]
    counts = [sum(isinstance(m, nn.Linear) for m in method.modules()) for method in heads]
    assert counts == [1, 2]
    assert {name for name, _ in heads[0].named_buffers()} == statistics(heads[0])


def test_one_sample_has_nothing_to_be_spread_from() -> None:
    with pytest.raises(ValueError, match="at least 2, not 1"):
        alignuniform.build().eval()(alignuniform.batch(1))
