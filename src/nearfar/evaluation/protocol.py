"""How every evaluation states what it did: a version, the name of the measure, and the choices made."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.intervals import wilson

PROTOCOL = 2
"""Raised whenever a change here moves a number for the same features."""

Result = dict[str, Any]
"""Numbers by name (accuracies in per cent), and under "protocol" how they came about. Fit for JSON."""


def result(name: str, numbers: Mapping[str, Any], config: Mapping[str, Any], notes: list[str] | None = None) -> Result:
    """Numbers with the protocol that gave them; notes are sentences for the reader."""
    return {**numbers, "protocol": {"name": name, "version": PROTOCOL, **config, "notes": notes or []}}


def labeled(feature: Tensor, label: Tensor, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that have a label: n x D float32, n int64 on the same device, and their positions n.

    Raises ValueError where the shapes do not fit, a feature is not finite, or no row has a label.
    """
    if feature.ndim != 2 or label.shape != feature.shape[:1]:
        raise UserError(
            f"the {what} features have shape {tuple(feature.shape)} and its labels {tuple(label.shape)}; "
            f"wanted N x D and N: one row and one label per sample"
        )
    label = label.to(feature.device)
    index = (label != MISSING).nonzero().squeeze(1)
    if not len(index):
        raise UserError(
            f"none of the {len(label)} {what} samples has a label; give labels, or a split with labeled samples"
        )
    every = len(index) == len(label)
    feature = finite(feature if every else feature[index], what)
    return feature, label if every else label[index], index


def finite(feature: Tensor, what: str) -> Tensor:
    """The features as float32; ValueError if one of them is not a finite number."""
    feature = feature.detach().float()
    # A sum is finite only if all its terms are, save for overflow; so the careful check is rarely needed.
    if not feature.sum().isfinite() and not feature.isfinite().all():
        bad = int((~feature.isfinite().all(1)).sum())
        raise UserError(
            f"{bad} of the {len(feature)} {what} features are not finite; "
            "the encoder has diverged, take an earlier checkpoint"
        )
    return feature


def scored(scores: Tensor, label: Tensor) -> Result:
    """Accuracy with its 95 % Wilson interval, mean per-class accuracy, and top-5 where there are more than 5 classes;
    and right, which answers are right, as `packed` writes them.

    scores: N x C, more is likelier; ties go to the lowest class.  label: N.  All in per cent.
    """
    hit = scores.argmax(1) == label  # N
    low, high = wilson(int(hit.sum()), len(hit))
    numbers = {
        "accuracy": 100 * float(hit.double().mean()),
        "low": low,
        "high": high,
        "right": packed(hit),
        "class_accuracy": float(torch.tensor(list(per_class(hit, label).values()), dtype=torch.float64).mean()),
    }
    if scores.shape[1] > 5:
        own = scores.gather(1, label.clamp(max=scores.shape[1] - 1)[:, None])
        tied = (scores == own) & (torch.arange(scores.shape[1], device=scores.device) < label[:, None])
        rank = (scores > own).sum(1) + tied.sum(1)
        numbers["top5"] = 100 * float(((rank < 5) & (label < scores.shape[1])).double().mean())
    return numbers


def packed(right: Tensor) -> str:
    """Which answers are right as short text for JSON, such as "2x48:q2cB...". right: N, or S x N; 1 or 0."""
    table = right.reshape(-1, right.shape[-1]).cpu()
    bits = base64.b64encode(np.packbits(table.numpy().astype(bool)).tobytes()).decode()
    return f"{len(table)}x{table.shape[1]}:{bits}"


def unpacked(text: str) -> Tensor:
    """What `packed` was given: S x N bool. Raises ValueError where it is no such text."""
    shape, _, bits = text.partition(":")
    rows, columns = map(int, shape.split("x"))
    table = np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=rows * columns).astype(bool)
    return torch.from_numpy(table.reshape(rows, columns))


def per_class(hit: Tensor, label: Tensor) -> dict[int, float]:
    """The share of hits of each class that occurs, in per cent. hit: N bool.  label: N."""
    count = torch.bincount(label)
    right = torch.bincount(label, weights=hit.double())
    return {int(c): 100 * float(right[c] / count[c]) for c in count.nonzero().squeeze(1)}
