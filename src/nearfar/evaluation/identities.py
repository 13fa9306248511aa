"""Re-identification: finding an identity (a person, a car) in what other cameras saw of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.intervals import bootstrap
from nearfar.evaluation.protocol import Result, labeled, result


def identities(
    query: Tensor,
    query_identity: Tensor,
    query_camera: Tensor,
    gallery: Tensor | None = None,
    gallery_identity: Tensor | None = None,
    gallery_camera: Tensor | None = None,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    chunk: int | None = None,
) -> Result:
    """mAP and CMC when a gallery is ranked by cosine for each query; ties to the lowest index.

    query: Q x D; query_identity, query_camera: Q.  gallery: N x D and likewise; without one, each query ranks all the
    others. For each query the items of its identity from its own camera are removed: they are too easy, being a moment
    later. Queries of which nothing is left to find are skipped and counted, and rows without an identity take no part,
    be they queries or items; a row without a camera shares it with none.
    In per cent: mAP, the mean of average precision, with its 95 % bootstrap interval over queries (low, high); cmc@k,
    the share of queries whose first right item is among the first k (Zheng et al. 2015, Market-1501). On unit rows the
    ranking is that by Euclidean distance.
    """
    given = [part is None for part in (gallery, gallery_identity, gallery_camera)]
    if any(given) != all(given):
        raise UserError("gallery, gallery_identity and gallery_camera go together; give all or none")
    q, q_identity, rows = labeled(query, query_identity, "query")
    q, q_camera = F.normalize(q, dim=1), query_camera.to(q.device)[rows]
    g, g_identity, g_camera, same = q, q_identity, q_camera, True
    if gallery is not None and gallery_identity is not None and gallery_camera is not None:
        g, g_identity, rows = labeled(gallery.to(q.device), gallery_identity, "gallery")
        g, g_camera, same = F.normalize(g, dim=1), gallery_camera.to(q.device)[rows], False
    every = per_identity(q, q_identity, q_camera, g, g_identity, g_camera, same, ranks, chunk)
    kept = every[~every[:, 0].isnan()]
    if not len(kept):
        raise UserError(f"none of the {len(q)} queries has an item of its identity from another camera to find")
    mean, low, high = bootstrap(100 * kept[:, 0], seed=seed, draws=2000)
    share = (100 * kept[:, 1:].mean(0)).tolist()
    numbers = {
        "mAP": mean,
        "low": low,
        "high": high,
        **{f"cmc@{k}": value for k, value in zip(ranks, share, strict=True)},
        "queries": len(kept),
        "skipped": len(q) - len(kept),
    }
    config = {"similarity": "cosine", "gallery": len(g), "same_camera": "removed", "seed": seed}
    return result("identities", numbers, config)


def per_identity(
    query: Tensor,
    query_identity: Tensor,
    query_camera: Tensor,
    gallery: Tensor,
    gallery_identity: Tensor,
    gallery_camera: Tensor,
    same: bool,
    ranks: Sequence[int],
    chunk: int | None = None,
) -> Tensor:
    """For each query average precision, NaN where nothing is left to find, and whether a right item is among the first
    k: Q x (1 + K), 0 to 1, float64.

    Arguments as of `identities`, all rows labeled and of unit length.  same: whether gallery and queries are the same.
    """
    item = torch.arange(len(gallery), device=query.device)
    own = torch.arange(len(query), device=query.device) + (0 if same else len(gallery))  # else none of the items
    measured: list[Tensor] = []
    for part in torch.arange(len(query), device=query.device).split(chunk or max(1, (1 << 21) // len(gallery))):
        alike = query_identity[part, None] == gallery_identity  # c x N
        camera = query_camera[part, None]
        junk = (alike & (camera == gallery_camera) & (camera != MISSING)) | (own[part, None] == item)
        likeness = (query[part] @ gallery.T).masked_fill(junk, -torch.inf)
        order = likeness.argsort(dim=1, descending=True, stable=True)  # what is removed comes last
        measured.append(_measured((alike & ~junk).gather(1, order), ranks))
    return torch.cat(measured).cpu()


def _measured(hit: Tensor, ranks: Sequence[int]) -> Tensor:
    """Average precision, NaN where there is no hit, and whether the first is among the first k: c x (1 + K).

    hit: c x N, bool, the best first.
    """
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = hit.cumsum(1).double() / rank
    first = torch.where(hit, rank, hit.shape[1] + 1).amin(1)
    average = (precision * hit).sum(1) / hit.sum(1)
    return torch.stack([average, *((first <= k).double() for k in ranks)], 1)
