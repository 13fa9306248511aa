from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.evaluation.identities import identities


def angles(*degrees: float) -> Tensor:
    """Rows at these angles: the cosine of two falls with the difference."""
    turn = torch.tensor(degrees) * math.pi / 180
    return torch.stack([turn.cos(), turn.sin()], 1)


def test_by_hand() -> None:
    """A query of identity 0 and camera 0, the items by nearness: own camera (removed), wrong, right, wrong, right."""
    got = identities(
        angles(0), torch.tensor([0]), torch.tensor([0]),
        angles(1, 10, 20, 30, 40), torch.tensor([0, 1, 0, 2, 0]), torch.tensor([0, 0, 1, 1, 2]),
        ranks=(1, 2, 3),
    )  # fmt: skip
    assert got["mAP"] == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert [got[f"cmc@{k}"] for k in (1, 2, 3)] == [0, 100, 100]
    assert (got["queries"], got["skipped"]) == (1, 0)


def test_a_wrong_item_of_the_same_camera_stays() -> None:
    got = identities(
        angles(0), torch.tensor([0]), torch.tensor([0]),
        angles(1, 2), torch.tensor([1, 0]), torch.tensor([0, 1]),
    )  # fmt: skip
    assert got["mAP"] == pytest.approx(50)
    assert got["cmc@1"] == 0


def test_queries_that_have_nothing_to_find_are_skipped() -> None:
    identity, camera = torch.tensor([0, 0, 1, 1, 2, MISSING]), torch.tensor([0, 1, 0, 0, 0, 1])
    got = identities(angles(0, 10, 50, 60, 90, 5), identity, camera)
    assert (got["queries"], got["skipped"]) == (2, 3)  # identity 1 was seen by one camera, 2 once, and one has no name
    assert got["mAP"] == got["cmc@1"] == 100
    assert got["protocol"]["gallery"] == 5
    with pytest.raises(ValueError, match="none of the 2 queries"):
        identities(angles(0, 10), torch.tensor([0, 0]), torch.tensor([1, 1]))


def test_without_cameras_only_the_query_itself_is_removed() -> None:
    identity, none = torch.tensor([0, 0, 1]), torch.full((3,), MISSING)
    got = identities(angles(0, 10, 5), identity, none)
    assert (got["queries"], got["mAP"]) == (2, 50)


def test_what_goes_together_is_asked_for() -> None:
    one = torch.tensor([0])
    with pytest.raises(ValueError, match="go together"):
        identities(angles(0), one, one, angles(1), one)


def slow(x: Tensor, identity: list[int], camera: list[int]) -> tuple[float, float]:
    x = F.normalize(x, dim=1)
    average, first = [], []
    for i in range(len(x)):
        left = [
            j for j in range(len(x)) if j != i and not (identity[i] == identity[j] and camera[i] == camera[j])
        ]  # fmt: skip
        ranked = sorted(left, key=lambda j: -float(x[i] @ x[j]))
        hits = [identity[i] == identity[j] for j in ranked]
        if any(hits):
            precision = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
            average.append(sum(precision) / len(precision))
            first.append(hits[0])
    return 100 * sum(average) / len(average), 100 * sum(first) / len(first)


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_against_a_slow_loop(chunk: int | None) -> None:
    """20 identities, seen by 3 cameras, 4 times by each."""
    generator = torch.Generator().manual_seed(0)
    identity = torch.arange(20).repeat_interleave(12)
    camera = torch.arange(3).repeat_interleave(4).repeat(20)
    x = torch.randn(20, 8, generator=generator)[identity] + torch.randn(3, 8, generator=generator)[camera]
    x = x + torch.randn(240, 8, generator=generator)
    got = identities(x, identity, camera, chunk=chunk)
    average, first = slow(x, identity.tolist(), camera.tolist())
    assert got["mAP"] == pytest.approx(average, abs=1e-6)
    assert got["cmc@1"] == pytest.approx(first, abs=1e-6)
    assert got["low"] < got["mAP"] < got["high"]
