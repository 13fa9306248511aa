from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.distance import byol
from nearfar.losses.pairwise import info_nce_batch
from nearfar.losses.redundancy import barlow
from nearfar.method import Encoder
from nearfar.methods.imix import IMix
from nearfar.ops.mixing import mixup

from .small import clock, form, freeze_norms, sgd, step

BASES = ["npair", "moco", "byol", "barlow"]


def build(base: str, **arguments: Any) -> IMix:
    return cast(IMix, form("imix", base=base).build(**arguments)).double()


def a_batch(seed: int = 0) -> Batch:
    return form("imix").batch(8, seed=seed, dtype=torch.float64)


def mixed_by_hand(method: IMix, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Raw q and k, partners and shares."""
    x, partner, lam = mixup(batch.views[0], alpha=method.alpha, generator=method.clock.generator(2))
    q = method.query(x)
    return q, method.key(batch.views[1], method.slow) if method.slow else method.query(batch.views[1]), partner, lam


@pytest.mark.parametrize("base", ["npair", "moco"])
def test_each_mixture_finds_both_of_its_keys(base: str) -> None:
    method, batch = build(base), a_batch()
    freeze_norms(method)
    q, k, partner, lam = mixed_by_hand(method, batch)
    q, k = normalize(q), normalize(k)
    columns = k if method.queue is None else torch.cat([k, method.queue.keys])
    logits = q @ columns.T / method.temperature
    own = nn.functional.cross_entropy(logits, torch.arange(8), reduction="none")
    other = nn.functional.cross_entropy(logits, partner, reduction="none")
    torch.testing.assert_close(method(batch).loss, (lam * own + (1 - lam) * other).mean())
    assert len(columns) == 8 + (0 if method.queue is None else len(method.queue.keys))


@pytest.mark.parametrize("base", BASES)
def test_next_to_no_mixing_gives_the_loss_of_the_base(base: str) -> None:
    method, batch = build(base, alpha=1e-6), a_batch()
    freeze_norms(method)
    q, k, _, lam = mixed_by_hand(method, batch)
    assert (lam == 1).all()
    if base == "npair":
        want = info_nce_batch(normalize(q), normalize(k), temperature=method.temperature)
    elif base == "byol":
        assert method.predictor is not None
        want = byol(method.predictor(q), k)
    elif base == "barlow":
        want = barlow(q, k)
    else:
        assert method.queue is not None
        logits = normalize(q) @ torch.cat([normalize(k), method.queue.keys]).T / method.temperature
        want = nn.functional.cross_entropy(logits, torch.arange(8))
    torch.testing.assert_close(method(batch).loss, want)


@pytest.mark.parametrize("base", BASES)
def test_only_the_first_view_is_mixed_and_only_slow_copies_pass_no_gradient_to_keys(base: str) -> None:
    method, batch = build(base), a_batch()
    leaves = [view.clone().requires_grad_() for view in batch.views]
    method(Batch(leaves, batch.index, batch.label)).loss.backward()
    assert leaves[0].grad is not None
    assert leaves[0].grad.any()
    assert (leaves[1].grad is None) == (method.slow is not None)
    method.encoder.eval()
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method(batch)
    assert not torch.allclose(seen[0], batch.views[0])
    if not method.slow:
        assert torch.equal(seen[1], batch.views[1])


def test_the_slow_copy_follows_and_keys_are_enqueued() -> None:
    method, batch = build("moco", momentum=0.9), a_batch()
    before = [p.clone() for p in method.slow.encoder.parameters()]
    out = step(method, sgd(method), batch)
    for old, p, source in zip(before, method.slow.encoder.parameters(), method.encoder.parameters(), strict=True):
        torch.testing.assert_close(p, 0.9 * old + 0.1 * source)
    assert method.queue is not None
    assert torch.equal(method.queue.keys[:8], out.carry[0])
    torch.testing.assert_close(out.carry[0].norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_mixtures_differ_from_step_to_step() -> None:
    method, batch = build("npair"), a_batch()
    freeze_norms(method)
    first = method(batch).loss
    assert torch.equal(method(batch).loss, first)
    method.clock = clock(1)
    assert not torch.equal(method(batch).loss, first)


def test_input_mix_comes_before_and_changes_both_views() -> None:
    method, batch = build("npair", extra=2), a_batch()
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method(batch)
    assert not torch.allclose(seen[1], batch.views[1])


def test_input_mix_has_an_alpha_of_its_own() -> None:
    for extra in (1, 2):
        method, batch = build("npair", extra=extra, extra_alpha=1e-6), a_batch()
        seen: list[Tensor] = []
        method.encoder.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        method(batch)
        assert not torch.allclose(seen[0], batch.views[0])  # mixed with its partner, by alpha
        own = (seen[1] - batch.views[1]).flatten(1).abs().amax(1) < 1e-9
        half = [(seen[1][i] * 2 - batch.views[1][i]).flatten() for i in range(8)]  # what is left of one other row
        rows = torch.cat(batch.views).flatten(1)
        assert all(own[i] or (extra == 2 and (half[i] - rows).abs().amax(1).min() < 1e-9) for i in range(8))


def shapes(head: nn.Module | None) -> list[tuple[int, ...] | str]:
    assert isinstance(head, nn.Sequential)
    return [
        (m.in_features, m.out_features)
        if isinstance(m, nn.Linear)
        else type(m).__name__.removeprefix("Split").removesuffix("1d")
        for m in head
    ]


def test_the_heads_are_the_papers() -> None:
    torch.manual_seed(0)
    byol, npair, plain = (
        IMix(Rows(), dim=8, **how)
        for how in ({"base": "byol"}, {}, {"base": "byol", "norm": False})  # type: ignore[arg-type]
    )
    one_norm = [(12, 12), "BatchNorm", "ReLU", (12, 8)]
    assert shapes(byol.projector) == one_norm
    assert shapes(byol.predictor) == [(8, 12), "BatchNorm", "ReLU", (12, 8)]
    assert shapes(npair.projector) == [*one_norm, "BatchNorm"]
    assert shapes(plain.projector) == [(12, 12), "ReLU", (12, 8)]
    assert shapes(plain.predictor) == [(8, 12), "ReLU", (12, 8)]
    for base in BASES:
        norms = IMix(Rows(), base=base, dim=8, norm=False, queue=16).projector.modules()  # type: ignore[arg-type]
        assert not any(isinstance(m, nn.BatchNorm1d) for m in norms)


class Rows(Encoder):
    dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 12)
        self.norm = nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)).relu()


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("base", BASES)
def test_rows_of_a_table_are_mixed_as_images_are(base: Any, extra: int) -> None:
    torch.manual_seed(0)
    method = IMix(Rows(), base=base, extra=extra, dim=8, queue=16)
    table = torch.randn(16, 5)
    batch = Batch([table, table.clone()], torch.arange(16), torch.full((16,), -1))
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-2)
    losses = []
    for number in range(30):
        method.clock = clock(number)
        losses.append(float(step(method, optimizer, batch).loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_tables_have_no_boxes_to_paste() -> None:
    table = torch.randn(4, 5)
    with pytest.raises(ValueError, match="--mix mixup"):
        IMix(Rows(), mix="cutmix", dim=8)(Batch([table, table], torch.arange(4), torch.arange(4)))
    assert IMix(Rows(), mix="cutmix", dim=8).changes == "images"
    assert [IMix(Rows(), extra=extra, dim=8).changes for extra in (0, 1)] == ["mixed", "numbers"]
