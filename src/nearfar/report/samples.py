"""What reports show of a set of samples: nearest neighbors, a map of the embeddings, copies and outliers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.clustering.kmeans import kmeans
from nearfar.data.samples import Samples, drawn
from nearfar.data.tiles import Tiles
from nearfar.errors import UserError
from nearfar.evaluation.knn import neighbors

MOST_CLUSTERS = 64
"""That are looked for in the representation."""


def neighbor_grid(
    features: Tensor,
    tiles: Tiles,
    *,
    queries: int = 8,
    neighbors: int = 7,
    side: int = 72,
    seed: int = 0,
    chosen: Tensor | None = None,
) -> dict[str, Any]:
    """The content of results/neighbors.json: some samples, and the samples nearest to each by cosine.

    features: N x D.  queries: how many samples, drawn with `seed` and spread over the classes.  neighbors: how many of
    each.  side: of a tile, in pixels.  chosen: these samples instead, int64.
    Gives {"queries": [{"name", "label", "neighbors": [{"name", "label", "similarity"}]}], "protocol": {...}}, with what
    the face of the tiles adds to the whole and to each tile (`nearfar.data.tiles`). A label is the name of a class, or
    None.
    """
    unit = unit_rows(features)  # N x D
    chosen = spread(tiles.label, queries, seed) if chosen is None else chosen  # Q
    near, similarity = nearest(unit, chosen, neighbors)  # Q x K, Q x K
    protocol = {"version": 1, "similarity": "cosine", "gallery": len(unit), "seed": seed}
    return groups_of(tiles, chosen, near, similarity, side=side) | {"protocol": protocol}


def groups_of(
    tiles: Tiles,
    chosen: Tensor,
    near: Tensor,
    similarity: Tensor,
    *,
    side: int = 72,
    headings: Sequence[str] = (),
    remarks: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Groups of samples, each behind its first, as `neighbor_grid` gives them.

    chosen: the first of each, Q int64.  near, similarity: the others, Q x K.  headings: over each group.  remarks: on
    the others, a few words each.
    """
    tile = tiles.each(torch.cat([chosen, near.flatten()]), side)
    headings, remarks = headings or [""] * len(chosen), remarks or [[""] * near.shape[1]] * len(chosen)
    rows = zip(chosen.tolist(), near.tolist(), similarity.tolist(), headings, remarks, strict=True)
    return tiles.head() | {
        "queries": [
            tile[query]
            | {"heading": heading}
            | {
                "neighbors": [
                    tile[j] | {"similarity": round(s, 4), "remark": remark}
                    for j, s, remark in zip(js, ss, said, strict=True)
                ]
            }
            for query, js, ss, heading, said in rows
        ]
    }


