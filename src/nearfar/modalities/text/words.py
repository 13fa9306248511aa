"""Sentences by their words alone: rows that no network has made, with which a representation is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 2048
"""Words that are counted: the most frequent ones."""

WORD = r"(?u)\w+|[^\w\s]"
"""A word, or a sign that is none: an emoji, a letter of a script without spaces."""


def counted(texts: Sequence[str]) -> dict[str, Tensor]:
    """Bag of words, how often each of the `MOST` most frequent words stands in a text, and TF-IDF: the logarithm of
    that, weighted by how rare the word is among these texts, in rows of length 1. Each N x words, float32."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    counts: Any = CountVectorizer(token_pattern=WORD, max_features=MOST).fit_transform(texts)
    weighted: Any = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    return {
        name: torch.from_numpy(np.asarray(rows.todense(), np.float32))
        for name, rows in (("bag of words", counts), ("TF-IDF", weighted))
    }
