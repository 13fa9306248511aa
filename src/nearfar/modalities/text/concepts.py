"""Concepts of a sentence, its nouns and verbs, and what CALM makes of them (arXiv 2011.07956), as text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Word:
    """A word or sign of a text. lemma: its base form.  kind: verb; noun, where it is the head of its phrase; or ""."""

    text: str
    lemma: str = ""
    kind: Literal["noun", "verb", ""] = ""


Tagger = Callable[[str], Sequence[Word]]
"""The words of a text, in their order."""


def eligible(words: Sequence[Word]) -> bool:
    """Whether there are two nouns or two verbs that could change places, and neither all nouns nor all verbs, of which
    there are several, are one word."""
    kinds = [[word.text for word in words if word.kind == kind] for kind in ("verb", "noun")]
    several = [texts for texts in kinds if len(texts) > 1]
    return bool(several) and all(len(set(texts)) > 1 for texts in several)


def concepts(words: Sequence[Word]) -> str:
    """The lemmas of the verbs, then those of the nouns, each in the order of the text, with blanks between."""
    return " ".join(word.lemma for kind in ("verb", "noun") for word in words if word.kind == kind)


def joined(words: Sequence[Word]) -> str:
    """The words and signs of a text, with blanks between: as `corrupted` gives them, but in their order."""
    return " ".join(word.text for word in words)


def corrupted(words: Sequence[Word], seed: float) -> str:
    """The words with their nouns in another order, and their verbs too, with blanks between; all else in its place.

    seed: the same gives the same order. Text that is not `eligible` stays as it is.
    """
    texts = [word.text for word in words]
    draw = random.Random(seed)
    for kind in ("verb", "noun") if eligible(words) else ():
        places = [i for i, word in enumerate(words) if word.kind == kind]
        before = [texts[i] for i in places]
        after = list(before)
        while len(before) > 1 and after == before:
            draw.shuffle(after)
        for i, text in zip(places, after, strict=True):
            texts[i] = text
    return " ".join(texts)
