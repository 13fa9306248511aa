from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.false_negatives import nt_xent_found
from nearfar.losses.pairwise import nt_xent
from nearfar.methods.fnc import FNC

from .border import constant, loss_and_chance
from .small import Form, form, freeze_norms

fnc = form("fnc")


def build(form: Form = fnc, **arguments: Any) -> FNC:
    method = cast(FNC, form.build(**arguments)).double()
    freeze_norms(method)
    return method


def batch(n: int = 6, views: int = 4) -> Batch:
    made = fnc.batch(n, dtype=torch.float64)
    made.views = (made.views + fnc.batch(n, seed=1, dtype=torch.float64).views)[:views]
    assert len(made.views) == views
    return made


def embedded(method: FNC, seen: Batch) -> list[Tensor]:
    return [method.project_all([view])[0] for view in seen.views]


@pytest.mark.parametrize("support_learns", [False, True])
def test_further_views_help_to_find_and_learn_where_asked(*, support_learns: bool) -> None:
    method, seen = build(support_learns=support_learns, threshold=0.0, top=3), batch()
    z = embedded(method, seen)
    learning = z if support_learns else z[:2]
    score = torch.stack([part @ torch.cat(learning).T for part in z]).amax(0)  # N x columns
    score[torch.arange(len(score[0])) % 6 == torch.arange(6)[:, None]] = -1
    found = score.argsort(1, descending=True)[:, :3]
    want = nt_xent_found(learning, found, temperature=0.1, attract=True)
    torch.testing.assert_close(method(seen).loss, want)
    method(seen).loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_with_a_memory_the_momentum_encoder_finds_and_is_contrasted_with() -> None:
    method, seen = build(memory=16, momentum=0.5, threshold=0.0, top=3), batch()
    queue = method.queue
    assert queue is not None
    with torch.no_grad():
        for p in (*method.encoder.parameters(), *method.projector.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    z = embedded(method, seen)[:2]
    support = [normalize(queue.slow.projector(queue.slow.encoder(view))) for view in seen.views]
    assert not torch.allclose(z[0], support[0])
    columns = torch.cat([*support[:2], queue.keys])
    score = torch.stack([part @ columns.T for part in support]).amax(0)  # 6 x 28
    of = torch.cat([torch.arange(12) % 6, torch.full((16,), -1)])
    found = score.masked_fill(of == torch.arange(6)[:, None], -1).argsort(1, descending=True)[:, :3]
    want = nt_xent_found(z, found, temperature=0.1, attract=True, keys=support[:2], queue=queue.keys)
    out = method(seen)
    torch.testing.assert_close(out.loss, want)
    assert float(out.log["precision"]) <= 1
    method.after_step(out)
    torch.testing.assert_close(queue.keys[:12], torch.cat(support[:2]))
    assert queue.label[:12].tolist() == seen.label.tolist() * 2


def test_of_two_views_both_serve_to_find() -> None:
    method, seen = build(treatment="eliminate", threshold=-1.0), batch(views=2)
    assert method(seen).loss < build(treatment="eliminate", threshold=1.0)(seen).loss
    torch.testing.assert_close(build(threshold=1.0)(seen).loss, nt_xent(*embedded(method, seen), temperature=0.1))


def test_the_log_tells_how_good_detection_is() -> None:
    method, seen = build(top=2, threshold=-1.0), batch(views=2)
    seen.label = torch.tensor([0, 0, 1, 1, MISSING, 2])
    z1, z2 = (z.detach() for z in embedded(method, seen))
    rows = torch.cat([z1, z2])
    right = found = same = 0
    for i in range(6):
        score = torch.maximum(z1[i] @ rows.T, z2[i] @ rows.T)
        others = [j for j in range(12) if j % 6 != i]
        for j in sorted(others, key=lambda j: -float(score[j]))[:2]:
            known = min(int(seen.label[i]), int(seen.label[j % 6])) != MISSING
            found += known
            right += known and bool(seen.label[i] == seen.label[j % 6])
        same += sum(seen.label[i] == seen.label[j % 6] != MISSING for j in others)
    assert same == 8
    log = method(seen).log
    assert float(log["precision"]) == pytest.approx(right / found)
    assert float(log["recall"]) == pytest.approx(right / same)


def test_without_classes_nothing_is_told() -> None:
    from nearfar import methods

    kind = methods.load("fnc")
    method = methods.build(kind, build().encoder, {}, samples=40, classes=0, channels=3)
    assert method.float()(fnc.batch(8)).log == {}


def test_chance_is_the_loss_of_equal_rows_with_a_memory_of_them_too() -> None:
    arguments = fnc.arguments | {"memory": 64, "treatment": "eliminate"}
    with constant(dataclasses.replace(fnc, arguments=arguments)) as method:
        both = loss_and_chance(method, fnc.batch(8), 0)
    assert both is not None
    assert both[1] == pytest.approx(both[0], rel=1e-5)
