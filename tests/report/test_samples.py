import base64
import io

import pytest
import torch
from fake_run import CLASSES, features, images
from nearfar.report.parts import DATA_URI
from nearfar.report.shown import Cells, Shown, Thumbnails
from PIL import Image
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.report.samples import copy_sets, embedding_map, neighbor_grid, outliers


def shown(pixels: Tensor, label: Tensor, aspect: Tensor | None = None) -> Shown:
    """Thumbnails that are named by their positions."""
    look = Thumbnails(pixels=pixels.__getitem__, aspect=aspect)
    return Shown(look=look, names=[str(i) for i in range(len(label))], label=label, classes=CLASSES)


def opened(uri: str) -> Image.Image:
    assert DATA_URI.fullmatch(uri)
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def slow_neighbors(vectors: Tensor, i: int, count: int) -> list[int]:
    cosine = {j: float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in range(len(vectors)) if j != i}
    return sorted(cosine, key=lambda j: -cosine[j])[:count]


def test_the_grid_shows_the_nearest_of_a_slow_search():
    pixels, label = images(40, side=24)
    vectors = features(label)
    grid = neighbor_grid(vectors, shown(pixels, label), queries=6, neighbors=5)
    assert len(grid["queries"]) == 6
    for query in grid["queries"]:
        assert [int(near["name"]) for near in query["neighbors"]] == slow_neighbors(vectors, int(query["name"]), 5)
        assert query["label"] == CLASSES[label[int(query["name"])]]
        assert opened(query["image"]).size == (72, 72)
    assert len({query["label"] for query in grid["queries"]}) == 6


def test_the_map_is_seeded_and_its_neighbors_are_of_the_features():
    pixels, label = images(60, side=24)
    label[:5] = MISSING
    vectors = features(label)
    drawn = embedding_map(vectors, shown(pixels, label), limit=50, neighbors=4)
    assert drawn == embedding_map(vectors, shown(pixels, label), limit=50, neighbors=4)
    assert {len(drawn[key]) for key in ("x", "y", "name", "label", "near", "similarity")} == {50}
    assert max(map(abs, drawn["x"] + drawn["y"])) == 1
    kept = [int(name) for name in drawn["name"]]
    assert kept == sorted(set(kept))
    assert drawn["near"][7] == slow_neighbors(vectors[kept], 7, 4)
    assert drawn["label"] == [None if i < 5 else CLASSES[label[i]] for i in kept]
    assert opened(drawn["sprite"]).size == (8 * 40, 8 * 40)


def test_each_tile_of_the_sprite_is_where_the_page_looks_for_it():
    shade = torch.arange(10, dtype=torch.uint8) * 25
    pixels = shade[:, None, None, None].expand(10, 1, 8, 8)
    drawn = embedding_map(torch.randn(10, 4), shown(pixels, torch.zeros(10).long()))
    sprite = opened(drawn["sprite"])
    for i in range(10):
        x, y = i % drawn["across"] * drawn["side"], i // drawn["across"] * drawn["side"]
        assert abs(sprite.getpixel((x + 20, y + 20)) - int(shade[i])) <= 2  # pyright: ignore[reportOperatorIssue]


def test_a_squashed_image_is_shown_in_its_true_proportions():
    square = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    square[0, :, :, 10:30] = 255  # of an image twice as wide as high, the middle half is its central square
    square[1, :, 10:30, :] = 255
    grid = neighbor_grid(torch.eye(2), shown(square, torch.full((2,), MISSING), torch.tensor([2.0, 0.5])))
    for query in grid["queries"]:
        assert opened(query["image"]).getextrema() == ((255, 255),) * 3
        assert query["label"] is None


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_collapsed_encoder_or_a_handful_of_samples_gives_a_map_that_says_so(n):
    pixels, label = images(n, side=8)
    drawn = embedding_map(torch.ones(n, 6), shown(pixels, label))
    assert drawn["x"] == [0.0] * n
    assert ("collapsed" if n > 4 else "too few") in drawn["note"]


def test_features_that_are_not_finite_are_refused():
    pixels, label = images(9, side=8)
    broken = torch.ones(9, 6)
    broken[2, 3] = torch.nan
    with pytest.raises(ValueError, match="1 of 9 features hold NaN"):
        embedding_map(broken, shown(pixels, label))


