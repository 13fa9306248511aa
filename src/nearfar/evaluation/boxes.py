"""Average precision of boxes, as COCO measures it (arXiv 1405.0312), and with images that count more or less often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
"""Of the intersection over union, from which on a box is found."""

MOST = 100
"""Boxes of an image that count, the surest first."""

RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # those of torch differ in the last digit


@dataclass(frozen=True)
class Guess:
    """What was found in an image. boxes: m x 4, left, top, right and bottom.  score, label: m."""

    boxes: Tensor
    score: Tensor
    label: Tensor


@dataclass(frozen=True)
class Ranking:
    """The guesses of one class, the surest first. image: D, of each.  hit: T x D, whether it finds an object at each
    threshold.  objects: N, of each image."""

    image: Tensor
    hit: Tensor
    objects: Tensor


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of m boxes and n: m x n."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    return both / np.maximum(area[0][:, None] + area[1][None] - both, 1e-12)


def ranked(guesses: Sequence[Guess], boxes: Sequence[Tensor], label: Sequence[Tensor], classes: int) -> list[Ranking]:
    """The guesses of each class. In each image the surest goes first, and takes the object that it covers best of those
    that are left; of the same score, the earlier image and guess go first.

    guesses, boxes, label: of N images; boxes: objects x 4.
    """
    made = []
    for c in range(classes):
        image, score, hit = [], [], []
        objects = torch.tensor([int((own == c).sum()) for own in label], dtype=torch.float64)
        for i, guess in enumerate(guesses):
            surest = np.argsort(-guess.score.double().numpy(), kind="stable")
            surest = surest[guess.label.numpy()[surest] == c][:MOST]
            if not len(surest):
                continue
            true = boxes[i][label[i] == c].double().numpy()
            hit.append(_hits(overlap(guess.boxes.double().numpy()[surest], true)))
            image += [i] * len(surest)
            score.append(guess.score.double().numpy()[surest])
        if not image:
            made.append(Ranking(torch.zeros(0).long(), torch.zeros(len(THRESHOLDS), 0).double(), objects))
            continue
        order = np.argsort(-np.concatenate(score), kind="stable")
        hits = torch.from_numpy(np.concatenate(hit, 1)[:, order]).double()
        made.append(Ranking(torch.tensor(image)[torch.from_numpy(order)], hits, objects))
    return made


def average_precision(ranking: Ranking, often: Tensor) -> Tensor:
    """Of one class at each threshold, B x T: the mean of the precision at 101 recalls, each the highest at that recall
    or a higher one. NaN where no object counts.

    often: B x N, how often each image counts.
    """
    objects = (often @ ranking.objects)[:, None]  # B x 1
    if not len(ranking.image):
        return torch.where(objects > 0, 0.0, torch.nan).expand(-1, len(ranking.hit)).double()
    weight = often[:, ranking.image]  # B x D
    total = weight.cumsum(1)
    made = []
    for hit in ranking.hit:
        found = (weight * hit).cumsum(1)
        precision = found / total.clamp(min=1e-12)
        best = precision.flip(1).cummax(1).values.flip(1)
        at = torch.searchsorted(
            (found / objects.clamp(min=1e-12)).contiguous(), RECALLS.expand(len(often), -1).contiguous()
        )
        padded = torch.cat([best, torch.zeros(len(often), 1, dtype=torch.float64)], 1)
        made.append(padded.gather(1, at).mean(1))
    return torch.where(objects > 0, torch.stack(made, 1), torch.nan)


def _hits(overlaps: np.ndarray) -> np.ndarray:
    """Which guesses find an object: T x m.  overlaps: m guesses, in their turn, x n objects."""
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    hit = np.zeros((len(THRESHOLDS), len(overlaps)), dtype=bool)
    if not overlaps.shape[1]:
        return hit
    free = np.ones((len(THRESHOLDS), overlaps.shape[1]), dtype=bool)
    rows = np.arange(len(THRESHOLDS))
    for k, own in enumerate(overlaps):
        open_to = np.where(free & (own >= limits), own, -1)  # T x n
        best = open_to.shape[1] - 1 - open_to[:, ::-1].argmax(1)  # of the same overlap the last, as in COCO's code
        hit[:, k] = open_to[rows, best] >= 0
        free[rows[hit[:, k]], best[hit[:, k]]] = False
    return hit
