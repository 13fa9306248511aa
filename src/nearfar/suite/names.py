"""The names of the parts of `nearfar evaluate --suite`, free of torch, so that a wrong one is refused at once."""

from __future__ import annotations

from collections.abc import Sequence

from nearfar.errors import UserError

ALL = "all"
UNASKED = "not asked for"
"""Why a part was left out that would apply."""

PARTS = {
    "knn": "Nearest neighbors",
    "linear": "Linear probe",
    "kshot": "Few labels a class",
    "finetune": "Fine-tuning on 1 % and 10 % of the labels",
    "clusters": "Clustering",
    "retrieval": "Retrieval",
    "cameras": "Retrieval across cameras",
    "groups": "Worst group",
    "longtail": "Classes with many, medium and few samples",
    "corruptions": "Corrupted images",
    "attacks": "Attacks on the linear probe",
    "calibration": "Calibration of the linear probe",
    "ood": "Samples of another data set",
    "geometry": "Geometry of the representation",
    "cka": "Likeness to other encoders",
}
"""What each part is about, by its name, in the order in which they are measured."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The parts that were asked for, in their order; all for `ALL`, or for no name.

    Raises ValueError for a name that is no part, with the list of those that are.
    """
    asked = [name for given in names for name in given.split(",") if name]
    if unknown := [name for name in asked if name not in PARTS and name != ALL]:
        raise UserError(f"--suite: there is no part {unknown[0]!r}; there are {', '.join(PARTS)}, or none for all")
    return tuple(name for name in PARTS if not asked or ALL in asked or name in asked)
