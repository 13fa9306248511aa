"""What to show of a set of samples: nearest neighbors, a map of the embeddings, copies, and what stands alone."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.report.shown import Shown


def neighbor_grid(
    features: Tensor,
    shown: Shown,
    *,
    queries: int = 8,
    neighbors: int = 7,
    side: int = 72,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of results/neighbors.json: some samples, and the samples nearest to each by cosine.

    features: N x D.  queries: how many samples, drawn with `seed` and spread over the classes.  neighbors: how many of
    each.  side: of a thumbnail, in pixels.
    Gives {"queries": [{"name", "label", "image", "neighbors": [{"name", "label", "image", "similarity"}]}],
    "protocol": {...}}; an image is a data URI, a label the name of a class or None. Cells have "cells" for a "image",
    a text for each of the "columns", which then stand beside "queries"; see `Cells`.
    """
    unit = _unit(features)  # N x D
    label = shown.label
    order = torch.randperm(len(unit), generator=torch.Generator().manual_seed(seed))[:10_000].tolist()
    count: Counter[int] = Counter()
    turn = {}
    for i in order:
        turn[i] = count[int(label[i])]
        count[int(label[i])] += 1
    chosen = torch.tensor(sorted(order, key=lambda i: turn[i])[:queries])  # Q
    near, similarity = _nearest(unit, chosen, neighbors)  # Q x K, Q x K
    tiles = shown.tiles(torch.cat([chosen, near.flatten()]), side)
    return shown.look.head() | {
        "queries": [
            tiles[query] | {"neighbors": [tiles[j] | {"similarity": round(s, 4)} for j, s in zip(js, ss, strict=True)]}
            for query, js, ss in zip(chosen.tolist(), near.tolist(), similarity.tolist(), strict=True)
        ],
        "protocol": {"version": 1, "similarity": "cosine", "gallery": len(unit), "seed": seed},
    }


