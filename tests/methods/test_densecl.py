from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.dense import most_alike
from nearfar.methods.densecl import DenseCL
from nearfar.methods.moco import MoCo
from nearfar.modalities.image.encoder import image_encoder

from .small import TinyEncoder, clock, copied_state, form, freeze_norms, norms, sgd, step

densecl = form("densecl")
BATCH = densecl.batch(6, dtype=torch.float64)


def build(**arguments: Any) -> DenseCL:
    return cast(DenseCL, form("densecl", **arguments).build()).double()


def moco() -> MoCo:
    """With the weights that MoCo has in it."""
    method, own = cast(MoCo, form("moco").build()).double(), build().state_dict()
    method.load_state_dict({name: own[name] for name in method.state_dict()})
    return method


def cells(encoder: Any, head: nn.Module, view: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of the map, N x 16 x 6, and what a dense projector makes of each, one by one."""
    found = encoder.norm(encoder.conv(view)).relu().flatten(2).mT
    return found, torch.stack([torch.stack([head(cell[None])[0] for cell in sample]) for sample in found])


def test_its_loss_is_that_of_a_loop() -> None:
    method = build(weight=0.3)
    freeze_norms(method)
    f, q = cells(method.encoder, method.dense, BATCH.views[0])
    g, k = cells(method.slow.encoder, method.slow_dense, BATCH.views[1])
    terms = []
    for i in range(6):
        for s in range(16):
            match = max(range(16), key=lambda t: float(torch.cosine_similarity(f[i, s], g[i, t], dim=0).detach()))
            query, key = (x / x.norm() for x in (q[i, s], k[i, match]))
            logits = torch.stack([query @ key, *(method.dense_queue.keys @ query)]) / 0.2
            terms.append(nn.functional.cross_entropy(logits[None], torch.tensor([0])))
    whole = moco()
    freeze_norms(whole)
    torch.testing.assert_close(method(BATCH).loss, 0.7 * whole(BATCH).loss + 0.3 * torch.stack(terms).mean())


def test_without_the_dense_loss_it_is_moco() -> None:
    method, reference = build(weight=0), moco()
    for number in range(2):
        method.clock = reference.clock = clock(number)
        batch = densecl.batch(8, seed=number, dtype=torch.float64)
        one, two = step(method, sgd(method), batch), step(reference, sgd(reference), batch)
        assert torch.equal(one.loss, two.loss)
    own = copied_state(method)
    torch.testing.assert_close({name: own[name] for name in reference.state_dict()}, dict(reference.state_dict()))


def test_a_cell_of_an_equal_view_corresponds_to_itself() -> None:
    method = build(splits=1)
    method.shuffles = False
    q, k = method.query(BATCH.views[0]), method.key(BATCH.views[0])
    (_, _, f), (_, _, g) = method.parts(q), method.parts(k)
    cosine = normalize(f) @ normalize(g).mT
    matched = cosine.gather(2, most_alike(f, g)[:, :, None])[:, :, 0]
    torch.testing.assert_close(matched, cosine.diagonal(dim1=1, dim2=2))  # equal cells may stand for each other
    assert (most_alike(f, g) == torch.arange(16)).double().mean() > 0.8


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_dense_queue_holds_the_mean_of_the_keys_of_cells_and_their_projector_follows(symmetric: bool) -> None:
    method = build(queue=20, momentum=0.9, symmetric=symmetric)
    before, batch = copied_state(method), replace(BATCH, group=torch.arange(6) % 3)
    out = step(method, sgd(method), batch)
    views = out.carry[0]
    assert len(views) == 1 + symmetric
    for v, rows in enumerate(views):
        whole, dense, _ = method.parts(rows)
        slots = slice(6 * v, 6 * v + 6)
        torch.testing.assert_close(method.queue.keys[slots], whole)
        torch.testing.assert_close(method.dense_queue.keys[slots], normalize(dense.mean(1)))
        assert method.dense_queue.group[slots].tolist() == [0, 1, 2] * 2
    for name, p in method.slow_dense.named_parameters():
        moved = 0.9 * before[f"slow_dense.{name}"] + 0.1 * method.dense.get_parameter(name)
        torch.testing.assert_close(p.detach(), moved.detach())


def test_statistics_move_once_and_what_is_looked_at_is_the_representation() -> None:
    method = build()
    method.representations = []
    method(BATCH)
    (seen,) = method.representations
    assert seen.shape == (6, TinyEncoder.dim)
    assert {int(norm.get_buffer("num_batches_tracked")) for norm in norms(method).values()} == {1}


def test_transformers_have_cells_and_networks_side_by_side_have_none() -> None:
    torch.manual_seed(0)
    method = DenseCL(image_encoder("test_vit", size=96), dim=8, queue=16).train()
    views = [torch.rand(2, 3, 96, 96) for _ in range(2)]
    loss = method(Batch(views, torch.arange(2), torch.arange(2))).loss
    loss.backward()
    assert method.query(views[0]).shape == (2, 8 + 36 * (8 + 64))
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="ycbcr:conv4 has no maps"):
        DenseCL(image_encoder("ycbcr:conv4", size=32))
