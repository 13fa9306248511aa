"""How well classes are told that had many, some or few training samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.protocol import Result, per_class, result, wilson


def long_tail(predicted: Tensor, label: Tensor, counts: Sequence[int], *, many: int = 100, few: int = 20) -> Result:
    """The accuracy of all test samples, and its mean over the classes with many, medium and few training samples.

    predicted, label: N, int64, classes; samples without a label take no part.  counts: training samples of each class.
    many, few: a class with more than `many` has many, with less than `few` few, else it is medium (Liu et al. 2019,
    arXiv 1904.05160). A group of which no class is tested is None. In per cent; `classes` has each class's own, None
    where it is not tested; `spread` is from the worst to the best of them. The test set is meant to be balanced.
    """
    if many < few:
        raise UserError(f"more than {many} training samples are many, and less than {few} few; wanted: few up to many")
    predicted, label = predicted[label != MISSING].cpu(), label[label != MISSING].cpu()
    if not len(label) or int(label.max()) >= len(counts):
        raise UserError(
            f"the counts are of {len(counts)} classes, and the {len(label)} labels go up to "
            f"{int(label.max()) if len(label) else 'nothing'}; wanted: labels, and the training samples of each class"
        )
    hit = predicted == label
    own = per_class(hit, label)
    members: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
    for c in own:
        members["many" if counts[c] > many else "few" if counts[c] < few else "medium"].append(c)
    groups = {name: sum(own[c] for c in of) / len(of) if of else None for name, of in members.items()}
    low, high = wilson(int(hit.sum()), len(hit))
    numbers = {"all": 100 * float(hit.double().mean()), "low": low, "high": high, **groups}
    numbers["classes"] = [own.get(c) for c in range(len(counts))]
    spread = torch.tensor(list(own.values()), dtype=torch.float64)
    numbers["spread"] = float(spread.max() - spread.min())
    config = {"many": f"> {many}", "few": f"< {few}", "of": members, "counts": list(counts), "test": len(label)}
    return result("long tail", numbers, config)
