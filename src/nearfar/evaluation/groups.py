"""Accuracy by groups, a group being a class seen with an attribute: a bias that was learned shows in the worst."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.protocol import Result, result


def group_accuracy(
    scores: Tensor, label: Tensor, attribute: Tensor, *, aligned: Tensor | None = None, least: int = 1
) -> Result:
    """The accuracy of the worst group and of all groups alike, in per cent; a group is a class with an attribute.

    scores: N x C, more is likelier; ties go to the lowest class.  label, attribute: N, int64; a row that lacks either
    (MISSING) takes no part.  aligned: N, bool, whether a row's attribute is the one that went along with its class in
    training; with it the accuracies of these rows and of the others are given, which are None where there is no row.
    least: a group of fewer rows is not looked at, as a few rows can all be wrong by chance.
    Gives accuracy (of all rows), worst_group, worst (its class and attribute; of equal ones the first), mean_group (the
    mean over groups), groups (their number), and aligned and conflicting.
    """
    if scores.ndim != 2 or label.shape != scores.shape[:1] or attribute.shape != label.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (scores, label, attribute))
        raise UserError(f"scores, labels and attributes of shapes {shapes}; wanted N x C, N and N")
    label, attribute = label.cpu(), attribute.cpu()
    known = (label != MISSING) & (attribute != MISSING)
    label, attribute = label[known], attribute[known]
    hit = (scores.cpu().argmax(1)[known] == label).double()  # n
    pairs, group, count = torch.unique(
        torch.stack([label, attribute], 1), dim=0, return_inverse=True, return_counts=True
    )
    if not len(label) or int(count.max()) < least:
        raise UserError(f"no group of {least} or more of the {len(known)} rows has a class and an attribute; give both")
    accuracy = 100 * torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, group, hit) / count  # G
    large = count >= least
    worst = int(accuracy.masked_fill(~large, torch.inf).argmin())
    numbers = {
        "accuracy": 100 * float(hit.mean()),
        "worst_group": float(accuracy[worst]),
        "worst": pairs[worst].tolist(),
        "mean_group": float(accuracy[large].mean()),
        "groups": int(large.sum()),
    }
    if aligned is not None:
        part = aligned.cpu()[known]
        for name, rows in (("aligned", hit[part]), ("conflicting", hit[~part])):
            numbers[name] = 100 * float(rows.mean()) if len(rows) else None
    return result("groups", numbers, {"rows": len(label), "group": "class x attribute", "least": least})
