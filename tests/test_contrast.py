"""The engine against one dense float64 reference: values, gradients, rules, extremes, memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from nearfar import contrast
from nearfar.contrast import far, near, near_mean

Ids = tuple[Tensor, Tensor]
HIDDEN = float("-inf")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Borders of blocks fall inside small matrices.
    monkeypatch.setattr(contrast, "_side", lambda device: 8)


def dense(
    q: Tensor,
    k: Tensor,
    skip: Tensor | None = None,
    exclude_same: Ids | None = None,
    only_same: Ids | None = None,
    bias: Tensor | None = None,
    rule: contrast.Rule | None = None,
) -> Tensor:
    """The N x M matrix, pair by pair, in float64."""
    logits = q.double() @ k.double().T
    if bias is not None:
        logits = logits + bias.double()
    counts = torch.ones(len(q), len(k), dtype=torch.bool)
    for i in range(len(q)):
        for j in range(len(k)):
            if skip is not None and j in skip[i].view(-1).tolist():
                counts[i, j] = False
            if exclude_same is not None and exclude_same[0][i] == exclude_same[1][j] and exclude_same[0][i] >= 0:
                counts[i, j] = False
            if only_same is not None and only_same[0][i] != only_same[1][j]:
                counts[i, j] = False
            if rule is not None and not rule(torch.tensor([[i]]), torch.tensor([[j]])):
                counts[i, j] = False
    logits = logits.masked_fill(~counts, HIDDEN)
    live = (logits > HIDDEN).any(1)
    # torch's logsumexp has no gradient where all is hidden.
    return torch.full((len(q),), HIDDEN, dtype=torch.float64).masked_scatter(live, logits[live].logsumexp(1))


def hold(q: Tensor, k: Tensor, tolerance: float = 1e-10, bias: Tensor | None = None, **rules: object) -> None:
    """Value and every gradient of `far` equal those of the dense reference, relative to the largest."""
    same = q is k
    q = q.detach().requires_grad_()
    k = q if same else k.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    leaves = [x for x in ([q] if same else [q, k]) + [bias] if x is not None]
    got, want = far(q, k, bias=bias, **rules), dense(q, k, bias=bias, **rules)  # pyright: ignore[reportArgumentType]
    assert got.dtype == torch.promote_types(q.dtype, torch.float32)
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    weights = torch.linspace(-1, 2, len(q), dtype=torch.float64)
    any_candidate = want > HIDDEN
    # Rows without candidates reach the engine with a gradient too: it must come out as zero.
    got_gradients = torch.autograd.grad(got, leaves, weights.to(got.dtype))
    want_gradients = torch.autograd.grad((want * weights)[any_candidate].sum(), leaves)
    for leaf, a, b in zip(leaves, got_gradients, want_gradients, strict=True):
        assert a.dtype == leaf.dtype
        assert a.isfinite().all()
        scale = max(float(b.abs().max()), 1) if b.numel() else 1
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance * scale)


def rows(n: int, d: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) * scale).to(dtype)


def ids(n: int, seed: int, low: int = -2, high: int = 3) -> Tensor:
    return torch.randint(low, high, (n,), generator=torch.Generator().manual_seed(seed))


SIZES = [1, 8, 9, 23]


@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["bounded", "running maximum"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [1, 8, 17])
def test_without_rules(n: int, m: int, scale: float) -> None:
    hold(rows(n, scale=scale), rows(m, seed=1))


@pytest.mark.parametrize("scale", [1.0, 7.0], ids=["bounded", "running maximum"])
@pytest.mark.parametrize("n", SIZES)
def test_mirrored(n: int, scale: float) -> None:
    z = rows(n, scale=scale)
    itself = torch.arange(n)
    hold(z, z)
    hold(z, z, skip=itself)
    hold(z, z, skip=itself.flip(0))
    hold(z, z, skip=torch.stack([itself, itself.flip(0)], 1))
    hold(z, z, skip=itself, exclude_same=(ids(n, 1), ids(n, 1)))
    hold(z, z, skip=itself, only_same=(ids(n, 2), ids(n, 2)))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 20),
    m=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    same=st.booleans(),
    large=st.booleans(),
    use=st.tuples(*[st.booleans()] * 5),
)
def test_any_rules(n: int, m: int, seed: int, same: bool, large: bool, use: tuple[bool, ...]) -> None:
    q = rows(n, seed=seed, scale=20.0 if large else 1.0)
    k = q if same else rows(m, seed=seed + 1)
    m = len(k)
    generator = torch.Generator().manual_seed(seed)
    row_ids = ids(n, seed)
    rules: dict[str, object] = {}
    if use[0]:
        rules["skip"] = torch.randint(-1, m, (n, 1 + seed % 3), generator=generator)
    if use[1]:
        rules["exclude_same"] = row_ids, row_ids if same and seed % 2 else ids(m, seed + 1)
    if use[2]:
        rules["only_same"] = row_ids, row_ids if same and seed % 2 else ids(m, seed + 2)
    if use[3]:
        bias = torch.randn(m, generator=generator, dtype=torch.float64) * (300 if large else 1)
        rules["bias"] = bias.masked_fill(torch.rand(m, generator=generator) < 0.2, HIDDEN)
    if use[4]:
        rules["rule"] = lambda i, j: (i + 2 * j) % 3 != 0
    hold(q, k, **rules)  # pyright: ignore[reportArgumentType]


def test_skip_that_is_no_involution_is_not_mirrored() -> None:
    z = rows(20)
    hold(z, z, skip=torch.arange(20).roll(1))
    hold(z, z, skip=torch.arange(20).roll(1)[:, None])


def test_different_ids_on_both_sides_are_not_mirrored() -> None:
    z = rows(20)
    hold(z, z, exclude_same=(ids(20, 1), ids(20, 2)))
    hold(z, z, only_same=(ids(20, 1), ids(20, 2)))


def test_rows_and_columns_are_halved() -> None:
    z = rows(64).requires_grad_()
    products = _Count("mm")
    with products:
        far(z, z, skip=torch.arange(64)).sum().backward()
    assert products.calls == 36 * 2  # of 64 blocks, once each way
    assert products.others == 64  # each block above the diagonal serves its rows and its columns


def test_queue_is_read_once() -> None:
    q, k = rows(8).requires_grad_(), rows(64, seed=1)
    products = _Count("mm")
    with products:
        far(q, k).sum().backward()
    assert products.calls == 8


class _Count(TorchDispatchMode):
    """Counts the products that make logits, those that make gradients, and the largest tensor that anyone makes."""

    def __init__(self, name: str = "mm") -> None:
        super().__init__()
        self.name, self.calls, self.others, self.largest = name, 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.calls += func._overloadpacket.__name__ == self.name
        self.others += func._overloadpacket.__name__ == "addmm_"
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("mirrored", [True, False])
def test_memory_is_linear(mirrored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "_side", lambda device: 32)
    largest = []
    for n in (256, 512):
        z = rows(n, 4, dtype=torch.float32).requires_grad_()
        k = z if mirrored else rows(n, 4, 1, torch.float32).requires_grad_()
        label = ids(n, 3)
        watch = _Count()
        with watch:
            out = far(z, k, skip=torch.arange(n), exclude_same=(label, label))
            pull, _ = near_mean(z, k, (label, label))
            (out - pull).sum().backward()
        largest.append(watch.largest)
    assert largest[1] <= 2 * largest[0]
    assert largest[1] < 512 * 512 * 4 / 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    q, k = rows(17, dtype=dtype), rows(23, seed=1, dtype=dtype)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}[dtype]
    with torch.autocast("cpu", torch.bfloat16):
        got = far(q, k)
        pull = near(q, k, torch.arange(17))
    torch.testing.assert_close(got.double(), dense(q, k), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pull.double(), (q.double() * k[:17].double()).sum(1), rtol=1e-5, atol=1e-5)
    hold_gradient = [x.detach().requires_grad_() for x in (q, k)]
    with torch.autocast("cpu", torch.bfloat16):
        got_gradients = torch.autograd.grad(far(*hold_gradient).sum(), hold_gradient)
    want_gradients = torch.autograd.grad(dense(*hold_gradient).sum(), hold_gradient)
    for a, b in zip(got_gradients, want_gradients, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 10.0])
@pytest.mark.parametrize("mirrored", [True, False])
def test_temperature_and_its_gradient(temperature: float, mirrored: bool) -> None:
    z = torch.nn.functional.normalize(rows(19, dtype=torch.float32), dim=1)
    z[3] = z[4]  # duplicates
    z[5] = -z[4]
    k = z if mirrored else torch.nn.functional.normalize(rows(21, seed=1, dtype=torch.float32), dim=1)
    skip = torch.arange(19) if mirrored else None
    answers = []
    for dtype in (torch.float32, torch.float64):
        tau = torch.tensor(temperature, dtype=dtype, requires_grad=True)
        if mirrored:
            scaled = z.to(dtype) * tau**-0.5
            out = far(scaled, scaled, skip=skip) if dtype == torch.float32 else dense(scaled, scaled, skip=skip)
        else:
            out = (far if dtype == torch.float32 else dense)(z.to(dtype) / tau, k.to(dtype))
        out.sum().backward()
        assert tau.grad is not None
        answers.append((out.detach().double(), tau.grad.double()))
    for a, b in zip(*answers, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


def test_positives_are_masked_not_subtracted() -> None:
    # The pair outweighs all other candidates by e^39: a difference of sums would be lost in rounding.
    z = torch.eye(4).repeat(2, 1) * math.sqrt(39)
    other = torch.arange(8).roll(4)
    out = far(z, z, skip=torch.stack([torch.arange(8), other], 1))
    torch.testing.assert_close(out, torch.full((8,), math.log(6)))


def test_row_without_candidates() -> None:
    for scale in (1.0, 30.0):
        q = (rows(5) * scale).requires_grad_()
        k = rows(3, seed=1).requires_grad_()
        keep = torch.tensor([True, False, True, True, False])
        out = far(q, k, rule=lambda i, j, keep=keep: keep[i] & (j >= 0))
        assert (out == HIDDEN).tolist() == (~keep).tolist()
        gq, gk = torch.autograd.grad(out, [q, k], torch.ones(5, dtype=torch.float64))
        assert (gq[~keep] == 0).all()
        want = torch.autograd.grad(dense(q[keep], k).sum(), k)[0]
        torch.testing.assert_close(gk, want)
        carried = far(q, k.detach(), rule=lambda i, j, keep=keep: keep[i] & (j >= 0))
        torch.testing.assert_close(torch.autograd.grad(carried, q, torch.ones(5, dtype=torch.float64))[0], gq)


def test_no_columns_and_no_rows() -> None:
    q = rows(3).requires_grad_()
    out = far(q, rows(0))
    assert (out == HIDDEN).all()
    assert (torch.autograd.grad(out, q, torch.ones(3, dtype=torch.float64))[0] == 0).all()
    assert far(rows(0), rows(3)).shape == (0,)
    one = rows(1).requires_grad_()
    out = far(one, one, skip=torch.tensor([0]))
    assert out.tolist() == [HIDDEN]
    assert (torch.autograd.grad(out, one, torch.ones(1, dtype=torch.float64))[0] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["bounded", "running maximum"])
def test_keys_that_do_not_learn(scale: float) -> None:
    q, k = rows(11, scale=scale).requires_grad_(), rows(30, seed=1)
    weights = torch.linspace(-1, 1, 11, dtype=torch.float64)
    got = torch.autograd.grad((far(q, k) * weights).sum(), q)[0]
    want = torch.autograd.grad((dense(q, k) * weights).sum(), q)[0]
    torch.testing.assert_close(got, want)
    assert not far(q.detach(), k).requires_grad
    k.requires_grad_()
    got = torch.autograd.grad((far(q.detach(), k) * weights).sum(), k)[0]
    want = torch.autograd.grad((dense(q.detach(), k) * weights).sum(), k)[0]
    torch.testing.assert_close(got, want)


def test_gradcheck() -> None:
    q, k = rows(5, 3).requires_grad_(), rows(11, 3, 1).requires_grad_()
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64).requires_grad_()
    skip = torch.arange(5)
    torch.autograd.gradcheck(lambda q, k, bias: far(q, k, skip=skip, bias=bias), (q, k, bias))
    torch.autograd.gradcheck(lambda z: far(z, z, skip=torch.arange(11)), (k,))
    torch.autograd.gradcheck(lambda z: far(z * 10, z * 10, skip=torch.arange(11)), (k,))
    torch.autograd.gradcheck(lambda q: far(q, k.detach()), (q,))
    torch.autograd.gradcheck(lambda q, k: near(q, k, skip + 2), (q, k))
    which = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 1, 1, 2, 0, 0, 3, 3, 1, 1, 9])
    torch.autograd.gradcheck(lambda q, k: near_mean(q, k, which, own=skip)[0], (q, k))


def test_ids_may_be_any_int64() -> None:
    far_apart = torch.tensor([2**40, -(2**50), 2**40 + 2**32, 7, 7])
    q = rows(5)
    hold(q, q, exclude_same=(far_apart, far_apart))
    hold(q, rows(5, seed=1), only_same=(far_apart, far_apart.flip(0)))


def test_missing_is_apart_from_nothing() -> None:
    z = rows(6)
    missing = torch.full((6,), -1)
    torch.testing.assert_close(far(z, z, exclude_same=(missing, missing)), far(z, z))
    torch.testing.assert_close(far(z, z, only_same=(missing, missing)), far(z, z))


def test_equal_rows_give_the_logarithm_of_their_number() -> None:
    z = torch.ones(20, 4) / 2
    torch.testing.assert_close(far(z, z, skip=torch.arange(20)), torch.full((20,), math.log(19) + 1))


def test_near() -> None:
    q, k = rows(6), rows(9, seed=1)
    positive = torch.tensor([0, 8, 3, 3, 1, 0])
    got = near(q, k, positive)
    for i in range(6):
        assert float(got[i]) == pytest.approx(float(q[i] @ k[positive[i]]))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 15), extra=st.integers(0, 10), seed=st.integers(0, 1000), exclude=st.booleans())
def test_near_mean(n: int, extra: int, seed: int, exclude: bool) -> None:
    columns = ids(n + extra, seed, -3, 4) * 2**40
    own = torch.arange(n) + extra
    k = rows(n + extra, seed=seed)
    q = k[own] + 1
    value, count = near_mean(q, k, (columns[own], columns), own=own if exclude else None)
    for i in range(n):
        found = [j for j in range(n + extra) if columns[j] == columns[own[i]] and not (exclude and j == own[i])]
        assert int(count[i]) == len(found)
        want = sum(float(q[i] @ k[j]) for j in found) / max(len(found), 1)
        assert float(value[i]) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("n", [6, 20], ids=["one block", "many"])
@pytest.mark.parametrize("mirrored", [True, False])
def test_backward_twice(n: int, mirrored: bool) -> None:
    z = rows(n).requires_grad_()
    out = far(z, z if mirrored else z.clone(), skip=torch.arange(n)).sum()
    first = torch.autograd.grad(out, z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(out, z)[0], first)


def test_blocks_as_large_as_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(1100, 16, generator=generator, dtype=torch.float64), dim=1) * 3
    skip = torch.arange(1100)
    z.requires_grad_()
    want = (z @ z.T).masked_fill(torch.eye(1100, dtype=torch.bool), HIDDEN).logsumexp(1)
    got = far(z, z, skip=skip)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), z)[0], torch.autograd.grad(want.sum(), z)[0])


def test_under_checkpoint() -> None:
    w = rows(5, 5, seed=3).requires_grad_()
    x = rows(20)
    skip = torch.arange(20)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        z = x @ w
        return far(z, z, skip=skip).sum()

    want = torch.autograd.grad(loss(x, w), w)[0]
    got = torch.autograd.grad(checkpoint(loss, x, w, use_reentrant=False), w)[0]
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got, want)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own
def test_compiled_code_may_call_it() -> None:
    def loss(x: Tensor) -> Tensor:
        z = x * 2
        return far(z, z, skip=torch.arange(len(z))).sum() * 3

    x = rows(10).requires_grad_()
    want = torch.autograd.grad(loss(x), x)[0]
    got = torch.autograd.grad(torch.compile(loss, backend="eager")(x), x)[0]
    torch.testing.assert_close(got, want)


def test_bad_numbers_come_through() -> None:
    z = rows(5)
    z[2, 0] = math.nan
    assert far(z, z).isnan().all()


def test_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"N x D and M x D, not \(3, 5\) and \(3, 4\)"):
        far(rows(3), rows(3, 4))


def slow_negatives(logits: Tensor, count: Tensor) -> float:
    """The mean over rows of exp(entropy) of the softmax over the pairs that count, one row at a time."""
    found = []
    for row, keep in zip(logits.double(), count, strict=True):
        p = row[keep].softmax(0)
        found.append(math.exp(-sum(float(v * v.log()) for v in p if v > 0)))
    return sum(found) / len(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", ["near first", "far first"])
def test_a_watch_counts_the_negatives_and_not_the_positive(dtype: torch.dtype, order: str) -> None:
    q, k = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    positive = torch.arange(12).roll(3)
    calls = [lambda: near(q, k, positive), lambda: far(q, k)]
    with contrast.watched() as watch:
        for call in calls if order == "near first" else calls[::-1]:
            call()
    count = ~torch.eye(12, dtype=torch.bool)[positive]
    assert watch.negatives() == pytest.approx(slow_negatives(q.float() @ k.float().T, count), rel=1e-5)


def test_a_watch_knows_the_rules_and_many_positives() -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    label, own = torch.arange(20) % 3, torch.arange(20)
    with contrast.watched() as watch:
        near_mean(z.detach(), z.detach(), (label, label), own=own)
        far(z, z, skip=own)
        far(z, z, skip=own, only_same=(label, label))  # the positives again: nothing that pushes
    assert watch.negatives() == pytest.approx(slow_negatives(z @ z.T, label[:, None] != label), rel=1e-5)
    with contrast.watched() as watch:
        far(z, z, exclude_same=(label, label), bias=torch.linspace(0, 2, 20))
    biased = z @ z.T + torch.linspace(0, 2, 20)
    assert watch.negatives() == pytest.approx(slow_negatives(biased, label[:, None] != label), rel=1e-5)


def test_equal_negatives_all_count_and_none_are_none() -> None:
    q, k = torch.zeros(4, 3), torch.randn(50, 3)
    with contrast.watched() as watch:
        far(q, k)
    assert watch.negatives() == pytest.approx(50)
    with contrast.watched() as watch:
        far(q, k, exclude_same=(torch.zeros(4).long(), torch.zeros(50).long()))
    assert watch.negatives() is None
    with contrast.watched() as watch:
        pass
    far(q, k)  # too late to be seen
    assert watch.negatives() is None


def test_a_watch_changes_nothing() -> None:
    def gradients() -> tuple[Tensor, ...]:
        z = torch.randn(20, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        out = far(z, z, skip=torch.arange(20)) - near(z, z, torch.arange(20).roll(10))
        return out, *torch.autograd.grad(out.sum(), z)

    before = gradients()
    with contrast.watched():
        during = gradients()
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))


def test_nobody_is_watched_without_harm() -> None:
    none, some = torch.empty(0, 4), torch.randn(3, 4)
    own = torch.empty(0, dtype=torch.int64)
    with contrast.watched() as watch:
        assert far(none, none, skip=own).shape == (0,)
        assert far(some, none).tolist() == [-math.inf] * 3
        assert watch.negatives() is None
        far(some, some)
        assert watch.negatives() is not None
