"""Ranking a gallery for each query: average precision over the whole ranking, recall, and precision at R."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.intervals import bootstrap
from nearfar.evaluation.knn import sort_keys
from nearfar.evaluation.protocol import Result, labeled, result


def retrieval(
    query: Tensor,
    query_label: Tensor,
    gallery: Tensor | None = None,
    gallery_label: Tensor | None = None,
    *,
    within: Tensor | None = None,
    gallery_within: Tensor | None = None,
    recall: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    chunk: int | None = None,
) -> Result:
    """How well the items of a query's class come first when a gallery is ranked by cosine; ties to the lowest index.

    query: Q x D and query_label: Q.  gallery: N x D and gallery_label: N; without one, each query ranks all the others.
    Rows without label take no part; queries without a relevant item are skipped and counted.
    within: Q (and gallery_within: N), each query ranks only the gallery of its own group, e.g. of its alphabet.
    In per cent: mAP over the full ranking with its 95 % bootstrap interval over queries (low, high); recall@k, the
    share of queries with a relevant item among the first k; r_precision; map@r (arXiv 2003.08505); and prevalence, the
    mAP of a random ranking, nearly. Memory is about chunk x N x 20 bytes.
    """
    q, q_label, index = labeled(query, query_label, "query")
    group = None if within is None else within.to(q.device)[index]
    if gallery is None or gallery_label is None:
        if gallery is not None or gallery_label is not None or gallery_within is not None:
            raise UserError("gallery and gallery_label go together, and gallery_within with both; give all or none")
        g, g_label, g_group, same = q, q_label, group, True
    else:
        g, g_label, index = labeled(gallery.to(q.device), gallery_label, "gallery")
        g_group, same = None if gallery_within is None else gallery_within.to(q.device)[index], False
    if (group is None) != (g_group is None):
        raise UserError("within and gallery_within go together; give the group of the queries and of the gallery")
    q, g = F.normalize(q, dim=1), F.normalize(g, dim=1)
    parts: list[Tensor] = []
    if group is None or g_group is None:
        parts.append(per_query(q, q_label, g, g_label, same, recall, chunk))
    else:
        for name in group[group != MISSING].unique():
            a, b = group == name, g_group == name
            if b.any():
                parts.append(per_query(q[a], q_label[a], g[b], g_label[b], same, recall, chunk))
    rows = torch.cat(parts) if parts else q.new_empty(0, 4 + len(recall))
    if not len(rows):
        raise UserError(
            f"none of the {len(q)} queries has a relevant item in its gallery; wanted classes with two items or more"
        )
    mean, low, high = bootstrap(100 * rows[:, 0], seed=seed, draws=2000)
    other = (100 * rows.mean(0)).tolist()
    numbers = {
        "mAP": mean,
        "low": low,
        "high": high,
        **{f"recall@{k}": value for k, value in zip(recall, other[4:], strict=True)},
        "r_precision": other[1],
        "map@r": other[2],
        "prevalence": other[3],
        "queries": len(rows),
        "skipped": len(q) - len(rows),
    }
    config = {
        "similarity": "cosine",
        "gallery": len(g),
        "self_excluded": same,
        "within": within is not None,
        "seed": seed,
    }
    return result("retrieval", numbers, config)


def per_query(
    query: Tensor,
    query_label: Tensor,
    gallery: Tensor,
    gallery_label: Tensor,
    same: bool,
    recall: Sequence[int],
    chunk: int | None,
    *,
    skip: bool = True,
) -> Tensor:
    """For each query: AP, R-precision, AP@R, prevalence and each recall, 0 to 1: Q x (4 + K).

    query, gallery: of unit length.  same: whether they are the same, and each query ranks all the others.
    skip: leave out queries without a relevant item; else their numbers are 0, or NaN.
    """
    measured = []
    chunk = chunk or max(1, min(1024, (1 << 21 if query.device.type == "cpu" else 1 << 26) // len(gallery)))
    length = len(gallery)
    column = 2 * torch.arange(length, device=query.device) + 1
    for start in range(0, len(query), chunk):
        rows = query[start : start + chunk]
        similarity = rows @ gallery.T  # c x N
        relevant = query_label[start : start + chunk, None] == gallery_label
        if same:
            own = torch.arange(len(rows), device=query.device)
            similarity[own, own + start] = -torch.inf
            relevant[own, own + start] = False
        total = relevant.sum(1)
        # Whether an entry is relevant travels as the lowest bit of its key, so that no order need be kept beside it.
        hit = _rising(sort_keys(similarity, column - relevant.long())) & 1  # c x N, the best last
        row, place = hit.nonzero(as_tuple=True)
        rank = (length - place).double()
        number = total.cumsum(0)[row] - torch.arange(len(row), device=row.device)  # 1 for the best of its row
        count = total[row]
        inside = rank <= count
        best = torch.full_like(total, length + 1, dtype=torch.float64).scatter_reduce_(0, row, rank, "amin")
        sums = rank.new_zeros(3, len(rows)).index_add_(
            1, row, torch.stack([number / rank, inside.double(), number / rank * inside]) / count
        )
        numbers = [*sums, total / (length - same), *(best <= k for k in recall)]
        measured.append(torch.stack([n.double() for n in numbers], 1)[(total > 0) | (not skip)].cpu())
    return torch.cat(measured) if measured else torch.empty(0, 4 + len(recall), dtype=torch.float64)


def _rising(keys: Tensor) -> Tensor:
    """Each row sorted; NumPy sorts integers several times faster than torch on a CPU."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)
    return keys
