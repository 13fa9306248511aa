import pytest
import torch
from fake_run import CLASSES, features
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.clustering.kmeans import kmeans
from nearfar.data.samples import Samples
from nearfar.data.tiles import Excerpts, Tiles
from nearfar.report.samples import colors_of, copy_sets, embedding_map, neighbor_grid, outliers


def tiles(label: Tensor) -> Tiles:
    """Samples that are named by their positions, and told in a word."""
    names = [str(i) for i in range(len(label))]
    return Tiles(face=Excerpts(text="sample {}".format), names=names, label=label, classes=CLASSES, noun="flower")


def classes(n: int) -> Tensor:
    return torch.randint(len(CLASSES), (n,), generator=torch.Generator().manual_seed(0))


def slow_neighbors(vectors: Tensor, i: int, count: int) -> list[int]:
    cosine = {j: float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in range(len(vectors)) if j != i}
    return sorted(cosine, key=lambda j: -cosine[j])[:count]


def test_the_grid_shows_the_nearest_of_a_slow_search():
    label = classes(40)
    vectors = features(label)
    grid = neighbor_grid(vectors, tiles(label), queries=6, neighbors=5)
    assert len(grid["queries"]) == 6
    for query in grid["queries"]:
        assert [int(near["name"]) for near in query["neighbors"]] == slow_neighbors(vectors, int(query["name"]), 5)
        assert query["label"] == CLASSES[label[int(query["name"])]]
        assert query["excerpt"] == f"sample {query['name']}"
    assert len({query["label"] for query in grid["queries"]}) == 6


def test_the_map_is_seeded_and_its_neighbors_are_of_the_features():
    label = classes(60)
    label[:5] = MISSING
    vectors = features(label)
    drawn = embedding_map(vectors, tiles(label), limit=50, neighbors=4)
    assert drawn == embedding_map(vectors, tiles(label), limit=50, neighbors=4)
    assert {len(drawn[key]) for key in ("x", "y", "name", "label", "near", "similarity")} == {50}
    assert max(map(abs, drawn["x"] + drawn["y"])) == 1
    kept = [int(name) for name in drawn["name"]]
    assert kept == sorted(set(kept))
    assert drawn["near"][7] == slow_neighbors(vectors[kept], 7, 4)
    assert drawn["label"] == [None if i < 5 else CLASSES[label[i]] for i in kept]
    assert drawn["excerpts"] == [f"sample {i}" for i in kept]
    assert (drawn["face"], drawn["noun"], drawn["total"]) == ("excerpts", "flower", 60)
    assert (drawn["placed"], drawn["perplexity"]) == ("t-SNE", pytest.approx(49 / 3))


def test_points_can_be_colored_by_what_is_known_of_several():
    vectors = features(classes(30))
    samples = Samples(
        names=list(map(str, range(30))),
        label=classes(30),
        classes=CLASSES,
        group=torch.arange(30),  # of each its own: nothing to see
        attribute=torch.tensor([MISSING, 4, 7] * 10),
        split=["train"] * 20 + [""] * 10,
    )
    colors = colors_of(samples, vectors)
    assert set(colors) == {"attribute", "cluster"}  # and no split, of which there is one
    assert colors["attribute"][:3] == [None, "attribute 4", "attribute 7"]
    assert colors["cluster"] == [f"cluster {c + 1}" for c in kmeans(F.normalize(vectors, dim=1), 8).assigned.tolist()]
    drawn = embedding_map(vectors, tiles(samples.label), limit=12, colors=colors)
    assert drawn["colors"]["attribute"] == [colors["attribute"][int(name)] for name in drawn["name"]]
    assert colors_of(samples, torch.ones(30, 4)).keys() == {"attribute"}  # collapsed: no clusters


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_collapsed_encoder_or_a_handful_of_samples_gives_a_map_that_says_so(n):
    label = classes(n)
    drawn = embedding_map(torch.ones(n, 6), tiles(label))
    assert drawn["x"] == [0.0] * n
    assert (drawn["placed"], drawn["perplexity"]) == ("collapsed" if n > 4 else "few", None)


def test_features_that_are_not_finite_are_refused():
    label = classes(9)
    broken = torch.ones(9, 6)
    broken[2, 3] = torch.nan
    with pytest.raises(ValueError, match="1 of 9 features hold NaN"):
        embedding_map(broken, tiles(label))


def test_copies_come_with_contradicting_labels_first_then_the_largest_sets():
    label = classes(40)
    group = torch.full((40,), MISSING)
    wanted = {5: [30, 31], 9: [1, 2, 3, 4, 6], 2: [10, 20], 7: [11, 21, 33]}
    for g, rows in wanted.items():
        group[rows], label[rows] = g, 3
    label[20], label[21] = 4, MISSING  # a sample without a label contradicts nothing
    vectors = features(label)
    result = copy_sets(vectors, group, tiles(label), sets=3, samples=4)
    assert [[int(s["name"]) for s in copies["samples"]] for copies in result["sets"]] == [
        [10, 20],
        [1, 2, 3, 4],
        [11, 21, 33],
    ]
    assert [copies["size"] for copies in result["sets"]] == [2, 5, 3]
    assert [copies["labels_differ"] for copies in result["sets"]] == [True, False, False]
    for sample in result["sets"][1]["samples"]:
        cosine = torch.cosine_similarity(vectors[1], vectors[int(sample["name"])], dim=0)
        assert sample["similarity"] == pytest.approx(float(cosine), abs=1e-4)
        assert sample["excerpt"] == f"sample {sample['name']}"
    assert result["count"] == {"samples": 40, "copies": 12, "sets": 4, "labels_differ": 1}


def test_where_there_are_no_copies_none_are_counted():
    label = classes(5)
    result = copy_sets(torch.eye(5), torch.full((5,), MISSING), tiles(label))
    assert result["sets"] == []
    assert result["count"] == {"samples": 5, "copies": 0, "sets": 0, "labels_differ": 0}


def test_outliers_are_those_of_a_slow_search():
    label = classes(40)
    vectors = features(label)
    vectors[17] = -10 * vectors.mean(0)
    mean = [
        sum(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in slow_neighbors(vectors, i, 5)) / 5
        for i in range(40)
    ]
    result = outliers(vectors, tiles(label), neighbors=5, count=4)
    assert [int(s["name"]) for s in result["samples"]] == sorted(range(40), key=mean.__getitem__)[:4]
    assert result["samples"][0]["name"] == "17"
    assert result["samples"][2]["similarity"] == pytest.approx(sorted(mean)[2], abs=1e-4)
    assert (result["median"], result["total"]) == (pytest.approx(sorted(mean)[19], abs=1e-4), 40)


@pytest.mark.parametrize("n", [1, 2])
def test_outliers_of_a_handful(n):
    label = classes(n)
    result = outliers(torch.eye(2)[:n], tiles(label))
    assert len(result["samples"]) == n * (n - 1)
    assert (result["median"] is None) == (n == 1)
