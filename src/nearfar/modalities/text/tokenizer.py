"""Sentences as numbers: a tokenizer, learned from sentences or read from a folder, and what it makes of them."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.distributed import gather, highest
from nearfar.errors import UserError
from nearfar.modalities.text.settings import insist_installed, insist_tokenizer

CHARACTERS = 64
"""Of a text for each token that is wanted: the rest is not even divided into tokens."""

LONGEST = 8192
"""Characters of a text, at most, from which a tokenizer is learned: one word of a megabyte would take minutes."""

SPECIAL = {"pad": "[PAD]", "unknown": "[UNK]", "first": "[CLS]", "last": "[SEP]", "mask": "[MASK]"}
MASKS = ("[MASK]", "<mask>", "[mask]")
SENTINEL = "<extra_id_{}>"
UNKNOWNS = ("[UNK]", "<unk>", "[unk]")


@dataclass(frozen=True)
class Tokens:
    """N sentences as an encoder takes them. ids: N x L, int64, whatever behind the end.  length: N, int64, tokens.

    other, share: N sentences that are mixed into these, and the share, N, that stays of each; None where nothing is.
    """

    ids: Tensor
    length: Tensor
    other: Tokens | None = None
    share: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """Where there is a token: N x L, bool."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.length[:, None]

    def cat(self, others: Sequence[Tokens]) -> Tokens:
        parts = [self, *others]
        longest = max(part.ids.shape[1] for part in parts)
        ids = [pad(part.ids, (0, longest - part.ids.shape[1])) for part in parts]
        length = torch.cat([part.length for part in parts])
        if all(part.other is None for part in parts):
            return Tokens(torch.cat(ids), length)
        whole = [
            torch.ones_like(part.length, dtype=torch.float32) if part.share is None else part.share for part in parts
        ]
        first, *rest = [part if part.other is None else part.other for part in parts]
        return Tokens(torch.cat(ids), length, first.cat(rest), torch.cat(whole))

    def mixed(self, partner: Tensor, share: Tensor) -> Tokens:
        """Each with another: what `nearfar.ops.mixing.mixup` asks of views. The words' embeddings are what is mixed.

        partner: N, int64, counted over all ranks.  share: N, what stays of each.
        """
        widest = int(highest(torch.tensor(self.ids.shape[1], device=self.ids.device)))
        ids = gather(pad(self.ids, (0, widest - self.ids.shape[1])))
        return Tokens(self.ids, self.length, Tokens(ids[partner], gather(self.length)[partner]), share)


