"""Which pairs count where samples have groups: rows of one group are not each other's negatives.

Ids are int64; a negative one is MISSING, and equal to nothing.
"""

from __future__ import annotations

from torch import Tensor

from nearfar.contrast import Ids, Rule


def equal_ids(mine: Tensor, theirs: Tensor) -> Tensor:
    """Whether two ids are one, of any shapes that go together: bool."""
    return (mine == theirs) & (mine >= 0)


def foreign(mine: Tensor, *theirs: Tensor) -> Rule:
    """A rule for `far`: the columns that do not have the group of the row; no part of them, where they have several.

    mine: N, the groups of the rows.  theirs: M each, of the columns.
    """

    def keep(i: Tensor, j: Tensor) -> Tensor:
        alike = equal_ids(mine[i], theirs[0][j])
        for part in theirs[1:]:
            alike |= equal_ids(mine[i], part[j])
        return ~alike

    return keep


def or_positive(rule: Rule, ids: Ids) -> Rule:
    """A rule, and the pairs of equal ids besides: positives stay, whatever their group. ids: N and M, none missing."""
    return lambda i, j: rule(i, j) | (ids[0][i] == ids[1][j])
