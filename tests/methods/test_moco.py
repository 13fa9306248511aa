from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.methods.moco import MoCo
from nearfar.nn.norms import SplitBatchNorm
from tests.two_ranks import Pool

from .small import Form, clock, form, freeze_norms, norms, rows_of_rank, sgd, step

moco = form("moco")


def build(form: Form = moco, **arguments: float) -> MoCo:
    return cast(MoCo, form.build(**arguments))


def pairs(method: MoCo) -> list[tuple[Tensor, Tensor]]:
    """Each parameter of the copies beside the one it follows."""
    copies = [*method.slow.encoder.parameters(), *method.slow.projector.parameters()]
    return list(zip(copies, [*method.encoder.parameters(), *method.projector.parameters()], strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_key_network_follows_the_query_network(momentum: float) -> None:
    method = build(momentum=momentum)
    before = [key.clone() for key, _ in pairs(method)]
    assert all(torch.equal(key, query) for key, query in pairs(method))
    step(method, sgd(method), moco.batch(8))
    for old, (key, query) in zip(before, pairs(method), strict=True):
        torch.testing.assert_close(key, momentum * old + (1 - momentum) * query)
    assert any(not torch.equal(old, query) for old, (_, query) in zip(before, pairs(method), strict=True))


def test_only_parameters_are_averaged() -> None:
    method = build(momentum=0.0)
    step(method, sgd(method), moco.batch(8))
    own, query = method.slow.encoder.state_dict(), method.encoder.state_dict()
    assert own["norm.num_batches_tracked"] == 1
    assert not torch.equal(own["norm.running_mean"], query["norm.running_mean"])
    assert torch.equal(own["norm.weight"], query["norm.weight"])


def test_the_queue_holds_exactly_the_keys_of_the_batch_at_the_slots_of_the_step() -> None:
    method = build(queue=20)
    optimizer = sgd(method)
    for number in range(4):  # 20 is no multiple of 8: the third step wraps around
        method.clock = clock(number)
        before = method.queue.keys.clone()
        out = step(method, optimizer, moco.batch(8, seed=number))
        want = before.clone()
        for i, key in enumerate(out.carry[0][0]):
            want[(8 * number + i) % 20] = key
        assert torch.equal(method.queue.keys, want)
        assert method.queue.count == 8 * (number + 1)


def test_loss_is_that_of_a_loop_and_other_keys_of_the_batch_are_no_negatives() -> None:
    method, batch = build().double(), moco.batch(5, dtype=torch.float64)
    q, k = method.query(batch.views[0]), method.key(batch.views[1])
    terms = []
    for i in range(5):
        logits = torch.stack([q[i] @ k[i], *(q[i] @ old for old in method.queue.keys)]) / 0.2
        terms.append(nn.functional.cross_entropy(logits[None], torch.tensor([0])))
    torch.testing.assert_close(method(batch).loss, torch.stack(terms).mean())


def test_the_order_of_the_queue_does_not_matter() -> None:
    method, batch = build().double(), moco.batch(8, dtype=torch.float64)
    want = method(batch).loss
    method.queue.keys.copy_(method.queue.keys.flip(0))
    torch.testing.assert_close(method(batch).loss, want)


def test_the_gradient_of_a_query_is_orthogonal_to_it_and_keys_have_none() -> None:
    method, raw = build().double(), []
    method.projector.register_forward_hook(lambda module, args, out: raw.append(out) or out.retain_grad())
    method(moco.batch(8, dtype=torch.float64)).loss.backward()
    assert raw[0].grad.any()
    torch.testing.assert_close((raw[0] * raw[0].grad).sum(1), torch.zeros(8, dtype=torch.float64))
    assert all(key.grad is None for key, _ in pairs(method))
    assert not method.queue.keys.requires_grad


def test_shuffling_changes_nothing_but_the_company_in_batch_norm() -> None:
    method, view = build(), moco.batch(16).views[1]
    assert method.shuffles
    assert {type(norm) for norm in norms(method.encoder).values()} == {SplitBatchNorm}
    keys = method.key(view)
    method.shuffles = False
    assert not torch.allclose(keys, method.key(view))
    freeze_norms(method)
    plain = method.key(view)
    method.shuffles = True
    torch.testing.assert_close(method.key(view), plain)


def _keys(method: MoCo, batch: Batch) -> Tensor:
    return method.key(rows_of_rank(batch).views[1])


def test_keys_are_shuffled_over_both_ranks(two_ranks: Pool) -> None:
    method, batch = build().double(), moco.batch(16, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(two_ranks.run(_keys, method, batch)), method.key(batch.views[1]))


def test_shuffles_differ_from_step_to_step() -> None:
    method, view = build(), moco.batch(16).views[1]
    first = method.key(view)
    method.clock = clock(1)
    assert not torch.allclose(method.key(view), first)


def test_symmetric_is_the_mean_of_both_directions() -> None:
    method, batch = build(form("moco", symmetric=True)).double(), moco.batch(8, dtype=torch.float64)
    freeze_norms(method)
    both = method(batch)
    method.symmetric = False
    one = method(batch)
    other = method(Batch(batch.views[::-1], batch.index, batch.label, batch.group))
    torch.testing.assert_close(both.loss, (one.loss + other.loss) / 2)
    method.after_step(both)
    torch.testing.assert_close(method.queue.keys[:16], torch.cat([other.carry[0][0], one.carry[0][0]]))


def test_version_one_has_a_linear_head() -> None:
    heads = [build(form("moco", head=head)).projector for head in ("linear", "mlp")]
    assert [sum(isinstance(layer, nn.Linear) for layer in head) for head in heads] == [1, 2]
