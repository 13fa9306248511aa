"""Average precision, held to a slow loop, to COCO's own code where it is installed, and to images drawn twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.evaluation.boxes import THRESHOLDS, Guess, average_precision, overlap, ranked


def cases(images: int = 12, classes: int = 3) -> tuple[list[Guess], list[Tensor], list[Tensor]]:
    """Objects, and guesses near them and elsewhere, on a grid so that overlaps and scores often are the same."""
    random = np.random.default_rng(1)
    guesses, boxes, label = [], [], []
    for _ in range(images):
        n = int(random.integers(0, 7))
        corner = random.integers(0, 60, (n, 2)).astype(float)
        true = np.concatenate([corner, corner + random.integers(8, 30, (n, 2))], 1)
        near = np.repeat(true, 2, 0) + random.integers(-4, 5, (2 * n, 4))
        corner = random.integers(0, 60, (4, 2)).astype(float)
        near = np.concatenate([near, np.concatenate([corner, corner + random.integers(8, 30, (4, 2))], 1)])
        own = random.integers(0, classes, n)
        named = np.concatenate([np.repeat(own, 2), random.integers(0, classes, 4)])
        named = np.where(random.random(len(named)) < 0.2, random.integers(0, classes, len(named)), named)
        score = random.permutation(1000)[: len(near)] / 1000
        guesses.append(Guess(torch.from_numpy(near), torch.from_numpy(score), torch.from_numpy(named)))
        boxes.append(torch.from_numpy(true).reshape(-1, 4))
        label.append(torch.from_numpy(own))
    return guesses, boxes, label


def slow(guesses: list[Guess], boxes: list[Tensor], label: list[Tensor], c: int, limit: float) -> float:
    """Of one class at one threshold, as one would write it down."""
    every = sorted(
        (-float(g.score[k]), i, k) for i, g in enumerate(guesses) for k in range(len(g.score)) if int(g.label[k]) == c
    )
    left = {i: [k for k in range(len(boxes[i])) if int(label[i][k]) == c] for i in range(len(boxes))}
    objects = sum(map(len, left.values()))
    found, curve = 0, []
    for rank, (_, i, k) in enumerate(every, 1):
        shares = [
            (float(overlap(guesses[i].boxes[k, None].numpy(), boxes[i][j, None].numpy())[0, 0]), j) for j in left[i]
        ]
        if shares and max(shares)[0] >= limit:
            left[i].remove(max(shares)[1])
            found += 1
        curve.append((found / objects, found / rank))
    reached = [max([p for r, p in curve if r >= recall], default=0.0) for recall in np.linspace(0, 1, 101)]
    return float(np.mean(reached))


def test_it_is_that_of_a_slow_loop() -> None:
    guesses, boxes, label = cases()
    for c, one in enumerate(ranked(guesses, boxes, label, 3)):
        made = average_precision(one, torch.ones(1, 12).double())[0]
        for t in (0, 4, 9):
            assert float(made[t]) == pytest.approx(slow(guesses, boxes, label, c, THRESHOLDS[t]), abs=1e-9)


def test_an_image_that_counts_twice_is_as_two() -> None:
    guesses, boxes, label = cases()
    often = torch.tensor([2, 0, 1, 1, 3, 0, 1, 1, 1, 0, 2, 1])
    which = torch.arange(12).repeat_interleave(often).tolist()
    # Equal scores of the same image drawn twice: the two stand beside each other in both.
    for one, other in zip(
        ranked(guesses, boxes, label, 3),
        ranked([guesses[i] for i in which], [boxes[i] for i in which], [label[i] for i in which], 3),
        strict=True,
    ):
        drawn = average_precision(one, often[None].double())
        whole = average_precision(other, torch.ones(1, len(which)).double())
        assert torch.allclose(
            drawn, whole, atol=0.03
        )  # where one object of two is found, a step of the curve is halved


def test_the_ends() -> None:
    box, one = torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(1).long()
    nothing = Guess(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    whole, often = Guess(box, torch.ones(1), one), torch.ones(1, 1).double()
    for guess, classes, wanted in ((whole, 1, 1.0), (nothing, 1, 0.0), (Guess(box + 100, torch.ones(1), one), 1, 0.0)):
        (made,) = ranked([guess], [box], [one], classes)
        assert average_precision(made, often).tolist() == [[wanted] * 10]
    _, absent = ranked([whole], [box], [one], 2)
    assert average_precision(absent, often).isnan().all()
    many = Guess(box.repeat(150, 1), torch.linspace(1, 0, 150), torch.zeros(150).long())
    assert len(ranked([many], [box], [one], 1)[0].image) == 100


def test_it_is_that_of_coco() -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed (pip install 'nearfar[dev]')")
    from pycocotools.cocoeval import COCOeval

    guesses, boxes, label = cases(40)
    truth, found = coco.COCO(), coco.COCO()
    annotations = [
        {
            "image_id": i + 1,
            "category_id": int(c) + 1,
            "bbox": [x, y, z - x, w - y],
            "area": (z - x) * (w - y),
            "iscrowd": 0,
        }
        for i, (own, labels) in enumerate(zip(boxes, label, strict=True))
        for (x, y, z, w), c in zip(own.tolist(), labels.tolist(), strict=True)
    ]
    images = [{"id": i + 1, "width": 100, "height": 100} for i in range(40)]
    truth.dataset = {
        "info": {},
        "images": images,
        "categories": [{"id": c, "name": str(c)} for c in (1, 2, 3)],
        "annotations": [one | {"id": k} for k, one in enumerate(annotations, 1)],
    }
    truth.createIndex()
    found = truth.loadRes(
        [
            {"image_id": i + 1, "category_id": int(c) + 1, "bbox": [x, y, z - x, w - y], "score": s}
            for i, guess in enumerate(guesses)
            for (x, y, z, w), s, c in zip(guess.boxes.tolist(), guess.score.tolist(), guess.label.tolist(), strict=True)
        ]
    )
    judge = COCOeval(truth, found, "bbox")
    judge.evaluate()
    judge.accumulate()
    theirs = judge.eval["precision"][:, :, :, 0, 2].mean(1).T  # classes x thresholds
    ours = [average_precision(one, torch.ones(1, 40).double())[0].numpy() for one in ranked(guesses, boxes, label, 3)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