@dataclass(frozen=True)
class Words:
    """N sentences before they are edited, without the tokens at their ends.

    ids: N x L, int64.  word: N x L, int64, of which word of the sentence each token is a piece, from 0.
    length: N, int64, tokens.  What stands behind the end means nothing.
    """

    ids: Tensor
    word: Tensor
    length: Tensor

    @property
    def inside(self) -> Tensor:
        """Where there is a token: N x L, bool."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.length[:, None]

    @property
    def count(self) -> Tensor:
        """How many words each sentence has: N, int64."""
        return torch.where(self.inside, self.word + 1, 0).amax(1) if self.ids.shape[1] else self.length

    def kept(self, keep: Tensor) -> Words:
        """Some tokens of each sentence, in their order. keep: N x L, bool."""
        keep = keep & self.inside
        return self.ordered((~keep).long(), keep.sum(1))

    def ordered(self, key: Tensor, length: Tensor) -> Words:
        """The tokens in the order of their keys, those of equal keys as they stand, cut to a length. key: N x L."""
        order = key.argsort(dim=1, stable=True)
        return replace(self, ids=self.ids.gather(1, order), word=self.word.gather(1, order), length=length)


class Tokenizer:
    """A tokenizer of the package tokenizers, and what is asked of it.

    text: it as JSON, from which it is built again.  size: how many tokens it knows.  first, last: the tokens that it
    puts at the ends of a sentence.  mask: the number of the token that hides others, None where it has none.
    unknown: likewise of the one for what it does not know.  sentinels: of those that stand for hidden spans of T5.
    """

    def __init__(self, text: str) -> None:
        insist_installed()
        import tokenizers

        self.net: Any = tokenizers.Tokenizer.from_str(text)
        self.net.no_padding()
        self.net.no_truncation()
        self.text, self.size = text, self.net.get_vocab_size()
        probe = self.net.encode("a")
        special = probe.special_tokens_mask
        begin = special.index(0) if 0 in special else len(special)
        end = len(special) - special[::-1].index(0) if 0 in special else len(special)
        self.first, self.last = probe.ids[:begin], probe.ids[end:]
        known = [[i for name in names if (i := self.net.token_to_id(name)) is not None] for names in (MASKS, UNKNOWNS)]
        self.mask, self.unknown = (ids[0] if ids else None for ids in known)
        self.sentinels = [i for k in range(100) if (i := self.net.token_to_id(SENTINEL.format(k))) is not None]

    @classmethod
    def learn(cls, texts: Sequence[str], size: int, *, sentinels: int = 0) -> Tokenizer:
        """WordPiece in lower case, as BERT has it (arXiv 1810.04805), learned from sentences.

        The same sentences give the same tokenizer. size: of the vocabulary, at most.  sentinels: tokens that stand for
        hidden spans, as of T5 (arXiv 1910.10683); with them, sentences have a token at their end alone.
        """
        insist_installed()
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

        texts = [text[:LONGEST] for text in texts]
        lower, divided = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        often: Counter[str] = Counter()
        for text in texts:
            often.update(lower.normalize_str(text))
        by_count = sorted((c for c in often if not c.isspace()), key=lambda c: (-often[c], c))
        letters = sorted(by_count[: size // 4])
        marks = [SENTINEL.format(i) for i in range(sentinels)]
        trained: Any = Tokenizer(models.WordPiece(unk_token=SPECIAL["unknown"]))  # pyright: ignore[reportCallIssue]
        trained.normalizer, trained.pre_tokenizer = lower, divided
        # Letters are numbered here: the trainer numbers those inside words as it meets them, each time in another
        # order, and by these numbers pairs that are as frequent are told apart.
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=[*SPECIAL.values(), *marks, *(f"##{c}" for c in letters)],
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            show_progress=False,
        )
        trained.train_from_iterator(texts, trainer)
        model: Any = models.WordPiece
        net: Any = Tokenizer(model(trained.get_vocab(), unk_token=SPECIAL["unknown"], max_input_chars_per_word=100))
        net.normalizer, net.pre_tokenizer, net.decoder = lower, divided, decoders.WordPiece()
        net.add_special_tokens([*SPECIAL.values(), *marks])
        first, last = SPECIAL["first"], SPECIAL["last"]
        net.post_processor = processors.TemplateProcessing(
            single=f"$0 {last}" if marks else f"{first} $0 {last}",
            special_tokens=[(word, net.token_to_id(word)) for word in (first, last)],
        )
        return cls(net.to_str())

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """That of a folder. Raises FileNotFoundError where there is none, ValueError where it cannot be read."""
        path = insist_tokenizer(folder)
        try:
            return cls(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises Exception itself
            raise UserError(f"{str(path)!r} is no tokenizer that can be read: {error}") from error

    @classmethod
    def from_spec(cls, packed: str) -> Tokenizer:
        """The one that `spec` describes."""
        return cls(zlib.decompress(base64.b85decode(packed)).decode())

    def spec(self) -> str:
        """All of it in one word, for files that people read."""
        return base64.b85encode(zlib.compress(self.text.encode(), 9)).decode()

    def words(self, texts: Sequence[str], most: int, *, told: bool = True) -> Words:
        """The first `most` tokens of each sentence, and of which words they are.

        told: without it these are all 0, which is quicker.
        """
        encode = self.net.encode_batch if told else self.net.encode_batch_fast
        found = encode([text[: CHARACTERS * most] for text in texts], add_special_tokens=False)
        rows = [one.ids[:most] for one in found]
        length = np.array(list(map(len, rows)), np.int64)
        ids, word = np.zeros((2, len(rows), int(length.max(initial=0))), np.int64)
        for i, own in enumerate(rows):
            ids[i, : len(own)] = own
            if told:
                word[i, : len(own)] = [0 if w is None else w for w in found[i].word_ids[:most]]
        return Words(torch.from_numpy(ids), torch.from_numpy(word), torch.from_numpy(length))

    def closed(self, words: Words, length: int) -> Tokens:
        """Sentences as an encoder takes them: cut to `length` tokens, those at their ends included."""
        head, tail = len(self.first), len(self.last)
        ids = words.ids[:, : max(0, length - head - tail)]
        n = words.length.clamp(max=ids.shape[1])
        ids = torch.cat([ids.new_tensor(self.first).expand(len(ids), -1), ids, ids.new_zeros(len(ids), tail)], 1)
        for place, token in enumerate(self.last):
            ids = ids.scatter(1, (head + n + place)[:, None], token)
        n = head + n + tail
        return Tokens(ids[:, : int(n.max()) if len(n) else 0], n)

    def __call__(self, texts: Sequence[str], length: int) -> Tokens:
        """Sentences as an encoder takes them, as they are."""
        return self.closed(self.words(texts, length, told=False), length)

    def pieces(self, view: Tokens) -> list[list[str]]:
        """The tokens of sentences, one by one."""
        rows = zip(view.ids.tolist(), view.length.tolist(), strict=True)
        return [[self.net.decode([token], skip_special_tokens=False) for token in row[:n]] for row, n in rows]

    def decode(self, words: Words) -> list[str]:
        """What sentences say after they were edited."""
        rows = [row[:n] for row, n in zip(words.ids.tolist(), words.length.tolist(), strict=True)]
        return self.net.decode_batch(rows, skip_special_tokens=False)
