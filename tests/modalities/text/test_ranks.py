"""A step on sentences: on two ranks, and a few at a time, it is that of one process with all at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nearfar import distributed, methods
from nearfar.batch import Batch, select
from nearfar.modalities.text.tokenizer import Tokens
from tests.methods.small import clock, freeze_norms, sgd, step
from tests.two_ranks import Pool

from .small import TOKENIZER, sentences, tiny

N = 8
LONG = "the slow music went on far too long for the whole family, as my friends agree"


def views() -> list[Tokens]:
    """The longest sentence is of the second rank, whose hidden tokens are also more."""
    texts = [*sentences(N // 2), *[LONG] * (N // 2)]
    return [TOKENIZER(texts, 16), TOKENIZER(list(reversed(sentences(N, seed=1))), 16)]


def stepped(name: str, arguments: dict[str, Any], micro_batch: int) -> tuple[float, dict[str, Tensor]]:
    """The loss of a step on this rank's sentences, and the gradient, both over all ranks."""
    torch.manual_seed(0)
    method = methods.build(methods.load(name), tiny(dropout=0.0), arguments).double().train()
    freeze_norms(method)
    method.clock, method.micro_batch = clock(1), micro_batch
    rows = distributed.local(torch.arange(N))
    batch = Batch([select(view, rows) for view in views()], rows, torch.full_like(rows, -1))
    several = distributed.world() > 1
    net = DistributedDataParallel(method, broadcast_buffers=False) if several else method
    loss = step(method, sgd(method), batch, net).loss.detach()
    grads = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    return float(distributed.total(loss)) / distributed.world(), grads


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("simcse", {"mlm": 0.5}),
        ("simcse", {"warm_start_epochs": 2}),
        ("imix", {"dim": 8}),
        ("imix", {"dim": 8, "base": "moco", "queue": 16, "splits": 1}),
    ],
    ids=["mlm", "warm start", "imix", "imix with a queue"],
)
def test_two_ranks_and_parts_of_a_batch_give_the_step_of_one(
    name: str, arguments: dict[str, Any], two_ranks: Pool
) -> None:
    want, wanted = stepped(name, arguments, 0)
    assert any(float(grad.abs().max()) > 0 for grad in wanted.values())
    for loss, grads in [stepped(name, arguments, 3), *two_ranks.run(stepped, name, arguments, 0)]:
        assert loss == pytest.approx(want, rel=1e-5)
        assert grads.keys() == wanted.keys()
        for key, grad in wanted.items():
            scale = float(grad.abs().max())
            torch.testing.assert_close(grads[key], grad, rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=key)


def test_a_micro_batch_bounds_what_passes_for_the_restorer_too() -> None:
    encoder, seen = tiny(), []
    restorer = encoder.restorer()
    encoder.net.register_forward_pre_hook(
        lambda module, args, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    restorer(encoder, views()[0], torch.Generator().manual_seed(0), 3).backward()
    assert seen == [3, 3, 2, 2, 3, 3]
