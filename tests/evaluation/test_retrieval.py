from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.evaluation.retrieval import retrieval


def slow(query, query_label, gallery, gallery_label, same, recall=(1, 5, 10)):
    """Mean AP, R-precision, MAP@R and recalls by double loops."""
    similarity = (F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).T).tolist()
    rows = []
    for i, row in enumerate(similarity):
        order = sorted((j for j in range(len(row)) if not (same and i == j)), key=lambda j: (-row[j], j))
        relevant = [int(gallery_label[j]) == int(query_label[i]) for j in order]
        total = sum(relevant)
        if not total:
            continue
        precision = [sum(relevant[: r + 1]) / (r + 1) for r in range(len(order))]
        rows.append(
            [
                sum(p for p, hit in zip(precision, relevant, strict=True) if hit) / total,
                sum(relevant[:total]) / total,
                sum(p for p, hit in zip(precision[:total], relevant, strict=False) if hit) / total,
                *(float(any(relevant[:k])) for k in recall),
            ]
        )
    return [100 * sum(column) / len(rows) for column in zip(*rows, strict=True)], len(rows)


def check(out, expected):
    numbers, queries = expected
    names = ["mAP", "r_precision", "map@r", "recall@1", "recall@5", "recall@10"]
    assert [out[name] for name in names] == pytest.approx(numbers, abs=1e-9)
    assert out["queries"] == queries


def test_by_hand():
    """One query; the gallery by falling cosine is right, wrong, right, wrong: AP (1 + 2/3) / 2, R-precision 1/2."""
    gallery = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4]])
    out = retrieval(torch.tensor([[1.0, 0.0]]), torch.tensor([7]), gallery, torch.tensor([7, 1, 7, 2]))
    assert out["mAP"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert out["r_precision"] == pytest.approx(50)
    assert out["map@r"] == pytest.approx(50)
    assert out["recall@1"] == 100
    assert out["prevalence"] == pytest.approx(50)
    assert out["protocol"]["gallery"] == 4


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_self_excluded_equals_loops(chunk):
    g = torch.Generator().manual_seed(0)
    label = torch.randint(9, (60,), generator=g)
    label[0] = 20  # alone of its class: skipped
    x = torch.randn(60, 5, generator=g)
    out = retrieval(x, label, chunk=chunk)
    check(out, slow(x, label, x, label, True))
    assert out["skipped"] == 1
    assert out["low"] < out["mAP"] < out["high"]


def test_gallery_equals_loops_and_scikit_learn():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 6, generator=g), torch.randn(50, 6, generator=g)
    a, b = torch.randint(5, (30,), generator=g), torch.randint(4, (50,), generator=g)
    out = retrieval(x, a, y, b)
    check(out, slow(x, a, y, b, False))
    similarity = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    theirs = [average_precision_score(b == a[i], similarity[i]) for i in range(30) if (b == a[i]).any()]
    assert out["mAP"] == pytest.approx(100 * sum(theirs) / len(theirs), abs=1e-9)
    assert out["skipped"] == int((a == 4).sum())


def test_ties_are_ranked_by_index():
    x = torch.ones(6, 3)
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    check(retrieval(x, label), slow(x, label, x, label, True))


def test_within_groups_equals_each_alone():
    g = torch.Generator().manual_seed(2)
    x, label = torch.randn(40, 4, generator=g), torch.randint(4, (40,), generator=g)
    group = torch.arange(40) % 2
    out = retrieval(x, label, within=group)
    parts = [slow(x[group == n], label[group == n], x[group == n], label[group == n], True) for n in (0, 1)]
    pooled = [sum(p[0][i] * p[1] for p in parts) / sum(p[1] for p in parts) for i in range(6)]
    check(out, (pooled, sum(p[1] for p in parts)))
    across = retrieval(
        x[:20], label[:20], x[20:], label[20:], within=group[:20], gallery_within=group[20:] + 5 * (group[20:] == 1)
    )
    assert across["queries"] + across["skipped"] == 20
    assert across["queries"] <= 10


def test_perfect_and_random():
    label = torch.arange(50) % 5
    perfect = retrieval(F.one_hot(label).float(), label)
    assert [perfect[n] for n in ("mAP", "recall@1", "r_precision", "map@r")] == pytest.approx([100] * 4)
    g = torch.Generator().manual_seed(0)
    label = torch.arange(2000) % 5
    chance = retrieval(torch.randn(2000, 16, generator=g), label)
    assert chance["mAP"] == pytest.approx(chance["prevalence"], abs=1)
    assert chance["recall@1"] <= chance["recall@5"] <= chance["recall@10"]


def test_order_of_the_gallery_changes_nothing():
    g = torch.Generator().manual_seed(3)
    x, label = torch.randn(80, 4, generator=g), torch.randint(6, (80,), generator=g)
    order = torch.randperm(80, generator=g)
    first, second = (retrieval(x, label, x[o], label[o]) for o in (torch.arange(80), order))
    assert first["mAP"] == pytest.approx(second["mAP"], abs=1e-9)


def test_missing_labels_and_errors():
    x = torch.randn(10, 3)
    label = torch.tensor([0, 0, 1, 1, MISSING, MISSING, MISSING, MISSING, MISSING, MISSING])
    assert retrieval(x, label)["protocol"]["gallery"] == 4
    with pytest.raises(ValueError, match="none of the 10 queries has a relevant item"):
        retrieval(x, torch.arange(10))
    with pytest.raises(ValueError, match="none of the 10 query samples has a label"):
        retrieval(x, torch.full((10,), MISSING))
    with pytest.raises(ValueError, match="go together"):
        retrieval(x, label, x)
    with pytest.raises(ValueError, match="within and gallery_within"):
        retrieval(x, label, x, label, within=label)
