from __future__ import annotations

import json

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.evaluate import SEEN, evaluate, evaluate_knn, evaluate_linear
from nearfar.evaluation.knn import knn, knn_scores
from nearfar.evaluation.kshot import few_labels
from nearfar.evaluation.linear import linear_scores, ridge
from nearfar.evaluation.protocol import packed, unpacked
from nearfar.evaluation.retrieval import retrieval

FIXED = {"ks": [20], "scaled": [False]}


def data(rows=300, classes=3):
    g = torch.Generator().manual_seed(0)
    label = torch.arange(rows) % classes
    return torch.randn(classes, 16, generator=g)[label] + 1.2 * torch.randn(rows, 16, generator=g), label


def _right(scores, truth):
    known = truth != MISSING
    return float((scores.argmax(1) == truth)[known].double().mean())


def test_one_split_equals_the_parts():
    x, y = data()
    y[::7] = MISSING
    train, test = torch.arange(200), torch.arange(200, 300)
    out = evaluate(x, y, [(train, test)], seen_in_training=False, **FIXED, shots=[1, 5], draws=3)
    known = y[train] != MISSING
    scores = linear_scores(x[train][known], y[train][known], x[test], scales=["one"])[0]
    assert set(out) == {"knn", "linear", "few_labels_1", "few_labels_5"}
    assert out["knn"]["accuracy"] == pytest.approx(knn(x[train], y[train], x[test], y[test], k=20)["accuracy"])
    assert out["linear"]["accuracy"] == pytest.approx(100 * _right(scores, y[test]))
    for result in out.values():
        assert result["low"] <= result["accuracy"] <= result["high"]
        assert SEEN not in result["protocol"]["notes"]
        assert result["protocol"]["version"] == 2
    json.dumps(out)


def test_folds_are_judged_together():
    x, y = data()
    fold = torch.randint(4, (300,), generator=torch.Generator().manual_seed(1))
    splits = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(4)]
    out = evaluate(x, y, splits, seen_in_training=True, ks=[10], scaled=[False])
    hits = sum(round(knn(x[a], y[a], x[b], y[b], k=10)["accuracy"] * len(b) / 100) for a, b in splits)
    assert out["knn"]["accuracy"] == pytest.approx(100 * hits / 300)
    assert out["knn"]["protocol"]["test"] == 300
    assert len(out["linear"]["protocol"]["choices"]) == 4
    assert all(SEEN in r["protocol"]["notes"] for r in out.values())
    assert out["knn"]["class_accuracy"] == pytest.approx(sum(out["knn"]["per_class"].values()) / 3)


def test_retrieval_asks_whether_the_nearest_training_rows_hold_one_of_the_class():
    x, y = data()
    y[::7] = MISSING
    parts = [(torch.arange(150), torch.arange(150, 300)), (torch.arange(150, 300), torch.arange(150))]
    assert "recall_1" not in evaluate(x, y, parts[:1], seen_in_training=False, **FIXED)
    out = evaluate(x, y, parts[:1], seen_in_training=False, **FIXED, retrieval=True)
    ranked = retrieval(x[150:], y[150:], x[:150], y[:150], recall=(1, 5))
    for k in (1, 5):
        made = out[f"recall_{k}"]
        assert made["accuracy"] == pytest.approx(ranked[f"recall@{k}"])
        assert made["low"] < made["accuracy"] < made["high"]
    assert out["recall_1"]["accuracy"] < out["recall_5"]["accuracy"] < 100
    both = evaluate(x, y, parts, seen_in_training=False, **FIXED, retrieval=True)
    assert both["recall_1"]["protocol"]["test"] == int((y != MISSING).sum())
    few = evaluate(x, y, [(torch.tensor([1, 2, 3]), torch.arange(8, 300))], seen_in_training=False, retrieval=True)
    assert few["recall_5"]["accuracy"] == 100  # all three rows of the gallery, one of each class


def test_confusion_counts_which_class_was_taken_for_which():
    x, y = data(classes=4)
    train, test = torch.arange(200), torch.arange(200, 300)
    out = evaluate(x, y, [(train, test)], seen_in_training=False, ks=[10], scaled=[False])
    answer = knn_scores(x[train], y[train], x[test], k=10).argmax(1)
    count = [[0] * 4 for _ in range(4)]
    for truth, said in zip(y[test].tolist(), answer.tolist(), strict=True):
        count[truth][said] += 1
    assert out["knn"]["confusion"] == [[c, d, count[c][d]] for c in range(4) for d in range(4) if count[c][d]]
    for result in out.values():
        right = sum(n for c, d, n in result["confusion"] if c == d)
        assert right == pytest.approx(result["accuracy"])  # of 100 samples


def test_groups():
    x, y = data()
    group = torch.arange(300) // 10
    train, test = torch.arange(200), torch.arange(200, 300)
    out = evaluate(x, y, [(train, test)], group=group, seen_in_training=False)
    assert out["knn"]["protocol"]["interval_over"] == "groups"
    with pytest.raises(ValueError, match="split 0 has 1 groups in both parts"):
        evaluate(x, y, [(train[:195], torch.arange(195, 300))], group=group, seen_in_training=False)


