from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local, normalize
from nearfar.memory.hybrid import Hybrid
from tests.two_ranks import Pool

LABEL = torch.tensor([2, MISSING, 0, MISSING, 2, MISSING])
"""Of six samples; of three classes one has none."""


def filled(label: Tensor | None = LABEL) -> Hybrid:
    memory = Hybrid(6, 3, 4)
    memory.fill(normalize(torch.randn(6, 4)), label)
    return memory


def test_before_it_is_filled_each_sample_is_an_identity_of_the_target() -> None:
    memory = Hybrid(6, 3, 4)
    assert not memory.source.any()
    centroids, column, group = memory.prototypes()
    torch.testing.assert_close(centroids[column], memory.rows[3:])
    assert (len(centroids), column.tolist(), group.tolist()) == (6, list(range(6)), [MISSING] * 6)


def test_it_is_filled_with_class_means_and_target_samples() -> None:
    v, memory = normalize(torch.randn(6, 4)), Hybrid(6, 3, 4)
    memory.fill(v, LABEL)
    assert memory.source.tolist() == [True, False, True, False, True, False]
    assert memory.place.tolist() == [2, 4, 0, 6, 2, 8]
    assert memory.identity.tolist() == [0, MISSING, 2, MISSING, 4, MISSING, 6, MISSING, 8]
    torch.testing.assert_close(memory.rows[2], normalize((v[0] + v[4])[None])[0])
    torch.testing.assert_close(memory.rows[[0, 4, 6, 8]], v[[2, 1, 3, 5]])
    centroids, column, _ = memory.prototypes()
    assert column.tolist() == [1, 2, 0, 3, 1, 4]
    torch.testing.assert_close(centroids, memory.rows[[0, 2, 4, 6, 8]])
    assert filled(None).identity.tolist() == [MISSING] * 3 + list(range(3, 9))


def test_prototypes_are_means_of_what_has_one_name_and_gaps_in_names_do_not_matter() -> None:
    memory = filled()
    memory.name(torch.tensor([7, 0, 7]))
    assert memory.identity.tolist() == [0, MISSING, 2, MISSING, 10, MISSING, 3, MISSING, 10]
    centroids, column, _ = memory.prototypes()
    want = [memory.rows[0], memory.rows[2], memory.rows[6], (memory.rows[4] + memory.rows[8]) / 2]
    torch.testing.assert_close(centroids, torch.stack(want))
    assert column.tolist() == [1, 3, 0, 2, 1, 3]
    memory.name(torch.tensor([0, 1, 0]))  # the same, with other numbers
    again, column, _ = memory.prototypes()
    torch.testing.assert_close(again[column], centroids[[1, 3, 0, 2, 1, 3]])


def test_samples_are_written_one_after_the_other() -> None:
    """Both samples of class 2, one of them twice, move its row; one of the target moves its own."""
    memory, index = filled(), torch.tensor([0, 3, 4, 0])
    before, v = memory.rows.clone(), normalize(torch.randn(4, 4, requires_grad=True))
    memory.write(index, v, keep=0.2)
    want = before.clone()
    for sample, row in zip(index.tolist(), v.detach(), strict=True):
        at = {0: 2, 4: 2, 3: 6}[sample]
        blended = 0.2 * want[at] + 0.8 * row
        want[at] = blended / blended.norm()
    torch.testing.assert_close(memory.rows, want)
    assert torch.equal(memory.rows[[0, 1, 3, 4, 5, 7, 8]], before[[0, 1, 3, 4, 5, 7, 8]])
    assert not memory.rows.requires_grad


def test_keeping_all_changes_nothing_and_keeping_nothing_replaces() -> None:
    memory, v = filled(), normalize(torch.randn(3, 4))
    before = memory.rows.clone()
    memory.write(torch.tensor([1, 3, 0]), v, keep=1.0)
    torch.testing.assert_close(memory.rows, before)
    memory.write(torch.tensor([1, 3, 0]), v, keep=0.0)
    torch.testing.assert_close(memory.rows[[4, 6, 2]], v)


def test_a_prototype_has_the_group_that_all_its_rows_have() -> None:
    memory = filled()
    memory.write(torch.arange(6), normalize(torch.randn(6, 4)), group=torch.tensor([9, 5, 9, 5, 9, 3]))
    assert memory.prototypes().group.tolist() == [MISSING, MISSING, 5, 5, 3]  # classes are of many groups
    memory.name(torch.tensor([0, 0, 1]))
    assert memory.prototypes().group.tolist() == [MISSING, MISSING, 5, 3]
    memory.name(torch.tensor([0, 1, 0]))
    assert memory.prototypes().group.tolist() == [MISSING, MISSING, MISSING, 5]


def test_drift_is_that_of_target_samples() -> None:
    memory = filled()
    memory.write(torch.tensor([0]), torch.eye(4)[:1])
    assert memory.drift() is None  # of a class another sample was seen
    memory.write(torch.tensor([1, 0]), torch.stack([memory.rows[4], torch.eye(4)[1]]))
    assert float(memory.drift()) == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]
    memory.write(torch.tensor([1, 0]), -torch.stack([memory.rows[4], torch.eye(4)[1]]))
    assert float(memory.drift()) == pytest.approx(2, abs=1e-6)  # type: ignore[arg-type]


def _written(index: Tensor, v: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    memory = filled()
    memory.write(local(index), local(v), keep=0.2, group=local(index) % 3)
    return dict(memory.state_dict())


def test_two_ranks_hold_what_one_holds(two_ranks: Pool) -> None:
    index, v = torch.tensor([4, 1, 0, 4]), normalize(torch.randn(4, 4))
    want = _written(index, v)
    for got in two_ranks.run(_written, index, v):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
