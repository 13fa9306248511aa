from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.cli import main
from nearfar.methods.pixpro import PixPro
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.plan import View
from nearfar.modalities.image.samples import open_images
from nearfar.modalities.image.views import Views
from nearfar.optim.schedules import cosine_ramp
from nearfar.training.batches import Batches
from tests.tiny import array_file, tiny_images
from tests.training.test_loop import loop
from tests.two_ranks import Pool

from .small import clock, form, freeze_norms, norms, sgd, step

pixpro = form("pixpro")
BATCH = pixpro.batch(6, dtype=torch.float64)


def build(**arguments: Any) -> PixPro:
    method = cast(PixPro, form("pixpro", **arguments).build()).double()
    freeze_norms(method)
    return method


def rows(method: PixPro, view: Tensor, i: int, *, slow: bool = False) -> list[Tensor]:
    """What the projector makes of each cell of a sample."""
    pair: Any = method.slow if slow else method
    maps = pair.encoder.with_map(view[i : i + 1])[1][0]  # 6 x 4 x 4
    return [pair.projector(maps[None, :, s // 4, s % 4])[0] for s in range(16)]


def test_a_prediction_is_a_mixture_of_the_cells_that_are_like_it() -> None:
    method, view = build(sharpness=3), BATCH.views[0]
    y = method.predict(view)
    for i in (0, 5):
        x = rows(method, view, i)
        g = [part / part.norm() for part in (method.transform(cell[None])[0] for cell in x)]
        for s in range(16):
            weight = [max(float(torch.cosine_similarity(x[s], other, dim=0).detach()), 0) ** 3 for other in x]
            torch.testing.assert_close(
                y[i, s], torch.stack([w * part for w, part in zip(weight, g, strict=True)]).sum(0)
            )


def slow_loss(method: PixPro, threshold: float) -> float:
    """From the crops alone: where the middles of the cells are."""
    total = 0.0
    assert BATCH.places is not None
    for a, b in ((0, 1), (1, 0)):
        y = method.predict(BATCH.views[a])
        for i in range(6):
            x = rows(method, BATCH.views[b], i, slow=True)
            at = [torch.tensor([s % 4 + 0.5, s // 4 + 0.5]) / 2 - 1 for s in range(16)]
            middles = [[m[i, :, :2] @ p + m[i, :, 2] for p in at] for m in (BATCH.places[a], BATCH.places[b])]
            diagonal = max(float((m[i, :, :2] @ torch.tensor([0.5, 0.5])).norm()) for m in BATCH.places)
            found = [
                float(torch.cosine_similarity(y[i, s], x[t], dim=0).detach())
                for s in range(16)
                for t in range(16)
                if (middles[0][s] - middles[1][t]).norm() < threshold * diagonal
            ]
            total -= sum(found) / max(len(found), 1)
    return total / 6


@pytest.mark.parametrize("threshold", [0.7, 1.5])
def test_its_loss_is_that_of_a_loop(threshold: float) -> None:
    method = build(threshold=threshold)
    out = method(BATCH)
    assert float(out.loss.detach()) == pytest.approx(slow_loss(method, threshold))
    assert 0 < out.log["pairs"] < 1 or threshold > 1


def test_where_all_pairs_are_positive_it_is_the_mean_cosine_and_where_none_is_it_is_0() -> None:
    method = build(threshold=100.0)
    want = torch.zeros((), dtype=torch.float64)
    for a, b in ((0, 1), (1, 0)):
        y, x = method.predict(BATCH.views[a]), method.target(BATCH.views[b])
        want -= torch.cosine_similarity(y[:, :, None], x[:, None], dim=3).mean()
    torch.testing.assert_close(method(BATCH).loss, want)
    apart = torch.tensor([[0.1, 0, 0.0], [0, 0.1, 0]]).expand(6, 2, 3)
    away = apart + torch.tensor([[0, 0, 5.0], [0, 0, 0]])
    assert build()(replace(BATCH, places=[apart, away])).loss == 0


def test_a_mirrored_view_is_paired_with_what_it_mirrors() -> None:
    """At the start both encoders are one: cells of a mirrored view meet their own images, and no others."""
    method, view = build(threshold=0.5), BATCH.views[0]
    whole = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3)
    mirrored = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3)
    got = method(replace(BATCH, views=[view, view], places=[whole, mirrored])).loss
    y, x = method.predict(view), method.target(view).unflatten(1, (4, 4)).flip(2).flatten(1, 2)
    torch.testing.assert_close(got, -2 * torch.cosine_similarity(y, x, dim=2).mean())


def test_the_second_encoder_follows_along_a_cosine_and_statistics_move_once() -> None:
    method = cast(PixPro, pixpro.build()).double()
    method.clock = clock(64)
    before = [p.clone() for p in method.slow.parameters()]
    step(method, sgd(method), BATCH)
    own = [*method.encoder.parameters(), *method.projector.parameters()]
    momentum = cosine_ramp(0.99, 0.25)
    for old, p, new in zip(before, method.slow.parameters(), own, strict=True):
        torch.testing.assert_close(p, momentum * old + (1 - momentum) * new)
    assert {int(norm.get_buffer("num_batches_tracked")) for norm in norms(method).values()} == {1}


def loaded(name: str, step: int) -> Batch:
    """This rank's batch of a step, as training has it."""
    views, images = Views([View(size=8, area=(0.2, 1.0), flip=0.5)] * 2), open_images(tiny_images(16))
    with Batches(form(name).build(), images, views, loop(None, batch=8)) as batches:
        return batches(step)


def test_a_batch_tells_places_of_the_step_to_who_asks_on_any_number_of_ranks(two_ranks: Pool) -> None:
    assert loaded("byol", 0).places is None
    whole, other = loaded("pixpro", 1), loaded("pixpro", 0)
    halves = [batch.places for batch in two_ranks.run(loaded, "pixpro", 1)]
    assert whole.places is not None
    assert other.places is not None
    for v in range(2):
        assert torch.equal(torch.cat([half[v] for half in halves]), whole.places[v])
        assert not torch.equal(other.places[v], whole.places[v])
    assert not torch.equal(*whole.places)


def test_views_that_do_not_tell_their_places_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from nearfar.modalities.image import named\n\n\nclass Mute:\n    def __init__(self, size):\n"
        "        views = named.simclr(size)\n        self.draw, self.make = views.draw, views\n\n"
        "    def __len__(self):\n        return 2\n\n    def __call__(self, *inputs, draws):\n"
        "        return self.make(*inputs, draws=draws)\n"
    )
    data, out = array_file(tmp_path / "images.npz"), tmp_path / "run"
    flags = ["--encoder", "conv4", "--views", f"{mine}:Mute", "--out", str(out)]
    assert main(["train", "pixpro", str(data), *flags]) == 2
    assert "mine.py:Mute do not tell" in capsys.readouterr().err


def test_weights_behind_the_map_and_places_of_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="weights behind"):
        PixPro(image_encoder("test_efficientnet", size=64))
    method = PixPro(image_encoder("test_vit", size=96), dim=8, hidden=8)
    assert method.predict(torch.rand(2, 3, 96, 96)).shape == (2, 36, 8)
