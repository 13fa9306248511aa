from __future__ import annotations

import math
from collections import deque

import pytest
import torch
from torch import Tensor

from nearfar.distributed import local, normalize
from nearfar.memory.queue import Queue
from tests.two_ranks import Pool


def keys(n: int, first: int = 0) -> Tensor:
    """Rows that can be told apart: number i is (i, -i)."""
    number = torch.arange(first, first + n, dtype=torch.float32)
    return torch.stack([number, -number], dim=1)


@pytest.mark.parametrize("size", [1, 5, 8, 13])
def test_first_in_first_out(size: int) -> None:
    queue, want, put = Queue(size, 2), deque[float](maxlen=size), 0
    for n in (3, 5, 1, 0, 20, 2, 13, 7):  # among them more than fit, none, and a wrap at every place
        queue.enqueue(keys(n, first=put))
        want.extend(range(put, put + n))
        put += n
        assert queue.count == put
        if put >= size:
            assert sorted(queue.keys[:, 0].tolist()) == sorted(want)
        assert torch.equal(queue.keys[(put - 1) % size], keys(1, first=put - 1)[0])


def test_groups_go_where_their_keys_go() -> None:
    queue = Queue(5, 2)
    assert queue.group.tolist() == [-1] * 5
    for first, n in ((0, 3), (3, 4), (7, 9)):
        queue.enqueue(keys(n, first=first), torch.arange(first, first + n))
        written = queue.group >= 0
        assert torch.equal(queue.keys[written, 0], queue.group[written].float())
    queue.enqueue(keys(1), None)
    assert (queue.group >= 0).sum() == 4, "a key without a group must not have that of the key before it"


def test_labels_go_where_their_keys_go_in_a_labeled_queue_alone() -> None:
    queue = Queue(5, 2, labeled=True)
    assert queue.label.tolist() == [-1] * 5
    for first, n in ((0, 3), (3, 4), (7, 9)):
        queue.enqueue(keys(n, first=first), label=torch.arange(first, first + n))
        written = queue.label >= 0
        assert written.sum() == min(first + n, 5)
        assert torch.equal(queue.keys[written, 0], queue.label[written].float())
    queue.enqueue(keys(1))
    assert (queue.label >= 0).sum() == 4, "a key without a label must not have that of the key before it"
    assert set(queue.state_dict()) - set(Queue(5, 2).state_dict()) == {"label"}
    Queue(5, 2).enqueue(keys(3), label=torch.arange(3))  # keeps none


def test_slots_not_yet_written_keep_their_random_unit_rows() -> None:
    torch.manual_seed(0)
    queue = Queue(6, 3)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(6))
    before = queue.keys.clone()
    queue.enqueue(torch.zeros(4, 3))
    assert torch.equal(queue.keys[4:], before[4:])
    assert not queue.keys[:4].any()


def test_it_stores_numbers_not_graphs() -> None:
    queue = Queue(4, 2)
    rows = keys(3).double().requires_grad_()
    queue.enqueue(rows * 2)
    assert not queue.keys.requires_grad
    assert queue.keys.dtype == torch.float32
    with torch.no_grad():
        rows.zero_()
    assert queue.keys[2].tolist() == [4, -4]


def test_a_saved_queue_goes_on_at_its_slot() -> None:
    one, two = Queue(5, 2), Queue(5, 2)
    one.enqueue(keys(3))
    two.load_state_dict(one.state_dict())
    one.enqueue(keys(4, first=3))
    two.enqueue(keys(4, first=3))
    assert torch.equal(one.keys, two.keys)
    assert list(one.state_dict()) == ["keys", "group", "count"]


def _enqueue(size: int, parts: list[Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    queue = Queue(size, 2, labeled=True)
    for part in parts:
        queue.enqueue(local(part), label=local(part[:, 0].long()))
    return queue.state_dict()


@pytest.mark.parametrize("size", [3, 10])
def test_two_ranks_hold_what_one_would(two_ranks: Pool, size: int) -> None:
    parts = [keys(4), keys(6, first=4), keys(4, first=10)]
    want = _enqueue(size, parts)
    for got in two_ranks.run(_enqueue, size, parts):
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_an_empty_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="Queue: size 0: "):
        Queue(0, 2)


def test_drift_is_none_while_the_encoder_stands_still_and_grows_when_it_moves() -> None:
    generator = torch.Generator().manual_seed(0)

    def made(n: int, mean: Tensor) -> Tensor:
        return normalize(mean + 0.3 * torch.randn(n, 16, generator=generator))

    queue, axes = Queue(1000, 16), torch.eye(16)
    assert queue.drift() is None  # what it starts with was never an encoder's
    queue.enqueue(made(3, axes[0]))
    assert queue.drift() is None
    queue.enqueue(made(600, axes[0]))
    still = queue.drift()
    assert still is not None
    assert abs(float(still)) < 0.01
    drifts = [float(still)]
    for angle in (0.3, 0.6, 1.2):
        queue.enqueue(made(300, math.cos(angle) * axes[0] + math.sin(angle) * axes[1]))
        drifts.append(float(queue.drift() or 0))
    assert drifts == sorted(drifts)


def test_drift_of_keys_at_right_angles_is_two() -> None:
    queue = Queue(8, 2)
    queue.enqueue(torch.tensor([[1.0, 0]] * 9 + [[0, 1.0]] * 4))
    assert queue.drift() == pytest.approx(2)
