"""What of a sample counted, in the form in which pages draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What of one sample makes it similar to another one: a picture, or its words, each with a share.

    picture: 3 x H x W, in [0, 1].  words: each with its part in the similarity, from -1 to 1, where above 0 is what
    makes the two alike; the largest of a sample is 1 or -1.
    """

    picture: Tensor | None = None
    words: Sequence[tuple[str, float]] = ()


def worded(words: Sequence[str], scores: Tensor) -> Parts:
    """Words with their scores, brought to the range of -1 to 1: W, and W numbers."""
    largest = float(scores.abs().max()) if len(scores) else 0.0
    shares = (scores / largest if largest > 0 else scores).tolist()
    return Parts(words=list(zip(words, shares, strict=True)))
