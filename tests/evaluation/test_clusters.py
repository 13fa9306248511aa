from __future__ import annotations

from itertools import permutations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.clusters import clusters, matched, named, open_world


def test_accuracy_equals_the_best_of_all_matchings():
    g = torch.Generator().manual_seed(0)
    found, truth = torch.randint(4, (50,), generator=g), torch.randint(4, (50,), generator=g)
    best = max(float((torch.tensor(p)[found] == truth).double().mean()) for p in permutations(range(4)))
    out = clusters(found, truth)
    assert out["accuracy"] == pytest.approx(100 * best)
    renamed = clusters(torch.tensor([2, 0, 3, 1])[found], truth)
    assert [renamed[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx(
        [out[n] for n in ("accuracy", "nmi", "ari")]
    )


def test_perfect_single_and_more_clusters_than_classes():
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    perfect = clusters(torch.tensor([5, 5, 5, 0, 0, 3]), truth)
    assert [perfect[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx([100, 1, 1])
    single = clusters(torch.zeros(6, dtype=torch.int64), truth)
    assert [single[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx([50, 0, 0])
    assert clusters(torch.arange(6), truth)["accuracy"] == pytest.approx(50)


def test_missing_and_errors():
    out = clusters(torch.tensor([0, 1, MISSING, 1]), torch.tensor([1, 0, 0, MISSING]))
    assert out["protocol"]["rows"] == 2
    with pytest.raises(ValueError, match="none of the 2 rows"):
        clusters(torch.tensor([0, 1]), torch.tensor([MISSING, MISSING]))
    with pytest.raises(ValueError, match="wanted N and N"):
        clusters(torch.zeros(2), torch.zeros(3))


def test_known_and_novel_by_hand():
    # Classes 0 and 1 are known. All: 0 to 0 (2), 4 to 1 (1), 2 to 2 (2), 3 to 3 (1), so 6 of 8.
    truth = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    found = torch.tensor([0, 0, 4, 0, 2, 2, 3, 1])
    out = open_world(found, truth, 2)
    assert out["known"] == pytest.approx(50)  # 4 is no name of class 1
    assert out["novel"] == pytest.approx(75)
    assert out["all"] == pytest.approx(75)
    assert (out["protocol"]["rows"], out["protocol"]["known_rows"]) == (8, 4)


def test_names_of_new_classes_do_not_matter_and_those_of_known_ones_do():
    g = torch.Generator().manual_seed(0)
    found, truth = torch.randint(6, (60,), generator=g), torch.randint(6, (60,), generator=g)
    out = open_world(found, truth, 3)
    renamed = open_world(torch.tensor([0, 1, 2, 5, 9, 4])[found], truth, 3)
    assert [renamed[n] for n in ("all", "known", "novel")] == pytest.approx([out[n] for n in ("all", "known", "novel")])
    swapped = open_world(torch.tensor([1, 2, 0, 3, 4, 5])[found], truth, 3)
    assert swapped["known"] != pytest.approx(out["known"])
    assert swapped["all"] == pytest.approx(out["all"])
    new = truth >= 3
    best = max(float((torch.tensor(p)[found[new]] == truth[new]).double().mean()) for p in permutations(range(6)))
    assert out["novel"] == pytest.approx(100 * best)


def test_a_known_class_that_is_taken_for_a_new_one_may_still_be_matched_among_all():
    out = open_world(torch.tensor([7, 7, 0, 0]), torch.tensor([0, 0, 1, 1]), 1)
    assert [out[n] for n in ("all", "known", "novel")] == [100, 0, 100]


def test_without_samples_of_new_or_of_known_classes():
    truth = torch.tensor([0, 1, 1, MISSING])
    assert open_world(truth, truth, 2)["novel"] is None
    assert open_world(truth, truth, 0)["known"] is None
    perfect = open_world(truth, truth, 1)
    assert [perfect[n] for n in ("all", "known", "novel")] == [100, 100, 100]
    assert perfect["protocol"]["rows"] == 3
    with pytest.raises(ValueError, match="none of the 2 rows"):
        open_world(torch.tensor([0, 1]), torch.tensor([MISSING, MISSING]), 1)


def test_clusters_get_the_names_of_the_classes_that_they_match():
    # Cluster 3 is mostly class 1, cluster 0 class 0; 1 and 2 have no class left.
    found = torch.tensor([3, 3, 3, 0, 0, 1, 1, 2, MISSING])
    label = torch.tensor([1, 1, 0, 0, MISSING, 1, MISSING, MISSING, 1])
    assert named(found, label, 2).tolist() == [1, 1, 1, 0, 0, 2, 2, 3, MISSING]
    # Of three classes the last has no label: numbers of new clusters begin after it.
    assert named(torch.tensor([0, 1, 2]), torch.tensor([1, MISSING, 0]), 3).tolist() == [1, 3, 0]


def test_the_share_of_matched_samples_is_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    assigned, label = (
        torch.randint(0, 6, (60,), generator=generator),
        2 * torch.randint(0, 4, (60,), generator=generator),
    )
    hit = matched(assigned, label)
    assert 100 * float(hit.double().mean()) == pytest.approx(clusters(assigned, label)["accuracy"])
    assert matched(torch.tensor([1, 1, 0, 2]), torch.tensor([5, 5, 9, 9])).tolist() == [True, True, True, False]
