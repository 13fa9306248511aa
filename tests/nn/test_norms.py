from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.distributed import local
from nearfar.method import frozen_statistics
from nearfar.nn.heads import simclr_head
from nearfar.nn.norms import GlobalBatchNorm, SplitBatchNorm, shuffled, split_norms, synchronize_norms, twin_norms
from tests.two_ranks import Pool

CPU = torch.device("cpu")
Converter = Callable[[nn.Module], nn.Module]


def timm_net(name: str) -> nn.Module:
    import timm  # not at the top: the two ranks import this file as well, and do without

    return timm.create_model(name, num_classes=0)


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1


def a_norm(features: int = 5, **options: object) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(features, dtype=torch.float64, **options)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in norm.parameters():
            value.uniform_(0.5, 1.5, generator=generator)
    return norm


def gradients(norm: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradient of its weighted mean over the rows to the input and the parameters."""
    x = x.clone().requires_grad_()
    out = norm(x)
    grads = torch.autograd.grad((out.sin() * weight).sum(dim=tuple(range(1, x.dim()))).mean(), [x, *norm.parameters()])
    return out.detach(), list(grads)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 3, 2), (6, 5, 2, 2, 2)])
def test_global_norm_equals_torchs_on_one_process(shape: tuple[int, ...], momentum: float | None) -> None:
    plain = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    plain = plain(5, momentum=momentum, dtype=torch.float64)
    ours = synchronize_norms(copy.deepcopy(plain), CPU)
    assert type(ours) is GlobalBatchNorm
    for seed in range(3):
        torch.testing.assert_close(ours(batch(*shape, seed=seed)), plain(batch(*shape, seed=seed)))
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(batch(*shape)), plain.eval()(batch(*shape)))


def on_one_rank(norm: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    from nearfar.distributed import local

    out, grads = gradients(norm, local(x), local(weight))
    return out, grads, norm.state_dict()


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_global_norm_on_two_ranks_equals_plain_norm_on_the_whole_batch(
    two_ranks: Pool, options: dict[str, object], shift: float
) -> None:
    x, weight = batch(8, 5, 3, 2) + shift, batch(8, 5, 3, 2, seed=1)
    plain = a_norm(**options)
    answers = two_ranks.run(on_one_rank, synchronize_norms(copy.deepcopy(plain), CPU), x, weight)
    out, grads = gradients(plain, x, weight)
    torch.testing.assert_close(torch.cat([answer[0] for answer in answers]), out)
    # The loss of a rank is a mean over half the rows, and the mean of both gradients is that of the whole.
    torch.testing.assert_close(torch.cat([answer[1][0] for answer in answers]) / 2, grads[0])
    for i, grad in enumerate(grads[1:], start=1):
        torch.testing.assert_close(sum(answer[1][i] for answer in answers) / 2, grad)
    for answer in answers:
        torch.testing.assert_close(answer[2], dict(plain.state_dict()))


def on_own_rows(norm: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    from nearfar.distributed import rank

    mine = slice(0, 5) if rank() == 0 else slice(5, 8)
    out, grads = gradients(norm, x[mine], weight[mine] * len(x[mine]))  # the sum over its rows
    return out, grads, norm.state_dict()


def test_global_norm_weighs_ranks_by_their_rows(two_ranks: Pool) -> None:
    x, weight = batch(8, 5, 3) + torch.arange(8.0)[:, None, None], batch(8, 5, 3, seed=1)
    plain = nn.BatchNorm1d(5, dtype=torch.float64)
    answers = two_ranks.run(on_own_rows, synchronize_norms(copy.deepcopy(plain), CPU), x, weight)
    out, grads = gradients(plain, x, weight * 8)
    torch.testing.assert_close(torch.cat([answer[0] for answer in answers]), out)
    torch.testing.assert_close(torch.cat([answer[1][0] for answer in answers]), grads[0])
    for i, grad in enumerate(grads[1:], start=1):
        torch.testing.assert_close(sum(answer[1][i] for answer in answers), grad)
    for answer in answers:
        torch.testing.assert_close(answer[2], dict(plain.state_dict()))


def slow_split(norm: nn.BatchNorm2d, x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each group normalized by itself, and the averages of the groups' means and unbiased variances."""
    out, means, variances = [], [], []
    for rows in x.split([len(x) // groups + (g < len(x) % groups) for g in range(groups)]):
        out.append(F.batch_norm(rows, None, None, norm.weight, norm.bias, training=True))
        means.append(rows.mean((0, 2, 3)))
        variances.append(rows.var((0, 2, 3), unbiased=True))
    return torch.cat(out), sum(means) / groups, sum(variances) / groups


@pytest.mark.parametrize(
    ("rows", "splits", "groups"),
    [(16, 8, 8), (16, 1, 1), (12, 8, 6), (20, 8, 8), (23, 8, 8), (9, 8, 4), (7, 2, 2), (2, 8, 1)],
)
def test_split_norm_equals_a_loop_over_groups(rows: int, splits: int, groups: int) -> None:
    plain = a_norm()
    split = split_norms(copy.deepcopy(plain), splits)
    assert isinstance(split, SplitBatchNorm)
    assert split.groups(rows) == groups
    x, weight = batch(rows, 5, 3, 2), batch(rows, 5, 3, 2, seed=1)
    out, mean, var = slow_split(plain, x, groups)
    torch.testing.assert_close(split(x), out)
    torch.testing.assert_close(split.running_mean, 0.1 * mean)
    torch.testing.assert_close(split.running_var, 0.9 + 0.1 * var)
    assert split.num_batches_tracked == 1
    ours, loop = gradients(split, x, weight), x.clone().requires_grad_()
    value = (slow_split(plain, loop, groups)[0].sin() * weight).sum((1, 2, 3)).mean()
    expected = torch.autograd.grad(value, [loop, *plain.parameters()])
    torch.testing.assert_close(ours[1], list(expected))


def test_split_norm_shares_its_groups_out_over_the_ranks(two_ranks: Pool) -> None:
    x, weight = batch(16, 5, 3, 2), batch(16, 5, 3, 2, seed=1)
    split = split_norms(a_norm(), 4)
    answers = two_ranks.run(on_one_rank, split, x, weight)
    out, grads = gradients(split, x, weight)
    torch.testing.assert_close(torch.cat([answer[0] for answer in answers]), out)
    torch.testing.assert_close(torch.cat([answer[1][0] for answer in answers]) / 2, grads[0])


def test_rows_of_other_groups_are_not_seen() -> None:
    split = split_norms(a_norm(), 2)
    x = batch(8, 5, 3, 2)
    other = torch.cat([x[:4], batch(4, 5, 3, 2, seed=9)])
    torch.testing.assert_close(split(x)[:4], split(other)[:4], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_went_in(dtype: torch.dtype) -> None:
    for norm in (split_norms(nn.BatchNorm1d(4), 2), synchronize_norms(nn.BatchNorm1d(4), CPU)):
        x = batch(8, 4).to(dtype)
        out = norm(x)
        assert out.dtype == dtype
        assert norm.running_mean.dtype == torch.float32
        torch.testing.assert_close(out.float(), copy.deepcopy(norm)(x.float()), rtol=0.05, atol=0.02)


def run_frozen(norm: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    from nearfar.distributed import local

    with frozen_statistics(norm):
        out = norm(local(x))
    return out.detach(), norm.state_dict()


@pytest.mark.parametrize("convert", [lambda n: split_norms(n, 4), lambda n: synchronize_norms(n, CPU)])
def test_frozen_statistics_do_not_move(two_ranks: Pool, convert: Converter) -> None:
    norm = convert(a_norm())
    before, x = copy.deepcopy(norm.state_dict()), batch(16, 5, 3, 2)
    assert not norm(x).allclose(copy.deepcopy(norm).eval()(x))
    for out, state in two_ranks.run(run_frozen, convert(a_norm()), x):
        torch.testing.assert_close(state, before)
        assert out.isfinite().all()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("convert", [lambda n: split_norms(n, 1), lambda n: synchronize_norms(n, CPU)])
def test_conversion_changes_neither_function_nor_state_dict(name: str, convert: Converter) -> None:
    net = timm_net(name)
    changed = convert(copy.deepcopy(net))
    assert not any(type(m).__name__ in ("BatchNorm2d", "BatchNormAct2d") for m in changed.modules())
    assert list(changed.state_dict()) == list(net.state_dict())
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed(x), net(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(changed.state_dict(), net.state_dict(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(changed.eval()(x), net.eval()(x), rtol=1e-3, atol=1e-4)
    timm_net(name).load_state_dict(changed.state_dict())
    changed.load_state_dict(timm_net(name).state_dict())


def test_conversion_keeps_objects_modes_and_doubled_layers() -> None:
    norm = nn.BatchNorm1d(3).eval()
    net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 3), norm), "b": norm, "c": nn.LayerNorm(3)})
    parameters, buffers = list(net.parameters()), list(net.buffers())
    split_norms(net, 2)
    assert net["a"][1] is net["b"]  # pyright: ignore[reportIndexIssue]
    assert isinstance(net["b"], SplitBatchNorm)
    assert not net["b"].training
    assert all(old is new for old, new in zip(parameters, net.parameters(), strict=True))
    assert all(old is new for old, new in zip(buffers, net.buffers(), strict=True))


def test_split_norms_are_never_synchronized() -> None:
    net = nn.Sequential(split_norms(nn.Sequential(nn.BatchNorm1d(2)), 4), nn.BatchNorm1d(2))
    synchronize_norms(net, CPU)
    assert [type(m) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] == [
        SplitBatchNorm,
        GlobalBatchNorm,
    ]
    split_norms(net, 2)
    assert type(net[1]) is GlobalBatchNorm


def test_on_a_gpu_torchs_own_norm_is_used() -> None:
    net = synchronize_norms(timm_net("test_efficientnet"), torch.device("cuda"))
    kinds = {type(m).__mro__[1] for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
    fresh = timm_net("test_efficientnet")
    fresh.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), fresh(x), rtol=1e-3, atol=1e-4)  # one process: it falls back on a CPU


def test_a_frozen_offset_stays_frozen() -> None:
    head = synchronize_norms(simclr_head(8, out=4), CPU)
    assert [name for name, p in head.named_parameters() if not p.requires_grad] == ["4.bias"]
    head(torch.randn(6, 8)).sum().backward()


def test_wrong_uses_are_named() -> None:
    with pytest.raises(ValueError, match="splits=0"):
        split_norms(nn.BatchNorm1d(3), 0)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        split_norms(nn.BatchNorm1d(3), 2)(torch.zeros(3))


def test_twins_share_all_weights_but_those_of_norms() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    twin = twin_norms(net)
    assert [a is b for a, b in zip(net.parameters(), twin.parameters(), strict=True)] == [
        *(True, True),  # of a convolution
        *(False, False),  # of a norm
        *(True, True),
    ]
    torch.testing.assert_close(twin(batch(4, 3, 6, 6)), net(batch(4, 3, 6, 6)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin(batch(4, 3, 6, 6, seed=1)).sum().backward()
    torch.testing.assert_close(net.state_dict(), before)
    assert net[1].weight.grad is None
    assert net[0].weight.grad is not None
    assert len(list(nn.ModuleList([net, twin]).parameters())) == len(list(net.parameters())) + 2
    net_2, twin_2 = copy.deepcopy((net, twin))
    assert net_2[0].weight is twin_2[0].weight
    assert net_2[0].weight is not net[0].weight


def _shuffled(x: Tensor, with_company: bool) -> Tensor:
    def network(rows: Tensor) -> Tensor:
        return rows + len(rows) * rows.mean(0) if with_company else rows**2

    return shuffled(network, local(x), torch.Generator().manual_seed(0))


def test_what_is_shuffled_comes_back_in_order_and_has_had_other_company(two_ranks: Pool) -> None:
    x = batch(8, 3)
    torch.testing.assert_close(_shuffled(x, False), x**2)
    torch.testing.assert_close(torch.cat(two_ranks.run(_shuffled, x, False)), x**2)
    unshuffled = torch.cat([part + 4 * part.mean(0) for part in x.chunk(2)])
    assert not torch.allclose(torch.cat(two_ranks.run(_shuffled, x, True)), unshuffled)
