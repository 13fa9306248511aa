from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import local, normalize
from nearfar.losses.pairwise import nt_xent
from nearfar.methods.bregman import Bregman
from tests.two_ranks import Pool

from .small import clock, form


def build(**arguments: Any) -> Bregman:
    return cast(Bregman, form("bregman", **arguments).build()).double()


def a_batch() -> Batch:
    return form("bregman").batch(8, dtype=torch.float64)


def rows(n: int = 16, d: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return normalize(torch.randn(n, d, generator=generator, dtype=torch.float64))


def test_each_sub_network_is_a_network_of_its_own() -> None:
    method, z = build(dropout=0.0), rows()
    got = method.functionals(z)
    hidden = method.first.out_features // 10
    assert got.shape == (16, 10)
    for k in range(10):
        part = slice(k * hidden, (k + 1) * hidden)
        h = (z @ method.first.weight[part].T + method.first.bias[part]).relu()
        assert method.second.bias is not None
        torch.testing.assert_close(got[:, k], h @ method.second.weight[k, :, 0] + method.second.bias[k])


def test_the_loss_is_nt_xent_and_what_the_sub_networks_add() -> None:
    method, batch = build(dropout=0.0), a_batch()
    z = normalize(method.projector(method.embed(torch.cat(batch.views))))
    f = method.functionals(z)
    extra = []
    for i in range(16):
        psi = [(-(f[i].max() - f[i, int(f[j].argmax())]) / (2 * 0.9**2)).exp() / method.temperature for j in range(16)]
        extra.append(torch.stack(psi[:i] + psi[i + 1 :]).logsumexp(0) - psi[(i + 8) % 16])
    want = nt_xent(*z.chunk(2), temperature=method.temperature) + torch.stack(extra).mean()
    out = method(batch)
    torch.testing.assert_close(out.loss, want)
    assert out.log["active"] == len(set(f.argmax(1).tolist()))
    assert out.log["active"] > 1, "the divergence would not be felt"


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_dropout_drops_that_share_anew_in_each_step_and_none_in_eval(share: float) -> None:
    method, z = build(dropout=share, networks=1, hidden=1000), rows(200)
    with torch.no_grad():
        method.first.weight.zero_()
        method.first.bias.fill_(1.0)
        method.second.weight.fill_(1 / method.first.out_features)
        cast(Tensor, method.second.bias).zero_()
    kept = method.functionals(z)
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert kept.std() > 0
    assert torch.equal(method.functionals(z), kept)
    method.clock = clock(1)
    assert not torch.equal(method.functionals(z), kept)
    torch.testing.assert_close(method.eval().functionals(z), torch.ones_like(kept))


def _functionals(method: Bregman, z1: Tensor, z2: Tensor) -> Tensor:
    return torch.stack(method.functionals(torch.cat([local(z1), local(z2)])).chunk(2), 1)


def test_two_ranks_drop_what_one_process_drops(two_ranks: Pool) -> None:
    method = build(dropout=0.5)
    z1, z2 = rows().chunk(2)
    want = _functionals(method, z1, z2)
    torch.testing.assert_close(torch.cat(two_ranks.run(_functionals, method, z1, z2)), want)
