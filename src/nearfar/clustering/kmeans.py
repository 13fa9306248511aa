"""k-means on embeddings, by FAISS where it is installed, else by scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nearfar.errors import UserError


class Clusters(NamedTuple):
    """centroids: K x D.  assigned: N, int64, the nearest centroid.  distance: N, Euclidean, to it."""

    centroids: Tensor
    assigned: Tensor
    distance: Tensor


def kmeans(x: Tensor, k: int, *, start: Tensor | None = None, iterations: int = 20, seed: int = 0) -> Clusters:
    """K centroids that N rows lie close to, by Lloyd's iterations.

    x: N x D, finite, at least k rows.  start: K x D, the centroids to begin with: those of the epoch before need a
    quarter of the iterations; else some rows, far from each other (k-means++) or, with FAISS, any.
    The same rows, start and seed give the same clusters on one machine. Results lie beside `x`, in float32.
    """
    if x.dim() != 2 or not 1 <= k <= len(x):
        raise UserError(f"{k} clusters of rows of shape {tuple(x.shape)}; wanted N x D and 1 to N clusters")
    if start is not None and start.shape != (k, x.shape[1]):
        raise UserError(f"a start of shape {tuple(start.shape)} for {k} clusters; wanted {k} x {x.shape[1]}")
    rows = np.ascontiguousarray(x.detach().float().cpu().numpy())
    first = None if start is None else np.ascontiguousarray(start.detach().float().cpu().numpy())
    try:
        import faiss  # pyright: ignore[reportMissingImports] (of the extra "fast")
    except ImportError:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        init: Any = "k-means++" if first is None else first
        once: Any = 1
        model = KMeans(k, init=init, n_init=once, max_iter=iterations, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
            model.fit(rows)
        centroids, assigned = model.cluster_centers_, model.labels_
    else:
        model = faiss.Kmeans(
            x.shape[1], k, niter=iterations, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(rows)
        )
        model.train(rows, init_centroids=first)
        centroids, assigned = model.centroids, model.index.search(rows, 1)[1][:, 0]
    middle = torch.from_numpy(np.array(centroids, dtype=np.float32)).to(x.device)
    which = torch.from_numpy(np.array(assigned, dtype=np.int64)).to(x.device)
    return Clusters(middle, which, (x.detach().float() - middle[which]).norm(dim=1))
