from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.text.tokenizer import Words
from nearfar.modalities.text.views import EDITS, FEWEST, Sentences, View, Views, views

from .small import TOKENIZER, sentences

TEXTS = [*sentences(40), " ".join(sentences(12, seed=1)), "the film", "her slow music"]
WORDS = TOKENIZER.words(TEXTS, 200)


def chance(seed: int = 0) -> Tensor:
    return torch.rand(len(TEXTS), 201, generator=torch.Generator().manual_seed(seed))


def rows(words: Words) -> list[list[int]]:
    return [row[:n] for row, n in zip(words.ids.tolist(), words.length.tolist(), strict=True)]


def numbered(words: Words) -> list[list[int]]:
    """Which words are left, each once."""
    found = [row[:n] for row, n in zip(words.word.tolist(), words.length.tolist(), strict=True)]
    return [list(dict.fromkeys(row)) for row in found]


def is_subsequence(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(token in rest for token in part)


def test_deletion_drops_whole_words_at_its_rate_and_keeps_one() -> None:
    made = EDITS["deletion"](WORDS, chance(), 0.3)
    for part, whole in zip(rows(made), rows(WORDS), strict=True):
        assert part
        assert is_subsequence(part, whole)
    for kept, row, drawn in zip(numbered(made), numbered(WORDS), chance().tolist(), strict=True):
        assert kept == ([w for w in row if drawn[w] >= 0.3] or kept)
    lost = 1 - sum(map(len, numbered(made))) / sum(map(len, numbered(WORDS)))
    assert lost == pytest.approx(0.3, abs=0.05)
    assert set(map(len, numbered(EDITS["deletion"](WORDS, chance(), 1.0)))) == {1}


def test_crop_is_one_stretch_of_the_words_that_are_wanted() -> None:
    made = EDITS["crop"](WORDS, chance(), 0.4)
    starts = set()
    for kept, whole in zip(numbered(made), numbered(WORDS), strict=True):
        assert len(kept) == max(1, round(0.6 * len(whole)))
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        starts.add(kept[0])
    assert len(starts) > 3


def test_reorder_keeps_all_words_and_moves_those_of_one_stretch() -> None:
    made, moved = EDITS["reorder"](WORDS, chance(), 0.5), 0
    for part, whole, order in zip(rows(made), rows(WORDS), numbered(made), strict=True):
        assert sorted(part) == sorted(whole)
        away = [place for place, word in enumerate(order) if place != word]
        assert not away or away[-1] - away[0] < math.ceil(0.5 * len(order))
        moved += bool(away)
    assert moved > len(TEXTS) / 2


def test_span_mask_hides_so_many_words_and_keeps_the_others_in_order() -> None:
    mask = TOKENIZER.mask
    made = EDITS["mask"](WORDS, chance(), 0.3, mask=mask)
    spans = []
    for part, whole, kept, words in zip(rows(made), rows(WORDS), numbered(made), numbered(WORDS), strict=True):
        left = [token for token in part if token != mask]
        assert is_subsequence(left, whole)
        assert (mask, mask) not in pairwise(part)
        covered = len(words) - len(kept) + part.count(mask)  # a span keeps its first word's place
        assert covered == math.ceil(0.3 * len(words))
        spans.append(covered / max(1, part.count(mask)))
    assert 1 < sum(spans) / len(spans) < 4


@pytest.mark.parametrize("name", EDITS)
def test_views_are_the_same_of_the_same_draws_differ_else_and_leave_short_sentences(name: str) -> None:
    maker = views(name, TOKENIZER, length=24)
    draws = maker.draw(len(TEXTS), torch.Generator().manual_seed(3))
    one, other = maker(Sentences(TEXTS), draws=draws)
    again, _ = maker(Sentences(TEXTS), draws=draws)
    assert torch.equal(one.ids, again.ids)
    assert rows_of(one) != rows_of(other)
    # A sample's views do not depend on its batch.
    part, _ = maker(Sentences(TEXTS[5:9]), draws=draws.rows(slice(5, 9)))
    assert rows_of(part) == rows_of(one)[5:9]
    whole = TOKENIZER(TEXTS, 24)
    short = [i for i in range(len(TEXTS)) if WORDS.count[i] <= FEWEST]
    assert short
    for view in (one, other):
        assert int(view.length.max()) <= 24
        assert all(rows_of(view)[i] == rows_of(whole)[i] for i in short)
        assert all(row[0] == TOKENIZER.first[0] and row[-1] == TOKENIZER.last[0] for row in rows_of(view))


def rows_of(view: object) -> list[list[int]]:
    return rows(Words(view.ids, view.ids, view.length))  # pyright: ignore[reportAttributeAccessIssue]


def test_dropout_leaves_the_sentence_and_columns_are_views_of_their_own() -> None:
    one, other = views("dropout", TOKENIZER, length=24)(Sentences(TEXTS))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.ids, TOKENIZER(TEXTS, 24).ids)
    three = views("dropout", TOKENIZER, length=24, columns=3)
    made = three(Sentences(TEXTS[:2]), Sentences(TEXTS[2:4]), Sentences(TEXTS[4:6]))
    assert [rows_of(view) for view in made] == [rows_of(TOKENIZER(TEXTS[i : i + 2], 24)) for i in (0, 2, 4)]
    with pytest.raises(UserError, match="in 3 columns make as many views"):
        views("dropout", TOKENIZER, length=24, count=2, columns=3)
    with pytest.raises(UserError, match="choose one of dropout"):
        views("simclr", TOKENIZER, length=24)


def test_an_edit_of_ones_own_is_a_function() -> None:
    def backward(words: Words, drawn: Tensor, mask: int | None = None) -> Words:
        return words.ordered(torch.where(words.inside, -words.word, 10_000), words.length)

    (made,) = Views([View(backward)], TOKENIZER, 40)(
        Sentences(TEXTS[:1]), draws=Views([View(backward)], TOKENIZER, 40).draw(1, torch.Generator())
    )
    assert sorted(rows_of(made)[0]) == sorted(rows_of(TOKENIZER(TEXTS[:1], 40))[0])
    assert rows_of(made) != rows_of(TOKENIZER(TEXTS[:1], 40))
