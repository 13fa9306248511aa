"""What writes texts, as methods from text to text know it."""

from __future__ import annotations

from typing import Any

from torch import nn


class Writer(nn.Module):
    """An encoder with its decoder: called with {"source": view, "target": view} of N texts, it gives minus the
    log-probability of each target, summed over its tokens: N x 1. See `Encoder.writer`."""

    def filled(self, prompt: str, *views: Any) -> Any:
        """A view of the texts that a prompt becomes when the texts of views take the place of each "{}"."""
        raise NotImplementedError

    def bare(self, view: Any) -> Any:
        """A view without what stands at the ends of each text: `length`, N, is then 0 for an empty one."""
        raise NotImplementedError

    def write(self, view: Any, beams: int = 1) -> Any:
        """A view of the texts that it writes for those of a view, without gradient: the likeliest token at a time, or
        by beam search; no three tokens are repeated."""
        raise NotImplementedError

    def texts(self, view: Any) -> list[str]:
        """What a view says: N."""
        raise NotImplementedError

    def lemmas(self, view: Any) -> list[list[str]]:
        """The base forms of the words that it says: N."""
        raise NotImplementedError
