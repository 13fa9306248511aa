"""The collectives with their gradients, on two ranks, and as the identity on one."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from benchmarks.forked import Job
from torch import Tensor

from nearfar import distributed
from nearfar.distributed import anywhere, gather, highest, local, normalize, rank, share, total, world
from nearfar.errors import Elsewhere, UserError
from tests.tiny import FLAGS, array_file
from tests.two_ranks import Pool

ROWS = torch.linspace(-1, 2, 24, dtype=torch.float64).view(8, 3).sin()


def _step(case: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A loss of all rows through one collective, and the gradient that DDP would take, on this rank's rows."""
    w = weight.clone().requires_grad_()
    x = local(ROWS) @ w  # N x 3
    values = {"gather": _by_gather, "total": _by_total, "share": _by_share, "kept": _by_kept}[case](x)
    return values.detach(), torch.autograd.grad(values, w)[0]


def _by_gather(x: Tensor) -> Tensor:
    return (x @ gather(x).T).sin().mean()  # this rank's rows against all rows


def _by_total(x: Tensor) -> Tensor:
    mean = total(x.sum(0)) / (world() * len(x))
    return (x - mean).pow(4).mean() + mean.exp().sum()


def _by_share(x: Tensor) -> Tensor:
    return share(x.square().sum(1))


def _by_kept(x: Tensor) -> Tensor:
    keep = local(torch.tensor([True, False, False, False, True, True, True, False]))
    return share(x.exp().sum(1), keep)


@pytest.mark.parametrize("case", ["gather", "total", "share", "kept"])
def test_the_mean_over_ranks_is_the_loss_and_the_gradient_of_one_process(two_ranks: Pool, case: str) -> None:
    weight = torch.eye(3, dtype=torch.float64) + 0.1
    value, gradient = _step(case, weight)
    ranks = two_ranks.run(_step, case, weight)
    torch.testing.assert_close(torch.stack([r[0] for r in ranks]).mean(), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.stack([r[1] for r in ranks]).mean(0), gradient, rtol=1e-12, atol=1e-12)


def _rows(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    whole = torch.arange(int(torch.tensor(shape).prod())).view(shape).to(dtype)
    mine = local(whole)
    return mine, gather(mine.transpose(0, -1).contiguous().transpose(0, -1)), local(gather(mine))


@pytest.mark.parametrize("shape", [(4,), (2, 3), (6, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.uint8, torch.bfloat16])
def test_local_is_the_inverse_of_gather(two_ranks: Pool, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    whole = torch.arange(int(torch.tensor(shape).prod())).view(shape).to(dtype)
    first, second = two_ranks.run(_rows, shape, dtype)
    assert torch.equal(torch.cat([first[0], second[0]]), whole)
    for mine, gathered, again in (first, second):
        assert torch.equal(gathered, whole)
        assert torch.equal(again, mine)


def _gradients_of_nothing() -> tuple[Tensor, Tensor]:
    x = torch.ones(2, 3, requires_grad=True)
    nothing = share(x.sum(1), torch.zeros(2, dtype=torch.bool))
    nothing.backward()
    assert x.grad is not None
    return nothing.detach(), x.grad


def test_a_share_of_no_rows_is_zero_and_so_is_its_gradient(two_ranks: Pool) -> None:
    for value, gradient in [_gradients_of_nothing(), *two_ranks.run(_gradients_of_nothing)]:
        assert value == 0
        assert not gradient.any()


def test_rows_that_are_left_out_may_be_infinite() -> None:
    x = torch.tensor([1.0, torch.inf, 3.0], requires_grad=True)
    share(x, torch.tensor([True, False, True])).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 0, 0.5]


def _votes(flags: list[bool]) -> tuple[bool, Tensor]:
    distributed.barrier()
    top = highest(torch.tensor([1.0, -2.0]) * (rank() + 1))
    return anywhere(flags[rank()]), top


@pytest.mark.parametrize("flags", [[False, False], [True, False], [False, True], [True, True]])
def test_one_vote_is_enough(two_ranks: Pool, flags: list[bool]) -> None:
    for vote, top in two_ranks.run(_votes, flags):
        assert vote is any(flags)
        assert top.tolist() == [2, -2]


def test_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert (rank(), world()) == (0, 1)
    for alone in (gather, local, total, highest):
        assert alone(x) is x
    assert torch.equal(share(x), x.mean())
    assert anywhere(True) is True
    assert anywhere(False) is False
    distributed.barrier()
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.processes(torch.device("cpu")):
        assert not distributed.dist.is_initialized()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalized_rows_have_at_least_single_precision(dtype: torch.dtype) -> None:
    z = normalize((torch.arange(12.0).view(4, 3) + 100).to(dtype))
    assert z.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4, dtype=z.dtype))
    assert not normalize(torch.zeros(2, 3)).any()


def _joins(case: str) -> int:
    """A rank of a job of which the second ends as the case says, or the first: 3 where it was told of another's end."""
    distributed.BEAT, distributed.SILENT, distributed.GRACE = 0.05, 0.5, 0.5
    late = 0 if case == "the first stalls" else 1
    try:
        with distributed.processes(torch.device("cpu"), 1 / 60):
            distributed.barrier()
            if distributed.rank() == late:
                match case:
                    case "given what is wrong":
                        raise UserError("--odd 7 is wrong")
                    case "a bug":
                        raise KeyError("odd")
                    case "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    case "stopped":
                        os.kill(os.getpid(), signal.SIGTERM)
                    case _:
                        threading.Event().wait(100)
            distributed.barrier()
    except Elsewhere as error:
        print(f"told: {error}")
        return 3
    except KeyError:
        return 4
    except KeyboardInterrupt:
        return 130
    return 0


@pytest.mark.parametrize(
    ("case", "status", "told"),
    [
        ("given what is wrong", [3, 3], "rank 1 of 2: --odd 7 is wrong"),
        ("a bug", [3, 4], "rank 1 of 2 failed: KeyError('odd')"),
        ("killed", [3, -9], "rank 1 of 2 ended without a word"),
        ("stopped", [3, 130], "rank 1 of 2 was interrupted"),
        ("the second stalls", [3, 2], "rank 1 of 2 kept the others waiting for 0.0166667 minutes"),
        ("the first stalls", [2, 3], "rank 0 of 2 kept the others waiting"),
    ],
)
def test_where_one_rank_ends_all_do_and_one_says_why(tmp_path: Path, case: str, status: list[int], told: str) -> None:
    job = Job([[], []], tmp_path, [partial(_joins, case)] * 2)
    ended = job.wait()
    said = job.said()
    assert [code if code != 2 or want == 2 else want for code, want in zip(ended, status, strict=True)] == status, said
    assert said.count(f"nearfar: {told}") == (case != "a bug"), said
    assert told in said or case == "a bug"
    assert "Traceback" not in said


def test_a_command_on_two_ranks_fails_once(tmp_path: Path) -> None:
    data = array_file(tmp_path / "images.npz")
    argvs = [["train", "simclr", source, *FLAGS, "--out", tmp_path / "run"] for source in (data, tmp_path / "no.npz")]
    job = Job(argvs, tmp_path)
    assert job.wait() == [2, 2]
    assert job.said().count("no.npz") == 1, job.said()
    assert "nearfar: rank 1 of 2: " in job.said()
    assert not (tmp_path / "run").exists()
