"""How well clusters agree with classes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.evaluation.protocol import Result, result


def clusters(assigned: Tensor, label: Tensor) -> Result:
    """Accuracy under the best matching of clusters to classes (per cent), NMI (arithmetic) and ARI (both at most 1).

    assigned: N, cluster numbers from 0.  label: N; rows with either MISSING take no part.
    """
    if assigned.shape != label.shape:
        raise ValueError(f"{tuple(assigned.shape)} clusters and {tuple(label.shape)} labels; wanted N and N")
    found, truth = assigned.cpu().numpy(), label.cpu().numpy()
    known = (found != MISSING) & (truth != MISSING)
    if not known.any():
        raise ValueError(f"none of the {len(truth)} rows has a cluster and a label; give labels")
    found, truth = found[known], truth[known]
    count = np.zeros((found.max() + 1, truth.max() + 1), dtype=np.int64)
    np.add.at(count, (found, truth), 1)
    rows, columns = linear_sum_assignment(count, maximize=True)
    numbers = {
        "accuracy": 100 * float(count[rows, columns].sum() / len(truth)),
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
    }
    config = {
        "rows": len(truth),
        "clusters": len(np.unique(found)),
        "classes": len(np.unique(truth)),
        "matching": "Hungarian",
    }
    return result("clusters", numbers, config)