def test_images_of_many_channels_are_shown_by_their_first_three():
    pixels = torch.randint(0, 255, (3, 5, 8, 8), dtype=torch.uint8)
    grid = neighbor_grid(torch.eye(3), shown(pixels, torch.full((3,), MISSING)))
    assert opened(grid["queries"][0]["image"]).mode == "RGB"


def test_copies_come_with_contradicting_labels_first_then_the_largest_sets():
    pixels, label = images(40, side=24)
    group = torch.full((40,), MISSING)
    wanted = {5: [30, 31], 9: [1, 2, 3, 4, 6], 2: [10, 20], 7: [11, 21, 33]}
    for g, rows in wanted.items():
        group[rows], label[rows] = g, 3
    label[20], label[21] = 4, MISSING  # a sample without a label contradicts nothing
    vectors = features(label)
    found = copy_sets(vectors, group, shown(pixels, label), sets=3, samples=4)
    assert [[int(s["name"]) for s in copies["samples"]] for copies in found["sets"]] == [
        [10, 20],
        [1, 2, 3, 4],
        [11, 21, 33],
    ]
    assert [copies["size"] for copies in found["sets"]] == [2, 5, 3]
    assert [copies["torn"] for copies in found["sets"]] == [True, False, False]
    for sample in found["sets"][1]["samples"]:
        cosine = torch.cosine_similarity(vectors[1], vectors[int(sample["name"])], dim=0)
        assert sample["similarity"] == pytest.approx(float(cosine), abs=1e-4)
        assert opened(sample["image"]).size == (72, 72)
    assert found["note"] == (
        "12 of 40 samples are in 4 sets of copies; of 1 the labels contradict each other. Shown: 3."
    )


def test_no_copies_are_said_to_be_none():
    pixels, label = images(5, side=8)
    found = copy_sets(torch.eye(5), torch.full((5,), MISSING), shown(pixels, label))
    assert (found["sets"], found["note"]) == ([], "Among 5 samples there are no copies.")


def test_outliers_are_those_of_a_slow_search():
    pixels, label = images(40, side=24)
    vectors = features(label)
    vectors[17] = -10 * vectors.mean(0)
    mean = [
        sum(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in slow_neighbors(vectors, i, 5)) / 5
        for i in range(40)
    ]
    found = outliers(vectors, shown(pixels, label), neighbors=5, count=4)
    assert [int(s["name"]) for s in found["samples"]] == sorted(range(40), key=mean.__getitem__)[:4]
    assert found["samples"][0]["name"] == "17"
    assert found["samples"][2]["similarity"] == pytest.approx(sorted(mean)[2], abs=1e-4)


@pytest.mark.parametrize("n", [1, 2])
def test_outliers_of_a_handful(n):
    pixels, label = images(n, side=8)
    found = outliers(torch.eye(2)[:n], shown(pixels, label))
    assert len(found["samples"]) == n * (n - 1)


def test_rows_are_told_by_their_cells():
    told = [["1", "red"], ["2", ""], ["1", "x" * 100]]
    look = Cells(columns=["size", "color"], numbers=1, cells=told.__getitem__, hidden=3)
    rows = Shown(look=look, names=["a", "b", "c"], label=torch.tensor([0, 1, MISSING]), classes=CLASSES)
    cells = {"a": ["1", "red"], "b": ["2", ""], "c": ["1", "x" * 79 + "…"]}
    grid = neighbor_grid(torch.eye(3), rows)
    assert (grid["columns"], grid["numbers"], grid["hidden"]) == (["size", "color"], 1, 3)
    for query in grid["queries"]:
        for tile in [query, *query["neighbors"]]:
            assert tile["cells"] == cells[tile["name"]]
            assert "image" not in tile
    drawn = embedding_map(torch.eye(3), rows)
    assert drawn["cells"] == list(cells.values())
    assert "sprite" not in drawn
    found = copy_sets(torch.eye(3), torch.tensor([0, MISSING, 0]), rows)
    assert [tile["cells"] for tile in found["sets"][0]["samples"]] == [cells["a"], cells["c"]]
    assert {tile["name"]: tile["cells"] for tile in outliers(torch.eye(3), rows)["samples"]} == cells
