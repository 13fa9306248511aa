from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.evaluation.kshot import (
    _draw,
    _table,
    class_means,
    episodes,
    few_labels,
    linear_probe,
    nearest_mean,
    nearest_neighbor,
)


def alphabets(noise, count=3, characters=20, drawings=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(count * characters).repeat_interleave(drawings)
    x = torch.randn(count * characters, 32, generator=g)[label]
    return x + noise * torch.randn(x.shape, generator=g), label, label // characters


def test_classifiers_equal_loops():
    g = torch.Generator().manual_seed(0)
    support = F.normalize(torch.randn(2, 4, 3, 5, generator=g), dim=3)
    query = F.normalize(torch.randn(2, 7, 5, generator=g), dim=2)
    nearest, mean = nearest_neighbor(support, query), nearest_mean(support, query)
    for e in range(2):
        for q in range(7):
            for w in range(4):
                assert nearest[e, q, w] == pytest.approx(max(float(s @ query[e, q]) for s in support[e, w]), abs=1e-6)
                center = sum(support[e, w])
                assert mean[e, q, w] == pytest.approx(float(center @ query[e, q] / center.norm()), abs=1e-6)
    one = support[:, :, :1]
    torch.testing.assert_close(nearest_neighbor(one, query), nearest_mean(one, query))


def test_draws_are_of_one_class_and_different():
    label = torch.tensor([0] * 3 + [1] * 9 + [2] * 2 + [3] * 5)
    rows, size = _table(label, torch.randperm(19, generator=torch.Generator().manual_seed(0)), 3)
    assert size.tolist() == [3, 9, 5]  # class 2 has too few
    drawn = _draw(rows, size, 200, 2, 3, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 2, 3)
    for episode in drawn.tolist():
        classes = [{int(label[i]) for i in way} for way in episode]
        assert all(len(c) == 1 for c in classes)
        assert classes[0] != classes[1]
        assert all(len(set(way)) == 3 for way in episode)
    assert set(drawn.flatten().tolist()) == set(range(19)) - {12, 13}


def test_omniglot_form():
    x, label, alphabet = alphabets(0.05)
    out = episodes(x, label, within=alphabet, episodes=100)
    assert out["accuracy"] == out["low"] == out["high"] == 100
    assert out["chance"] == 5
    assert out["per_unit"] == {0: 100, 1: 100, 2: 100}
    noisy, *_ = alphabets(1.0)
    out = episodes(noisy, label, within=alphabet, episodes=301, queries=2)
    assert 5 < out["low"] < out["accuracy"] < out["high"] < 100
    assert out["accuracy"] == pytest.approx(sum(out["per_unit"].values()) / 3)
    assert out == episodes(noisy, label, within=alphabet, episodes=301, queries=2)
    assert out != episodes(noisy, label, within=alphabet, episodes=301, queries=2, seed=1)


def test_knowing_nothing_gives_chance():
    g = torch.Generator().manual_seed(0)
    out = episodes(torch.randn(400, 8, generator=g), torch.arange(400) % 20, ways=20, episodes=2000)
    assert out["accuracy"] == pytest.approx(5, abs=0.5)
    assert out["protocol"]["interval_over"] == "episodes"


def test_five_shots_beat_one():
    x, label, _ = alphabets(1.2, drawings=10)
    one = episodes(x, label, ways=5, episodes=400)
    five = episodes(x, label, ways=5, shots=5, queries=5, episodes=400, classifier=nearest_mean)
    assert five["accuracy"] > one["accuracy"] + 5
    assert five["protocol"]["classifier"] == "nearest_mean"


def test_small_units_are_left_out_and_named():
    x, label, alphabet = alphabets(0.1)
    label[alphabet == 1] = MISSING
    alphabet[alphabet == 2] = 7
    out = episodes(x[:-6], label[:-6], within=alphabet[:-6], episodes=10)
    assert list(out["per_unit"]) == [0]
    assert "units [7]" in out["protocol"]["notes"][0]


def test_episode_errors():
    x, label, alphabet = alphabets(0.1)
    with pytest.raises(ValueError, match="no unit has 21 classes of 2 rows"):
        episodes(x, label, within=alphabet, ways=21)
    with pytest.raises(ValueError, match="there are not 20 classes of 7 rows"):
        episodes(x, label, shots=6)
    with pytest.raises(ValueError, match="2 episodes cannot be spread over 3 units"):
        episodes(x, label, within=alphabet, episodes=2)
    with pytest.raises(ValueError, match="shots is 0"):
        episodes(x, label, shots=0)


@pytest.mark.parametrize("scorer", [class_means, linear_probe])
def test_few_labels(scorer):
    x, label, _ = alphabets(3.0, count=1, characters=4, drawings=100)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    x, label = x[order], label[order]
    few = few_labels(x[:200], label[:200], x[200:], label[200:], shots=1, draws=5, scorer=scorer)
    many = few_labels(x[:200], label[:200], x[200:], label[200:], shots=20, draws=5, scorer=scorer)
    assert 25 < few["accuracy"] < many["accuracy"]
    assert few["low"] < few["accuracy"] < few["high"]
    assert few == few_labels(x[:200], label[:200], x[200:], label[200:], shots=1, draws=5, scorer=scorer)


def test_few_labels_takes_so_many_of_each_class():
    taken = []

    def spy(train, train_label, test):
        taken.append(torch.bincount(train_label).tolist())
        return class_means(train, train_label, test)

    label = torch.tensor([0] * 5 + [1] * 2 + [3] * 9 + [MISSING] * 4)
    out = few_labels(torch.randn(20, 3), label, torch.randn(20, 3), label, shots=3, draws=2, scorer=spy)
    assert taken == [[3, 2, 0, 3]] * 2
    assert out["protocol"]["notes"] == ["1 classes have fewer than 3 labeled rows"]


def test_class_means_never_name_an_empty_class():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    scores = class_means(x, torch.tensor([0, 2]), -x)
    assert scores[:, 1].tolist() == [-torch.inf] * 2
    assert scores.argmax(1).tolist() == [2, 0]
