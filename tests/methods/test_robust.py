from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar import methods
from nearfar.batch import MISSING, Batch
from nearfar.losses.false_negatives import find_alike, nt_xent_found
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Clock
from nearfar.methods.robust import Robust

from .small import TinyEncoder, form, freeze_norms

robust = form("robust")
LATE = Clock(step=90, steps=100)


def build(clock: Clock = LATE, **arguments: Any) -> Robust:
    method = cast(Robust, robust.build(**arguments)).double()
    freeze_norms(method)
    method.clock = clock
    return method


def batch(n: int = 8, *, grouped: bool = False) -> Batch:
    return robust.batch(n, dtype=torch.float64, grouped=grouped)


def embedded(method: Robust, seen: Batch) -> list[Tensor]:
    return [normalize(method.projector(method.embed(view))) for view in seen.views]


def test_removal_begins_and_grows_and_stays() -> None:
    method = build(rho=0.25, onset=0.2, full=0.6)
    most = []
    for step in range(101):
        method.clock = Clock(step=step, steps=100)
        most.append(method.most(41))  # of 80 rows of others
    assert most[:21] == [0] * 21
    assert most[40] == 10  # half way
    assert most[60:] == [20] * 41
    assert most == sorted(most)


@pytest.mark.parametrize(
    ("clock", "arguments"),
    [(LATE, {"rho": 0.0}), (LATE, {"threshold": 1.0}), (Clock(step=9, steps=100), {"rho": 0.9})],
    ids=["none", "none alike enough", "too early"],
)
def test_without_removal_it_is_simclr(clock: Clock, arguments: dict[str, Any]) -> None:
    method, seen = build(clock, **arguments), batch(grouped=True)
    want = nt_xent(*embedded(method, seen), temperature=method.temperature, group=seen.group)
    torch.testing.assert_close(method(seen).loss, want)


@pytest.mark.parametrize("score", ["max", "mean"])
def test_the_rows_most_like_a_sample_do_not_push_it(score: Any) -> None:
    method, seen = build(rho=0.3, score=score, threshold=-1.0), batch()
    z = torch.cat(embedded(method, seen))
    seen_by = torch.stack([z[:8] @ z.T, z[8:] @ z.T]).detach()
    likeness = seen_by.amax(0) if score == "max" else seen_by.mean(0)
    losses, plain = [], []
    for i in range(16):
        others = [j for j in range(16) if j % 8 != i % 8]
        removed = sorted(others, key=lambda j: -float(likeness[i % 8, j]))[:4]  # 0.3 of 14
        e = torch.exp(z[i] @ z.T / method.temperature)
        partner = e[(i + 8) % 16]
        losses.append(-torch.log(partner / (partner + sum(e[j] for j in others if j not in removed))))
        plain.append(-torch.log(partner / (partner + sum(e[j] for j in others))))
        assert 0 <= losses[-1] < plain[-1]
    torch.testing.assert_close(method(seen).loss, torch.stack(losses).mean())


def test_a_duplicate_is_left_out_first() -> None:
    method, seen = build(rho=2 / 14, threshold=-1.0), batch()
    for view in seen.views:
        view[5] = view[2]
    found = method.find([part.detach() for part in embedded(method, seen)], seen.label)
    assert set(found[2].tolist()) == {5, 13}
    assert set(found[5].tolist()) == {2, 10}


def test_labels_remove_the_same_class_from_the_first_step() -> None:
    method, seen = build(Clock(), oracle=True), batch()
    z = torch.cat(embedded(method, seen))
    losses = []
    for i in range(16):
        mine = seen.label[i % 8]
        others = [j for j in range(16) if j % 8 != i % 8 and (mine == MISSING or seen.label[j % 8] != mine)]
        e = torch.exp(z[i] @ z.T / method.temperature)
        partner = e[(i + 8) % 16]
        losses.append(-torch.log(partner / (partner + sum(e[j] for j in others))))
    out = method(seen)
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())
    assert float(out.log["precision"]) == float(out.log["recall"]) == 1
    seen.label = torch.arange(8)  # each of a class of its own
    torch.testing.assert_close(method(seen).loss, nt_xent(*z.chunk(2), temperature=method.temperature))
    seen.label = torch.zeros(8, dtype=torch.int64)
    assert method(seen).loss == 0  # nothing pushes


def test_an_attacked_view_is_near_its_own_and_has_the_larger_loss() -> None:
    method, seen = build(adversarial=True, eps=0.02, steps=4, rho=0.3), batch()
    clean = [z.detach() for z in embedded(method, seen)]
    found = method.find(clean, seen.label)

    def loss(view: Tensor) -> Tensor:
        z = normalize(method.projector(method.embed(view)))
        return nt_xent_found([z, clean[1]], found, temperature=method.temperature)

    view = method.attack(seen.views[0], loss)
    assert (view - seen.views[0]).abs().max() <= 0.02 + 1e-12
    assert loss(view) > loss(seen.views[0])
    z = [normalize(method.projector(method.embed(x))) for x in (view, seen.views[1])]
    want = nt_xent_found(z, found, temperature=method.temperature)
    torch.testing.assert_close(method(seen).loss, want)
    assert torch.equal(find_alike(clean, clean, top=4, threshold=0.0), found)


def test_an_attack_of_no_size_changes_nothing() -> None:
    seen = batch()
    with_it, without = (build(adversarial=on, eps=0.0, rho=0.3) for on in (True, False))
    torch.testing.assert_close(with_it(seen).loss, without(seen).loss)


def test_what_cannot_be_meant_is_refused() -> None:
    kind = methods.load("robust")
    known = {"samples": 40, "channels": 3}
    for wrong in ({"rho": 1.0}, {"onset": 0.5, "full": 0.5}, {"full": 1.5}):
        with pytest.raises(ValueError, match=" ".join(f".*{name} {value}" for name, value in wrong.items())):
            methods.build(kind, TinyEncoder(), wrong, classes=3, **known)
    with pytest.raises(ValueError, match="there are no labels"):
        methods.build(kind, TinyEncoder(), {"oracle": True}, classes=0, **known)
    assert methods.build(kind, TinyEncoder(), {}, classes=0, **known)(robust.batch(8)).log == {}