def embedding_map(
    features: Tensor,
    shown: Shown,
    *,
    limit: int = 5000,
    neighbors: int = 8,
    side: int = 40,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of results/map.json: t-SNE (van der Maaten and Hinton 2008), started from the PCA.

    features: N x D, finite.  limit: the most points; of more samples, drawn with `seed`.  Others: see `neighbor_grid`.
    Gives {"x", "y", "name", "label": one of each per point; "near", "similarity": points x K, nearest by cosine among
    the points; "sprite": data URI of all thumbnails; "across": thumbnails in a row of it; "side", "note", "protocol"}.
    Cells have for the sprite "cells", a list for each point, and "columns".
    Raises ValueError for features that are not finite.
    """
    if not features.isfinite().all():
        broken = int((~features.isfinite()).any(dim=1).sum())
        raise ValueError(
            f"{broken} of {len(features)} features hold NaN or infinity, and a map needs finite ones: leave them out"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(features), generator=generator)[:limit].sort().values  # n
    unit = _unit(features[chosen])  # n x D
    near, similarity = _nearest(unit, torch.arange(len(unit)), neighbors)  # n x K, n x K
    place, how = _place(unit, seed)  # n x 2
    looks = shown.look.head() | shown.look.all(chosen, side)
    return looks | {
        "x": place[:, 0].tolist(),
        "y": place[:, 1].tolist(),
        "name": [shown.names[i] for i in chosen.tolist()],
        "label": [shown.class_name(i) for i in chosen.tolist()],
        "near": near.tolist(),
        "similarity": [[round(s, 4) for s in row] for row in similarity.tolist()],
        "note": f"{len(chosen):,}{f' of {len(features):,}' if len(features) > len(chosen) else ''} samples. {how}",
        "protocol": {"version": 1, "method": "t-SNE", "similarity": "cosine", "seed": seed},
    }


def copy_sets(
    features: Tensor,
    group: Tensor,
    shown: Shown,
    *,
    sets: int = 12,
    samples: int = 6,
    side: int = 72,
) -> dict[str, Any]:
    """The content of results/copies.json: samples that are the same, or nearly.

    group: N, int64, the same number for samples that are copies of one another, or MISSING.  sets: how many sets to
    show, those whose labels contradict each other first, then the largest.  samples: how many of each.  Others: see
    `neighbor_grid`.
    Gives {"sets": [{"size": of the whole set, "torn": whether its labels differ, "samples": [{"name", "label",
    "image", "similarity": to the first of the set}]}], "note", "protocol"}.
    """
    label = shown.label
    rows_of: dict[int, list[int]] = {}
    for i in (group != MISSING).nonzero()[:, 0].tolist():
        rows_of.setdefault(int(group[i]), []).append(i)
    torn = {g: len({int(y) for y in label[rows] if int(y) != MISSING}) > 1 for g, rows in rows_of.items()}
    chosen = sorted(rows_of, key=lambda g: (not torn[g], -len(rows_of[g]), g))[:sets]
    rows = {g: rows_of[g][:samples] for g in chosen}
    tiles = shown.tiles(torch.tensor([i for some in rows.values() for i in some], dtype=torch.int64), side)
    likeness = {g: (_unit(features[some]) @ _unit(features[some[:1]]).T)[:, 0].tolist() for g, some in rows.items()}
    found = len(rows_of)
    said = f"Among {len(group):,} samples there are no copies."
    if found:
        copies = sum(map(len, rows_of.values()))
        said = f"{copies:,} of {len(group):,} samples are in {found:,} {'set' if found == 1 else 'sets'} of copies"
        said += f"; of {sum(torn.values()):,} the labels contradict each other" if any(torn.values()) else ""
        said += f". Shown: {len(chosen)}." if found > len(chosen) else "."
    return shown.look.head() | {
        "sets": [
            {
                "size": len(rows_of[g]),
                "torn": torn[g],
                "samples": [tiles[i] | {"similarity": round(s, 4)} for i, s in zip(rows[g], likeness[g], strict=True)],
            }
            for g in chosen
        ],
        "note": said,
        "protocol": {"version": 1, "similarity": "cosine, to the first of the set"},
    }


def outliers(
    features: Tensor,
    shown: Shown,
    *,
    neighbors: int = 10,
    count: int = 16,
    side: int = 72,
) -> dict[str, Any]:
    """The content of results/outliers.json: the samples whose mean cosine with their nearest neighbors is lowest.

    neighbors: how many of the nearest.  count: how many samples to show.  Others: see `neighbor_grid`.
    Gives {"samples": [{"name", "label", "image", "similarity": that mean}], "note", "protocol"}, the farthest first.
    """
    unit = _unit(features)  # N x D
    k = min(neighbors, len(unit) - 1)
    said, worst, mean = "There is nothing to compare a single sample with.", [], []
    if k > 0:
        nearness = _nearest(unit, torch.arange(len(unit)), k)[1].mean(1)  # N
        worst = nearness.argsort(stable=True)[:count].tolist()
        mean = nearness[worst].tolist()
        said = f"For half of the {len(unit):,} samples this mean is above {nearness.median():.2f}."
    tiles = shown.tiles(torch.tensor(worst, dtype=torch.int64), side)
    return shown.look.head() | {
        "samples": [tiles[i] | {"similarity": round(s, 4)} for i, s in zip(worst, mean, strict=True)],
        "note": said,
        "protocol": {"version": 1, "similarity": f"mean cosine with the {k} nearest", "gallery": len(unit)},
    }


def _place(unit: Tensor, seed: int) -> tuple[Tensor, str]:
    """Two coordinates for each row, in [-1, 1], and a sentence on how they were found."""
    spread = unit.std(dim=0, correction=0).norm().item()
    if len(unit) < 5 or spread < 1e-5:
        said = "There are too few to map" if len(unit) < 5 else "All embeddings are the same: the encoder has collapsed"
        return torch.zeros(len(unit), 2), f"{said}, so the points lie on one spot."
    rows = unit.numpy()
    if unit.shape[1] > 50 and len(unit) > 50:
        rows = PCA(50, random_state=seed).fit_transform(rows)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    start = "pca" if rows.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, max_iter=500, random_state=seed)
    # One thread: its threads meet at every iteration, and on a busy machine more of them took 30 times longer.
    with threadpool_limits(1):
        place = torch.from_numpy(tsne.fit_transform(rows))
    place = place - (place.amax(0) + place.amin(0)) / 2
    return (place / place.abs().max()).mul(1e4).round().div(1e4), f"Placed by t-SNE (perplexity {perplexity:.3g})."


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.detach().float().cpu(), dim=1)


def _nearest(unit: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` rows of `unit` nearest to each query row but itself, and their cosines: Q x K, Q x K."""
    count = min(count, len(unit) - 1)
    found = []
    for some in queries.split(256):
        cosine = unit[some] @ unit.T  # q x N
        cosine[torch.arange(len(some)), some] = -math.inf
        found.append(cosine.topk(count, dim=1))
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])
