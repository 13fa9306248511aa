from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.method import start_epoch
from nearfar.methods.mice import MiCE
from nearfar.optim import parameter_groups

from .small import Form, copied_state, form, freeze_norms, sgd, step

mice = form("mice", experts=4, dim=6, queue=20, temperature=0.5)


def build(form: Form = mice, **arguments: Any) -> MiCE:
    method = cast(MiCE, form.build(**arguments)).double()
    freeze_norms(method)
    return method


def parts(x: Tensor) -> list[Tensor]:
    """The embeddings of each of 4 experts."""
    return [F.normalize(part, dim=1) for part in x.split(6, dim=1)]


@pytest.mark.parametrize("views", [2, 3])
def test_the_loss_is_that_of_a_loop(views: int) -> None:
    method, batch = build(kappa=0.3), mice.batch(8, dtype=torch.float64)
    batch.views = (batch.views + mice.batch(8, seed=1, dtype=torch.float64).views)[:views]
    f = parts(method.projector(method.encoder(batch.views[0])))
    g = F.normalize(method.gate(method.encoder(batch.views[2 if views == 3 else 0])), dim=1)
    v = parts(method.slow.projector(method.slow.encoder(batch.views[1])))
    terms = []
    for i in range(8):
        pi = torch.stack([method.omega[k] @ g[i] / 0.3 for k in range(4)]).softmax(0)
        chance = torch.zeros((), dtype=torch.float64)
        for k in range(4):
            q = f[k][i] + method.mu[k] / method.mu[k].norm()
            logits = torch.stack([q @ v[k][i], *(q @ row[6 * k : 6 * k + 6] for row in method.queue.keys)]) / 0.5
            chance = chance + pi[k] * logits.softmax(0)[0]
        terms.append(-chance.log())
    torch.testing.assert_close(method(batch).loss, torch.stack(terms).mean())


@pytest.mark.parametrize(("experts", "dim"), [(1, 1), (2, 5), (6, 6), (10, 28)])
def test_prototypes_of_the_gate_are_as_far_apart_as_can_be(experts: int, dim: int) -> None:
    method = cast(MiCE, form("mice", experts=experts, dim=dim).build())
    if experts > 1:
        want = torch.eye(experts) * (1 + 1 / (experts - 1)) - 1 / (experts - 1)
        torch.testing.assert_close(method.omega @ method.omega.T, want)
    torch.testing.assert_close(method.omega.sum(0), torch.zeros(dim))
    assert "omega" not in dict(method.named_parameters())


def test_more_experts_than_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="7 experts in 6 dimensions"):
        build(experts=7)


def test_the_length_of_the_experts_prototypes_does_not_matter() -> None:
    method, batch = build(), mice.batch(8, dtype=torch.float64)
    want = method(batch).loss
    with torch.no_grad():
        method.mu.mul_(torch.tensor([[0.2], [3.0], [1.5], [9.0]]))
    torch.testing.assert_close(method(batch).loss, want)


def test_after_an_epoch_prototypes_are_the_means_of_the_keys_that_each_expert_was_given() -> None:
    method = build()
    optimizer = sgd(method)
    sums: Tensor = torch.zeros(4, 6, dtype=torch.float64)
    for number in range(3):
        out = step(method, optimizer, mice.batch(8, seed=number, dtype=torch.float64))
        v, cluster, _ = out.carry
        for row, k in zip(v, cluster.tolist(), strict=True):
            sums[k] += row[k]
        torch.testing.assert_close(method.sums, sums)
    method.sums[2] = 0  # as if it had been given none
    before = copied_state(method)
    start_epoch(method, mice.look(method))
    for k in range(4):
        used = k != 2 and bool(sums[k].any())
        torch.testing.assert_close(method.mu[k], F.normalize(sums[k], dim=0) if used else before["mu"][k])
    assert not torch.equal(method.mu, before["mu"])
    assert not method.sums.any()


def test_the_queue_begins_as_unit_rows_of_each_expert_apart() -> None:
    method = build()
    rows = method.queue.keys.unflatten(1, (len(method.mu), -1))
    torch.testing.assert_close(rows.norm(dim=2), torch.ones(rows.shape[:2], dtype=rows.dtype))
    assert not torch.allclose(rows[:, 0], rows[:, 1])


def test_the_queue_holds_the_keys_of_all_experts() -> None:
    method, batch = build(), mice.batch(8, dtype=torch.float64)
    for k in range(4):
        torch.testing.assert_close(method.queue.keys[:, 6 * k : 6 * k + 6].norm(dim=1), torch.ones(20).double())
    before = method.queue.keys.clone()
    out = method(batch)
    method.after_step(out)
    assert torch.equal(method.queue.keys[8:], before[8:])
    assert torch.equal(method.queue.keys[:8], out.carry[0].flatten(1))


def test_clusters_are_those_of_the_highest_posterior() -> None:
    method = build().eval()
    view = mice.batch(16, dtype=torch.float64).views[0]
    before = copied_state(method)
    found = method.assign(view)
    assert found.shape == (16,)
    assert found.dtype == torch.int64
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    batch = mice.batch(16, dtype=torch.float64)
    batch.views = [view, view]
    assert torch.equal(found, method(batch).carry[1])
    with torch.no_grad():  # experts are told apart by the gate alone where they are equal
        for linear in (method.projector[0], method.slow.projector[0]):
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(linear.weight[:6].repeat(4, 1))
            linear.bias.copy_(linear.bias[:6].repeat(4))
        method.mu.copy_(method.mu[:1].expand(4, -1))
        method.queue.keys.copy_(method.queue.keys[:, :6].repeat(1, 4))
        gate = F.normalize(method.gate(method.encoder(view)), dim=1) @ method.omega.T
    assert torch.equal(method.assign(view), gate.argmax(1))


def test_prototypes_of_experts_decay_as_weights_do() -> None:
    decayed = parameter_groups(build(), 0.1)[0]["params"]
    assert any(p.shape == (4, 6) for p in decayed)
