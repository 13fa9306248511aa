"""How well clusters agree with classes, also where some of the classes are known by their labels and others are new."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.protocol import Result, result


def clusters(assigned: Tensor, label: Tensor) -> Result:
    """Accuracy under the best matching of clusters to classes (per cent), NMI (arithmetic) and ARI (both at most 1).

    assigned: N, cluster numbers from 0.  label: N; rows with either MISSING take no part.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # takes a second or more to load

    cluster, truth = _both_known(assigned, label)
    numbers = {
        "accuracy": _share_matched(cluster, truth),
        "nmi": float(normalized_mutual_info_score(truth, cluster)),
        "ari": float(adjusted_rand_score(truth, cluster)),
    }
    config = {
        "rows": len(truth),
        "clusters": len(np.unique(cluster)),
        "classes": len(np.unique(truth)),
        "matching": "Hungarian",
    }
    return result("clusters", numbers, config)


def open_world(assigned: Tensor, label: Tensor, known: int) -> Result:
    """Accuracy on samples of known classes, of new ones, and of all, in per cent; None where there are no such samples.

    assigned: N, the class that each sample is taken for; new classes have any numbers from `known` on.
    label: N, the true classes, the known ones being 0 to known - 1; rows with either MISSING take no part.
    Of a known class the number itself must be right. New classes are matched to what was assigned to their samples
    alone, all classes to what was assigned to all: each as its own best matching (Cao et al. 2021, arXiv 2102.03526).
    """
    guess, truth = _both_known(assigned, label)
    old = truth < known
    numbers = {
        "all": _share_matched(guess, truth),
        "known": 100 * float((guess[old] == truth[old]).mean()) if old.any() else None,
        "novel": _share_matched(guess[~old], truth[~old]) if not old.all() else None,
    }
    config = {
        "rows": len(truth),
        "known_rows": int(old.sum()),
        "known_classes": known,
        "assigned_classes": len(np.unique(guess)),
        "matching": "known by number, novel and all Hungarian",
    }
    return result("open_world", numbers, config)


def named(assigned: Tensor, label: Tensor, known: int) -> Tensor:
    """Clusters with the numbers of the known classes that their labeled samples match best: N.

    assigned: N, cluster numbers from 0.  label: N, 0 to known - 1, or MISSING for what has no label. Clusters beyond
    the best matching get numbers from `known` on, as they come.
    """
    _, rows, columns = _matched(*_both_known(assigned, label))
    numbers = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    for cluster in torch.unique(assigned[assigned != MISSING]).tolist():
        if cluster not in numbers:
            numbers[cluster] = max(known - 1, *numbers.values()) + 1
    return torch.tensor([numbers.get(cluster, MISSING) for cluster in assigned.tolist()])


def matched(assigned: Tensor, label: Tensor) -> Tensor:
    """Which samples lie in a cluster that the best matching gives their class: N, bool. Its mean is the accuracy.

    assigned: N, cluster numbers from 0.  label: N, all known.
    """
    truth = label.unique(return_inverse=True)[1]
    _, rows, columns = _matched(*_both_known(assigned, truth))
    named = torch.full((int(assigned.max()) + 1,), MISSING)
    named[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return named[assigned.cpu()] == truth.cpu()


def _both_known(assigned: Tensor, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if assigned.shape != label.shape:
        raise UserError(f"{tuple(assigned.shape)} clusters and {tuple(label.shape)} labels; wanted N and N")
    cluster, truth = assigned.cpu().numpy(), label.cpu().numpy()
    both = (cluster != MISSING) & (truth != MISSING)
    if not both.any():
        raise UserError(f"none of the {len(truth)} rows has a cluster and a label; give labels")
    return cluster[both], truth[both]


def _matched(cluster: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each cluster meets each class, and the matching of clusters to classes that meets most often."""
    from scipy.optimize import linear_sum_assignment

    count = np.zeros((cluster.max() + 1, truth.max() + 1), dtype=np.int64)
    np.add.at(count, (cluster, truth), 1)
    return count, *linear_sum_assignment(count, maximize=True)


def _share_matched(cluster: np.ndarray, truth: np.ndarray) -> float:
    count, rows, columns = _matched(cluster, truth)
    return 100 * float(count[rows, columns].sum() / len(truth))
