from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local
from nearfar.memory.class_queue import ClassQueue
from tests.two_ranks import Pool


def keys(n: int, first: int = 0) -> Tensor:
    """Rows that can be told apart: number i is (i, -i)."""
    number = torch.arange(first, first + n, dtype=torch.float32)
    return torch.stack([number, -number], dim=1)


@pytest.mark.parametrize("slots", [1, 3, 4])
def test_each_class_is_first_in_first_out(slots: int) -> None:
    queue, want, put = ClassQueue(3, slots, 2), [deque[float](maxlen=slots) for _ in range(3)], 0
    assert queue.label.tolist() == [c for c in range(3) for _ in range(slots)]
    generator = torch.Generator().manual_seed(0)
    for n in (3, 5, 1, 0, 20, 2, 13, 7):
        label = torch.randint(MISSING, 2, (n,), generator=generator)  # the last class has none
        before = queue.keys.clone()
        queue.enqueue(keys(n, first=put), label, torch.arange(put, put + n))
        for i, c in enumerate(label.tolist()):
            if c != MISSING:
                want[c].append(put + i)
        for c in range(3):
            rows = slice(c * slots, (c + 1) * slots)
            written = queue.group[rows] >= 0
            assert sorted(queue.keys[rows][written, 0].tolist()) == sorted(want[c])
            assert torch.equal(queue.keys[rows][written, 0], queue.group[rows][written].float())
            if not (label == c).any():
                assert torch.equal(queue.keys[rows], before[rows])
        put += n
    assert len(want[0]) == slots
    assert not (queue.group[2 * slots :] >= 0).any()


def test_the_pointer_of_a_class_moves_by_its_keys() -> None:
    queue = ClassQueue(2, 4, 2)
    queue.enqueue(keys(7), torch.tensor([0, 1, 0, MISSING, 0, 0, 0]))
    assert queue.count.tolist() == [5, 1]
    assert queue.keys[:4, 0].tolist() == [6, 2, 4, 5]  # the fifth key of the class takes the place of the first
    queue.enqueue(keys(1, first=9), torch.tensor([0]))
    assert queue.keys[:4, 0].tolist() == [6, 9, 4, 5]


def test_it_starts_with_random_unit_rows_and_stores_numbers_not_graphs() -> None:
    queue = ClassQueue(2, 3, 5)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(6))
    queue.enqueue(torch.ones(1, 5, requires_grad=True) * 2, torch.tensor([1]))
    assert not queue.keys.requires_grad
    assert list(queue.state_dict()) == ["keys", "group", "count"]


def test_a_queue_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="ClassQueue: slots 0: "):
        ClassQueue(3, 0, 2)


def _enqueue(parts: list[Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    queue = ClassQueue(3, 2, 2)
    for part in parts:
        queue.enqueue(local(part), local(part[:, 0].long() % 4 - 1), local(part[:, 0].long()))
    return queue.state_dict()


def test_two_ranks_hold_what_one_would(two_ranks: Pool) -> None:
    parts = [keys(4), keys(16, first=4), keys(4, first=20)]
    want = _enqueue(parts)
    for got in two_ranks.run(_enqueue, parts):
        assert all(torch.equal(got[name], want[name]) for name in want)
