"""Nearest neighbors by cosine, exact, in bounded memory; and the weighted vote of the nearest.

A top-k over a whole row of similarities costs more than the similarities. So the row is folded into blocks of 8: the k
largest entries lie in the k blocks with the largest maxima, and only those blocks are looked at. An entry and its index
travel as one 64-bit integer, similarity high and index low, so that sorting integers sorts by similarity and breaks
ties to the lowest index. The bank is visited in tiles, each normalized once and kept in the cache by all queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.evaluation.held import TRIED, holdouts, standardize
from nearfar.evaluation.protocol import Result, finite, labeled, result, scored

KS = (1, 5, 20, 200)
"""Numbers of neighbors, of which the best on held-out training rows is taken."""

_BLOCK = 8
_TILE = 1 << 16
_LOW = 0xFFFFFFFF


def neighbors(
    query: Tensor, bank: Tensor, k: int, *, exclude_self: bool = False, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank with the largest cosine to each query: similarity Q x k, falling, and index Q x k, int64.

    query: Q x D.  bank: N x D; neither need be normalized, both are read as float32.  Ties go to the lowest index.
    exclude_self: query i is row i of the bank and is no neighbor of itself.
    chunk: queries at a time; memory beyond the answer is about chunk x 65536 x 5 bytes and one tile of the bank.
    Raises ValueError where k is not 1 to N (N - 1 with exclude_self), or the shapes do not fit.
    """
    if query.ndim != 2 or bank.ndim != 2 or query.shape[1] != bank.shape[1]:
        raise UserError(
            f"queries of shape {tuple(query.shape)} and a bank of shape {tuple(bank.shape)}; wanted Q x D and N x D"
        )
    if exclude_self and len(query) != len(bank):
        raise UserError(
            f"exclude_self with {len(query)} queries and a bank of {len(bank)}; wanted the same rows in both"
        )
    most = len(bank) - exclude_self
    if not 1 <= k <= most:
        raise UserError(f"k is {k}; wanted 1 to {most}, the rows of the bank that may be neighbors")
    query = F.normalize(finite(query, "query"), dim=1)  # Q x D
    chunk = chunk or (4096 if query.is_cuda else 256)
    best: list[Tensor] = []  # for each chunk of queries, c x k keys, falling
    starts = range(0, len(query), chunk)
    for left in range(0, len(bank), _TILE):
        tile = F.normalize(finite(bank[left : left + _TILE].to(query.device), "bank"), dim=1)  # M x D
        wide = -(-len(tile) // _BLOCK) * _BLOCK
        room = query.new_full((min(chunk, len(query)), wide), -torch.inf)
        for number, start in enumerate(starts):
            rows = query[start : start + chunk]
            similarity = room[: len(rows)]
            torch.mm(rows, tile.T, out=similarity[:, : len(tile)])  # c x M
            if exclude_self:
                similarity.diagonal(start - left).fill_(-torch.inf)
            keys = _top_keys(similarity, len(tile), min(k, len(tile)), left)
            if left:
                keys = _largest(torch.cat([best[number], keys], 1), min(k, best[number].shape[1] + keys.shape[1]))
                best[number] = keys
            else:
                best.append(keys)
    keys = torch.cat(best) if best else torch.empty(0, k, dtype=torch.int64, device=query.device)
    return _similarity(keys), _index(keys)


def _top_keys(similarity: Tensor, width: int, k: int, left: int) -> Tensor:
    """The k largest of each row as keys, falling. similarity: c x W, -inf from column `width` on."""
    count, wide = similarity.shape
    blocks = wide // _BLOCK
    if blocks < 2 * k:
        column = torch.arange(left, left + width, device=similarity.device)
        return _largest(sort_keys(similarity[:, :width], column), k)
    top = similarity.view(count, _BLOCK, blocks).amax(1)  # c x B; block b holds columns b, b + B, b + 2 B ...
    block = _where_largest(top, k)  # c x (1 + k)
    column = block[:, None, 1:] + blocks * torch.arange(_BLOCK, device=top.device)[:, None]
    column = column.flatten(1)  # c x 8 k
    entry = similarity.gather(1, column)
    place = _where_largest(entry, k)  # c x (1 + k)
    picked = place[:, 1:]
    keys = _largest(sort_keys(entry.gather(1, picked), left + column.gather(1, picked)), k)
    # Where the runner-up, of the entries or of the blocks, equals the k-th, a lower index may have been passed over.
    kth = _similarity(keys[:, -1:])
    next_best = torch.maximum(entry.gather(1, place[:, :1]), top.gather(1, block[:, :1]))
    unsure = (next_best >= kth).nonzero()[:, 0]
    if len(unsure):
        keys[unsure] = _settle(similarity[unsure], kth[unsure], k, left)
    return keys


def _settle(similarity: Tensor, kth: Tensor, k: int, left: int) -> Tensor:
    """As `_top_keys`, where the k-th similarity is known and occurs too often: the first of its columns are taken."""
    above, tied = similarity > kth, similarity == kth
    keep = above | (tied & (tied.cumsum(1, dtype=torch.int32) <= k - above.sum(1, keepdim=True)))
    column = keep.nonzero()[:, 1].view(-1, k)
    return _largest(sort_keys(similarity.gather(1, column), left + column), k)


def sort_keys(similarity: Tensor, index: Tensor) -> Tensor:
    """One integer per entry that orders by similarity, then by lowest index."""
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0: minus zero equals zero
    return _ordered(bits).long() << 32 | (_LOW - index)


def _similarity(keys: Tensor) -> Tensor:
    return _ordered((keys >> 32).int()).view(torch.float32)


def _index(keys: Tensor) -> Tensor:
    return _LOW - (keys & _LOW)


def _ordered(bits: Tensor) -> Tensor:
    """The bits of floats as integers in the order of the floats; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _largest(keys: Tensor, k: int) -> Tensor:
    """The k largest of each row, falling."""
    if keys.device.type != "cpu":
        return keys.topk(k, dim=1).values
    array = keys.numpy()  # NumPy selects and sorts with vector instructions, torch does not: 5 to 10 times faster
    if k < array.shape[1]:
        array = np.partition(array, array.shape[1] - k, axis=1)[:, array.shape[1] - k :]
    return torch.from_numpy(np.sort(array, axis=1)[:, ::-1].copy())


def _where_largest(values: Tensor, k: int) -> Tensor:
    """The column of the runner-up, then those of the k largest in no order, of each row: c x (1 + k)."""
    if values.device.type != "cpu":
        return values.topk(k + 1, dim=1).indices.flip(1)
    first = values.shape[1] - k - 1
    return torch.from_numpy(np.argpartition(values.numpy(), first, axis=1)[:, first:].copy())


def knn_scores(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    classes: int | None = None,
    exclude_self: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """The vote of the k nearest training rows for each class: Q x C, rows sum to 1, float64.

    A neighbor with cosine s votes exp(s / temperature); temperature inf counts heads.  k is capped at what there is.
    train: N x D, all labeled.  train_label: N.  test: Q x D.  Source: arXiv 1805.01978.
    """
    classes = classes or int(train_label.max()) + 1
    similarity, index = neighbors(
        test, train, min(k, len(train) - exclude_self), exclude_self=exclude_self, chunk=chunk
    )
    return _vote(similarity, train_label.to(index.device)[index], temperature, classes)


def _vote(similarity: Tensor, label: Tensor, temperature: float, classes: int) -> Tensor:
    """The share of each class in the vote of neighbors: Q x k, Q x k -> Q x C, float64."""
    weight = torch.softmax(similarity.double() / temperature, 1)  # Q x k
    return weight.new_zeros(len(label), classes).scatter_add_(1, label, weight)


def knn_chosen(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    *,
    group: Tensor | None = None,
    ks: Sequence[int] = KS,
    scaled: Sequence[bool] = (False, True),
    temperature: float = 0.07,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Any], list[str]]:
    """As `knn_scores`, where k and whether features are standardized are chosen on held-out training rows.

    Gives the votes, Q x C, what was chosen, and notes on it. Of equals, features as they are win, then the larger k.
    group: N, rows of one group are never on both sides of the choice (MISSING: a group of its own).
    ks: to choose from.  scaled: to choose from: False takes features as they are, True those with mean 0 and
    deviation 1 on training rows.
    """
    classes = int(train_label.max()) + 1
    held = holdouts(train_label, group, seed) if len(ks) * len(scaled) > 1 else []
    hits = {(way, k): 0 for way in scaled for k in sorted(ks, reverse=True)}
    tried = 0
    for out in held:
        rows = out.nonzero()[:, 0]
        pick = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:TRIED]
        rows = rows[pick.to(rows.device)]
        tried += len(rows)
        for way in scaled:
            bank, query = (standardize if way else _as_they_are)(train[~out], train[rows])
            similarity, index = neighbors(query, bank, min(max(ks), len(bank)))
            named = train_label[~out].to(index.device)[index]
            for k in ks:
                answer = _vote(similarity[:, :k], named[:, :k], temperature, classes).argmax(1)
                hits[way, k] += int((answer == train_label[rows]).sum())
    notes = []
    if held:
        way, k = max(hits, key=lambda choice: hits[choice])
    else:
        way, k = scaled[0], sorted(ks)[len(ks) // 2]
        if len(hits) > 1:
            notes.append(f"too few labels to choose k; {k} was taken")
    bank, query = (standardize if way else _as_they_are)(train, test)
    config = {
        "k": min(k, len(train)),
        "standardized": way,
        "ks": sorted(ks),
        "held_out_accuracy": [100 * hits[way, name] / tried for name in sorted(ks)] if held else [],
        "held_out": tried,
    }
    return knn_scores(bank, train_label, query, k=k, temperature=temperature, classes=classes), config, notes


def _as_they_are(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    return train, test


def knn(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    test_label: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    exclude_self: bool = False,
    chunk: int | None = None,
) -> Result:
    """The accuracy of the weighted vote of the k nearest training rows (arXiv 1805.01978), in per cent.

    train: N x D and train_label: N, the bank, embedded with the test transform.  test: Q x D and test_label: Q.
    Rows without label take no part.  Presets in use: k 200 and temperature 0.07 (the default), k 20 and 0.07, k 200
    and 0.1; k 1 is the nearest neighbor, temperature inf the plain majority.  They differ by points, so compare like
    with like.
    exclude_self: train and test are the same rows, and each is judged by the others.
    Gives accuracy, its 95 % interval low and high, class_accuracy (mean over classes) and top5.
    """
    bank, bank_label, _ = labeled(train, train_label, "training")
    query, query_label, _ = labeled(test, test_label, "test")
    classes = int(torch.maximum(bank_label.max(), query_label.max().to(bank.device))) + 1
    scores = knn_scores(
        bank,
        bank_label,
        query,
        k=k,
        temperature=temperature,
        classes=classes,
        exclude_self=exclude_self,
        chunk=chunk,
    )
    used = min(k, len(bank) - exclude_self)
    return result(
        "knn",
        scored(scores, query_label.to(scores.device)),
        {
            "k": used,
            "temperature": temperature,
            "similarity": "cosine",
            "train": len(bank),
            "test": len(query),
            "leave_one_out": exclude_self,
        },
        [f"k is {used}, not {k}: the bank holds no more"] if used < k else [],
    )
