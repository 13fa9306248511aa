from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nearfar.batch import cat, select, size, split
from nearfar.errors import NotFound, UserError
from nearfar.modalities.text.tokenizer import Tokenizer, Tokens

from .small import TOKENIZER, sentences


def test_the_same_sentences_give_the_same_tokenizer_and_its_spec_gives_it_back() -> None:
    again = Tokenizer.learn(sentences(100), 200)
    assert again.text == TOKENIZER.text
    back = Tokenizer.from_spec(TOKENIZER.spec())
    assert (back.text, back.size, back.mask, back.unknown) == (TOKENIZER.text, again.size, again.mask, again.unknown)
    assert again.size <= 200


def test_sentences_become_tokens_between_the_two_at_the_ends_and_are_cut_to_the_limit() -> None:
    texts = ["the film", "The Film was a complete mess in every scene", "", "zebra \u4f60 \U0001f600"]
    tokens = TOKENIZER(texts, 8)
    assert tokens.ids.shape == (4, 8)
    for row, n, text in zip(tokens.ids.tolist(), tokens.length.tolist(), texts, strict=True):
        whole = TOKENIZER.net.encode(text).ids
        assert row[:n] == (whole if len(whole) <= 8 else [*whole[:7], whole[-1]])
    assert tokens.length[2] == 2, "an empty sentence has its two ends"
    assert TOKENIZER.unknown in tokens.ids[3].tolist()
    assert tokens.ids[0, :4].tolist() == tokens.ids[1, [0, 1, 2, 7]].tolist(), "case does not count"


def test_words_are_told_and_what_is_far_behind_is_not_looked_at() -> None:
    words = TOKENIZER.words(["the film was zzfilmzz good", "story"], 50)
    assert words.count.tolist() == [5, 1]
    assert words.word[0, : words.length[0]].diff().tolist().count(1) == 4
    long = TOKENIZER.words(["film " * 300_000], 10)
    assert long.ids.shape == (1, 10)
    assert not TOKENIZER.words(["the film"], 9, told=False).word.any()


def test_tokens_of_other_lengths_are_joined_cut_and_picked_as_views_are() -> None:
    short, long = TOKENIZER(["the film"], 16), TOKENIZER(sentences(3), 16)
    both = cat([short, long])
    assert size(both) == 4
    assert both.ids[0, : short.ids.shape[1]].tolist() == short.ids[0].tolist()
    assert both.mask.sum(1).tolist() == both.length.tolist()
    first, rest = split(both, [1, 3])
    assert torch.equal(rest.ids, long.ids)
    assert torch.equal(select(both, torch.tensor([3, 0])).length, both.length[[3, 0]])
    assert isinstance(first, Tokens)


def test_a_folder_without_a_tokenizer_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(TOKENIZER.text)
    assert Tokenizer.from_folder(tmp_path).text == TOKENIZER.text
