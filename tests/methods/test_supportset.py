"""SupportSet in particular: what is written, of which samples, and what the bank holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import clip
from nearfar.losses.support import captioning, hardest_hinge
from nearfar.methods.supportset import SupportSet
from nearfar.nn.towers import Joint, Towers
from nearfar.nn.wrapped import Wrapped

from .small import TinyEncoder, TinyRows, TinyStreams, clock, form, sgd, step

PAIRS = form("supportset")


def built(**arguments: Any) -> SupportSet:
    method: Any = PAIRS.build(**arguments)
    return method.double().eval()


def batch(n: int = 6, **changed: Any) -> Batch:
    return replace(PAIRS.batch(n, dtype=torch.float64), **changed)


def sides(method: SupportSet, given: Batch) -> tuple[Tensor, Tensor, Any]:
    """The rows of both sides, and what is to be written: the second side sees the second view."""
    towers: Any = method.encoder
    view = given.views[1]["table"]
    rows = towers.tower("image")(given.views[0]["image"]), towers.tower("table")(view)
    return normalize(rows[0]), normalize(rows[1]), method.writer.written(view)


@pytest.mark.parametrize("mode", ["cross", "hybrid", "full", "identity"])
def test_a_caption_is_written_of_the_mixture_that_the_mode_says(mode: str) -> None:
    method, given = built(mode=mode, discrimination="infonce", weight=0.7, support_temperature=0.3), batch()
    v, t, (ids, length) = sides(method, given)
    s = t @ v.T / 0.3
    own = torch.eye(6, dtype=s.dtype)
    full, cross = s.softmax(1), s.masked_fill(own.bool(), -torch.inf).softmax(1)
    w = {"cross": cross, "hybrid": (full + own) / 2, "full": full, "identity": own}[mode]
    want = captioning(method.writer(ids, (w @ v)[:, None]), ids, length)
    out = method(given)
    torch.testing.assert_close(out.log["captioning"], want.detach())
    torch.testing.assert_close(out.loss, clip(v, t, temperature=0.07) + 0.7 * want)
    assert float(out.log["temperature"]) == pytest.approx(0.07)


def test_the_hinge_follows_the_epochs_of_infonce_and_learns_no_temperature() -> None:
    method, given = built(margin=0.4, infonce_epochs=2, temperature=0.2), batch()
    v, t, _ = sides(method, given)
    for epoch, contrast in ((1, clip(v, t, temperature=0.2)), (2, hardest_hinge(v, t, margin=0.4))):
        method.clock = clock(epoch)
        out = method(given)
        torch.testing.assert_close(out.loss, contrast + out.log["captioning"])
    assert "log_scale" not in dict(method.named_parameters())
    assert "log_scale" in dict(built(discrimination="infonce").named_parameters())


def test_samples_of_one_group_are_no_support_of_each_other_and_a_batch_of_one_group_writes_nothing() -> None:
    method = built()
    given = batch(group=torch.tensor([0, 0, 1, MISSING, MISSING, 1]))
    v, t, _ = sides(method, given)
    _, weight = method.support["image"](t, v, given)
    assert (weight == 0).nonzero().tolist() == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
        [2, 2],
        [2, 5],
        [3, 3],
        [4, 4],
        [5, 2],
        [5, 5],
    ]
    alike = method(batch(group=torch.zeros(6, dtype=torch.long)))
    assert alike.log["captioning"] == 0
    alike.loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_what_was_seen_in_a_step_is_read_in_the_next() -> None:
    method = built(bank=8)
    first, second = batch(6), batch(4, index=torch.tensor([0, 20, 21, 22]))
    past = sides(method, first)[0].detach()
    method.after_step(method(first))
    v, t, (ids, length) = sides(method, second)
    s = (t @ torch.cat([v, past]).T / 0.1).fill_diagonal_(-torch.inf)
    s[0, 4] = -torch.inf  # its own past
    want = captioning(method.writer(ids, (s.softmax(1) @ torch.cat([v, past]))[:, None]), ids, length)
    torch.testing.assert_close(method(second).log["captioning"], want.detach())


def test_with_maps_it_reads_each_place() -> None:
    method, given = built(maps=True, mode="full"), batch()
    v, t, (ids, length) = sides(method, given)
    towers: Any = method.encoder
    net: Any = towers.tower("image").net
    maps = net.norm(net.conv(given.views[0]["image"])).relu().flatten(2).transpose(1, 2)  # 6 x 16 x 6
    assert maps.shape == (6, 16, 6)
    w = (t @ v.T / 0.1).softmax(1)
    read = torch.einsum("ij,jmc->imc", w, maps)
    torch.testing.assert_close(
        method(given).log["captioning"], captioning(method.writer(ids, read), ids, length).detach()
    )


def test_a_tower_behind_a_layer_gives_its_maps_and_its_row() -> None:
    torch.manual_seed(0)
    towers = Towers({"image": Joint(Wrapped(TinyEncoder(), {}), 8), "table": Joint(Wrapped(TinyRows(), {}), 8)})
    method = SupportSet(towers, maps=True, width=8, layers=1).eval()
    given = PAIRS.batch(6)
    seen: list[Tensor] = []
    method.representations = seen
    out = method(given)
    assert out.loss.isfinite()
    both = torch.cat(
        [towers.tower("image")(given.views[0]["image"]), towers.tower("table")(given.views[1]["table"])], 1
    )
    torch.testing.assert_close(seen[0], both)


def test_dropped_words_are_the_same_on_any_number_of_processes_and_change_with_the_step() -> None:
    method, given = built(word_dropout=0.5), batch()
    one = method(given).loss
    assert torch.equal(one, method(given).loss)
    method.clock = replace(method.clock, step=1)
    assert not torch.equal(one, method(given).loss)


def test_of_three_sides_one_is_written_of_each_of_the_others() -> None:
    torch.manual_seed(0)
    towers = Towers({name: Wrapped(TinyRows(), {}) for name in "abc"})
    method = SupportSet(towers, write="b", width=8, layers=1, bank=4).eval()
    rows = PAIRS.batch(6).views[0]["table"]
    out = method(replace(PAIRS.batch(6), views=[{name: rows + k for k, name in enumerate("abc")}]))
    a, b, c = (normalize(towers.tower(name)(rows + k)) for k, name in enumerate("abc"))
    ids, length = method.writer.written(rows + 1)
    costs = []
    for v in (a, c):
        w = (b @ v.T / 0.1).fill_diagonal_(-torch.inf).softmax(1)
        costs.append(captioning(method.writer(ids, (w @ v)[:, None]), ids, length))
    torch.testing.assert_close(out.log["captioning"], torch.stack(costs).mean().detach())
    assert list(method.support) == ["a", "c"]


def test_it_learns_to_write_samples_of_others() -> None:
    method: Any = PAIRS.build(discrimination="infonce", width=16, layers=1)
    optimizer = sgd(method)
    losses = []
    for number in range(30):
        method.clock = clock(number)
        losses.append(float(step(method, optimizer, PAIRS.batch(16, seed=number % 3)).log["captioning"]))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


WRONG = [
    ({"write": "image"}, "--write, of image, table"),
    ({"write": "sound"}, "no tower 'sound'"),
    ({"bank": 8, "maps": True}, "--bank 8"),
    ({"bank": 8, "mode": "identity"}, "no use to mode identity"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_be_is_said_in_a_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PAIRS.build(**arguments)


def test_networks_of_one_image_are_no_pair() -> None:
    with pytest.raises(ValueError, match="give pairs"):
        SupportSet(Wrapped(TinyStreams(), {}))
