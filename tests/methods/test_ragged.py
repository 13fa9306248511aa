"""Views whose samples are of unequal length: dicts, which pass apart, and a class that pads, which pass together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar import methods
from nearfar.batch import Batch, cat, select, size
from nearfar.distributed import local, rank
from nearfar.method import Method
from nearfar.methods.moco import MoCo
from tests.two_ranks import Pool

from .small import clock, copied_state, freeze_norms, sgd, step


@dataclass(frozen=True)
class Rows:
    """Numbers, padded at the right; joined, all are as long as the longest."""

    values: Tensor  # N x L
    length: Tensor  # N

    def cat(self, others: Sequence[Rows]) -> Rows:
        views = [self, *others]
        longest = max(view.values.shape[1] for view in views)
        padded = [F.pad(view.values, (0, longest - view.values.shape[1]), value=99.0) for view in views]
        return Rows(torch.cat(padded), torch.cat([view.length for view in views]))


EXTRA: dict[str, dict[str, Any]] = {"moco": {"queue": 32, "splits": 4}, "byol": {"hidden": 16}}


class RaggedEncoder(nn.Module):
    """The mean over what is no padding of a layer on each number, and a batch norm: N x L -> N x 6."""

    dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.line, self.norm = nn.Linear(1, self.dim), nn.BatchNorm1d(self.dim)

    def forward(self, view: Rows | dict[str, Tensor]) -> Tensor:
        values, length = (view["values"], view["length"]) if isinstance(view, dict) else (view.values, view.length)
        real = (torch.arange(values.shape[1]) < length[:, None])[..., None]
        h = self.line(values[..., None]).tanh().masked_fill(~real, 0)
        return self.norm(h.sum(1) / length[:, None])


def ragged(n: int, longest: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, longest + 1, (n,), generator=generator)
    values = torch.randn(n, longest, generator=generator, dtype=torch.float64)
    return Rows(values.masked_fill(torch.arange(longest) >= length[:, None], 99.0), length)


def as_dict(view: Rows) -> dict[str, Tensor]:
    return {"values": view.values, "length": view.length}


def build(name: str, **arguments: Any) -> Method:
    torch.manual_seed(0)
    small: dict[str, Any] = {"dim": 8} | EXTRA.get(name, {})
    method = methods.build(methods.load(name), RaggedEncoder(), small | arguments).double().train()
    method.clock = clock(0)
    return method


def batch(*views: Any) -> Batch:
    return Batch(list(views), torch.arange(8), torch.arange(8) % 3)


NAMES = ["simclr", "moco", "byol", "supcon", "barlow"]
FIRST, SECOND = ragged(8, 5, 0), ragged(8, 7, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("micro_batch", [0, 3])
def test_the_step_does_not_depend_on_the_form_of_the_views(name: str, micro_batch: int) -> None:
    """Where norms are frozen: together or apart, padded more or less, in parts or whole, one step is the same."""
    padded = Rows(F.pad(FIRST.values, (0, 2), value=99.0), FIRST.length)
    wanted = build(name)
    freeze_norms(wanted)
    others = [copy.deepcopy(wanted) for _ in range(2)]
    loss = step(wanted, sgd(wanted), batch(as_dict(padded), as_dict(SECOND))).loss  # of one shape: together
    for method, views in zip(others, [(FIRST, SECOND), (as_dict(FIRST), as_dict(SECOND))], strict=True):
        method.micro_batch = micro_batch
        torch.testing.assert_close(step(method, sgd(method), batch(*views)).loss, loss)
        torch.testing.assert_close(method.state_dict(), wanted.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_views_that_pass_apart_move_running_statistics_once_and_train_every_weight(name: str) -> None:
    method = build(name)
    before = copied_state(method.encoder)
    out = step(method, sgd(method), batch(as_dict(FIRST), as_dict(SECOND)))
    assert out.loss.isfinite()
    after = method.encoder.state_dict()
    assert int(after["norm.num_batches_tracked"]) == 1
    assert [key for key, value in after.items() if torch.equal(value, before[key])] == []


@pytest.mark.parametrize(("views", "passes"), [((FIRST, SECOND, FIRST), [24]), ((1, 1, 2, 1), [16, 8, 8])])
def test_neighbors_of_one_layout_pass_together(views: tuple[Any, ...], passes: list[int]) -> None:
    method, rows = build("simclr"), []
    views = tuple(as_dict({1: FIRST, 2: SECOND}[view]) if isinstance(view, int) else view for view in views)
    method.encoder.register_forward_pre_hook(lambda module, given: rows.append(size(given[0])))
    freeze_norms(method)
    for view, h in zip(views, method.embed_all(views), strict=True):
        torch.testing.assert_close(h, method.encoder(view))
    assert rows[: len(passes)] == passes
    assert sum(passes) == 8 * len(views)
    torch.testing.assert_close(torch.stack([z.norm(dim=1) for z in method.project_all(views)]).mean().item(), 1.0)


def _keys(method: MoCo, whole: Rows) -> Tensor:
    mine = select(whole, local(torch.arange(size(whole))))
    longest = int(mine.length.max())
    assert longest != 7 or rank() == 0
    return method.key(Rows(mine.values[:, :longest], mine.length))


def test_keys_of_unequal_length_are_shuffled_over_both_ranks(two_ranks: Pool) -> None:
    long, short = ragged(8, 7, 2), ragged(8, 3, 3)
    assert int(long.length.max()) == 7
    whole, method = cat([long, short]), cast(MoCo, build("moco"))
    torch.testing.assert_close(torch.cat(two_ranks.run(_keys, method, whole)), method.key(whole))
