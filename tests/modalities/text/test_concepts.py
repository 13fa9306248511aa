"""The strings of CALM, and what its sheet of invariants asks of them."""

from __future__ import annotations

from collections import Counter

import pytest

from nearfar.methods.calm import CHOICE, CONCEPTS, CORRECTION, ORDER
from nearfar.modalities.text.concepts import Word, concepts, corrupted, eligible, joined
from nearfar.modalities.text.tagger import rules


def tagged(text: str) -> list[Word]:
    """Of words such as ran/run/verb or dog/dog/noun."""
    return [Word(*part.split("/")) for part in text.split()]  # pyright: ignore[reportArgumentType]


WORDS = tagged("The dogs/dog/noun chased/chase/verb the cat/cat/noun and barked/bark/verb .")


def test_the_prompts_are_those_of_the_paper() -> None:
    assert CONCEPTS.format(concepts(WORDS)) == "generate a sentence with the following concepts: chase bark dog cat"
    told = corrupted(WORDS, 0.5)
    assert told == "The cat barked the dogs and chased ."
    assert ORDER.format(told) == f"correct the order of the following sentence: {told}"
    assert CORRECTION.format(told) == f"correct the following sentence : {told}"
    both = CHOICE.format(joined(WORDS), told)
    assert both == f"Which sentence is correct?: options: 1: The dogs chased the cat and barked . 2: {told}"


def test_words_change_places_with_those_of_their_class_alone() -> None:
    seen = set()
    words = tagged("a/a/noun x b/b/noun v/v/verb c/c/noun y w/w/verb a/a/noun .")
    for seed in range(200):
        made = corrupted(words, seed / 200).split()
        assert made == corrupted(words, seed / 200).split()
        assert Counter(made) == Counter(word.text for word in words)
        for kind in ("noun", "verb", ""):
            places = [i for i, word in enumerate(words) if word.kind == kind]
            own, now = [words[i].text for i in places], [made[i] for i in places]
            assert (own == now) == (kind == ""), "each class that can change does, and all else stays"
            assert Counter(own) == Counter(now)
        seen.add(tuple(made))
    assert len(seen) == 11  # 12 orders of a, a, b, c but the one that was, with the verbs the other way


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a/a/noun b/b/noun", True),
        ("a/a/verb b/b/verb x", True),
        ("a/a/noun b/b/verb", False),  # one of each
        ("a/a/noun a/a/noun", False),  # the same: shuffling would never end
        ("a/a/noun a/a/noun v/v/verb w/w/verb", False),
        ("a/a/noun b/b/noun v/v/verb", True),
        ("x y", False),
        ("", False),
    ],
)
def test_what_cannot_change_stays(text: str, wanted: bool) -> None:
    words = tagged(text)
    assert eligible(words) == wanted
    assert (corrupted(words, 0.1) != joined(words)) == wanted


def test_concepts_are_lemmas_of_the_sentence() -> None:
    for text in ("Two men are riding horses on a beach.", "The wheels of a bus turned slowly; children laughed."):
        words = rules(text)
        assert set(concepts(words).split()) <= {word.lemma for word in words}
        assert Counter(joined(words).replace(" ", "")) == Counter(text.replace(" ", ""))
