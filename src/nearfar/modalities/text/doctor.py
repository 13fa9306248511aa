"""What is in a set of sentences."""

from __future__ import annotations

import unicodedata
from collections import Counter

import torch

from nearfar.batch import MISSING
from nearfar.errors import counted, printable
from nearfar.modalities.examination import Copies, Examination, common_warnings, equal_samples, labeled, parts
from nearfar.modalities.text.samples import TextSamples
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.modalities.text.views import FEWEST

MANY_UNKNOWN = 0.01
"""Of all tokens: where more are unknown, the tokenizer is of another language, or script."""

MANY_LONG = 0.1
"""Of all sentences: where more are longer than the encoder sees, the limit is too low."""

NEAR = 0.8
"""Of the words of two sentences together: sentences that share more are nearly copies."""


def examine(samples: TextSamples, tokenizer: Tokenizer, length: int) -> Examination:
    """Look at every sentence."""
    found = copies(samples)
    lengths, short, unknown, strange = measured(samples, tokenizer)
    room = length - len(tokenizer.first) - len(tokenizer.last)
    longer = int((lengths > room).sum())
    spread = lengths.float().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    facts = [
        ("sentences", f"{len(samples):,}" + parts(samples)),
        ("tokens", f"{spread[1]:.0f} in the middle, {spread[0]:.0f} to {spread[2]:.0f} for nine in ten"),
        ("too long", f"{longer:,} of more than {room} tokens: the rest is cut off (--length {length})"),
        ("unknown", f"{unknown:.2%} of the tokens" + (f", such as {', '.join(strange)}" if strange else "")),
        ("copies", f"{found.exact:,} the same, {found.near:,} nearly the same"),
        ("labeled", labeled(samples)),
    ]
    sound = "no empty sentences, no copies, no uneven classes, lengths within the limit, few unknown tokens"
    examination = Examination(samples=samples, copies=found, noun="sentences", facts=facts, sound=sound)
    said = examination.warnings
    if samples.skipped:
        count, first = len(samples.skipped), ", ".join(name for name, _ in samples.skipped[:3])
        are = "is" if count == 1 else "are"
        said.append(f"{counted(count, 'sentences')} {are} empty, such as {first}: training leaves them out.")
    said.extend(common_warnings(samples, found, examination.noun))
    if longer > MANY_LONG * len(samples):
        wanted = int(lengths.float().quantile(0.95)) + length - room
        said.append(
            f"{longer / len(samples):.0%} of the sentences are longer than the encoder sees: --length {wanted} would "
            "hold nineteen in twenty, at more time a step."
        )
    if unknown > MANY_UNKNOWN:
        said.append(
            f"{unknown:.1%} of the tokens are unknown to the tokenizer ({', '.join(strange)}): it was made for another "
            "language or script. Leave --tokenizer out to learn one from these sentences, or raise --vocabulary."
        )
    if short > len(samples) / 10:
        said.append(
            f"{short / len(samples):.0%} of the sentences have {FEWEST} words or fewer: views leave them as they are, "
            "and only the encoder's dropout tells their views apart."
        )
    return examination


def measured(samples: TextSamples, tokenizer: Tokenizer) -> tuple[torch.Tensor, int, float, list[str]]:
    """Tokens of each sentence of the first column, N; how many have `FEWEST` words or fewer; the share of unknown
    tokens, and the characters they stand for most often."""
    lengths, short, unknown, total = [], 0, 0, 0
    strange: Counter[str] = Counter()
    for start in range(0, len(samples), 1024):
        texts = [row[0] for row in samples.texts[start : start + 1024]]
        for text, one in zip(texts, tokenizer.net.encode_batch(texts, add_special_tokens=False), strict=True):
            ids = one.ids
            lengths.append(len(ids))
            total += len(ids)
            short += len(set(one.word_ids)) <= FEWEST
            if tokenizer.unknown is not None and tokenizer.unknown in ids:
                places = [slice(*span) for i, span in zip(ids, one.offsets, strict=True) if i == tokenizer.unknown]
                unknown += len(places)
                strange.update(printable(text[place])[:20] for place in places)
    return torch.tensor(lengths), short, unknown / max(total, 1), [repr(word) for word, _ in strange.most_common(3)]


def copies(samples: TextSamples) -> Copies:
    """Which sentences are the same, and which nearly: the same but for case, punctuation and white space, or of words
    of which more than `NEAR` are common to both."""
    same = equal_samples(samples).same
    words = [frozenset(_plain(" ".join(row)).split()) for row in samples.texts]
    forms: dict[str, int] = {}
    root = list(range(len(words)))

    def top(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, row in enumerate(samples.texts):
        first = forms.setdefault(" ".join(_plain(" ".join(row)).split()) or " ".join(row), i)
        root[top(i)] = top(first)
    for i, j in _alike(words):
        root[top(j)] = top(i)
    sets = Counter(map(top, range(len(words))))
    number = {r: k for k, r in enumerate(r for r in sets if sets[r] > 1)}
    group = torch.tensor([number.get(top(i), MISSING) for i in range(len(words))], dtype=torch.int64)
    return Copies(group, same)


def _plain(text: str) -> str:
    """A text in lower case, of letters and digits alone; of one that has none all that it holds."""
    text = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return plain if plain.strip() else text


def _alike(words: list[frozenset[str]]) -> list[tuple[int, int]]:
    """Pairs of sentences of which more than `NEAR` of all their words are common.

    Such pairs share one of the few rarest words of each (prefix filtering): only these are compared.
    """
    often = Counter(word for one in words for word in one)
    holders: dict[str, list[int]] = {}
    pairs = []
    for i, one in enumerate(words):
        if len(one) < 1 / (1 - NEAR):  # of so few words more than a share in common is all
            continue
        rare = sorted(one, key=lambda word: (often[word], word))[: len(one) - int(NEAR * len(one))]
        seen = {j for word in rare for j in holders.get(word, ())}
        pairs += [(j, i) for j in seen if len(one & words[j]) > NEAR * len(one | words[j])]
        for word in rare:
            holders.setdefault(word, []).append(i)
    return pairs
