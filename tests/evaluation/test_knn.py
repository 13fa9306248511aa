from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nearfar.batch import MISSING
from nearfar.evaluation import knn as module
from nearfar.evaluation.held import holdouts, standardize
from nearfar.evaluation.knn import knn, knn_chosen, knn_scores, neighbors


def slow_neighbors(query, bank, k, exclude_self=False):
    """Sort each row by (similarity, -index)."""
    similarity = F.normalize(query, dim=1) @ F.normalize(bank, dim=1).T
    index = []
    for i, row in enumerate(similarity.tolist()):
        candidates = [j for j in range(len(row)) if not (exclude_self and i == j)]
        index.append(sorted(candidates, key=lambda j: (-row[j], j))[:k])
    index = torch.tensor(index)
    return similarity.gather(1, index), index


def grid(rows, columns, generator):
    """Rows with many exactly equal cosines: signed unit vectors."""
    axis = torch.randint(columns, (rows,), generator=generator)
    sign = torch.randint(2, (rows,), generator=generator) * 2.0 - 1
    return F.one_hot(axis, columns).float() * sign[:, None]


@pytest.mark.parametrize("k", [1, 3, 20, 150])
@pytest.mark.parametrize("size", [151, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_neighbors_equal_a_sort(k, size, tied):
    g = torch.Generator().manual_seed(k)
    query, bank = (
        (grid(37, 4, g), grid(size, 4, g))
        if tied
        else (torch.randn(37, 8, generator=g), torch.randn(size, 8, generator=g))
    )
    similarity, index = neighbors(query, bank, k, chunk=16)
    expected = slow_neighbors(query, bank, k)
    if tied:
        assert torch.equal(index, expected[1])
    torch.testing.assert_close(similarity, expected[0])
    torch.testing.assert_close(
        (F.normalize(query, dim=1)[:, None] * F.normalize(bank, dim=1)[index]).sum(2), similarity
    )
    assert (similarity.diff(dim=1) <= 0).all()
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("tied", [False, True])
def test_tiles_are_merged_exactly(monkeypatch, tied):
    g = torch.Generator().manual_seed(0)
    x = grid(500, 3, g) if tied else torch.randn(500, 6, generator=g)
    whole = neighbors(x, x, 30, exclude_self=True, chunk=64)
    monkeypatch.setattr(module, "_TILE", 48)
    tiled = neighbors(x, x, 30, exclude_self=True, chunk=7)
    torch.testing.assert_close(tiled[0], whole[0])
    similarity, expected = slow_neighbors(x, x, 30, exclude_self=True)
    torch.testing.assert_close(tiled[0], similarity)
    if tied:  # exactly, so that the lower position decides
        assert torch.equal(tiled[1], whole[1])
        assert torch.equal(tiled[1], expected)
    else:  # of 15,000 neighbors some are as near as the next but for rounding
        torch.testing.assert_close(F.cosine_similarity(x[:, None], x[tiled[1]], dim=2), similarity)
    assert (tiled[1] != torch.arange(500)[:, None]).all()


def test_rows_that_are_all_the_same_give_the_first():
    x = torch.ones(1000, 4)
    similarity, index = neighbors(x[:3], x, 5)
    assert index.tolist() == [[0, 1, 2, 3, 4]] * 3
    torch.testing.assert_close(similarity, torch.ones(3, 5))
    assert neighbors(x[:1], x[:8], 8)[1].tolist() == [list(range(8))]


class Largest(TorchDispatchMode):
    """The largest tensor that any operation gives, in entries."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.entries = max(self.entries, out.numel())
        return out


def test_memory_does_not_grow_with_the_bank(monkeypatch):
    monkeypatch.setattr(module, "_TILE", 1024)
    peak = []
    for size in (4096, 16384):
        bank = torch.zeros(1, 8).expand(size, 8)
        with Largest() as largest:
            neighbors(torch.randn(64, 8), bank, 4, chunk=16)
        peak.append(largest.entries)
    assert peak[0] == peak[1] <= 16 * 1024


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_read_as_float32(dtype):
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    similarity, index = neighbors(x, x, 3)
    assert (similarity.dtype, index.dtype) == (torch.float32, torch.int64)
    assert torch.equal(index, neighbors(x.float(), x.float(), 3)[1])


def test_errors_name_what_was_given():
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match="k is 6; wanted 1 to 5"):
        neighbors(x, x, 6)
    with pytest.raises(ValueError, match="k is 5; wanted 1 to 4"):
        neighbors(x, x, 5, exclude_self=True)
    with pytest.raises(ValueError, match="3 queries and a bank of 5"):
        neighbors(x[:3], x, 1, exclude_self=True)
    with pytest.raises(ValueError, match="wanted Q x D and N x D"):
        neighbors(x, torch.randn(5, 3), 1)
    with pytest.raises(ValueError, match="1 of the 5 bank features are not finite"):
        neighbors(x, x.clone().index_fill_(0, torch.tensor(2), torch.nan), 1)
    with pytest.raises(ValueError, match="none of the 5 training samples has a label"):
        knn(x, torch.full((5,), MISSING), x, torch.zeros(5, dtype=torch.int64))


def test_vote_by_hand():
    """Cosines to the query: 1, 0.8, 0.6; the two of class 1 outvote the nearest unless the temperature is low."""
    bank = torch.tensor([[2.0, 0.0], [0.8, 0.6], [0.6, -0.8], [-1.0, 0.0]])
    label = torch.tensor([0, 1, 1, 2])
    query = torch.tensor([[3.0, 0.0]])
    weights = [math.exp(s / 0.5) for s in (1, 0.8, 0.6)]
    scores = knn_scores(bank, label, query, k=3, temperature=0.5)[0]
    expected = torch.tensor([weights[0], weights[1] + weights[2], 0.0], dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-6)
    assert scores.argmax() == 1
    assert knn_scores(bank, label, query, k=3, temperature=0.1).argmax() == 0


def test_invariants():
    g = torch.Generator().manual_seed(0)
    bank, query = torch.randn(200, 8, generator=g), torch.randn(50, 8, generator=g)
    label, truth = torch.randint(4, (200,), generator=g), torch.randint(4, (50,), generator=g)
    nearest = label[slow_neighbors(query, bank, 1)[1][:, 0]]
    for temperature in (0.001, 0.07, 10, math.inf):
        assert torch.equal(knn_scores(bank, label, query, k=1, temperature=temperature).argmax(1), nearest)
    heads = F.one_hot(label[slow_neighbors(query, bank, 21)[1]], 4).double().mean(1)
    torch.testing.assert_close(knn_scores(bank, label, query, k=21, temperature=math.inf), heads)
    torch.testing.assert_close(
        knn_scores(3 * bank, label, 0.1 * query, k=21), knn_scores(bank, label, query, k=21), atol=1e-5, rtol=1e-5
    )
    assert knn(bank, label, bank, label, k=1)["accuracy"] == 100
    assert knn(bank, label, query, truth)["protocol"]["k"] == 200
    own = knn(bank, label, bank, label, k=1, exclude_self=True)
    assert own["accuracy"] == 100 * (label[slow_neighbors(bank, bank, 1, True)[1][:, 0]] == label).double().mean()


def test_ties_go_to_the_lowest_class_and_k_is_capped():
    bank, label = torch.eye(3), torch.tensor([2, 1, 1])
    out = knn(bank[:2], label[:2], torch.ones(1, 3), torch.tensor([1]), temperature=math.inf)
    assert out["accuracy"] == 100
    assert out["protocol"]["k"] == 2
    assert "2, not 200" in out["protocol"]["notes"][0]


def test_rows_without_label_take_no_part():
    bank, label = torch.eye(3), torch.tensor([MISSING, 0, 1])
    query = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    out = knn(bank, label, query, torch.tensor([0, 1, MISSING]), k=1)
    assert out["accuracy"] == 100
    assert (out["protocol"]["train"], out["protocol"]["test"]) == (2, 2)


def test_top5_against_a_sort():
    g = torch.Generator().manual_seed(0)
    bank, query = torch.randn(300, 4, generator=g), torch.randn(40, 4, generator=g)
    label, truth = torch.randint(9, (300,), generator=g), torch.randint(10, (40,), generator=g)
    scores = knn_scores(bank, label, query, k=8, classes=10)
    hits = 0
    for row, t in zip(scores.tolist(), truth.tolist(), strict=True):
        hits += t in sorted(range(10), key=lambda c: (-row[c], c))[:5]
    assert knn(bank, label, query, truth, k=8)["top5"] == pytest.approx(100 * hits / 40)


def test_tiny_gaussians():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(800) % 8
    x = torch.randn(8, 64, generator=g)[label] + 0.5 * torch.randn(800, 64, generator=g)
    assert knn(x[:400], label[:400], x[400:], label[400:])["accuracy"] >= 95


def noisy(rows, classes=4):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % classes
    x = torch.randn(classes, 6, generator=g)[y] + 1.5 * torch.randn(rows, 6, generator=g)
    return x * torch.tensor([1, 1, 1, 1, 8, 1.0]) + 2, y


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_chosen_is_the_best_on_held_out_training_rows(grouped):
    x, y = noisy(240)
    x, y, query = x[:200], y[:200], x[200:]
    group = torch.arange(200) // 8 if grouped else None
    scores, config, notes = knn_chosen(x, y, query, group=group, ks=[20, 1, 5])
    accuracy = {}
    for scaled in (False, True):
        for k in (20, 5, 1):
            right = 0
            for out in holdouts(y, group, 0):
                bank, asked = standardize(x[~out], x[out]) if scaled else (x[~out], x[out])
                right += int((knn_scores(bank, y[~out], asked, k=k, classes=4).argmax(1) == y[out]).sum())
            accuracy[scaled, k] = right / 2
    scaled, k = max(accuracy, key=lambda choice: accuracy[choice])
    assert (config["standardized"], config["k"]) == (scaled, k)
    assert config["ks"] == [1, 5, 20]
    assert config["held_out_accuracy"] == pytest.approx([accuracy[scaled, k] for k in (1, 5, 20)])
    assert config["held_out"] == 200
    assert not notes
    bank, asked = standardize(x, query) if scaled else (x, query)
    assert torch.equal(scores, knn_scores(bank, y, asked, k=k))


def test_one_row_a_class_leaves_nothing_to_choose_by():
    scores, config, notes = knn_chosen(torch.eye(4), torch.arange(4), torch.eye(4))
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
    assert (config["k"], config["standardized"], config["held_out"]) == (4, False, 0)
    assert len(notes) == 1