def spread(label: Tensor, count: int, seed: int) -> Tensor:
    """Some samples, drawn with `seed` and spread over the classes: positions, `count` int64 at most.  label: N."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))[:10_000].tolist()
    met: Counter[int] = Counter()
    turn = {}
    for i in order:
        turn[i] = met[int(label[i])]
        met[int(label[i])] += 1
    return torch.tensor(sorted(order, key=lambda i: turn[i])[:count], dtype=torch.int64)


def found_grid(
    query: Tensor,
    gallery: Tensor,
    samples: tuple[Tensor, Tensor],
    tiles: Tiles,
    *,
    queries: int = 8,
    found: int = 6,
    side: int = 72,
    seed: int = 0,
) -> dict[str, Any]:
    """What some entries of one side of pairs find among those of another: as `neighbor_grid`, with the samples that
    hold them as tiles, which are labeled by what they say.

    query: Q x D.  gallery: N x D.  samples: of which each of these is, Q and N.  tiles: of the samples.  found: how
    many for each query.
    """
    unit, others = unit_rows(query), unit_rows(gallery)
    chosen = drawn(len(unit), queries, seed)
    cosine, near = (unit[chosen] @ others.T).topk(min(found, len(others)), dim=1)
    told = replace(tiles, label=torch.arange(len(tiles.names)), classes=tiles.names)
    asked, held = samples[0][chosen].tolist(), samples[1][near].tolist()
    tile = told.each(torch.tensor([*asked, *(i for own in held for i in own)]), side)
    return told.head() | {
        "queries": [
            tile[i] | {"neighbors": [tile[j] | {"similarity": round(s, 4)} for j, s in zip(js, ss, strict=True)]}
            for i, js, ss in zip(asked, held, cosine.tolist(), strict=True)
        ],
        "protocol": {"version": 1, "similarity": "cosine", "gallery": len(others), "seed": seed},
    }


def embedding_map(
    features: Tensor,
    tiles: Tiles,
    *,
    limit: int = 5000,
    neighbors: int = 8,
    side: int = 40,
    seed: int = 0,
    colors: Mapping[str, Sequence[str | None]] | None = None,
) -> dict[str, Any]:
    """The content of results/map.json: t-SNE (van der Maaten and Hinton 2008), started from the PCA.

    features: N x D, finite.  limit: the most points; of more samples, drawn with `seed`.  colors: what points can be
    colored by besides their labels, such as groups: by its name, a name for each sample, or None.  Others: see
    `neighbor_grid`.
    Gives {"x", "y", "name", "label": one of each per point; "colors": likewise, by name; "near", "similarity": points x
    K, nearest by cosine among the points; "total": N; "placed": "t-SNE", or why not ("collapsed", "few"); "perplexity";
    "protocol"}, with what the face of the tiles adds.
    Raises ValueError for features that are not finite.
    """
    if not features.isfinite().all():
        broken = int((~features.isfinite()).any(dim=1).sum())
        raise UserError(
            f"{broken} of {len(features)} features hold NaN or infinity, and a map needs finite ones: leave them out"
        )
    chosen = drawn(len(features), limit, seed)  # n
    unit = unit_rows(features[chosen])  # n x D
    near, similarity = nearest(unit, torch.arange(len(unit)), neighbors)  # n x K, n x K
    place, placed, perplexity = tsne_place(unit, seed)  # n x 2
    return {
        **tiles.head(),
        **tiles.face.every(chosen, side),
        "x": place[:, 0].tolist(),
        "y": place[:, 1].tolist(),
        "name": [tiles.names[i] for i in chosen.tolist()],
        "label": [tiles.class_name(i) for i in chosen.tolist()],
        "colors": {name: [values[i] for i in chosen.tolist()] for name, values in (colors or {}).items()},
        "near": near.tolist(),
        "similarity": [[round(s, 4) for s in row] for row in similarity.tolist()],
        "total": len(features),
        "placed": placed,
        "perplexity": perplexity,
        "protocol": {"version": 1, "method": "t-SNE", "similarity": "cosine", "seed": seed},
    }


def colors_of(samples: Samples, features: Tensor, *, seed: int = 0) -> dict[str, list[str | None]]:
    """What a map can be colored by besides labels: splits, attributes and groups, where there are several that hold
    two samples or more, and the clusters of the features, by k-means: N each."""
    known: dict[str, list[str | None]] = {"split": [split or None for split in samples.split]}
    for name, numbers in (("attribute", samples.attribute), ("group", samples.group)):
        known[name] = [None if number == MISSING else f"{name} {number}" for number in numbers.tolist()]
    known = {name: values for name, values in known.items() if _several(values)}
    unit = unit_rows(features)
    k = min(max(len(samples.classes), 8), MOST_CLUSTERS, len(unit) // 2)
    if k > 1 and len(unit.unique(dim=0)) >= k:
        known["cluster"] = [f"cluster {c + 1}" for c in kmeans(unit, k, seed=seed).assigned.tolist()]
    return known


def _several(values: Sequence[str | None]) -> bool:
    count = Counter(value for value in values if value is not None)
    return len(count) > 1 and max(count.values()) > 1


def copy_sets(
    features: Tensor,
    group: Tensor,
    tiles: Tiles,
    *,
    sets: int = 12,
    samples: int = 6,
    side: int = 72,
) -> dict[str, Any]:
    """The content of results/copies.json: samples that are the same, or nearly.

    group: N, int64, the same number for samples that are copies of one another, or MISSING.  sets: how many sets to
    show, those whose labels contradict each other first, then the largest.  samples: how many of each.  Others: see
    `neighbor_grid`.
    Gives {"sets": [{"size": of the whole set, "labels_differ", "samples": [{"name", "label", "similarity": to the first
    of the set}]}], "count": {"samples": N, "copies": samples in sets, "sets", "labels_differ": sets}, "meaning": which
    samples count as copies, "protocol"}, with what the face of the tiles adds.
    """
    label = tiles.label
    rows_of: dict[int, list[int]] = {}
    for i in (group != MISSING).nonzero()[:, 0].tolist():
        rows_of.setdefault(int(group[i]), []).append(i)
    differ = {g: len({int(y) for y in label[rows] if int(y) != MISSING}) > 1 for g, rows in rows_of.items()}
    chosen = sorted(rows_of, key=lambda g: (not differ[g], -len(rows_of[g]), g))[:sets]
    rows = {g: rows_of[g][:samples] for g in chosen}
    tile = tiles.each(torch.tensor([i for some in rows.values() for i in some], dtype=torch.int64), side)
    cosine = {
        g: (unit_rows(features[some]) @ unit_rows(features[some[:1]]).T)[:, 0].tolist() for g, some in rows.items()
    }
    return tiles.head() | {
        "sets": [
            {
                "size": len(rows_of[g]),
                "labels_differ": differ[g],
                "samples": [tile[i] | {"similarity": round(s, 4)} for i, s in zip(rows[g], cosine[g], strict=True)],
            }
            for g in chosen
        ],
        "count": {
            "samples": len(group),
            "copies": sum(map(len, rows_of.values())),
            "sets": len(rows_of),
            "labels_differ": sum(differ.values()),
        },
        "meaning": tiles.copies,
        "protocol": {"version": 1, "similarity": "cosine, to the first of the set"},
    }


def outliers(
    features: Tensor,
    tiles: Tiles,
    *,
    neighbors: int = 10,
    count: int = 16,
    side: int = 72,
) -> dict[str, Any]:
    """The content of results/outliers.json: the samples whose mean cosine with their nearest neighbors is lowest.

    neighbors: how many of the nearest.  count: how many samples to show.  Others: see `neighbor_grid`.
    Gives {"samples": [{"name", "label", "similarity": that mean}], "median": of that mean over all samples, or None for
    a single one, "total": N, "protocol"}, the farthest first, with what the face of the tiles adds.
    """
    unit = unit_rows(features)  # N x D
    k = min(neighbors, len(unit) - 1)
    worst, mean, median = [], [], None
    if k > 0:
        nearness = nearness_of(unit, k)
        worst = nearness.argsort(stable=True)[:count].tolist()
        mean, median = nearness[worst].tolist(), round(float(nearness.median()), 4)
    tile = tiles.each(torch.tensor(worst, dtype=torch.int64), side)
    return tiles.head() | {
        "samples": [tile[i] | {"similarity": round(s, 4)} for i, s in zip(worst, mean, strict=True)],
        "median": median,
        "total": len(unit),
        "protocol": {"version": 1, "similarity": f"mean cosine with the {k} nearest", "gallery": len(unit)},
    }


def nearness_of(features: Tensor, count: int) -> Tensor:
    """The mean cosine of each row with its nearest other rows, so many of them: N."""
    return neighbors(features, features, count, exclude_self=True)[0].mean(1)


def tsne_place(unit: Tensor, seed: int) -> tuple[Tensor, str, float | None]:
    """Two coordinates for each row, in [-1, 1]; "t-SNE" or why it was not possible; and its perplexity."""
    spread = unit.std(dim=0, correction=0).norm().item()
    if len(unit) < 5 or spread < 1e-5:
        return torch.zeros(len(unit), 2), "few" if len(unit) < 5 else "collapsed", None
    from sklearn.decomposition import PCA  # takes a second or more to load
    from sklearn.manifold import TSNE

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
    return (place / place.abs().max()).mul(1e4).round().div(1e4), "t-SNE", perplexity


def unit_rows(features: Tensor) -> Tensor:
    return F.normalize(features.detach().float().cpu(), dim=1)


def nearest(unit: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` rows of `unit` nearest to each query row but itself, and their cosines: Q x K, Q x K."""
    count = min(count, len(unit) - 1)
    nearest = []
    for some in queries.split(256):
        cosine = unit[some] @ unit.T  # q x N
        cosine[torch.arange(len(some)), some] = -math.inf
        nearest.append(cosine.topk(count, dim=1))
    return torch.cat([some.indices for some in nearest]), torch.cat([some.values for some in nearest])
