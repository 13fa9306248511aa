from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.distributed import normalize
from nearfar.method import start_epoch
from nearfar.methods.moco import MoCo
from nearfar.methods.pcl import PCL

from .small import Form, clock, copied_state, form, freeze_norms, sgd, step

pcl = form("pcl", clusters=2, granularities=2, start=2, queue=6, restarts=2)


def build(form: Form = pcl, *, epoch: int = 5, **arguments: int) -> PCL:
    """In double precision, after an E-step."""
    method = cast(PCL, form.build(**arguments)).double()
    method.clock = clock(epoch)
    start_epoch(method, form.look(method))
    return method


def embedded(method: PCL) -> Tensor:
    """What the slow copy makes of the 40 training images."""
    method.eval()
    look = pcl.look(method)
    with torch.no_grad():
        z = look(lambda view: normalize(method.slow.projector(method.slow.encoder(view))))
    method.train()
    return z


def test_clusters_are_of_the_embeddings_of_the_slow_copy() -> None:
    method, x = build(), embedded(build())
    assert [len(phi) for _, phi, _ in method.clusterings()] == [2, 4]
    for centroids, phi, cluster in method.clusterings():
        for c in cluster.unique():
            mean = x[cluster == c].mean(0)
            torch.testing.assert_close(centroids[c], mean / mean.norm(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(phi.mean(), torch.tensor(0.2, dtype=torch.float64))
        assert (phi > 0).all()


def test_the_best_of_several_tries_counts() -> None:
    def badness(method: PCL) -> list[float]:
        x = embedded(method)
        return [
            sum(float((x[cluster == c] - x[cluster == c].mean(0)).square().sum()) for c in cluster.unique())
            for _, _, cluster in method.clusterings()
        ]

    one, eight = badness(build(restarts=1)), badness(build(restarts=8))
    assert all(many <= few + 1e-6 for few, many in zip(one, eight, strict=True))


def test_before_the_warm_up_is_over_and_without_clusterings_it_is_moco() -> None:
    batch = pcl.batch(8, dtype=torch.float64)
    for method in (build(epoch=1), build(epoch=5, granularities=0)):
        plain = cast(MoCo, form("moco", queue=6).build()).double()
        plain.load_state_dict(
            {k: v for k, v in method.state_dict().items() if not k.startswith(("centroids", "phi", "cluster"))}
        )
        plain.clock = method.clock
        assert torch.equal(method(batch).loss, plain(batch).loss)
        assert method.chance(batch) == plain.chance(batch)
    young = build(epoch=1)
    before = copied_state(young)
    start_epoch(young, pcl.look(young))
    assert all(torch.equal(value, before[name]) for name, value in young.state_dict().items())


@pytest.mark.parametrize("repeat", [False, True])
def test_the_loss_is_that_of_a_loop(*, repeat: bool) -> None:
    method, batch = (
        build(form("pcl", **pcl.arguments | {"repeat": repeat, "queue": 50})),
        pcl.batch(8, dtype=torch.float64),
    )
    freeze_norms(method)
    q, k = method.query(batch.views[0]), method.key(batch.views[1])
    parts = []
    for centroids, phi, cluster in method.clusterings():
        terms = []
        own = cluster[batch.index].tolist()
        for row, s in zip(q, own, strict=True):
            rest = [c for c in range(len(phi)) if c not in own]  # 50 are asked for: all there are
            pushed = (own if repeat else sorted(set(own))) + rest
            logits = torch.stack([row @ centroids[c] / phi[c] for c in pushed])
            terms.append(nn.functional.cross_entropy(logits[None], torch.tensor([pushed.index(s)])))
        parts.append(torch.stack(terms).mean())
    want = MoCo.loss(method, q, k, batch) + sum(parts) / 2
    torch.testing.assert_close(method(batch).loss, want)


def test_no_more_clusters_are_pushed_than_asked_for_and_others_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = build(clusters=4, granularities=1, queue=1), pcl.batch(2, dtype=torch.float64)
    asked: list[list[int]] = []
    monkeypatch.setattr(
        "nearfar.methods.pcl.proto_nce",
        lambda q, centroids, phi, cluster, others, **_: asked.append(others.tolist()) or q.sum(),
    )
    method(batch)
    method.clock = clock(6)
    method(batch)
    own = set(method.cluster[0, batch.index].tolist())
    for others in asked:
        assert len(others) == 1
        assert not own & set(others)
    assert asked[0] != asked[1]


def test_clusters_stay_as_they_are_within_an_epoch_and_never_more_than_one_for_ten_samples() -> None:
    method = build(clusters=3)
    assert [len(phi) for _, phi, _ in method.clusterings()] == [3, 4]
    before = copied_state(method)
    step(method, sgd(method), pcl.batch(8, dtype=torch.float64))
    after = method.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in ("centroids", "phi", "cluster"))
