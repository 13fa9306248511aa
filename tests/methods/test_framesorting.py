from __future__ import annotations

from itertools import permutations
from typing import cast

import pytest
import torch

from nearfar.methods.framesorting import FrameSorting

from .small import form, freeze_norms

sorting = form("framesorting")


def build(**arguments: object) -> FrameSorting:
    return cast(FrameSorting, sorting.build(**arguments))


@pytest.mark.parametrize(("parts", "classes"), [(3, 3), (4, 12)])
def test_an_order_and_its_reverse_are_one_class(parts: int, classes: int) -> None:
    method = build(parts=parts)
    of = dict(zip(map(tuple, method.permutations.tolist()), method.classes.tolist(), strict=True))
    assert set(of) == set(permutations(range(parts)))
    assert sorted(set(of.values())) == list(range(classes))
    assert all(of[order] == of[order[::-1]] for order in of)
    assert build(parts=parts, reversible=False).classes.unique().tolist() == list(range(2 * classes))


def test_the_head_sees_the_parts_in_the_order_that_is_the_target() -> None:
    method, batch = build(parts=4, reversible=False).double(), sorting.batch(3, dtype=torch.float64)
    freeze_norms(method)
    seen: list[torch.Tensor] = []
    method.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loss, (number, target) = method(batch).loss, method.draw(batch)
    assert target.tolist() == method.classes[number].tolist()
    terms = []
    for i, order in enumerate(method.permutations[number].tolist()):
        codes = torch.stack([method.encoder(batch.views[0][i : i + 1, 2 * k : 2 * k + 2])[0] for k in order])
        torch.testing.assert_close(seen[0][i], codes)
        terms.append(-method.head(codes[None]).log_softmax(1)[0, target[i]])
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_still_clips_count_for_nothing() -> None:
    method, batch = build(), sorting.batch(4)
    batch.views[0] = batch.views[0][:, :1].expand(-1, 8, -1, -1, -1).contiguous()
    assert float(method(batch).loss.detach()) == float(method.chance(batch)) == 0


def test_one_order_alone_is_refused() -> None:
    for parts in (1, 2):
        with pytest.raises(ValueError, match=f"{parts} parts have one order.*--no-both-ways"):
            build(parts=parts)
    assert build(parts=2, reversible=False).count == 2