def test_dishonest_splits_are_refused():
    x, y = data()
    train, test = torch.arange(200), torch.arange(200, 300)
    with pytest.raises(ValueError, match="split 0 trains on 1 of its test samples"):
        evaluate(x, y, [(torch.arange(201), test)], seen_in_training=False)
    with pytest.raises(ValueError, match="100 samples are tested more than once"):
        evaluate(x, y, [(train, test), (train, test)], seen_in_training=False)
    with pytest.raises(ValueError, match="no split was given"):
        evaluate(x, y, [], seen_in_training=False)
    with pytest.raises(ValueError, match="0 test samples"):
        evaluate(x, torch.where(torch.arange(300) < 200, y, MISSING), [(train, test)], seen_in_training=False)


@pytest.mark.parametrize("seen", [False, True])
def test_every_result_says_whether_its_samples_were_trained_on(seen: bool):
    x, y = data(60)
    out = evaluate(x, y, [(torch.arange(40), torch.arange(40, 60))], seen_in_training=seen, shots=[1], draws=2)
    assert {name: result["protocol"]["seen_in_training"] for name, result in out.items()} == {
        "knn": seen,
        "linear": seen,
        "few_labels_1": seen,
    }
    assert all((SEEN in result["protocol"]["notes"]) == seen for result in out.values())


def test_the_answers_of_all_folds_are_kept():
    x, y = data()
    fold = torch.arange(300) // 3 % 4
    splits = [((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]) for f in range(4)]
    out = evaluate(x, y, splits, seen_in_training=False, solver=ridge, shots=[2], draws=4)
    for name, draws in (("knn", 1), ("linear", 1), ("few_labels_2", 4)):
        right = unpacked(out[name]["right"])
        assert right.shape == (draws, 300)
        assert 100 * float(right.double().mean()) == pytest.approx(out[name]["accuracy"])
    each = [few_labels(x[a], y[a], x[b], y[b], shots=2, draws=4, scaled=(False, True))["accuracy"] for a, b in splits]
    assert out["few_labels_2"]["accuracy"] == pytest.approx(sum(each) / 4)


def test_answers_are_packed():
    table = torch.rand(3, 21, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpacked(packed(table)), table)
    assert torch.equal(unpacked(packed(table[0])), table[:1])
    assert len(packed(table)) < 21
    with pytest.raises(ValueError, match=r".+"):
        unpacked("no such thing")


def test_the_probe_of_training_is_the_same_measure():
    x, y = data()
    y[::7] = MISSING
    splits = [(torch.arange(100, 300), torch.arange(100)), (torch.arange(100), torch.arange(100, 200))]
    whole = evaluate(x, y, splits, seen_in_training=False, seed=3)["knn"]
    alone = evaluate_knn(x, y, splits, seed=3)
    for name in ("accuracy", "low", "high", "held_out"):
        assert whole[name] == alone[name]
    assert whole["protocol"]["choices"] == alone["protocol"]["choices"]
    assert sum(alone["protocol"]["chosen"].values()) == 2
    tried = [choice["held_out"] for choice in alone["protocol"]["choices"]]
    assert tried == [int((y[train] != MISSING).sum()) for train, _ in splits]
    best = sum(max(one["held_out_accuracy"]) * n for one, n in zip(alone["protocol"]["choices"], tried, strict=True))
    assert alone["held_out"]["accuracy"] == pytest.approx(best / sum(tried))
    assert alone["held_out"]["low"] < alone["held_out"]["accuracy"] < alone["held_out"]["high"]
    assert alone["held_out"]["samples"] == sum(tried) // 2


def test_a_column_that_drowns_the_others_is_scaled_away_in_every_measure():
    x, y = data(600)
    loud = torch.cat([x, 300 * torch.rand(600, 2, generator=torch.Generator().manual_seed(1))], 1)
    split = [(torch.arange(400), torch.arange(400, 600))]
    out = evaluate(loud, y, split, seen_in_training=False, shots=[5])
    as_they_are = evaluate(loud, y, split, seen_in_training=False, shots=[5], scaled=[False])
    assert out["knn"]["protocol"]["choices"][0]["standardized"]
    assert out["few_labels_5"]["protocol"]["standardized"]
    for name in ("knn", "few_labels_5"):
        assert out[name]["accuracy"] > as_they_are[name]["accuracy"] + 20


def test_the_linear_probe_alone_is_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=generator) + torch.eye(5)[label] * 2
    splits = [(torch.arange(30, 60), torch.arange(30)), (torch.arange(30), torch.arange(30, 60))]
    whole = evaluate(x, label, splits, seen_in_training=False, seed=3)["linear"]
    alone = evaluate_linear(x, label, splits, seed=3)
    assert alone["right"] == whole["right"]
    assert alone["protocol"]["choices"] == whole["protocol"]["choices"]
