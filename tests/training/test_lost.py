from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import Lost
from nearfar.training.batches import Batches
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.loop import fit
from nearfar.training.lost import StandIns, TooManyLost
from tests.training.test_loop import STEPS, N, Noise, Vectors, equal, loop, make, optimizer
from tests.two_ranks import Pool


class Frail(Vectors):
    """Samples of which some can be read no more from a step on: from a number of calls of `fetch`."""

    def __init__(self, gone: set[int], *, after: int = 0, max_bad: float | None = 0.1) -> None:
        super().__init__()
        self.gone, self.after, self.max_bad = gone, after, max_bad

    def fetch(self, index: Tensor) -> tuple[Tensor]:
        gone = self.gone if len(self.seen) >= self.after else set()
        if at := {k: (f"s{row}", "it is gone") for k, row in enumerate(index.tolist()) if row in gone}:
            raise Lost(at)
        return super().fetch(index)


def go(data: Vectors, folder: Path | None = None, **options) -> dict[str, Tensor]:
    method = make("simclr")
    assert fit(method, data, Noise(), optimizer("sgd", method), loop(folder, **options))
    return method.state_dict()


def test_a_stand_in_is_neither_lost_nor_in_the_batch_nor_taken_on_any_rank() -> None:
    data, batch = Vectors(), torch.arange(12)
    lost = dict.fromkeys((2, 7, 9, 30), ("", ""))
    whole, twice = StandIns(data, lost, seed=0, mine=slice(0, 12)).filled(batch, 5)
    assert not twice
    assert len(set(whole.tolist())) == 12
    assert not set(whole.tolist()) & lost.keys()
    changed = [2, 7, 9]
    assert [k for k in range(12) if whole[k] != k] == changed
    assert (whole[changed] >= 12).all()
    halves = [StandIns(data, lost, seed=0, mine=slice(a, a + 6)).filled(batch, 5)[0] for a in (0, 6)]
    assert torch.equal(torch.cat(halves), whole)
    other, _ = StandIns(data, lost, seed=0, mine=slice(0, 12)).filled(batch, 6)
    assert not torch.equal(other, whole)


def test_stand_ins_are_of_the_same_label_where_there_are_any() -> None:
    data = Vectors()
    filled, _ = StandIns(data, {0: ("", ""), 1: ("", "")}, seed=0, mine=slice(0, 2)).filled(torch.arange(2), 0)
    assert torch.equal(data.label[filled], data.label[:2])


def test_what_is_lost_is_said_and_training_does_not_depend_on_when_it_was_found() -> None:
    said: list[str] = []
    found = go(Frail({3, 17}), say=said.append)
    known = go(Frail(set()), lost={3: ("s3", ""), 17: ("s17", "")})
    assert equal(found, known)
    assert not equal(found, go(Vectors()))
    (line,) = [line for line in said if "read no more" in line]
    assert all(word in line for word in (f"2 of {N}", "'s3'", "'s17'"))


def test_in_a_batch_of_all_samples_a_sample_is_a_group_of_its_own() -> None:
    data, lost = Frail(set()), dict.fromkeys((5, 6), ("", ""))
    data.group = torch.where(torch.arange(N) < 4, 0, MISSING)
    with Batches(make("simclr"), data, Noise(), loop(None, batch=N, lost=lost)) as batches:
        batch = batches(0)
    assert batch.group is not None
    assert not {5, 6} & set(batch.index.tolist())
    assert len(batch) == N
    same = batch.index[:, None] == batch.index
    first = data.group[batch.index] == 0
    assert torch.equal(batch.group[:, None] == batch.group, same | (first[:, None] & first))


def test_too_many_stop_the_run_after_a_checkpoint_and_it_goes_on_when_they_are_back(tmp_path: Path) -> None:
    with pytest.raises(TooManyLost, match=r"5 of 44 .*11\.4%, where 10\.0% are .* --resume --max-bad 0\.12"):
        go(Frail(set(range(5))))
    with pytest.raises(TooManyLost, match=r"of 44 .*where 0\.0% are"):
        go(Frail(set(range(N)), after=7, max_bad=0.0), tmp_path)
    saved, _ = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert saved["step"] == 7
    assert equal(go(Vectors(), tmp_path), go(Vectors()))


def test_where_none_may_be_lost_one_is_too_many(tmp_path: Path) -> None:
    with pytest.raises(TooManyLost, match=r"1 of 44 .*'s8' \(it is gone\)\. Put back"):
        go(Frail({8}, max_bad=None), tmp_path)


def _ranks(gone: list[int], after: int, folder: str | None) -> tuple[dict[str, Tensor], list[str]]:
    said: list[str] = []
    state = go(Frail(set(gone), after=after), None if folder is None else Path(folder), say=said.append)
    return state, said


def test_ranks_agree_on_what_is_lost_and_end_together(two_ranks: Pool, tmp_path: Path) -> None:
    (first, said), (second, _) = two_ranks.run(_ranks, [3, 17], 0, None)
    assert torch.equal(first["encoder.net.0.weight"], second["encoder.net.0.weight"])
    assert any("'s3'" in line for line in said)
    with pytest.raises(RuntimeError, match=r"(?s)rank 0:.*6 of 44 samples.*rank 1:.*6 of 44 samples"):
        two_ranks.run(_ranks, list(range(6)), 7, str(tmp_path))
    saved, _ = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert 10 <= saved["step"] < STEPS
