from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.nn.captioner import Captioner


@dataclass
class Words:
    ids: Tensor
    length: Tensor


def writer(**sizes: int) -> Captioner:
    torch.manual_seed(0)
    return Captioner(11, 6, 8, **({"width": 16, "layers": 2} | sizes)).double()


def given(n: int = 3, words: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(11, (n, words), generator=generator), torch.randn(n, 4, 6, generator=generator).double()


def test_a_word_is_told_those_before_it_and_nothing_else() -> None:
    net, (ids, rows) = writer(), given()
    before = net(ids, rows)
    assert before.shape == (3, 5, 11)
    for place in range(5):
        other = ids.clone()
        other[:, place] = (ids[:, place] + 1) % 11
        changed = (net(other, rows) - before).abs().amax((0, 2)) > 1e-9
        assert changed.tolist() == [later > place for later in range(5)]
    torch.testing.assert_close(net(ids[:, :3], rows), before[:, :3])


def test_every_row_that_it_reads_counts_in_any_order() -> None:
    net, (ids, rows) = writer(), given()
    torch.testing.assert_close(net(ids, rows.flip(1)), net(ids, rows))
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad(net(ids, rows)[0, 4].square().sum(), rows)
    assert gradient[0].any(1).all()
    assert not gradient[1:].any()


def test_words_that_are_dropped_are_not_told() -> None:
    net, (ids, rows) = writer(), given()
    every = torch.ones(3, 8, dtype=torch.bool)
    torch.testing.assert_close(net(ids, rows, every), net((ids + 3) % 11, rows, every))
    assert not torch.allclose(net(ids, rows, ~every), net((ids + 3) % 11, rows, ~every))
    torch.testing.assert_close(net(ids, rows, ~every), net(ids, rows))


def test_what_begins_every_sentence_is_not_written() -> None:
    view = Words(torch.tensor([[9, 1, 2, 3, 0], [9, 4, 3, 7, 7]]), torch.tensor([4, 3]))
    ids, length = writer(skip=1).written(view)
    assert ids.tolist() == [[1, 2, 3], [4, 3, 7]]
    assert length.tolist() == [3, 2]
    ids, length = writer(skip=1).written(Words(view.ids[:, :1], torch.tensor([1, 1])))
    assert (ids.shape, length.tolist()) == ((2, 0), [0, 0])
    assert writer()(ids, given(2)[1]).shape == (2, 0, 11)


def test_it_learns_to_write_what_it_reads() -> None:
    net, (ids, rows) = writer().float(), given(8)
    rows = rows.float()
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(net(ids, rows).flatten(0, 1), ids.flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.equal(net(ids, rows).argmax(2), ids)
