from __future__ import annotations

from nearfar.batch import MISSING
from nearfar.modalities.text import doctor
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.tokenizer import Tokenizer

from .small import TOKENIZER, sentences

BASE = "the slow music of the second film went on far too long for us"


def test_copies_are_found_and_those_that_differ_in_a_word_or_in_signs_are_nearly_copies() -> None:
    texts = [
        *(BASE, "A film that nobody saw", BASE, BASE.upper() + "!!", BASE.replace("second", "third")),
        *("a film that nobody, saw", "something else entirely happens here", "\U0001f600", "\U0001f44d", "\U0001f600"),
    ]
    found = doctor.copies(open_texts(texts))
    group, same = found.group.tolist(), found.same.tolist()
    assert group[0] == group[2] == group[3] == group[4] != MISSING
    assert group[1] == group[5] not in (MISSING, group[0])
    assert group[6] == group[8] == MISSING
    assert group[7] == group[9] != MISSING
    assert same[0] == same[2] != MISSING
    assert [i for i, s in enumerate(same) if s != MISSING] == [0, 2, 7, 9]
    assert (found.exact, found.near) == (2, 3)


def test_near_copies_are_those_of_a_comparison_of_all_pairs() -> None:
    texts = sentences(150, seed=3)
    words = [frozenset(text.replace(",", "").split()) for text in texts]
    want = {
        (i, j)
        for j in range(150)
        for i in range(j)
        if len(words[i] & words[j]) > doctor.NEAR * len(words[i] | words[j])
    }
    got = {(min(pair), max(pair)) for pair in doctor._alike(words)}
    assert got == {pair for pair in want if min(len(words[i]) for i in pair) >= 5}
    assert got


def test_what_is_wrong_is_said_with_the_remedy() -> None:
    texts = [*sentences(60), *["the film"] * 3, "", *[" ".join(sentences(4, seed=i)) for i in range(10)]]
    samples = open_texts({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    made = doctor.examine(samples, TOKENIZER, 16)
    facts = dict(made.facts)
    assert facts["sentences"].startswith("73")
    assert facts["too long"].startswith(f"{sum(n > 14 for n in lengths(samples.texts)):,} of more than 14")
    said = "\n".join(made.warnings)
    assert "1 sentence is empty, such as 63" in said
    assert "--length" in said
    assert "unknown" not in said


def lengths(texts: list[tuple[str, ...]]) -> list[int]:
    return [len(TOKENIZER.net.encode(text, add_special_tokens=False).ids) for (text,) in texts]


def test_unknown_tokens_and_short_sentences_are_told() -> None:
    other = Tokenizer.learn(["\u0645\u0631\u062d\u0628\u0627 \u0628\u0643"] * 4, 40)
    samples = open_texts([*sentences(20), "the film", "so good", "oh no"])
    said = "\n".join(doctor.examine(samples, other, 32).warnings)
    assert "unknown to the tokenizer" in said
    assert "'the'" in said
    assert "3 words or fewer" in said
