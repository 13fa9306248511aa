"""Whether videos of the same event agree on time: the nearest frame of another video, and how far off it is."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from nearfar.errors import UserError


class Moments(NamedTuple):
    """nearest: T, of each frame of a video the nearest frame of another, int64.  error: T, how far that is off, as a
    share of the length, 0 to 1."""

    nearest: Tensor
    error: Tensor


def nearest_moments(query: Tensor, other: Tensor) -> Moments:
    """Of each frame the nearest of another video of the same moments, by Euclidean distance; ties to the first.

    query, other: T x D each, frame by frame.  Equal rows have an error of 0, those of a reversed video about 1/2, and a
    frame at random is off by 1/3.  Raises ValueError where the two have not the same length.
    Sermanet et al. 2018, arXiv 1704.06888.
    """
    if len(query) != len(other) or not len(query):
        raise UserError(f"videos of {len(query)} and {len(other)} frames: moments of both must be the same")
    # In float64, as the squares of two near rows are nearly their product.
    q, k = query.double(), other.double()
    d = q.square().sum(1)[:, None] + k.square().sum(1) - 2 * q @ k.T
    nearest = d.argmin(1)
    time = nearest.new_ones(len(query)).cumsum(0) - 1
    return Moments(nearest, (nearest - time).abs().double() / len(query))
