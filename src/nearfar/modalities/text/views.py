"""Views of sentences: words are deleted, shuffled, masked or cut off, or nothing is and the encoder's dropout differs;
or a sentence beside its concepts.

Words are edited whole, before a sentence is cut to the tokens that the encoder sees. A sentence of `FEWEST` words or
fewer stays as it is. All chance lies in `Draws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nearfar.batch import to
from nearfar.errors import UserError
from nearfar.modalities.text.concepts import Tagger, concepts, corrupted, eligible, joined
from nearfar.modalities.text.tagger import tagger as tagger_of
from nearfar.modalities.text.tokenizer import Tokenizer, Tokens, Words

FEWEST = 3
"""Words of a sentence, at most, that views leave as it is."""

FURTHEST = 4
"""Times the tokens that an encoder sees which views look at: the rest of a longer text is never used."""

SPAN = 3
"""Words of a masked span, on average (geometric)."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sentences:
    """N sentences, as samples hold them: no tensor. device: where views of them are wanted."""

    texts: Sequence[str]
    device: torch.device = CPU

    def count(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> Sentences:
        return replace(self, device=device)

    def select(self, index: Tensor) -> Sentences:
        return replace(self, texts=[self.texts[i] for i in index.tolist()])

    def pin(self) -> Sentences:
        return self


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance behind the views of N sentences: uniform numbers, N x V x M."""

    numbers: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws(self.numbers[rows])


def deletion(words: Words, chance: Tensor, strength: float = 0.2, mask: int | None = None) -> Words:
    """Without each word with probability `strength`; one stays in any case.  chance: N x M uniform numbers."""
    drawn = _of_word(words, chance)
    best = torch.where(words.inside, drawn, -1.0).amax(1, keepdim=True)
    return words.kept((drawn >= strength) | (drawn == best))


def crop(words: Words, chance: Tensor, strength: float = 0.3, mask: int | None = None) -> Words:
    """A stretch of the sentence, at a random place: all but `strength` of its words, and one at least."""
    keep = (words.count * (1 - strength)).round().long().clamp(min=1)  # N
    start = (chance[:, 0] * (words.count - keep + 1)).long()
    return words.kept((words.word >= start[:, None]) & (words.word < (start + keep)[:, None]))


def reorder(words: Words, chance: Tensor, strength: float = 0.3, mask: int | None = None) -> Words:
    """With a stretch of `strength` of its words, at a random place, in random order."""
    span = (words.count * strength).ceil().long()
    start = (chance[:, 0] * (words.count - span + 1)).long()[:, None]
    end = start + span[:, None]
    shuffled = start + _of_word(words, chance[:, 1:]) * span[:, None]
    key = torch.where((words.word >= start) & (words.word < end), shuffled, words.word.float())
    return words.ordered(key.masked_fill(~words.inside, math.inf), words.length)


def span_mask(words: Words, chance: Tensor, strength: float = 0.15, mask: int | None = None) -> Words:
    """With stretches of words, of `SPAN` on average, each replaced by one token that hides them, until `strength` of
    the words are hidden.

    mask: the number of that token; without one the words are deleted.
    """
    wanted = (words.count * strength).ceil()  # N
    hidden = torch.zeros_like(words.inside)
    lengths, starts = chance.chunk(2, 1)[0], chance.chunk(2, 1)[1]
    lengths = 1 + (lengths.clamp(min=1e-6).log() / math.log(1 - 1 / SPAN)).floor()
    for step in range(starts.shape[1]):
        left = wanted - _words_in(words, hidden)
        if not bool((left > 0).any()):
            break
        begin = (starts[:, step] * words.count).floor()
        end = begin + torch.minimum(lengths[:, step], left)
        hidden |= (words.word >= begin[:, None]) & (words.word < end[:, None]) & words.inside
    first = hidden & ~torch.nn.functional.pad(hidden, (1, 0))[:, :-1]
    if mask is None:
        return words.kept(~hidden | (hidden.sum(1) == words.length)[:, None])
    covered = Words(words.ids.masked_fill(first, mask), words.word, words.length)
    return covered.kept(~hidden | first)


def _of_word(words: Words, chance: Tensor) -> Tensor:
    """A number for each token, the same for the tokens of one word: N x L."""
    return chance.gather(1, words.word.clamp(max=chance.shape[1] - 1))


def _words_in(words: Words, which: Tensor) -> Tensor:
    """How many words the tokens are of: N. which: N x L, bool, whole words."""
    begins = words.word != torch.nn.functional.pad(words.word, (1, 0), value=-1)[:, :-1]
    return (which & begins).sum(1)


Edit = Callable[..., Words]

EDITS: dict[str, Edit] = {"deletion": deletion, "reorder": reorder, "mask": span_mask, "crop": crop}


@dataclass(frozen=True, slots=True)
class View:
    """How one view is made. edit: of `EDITS`, or one's own; None leaves the sentence as it is.  strength: of it; 0 has
    the usual one."""

    edit: Edit | None = None
    strength: float = 0.0


class Views:
    """Turn sentences into V views, `Tokens` each.

    Of samples that are pairs or triplets, view v is of column v; of single sentences all views are of these.
    length: tokens that an encoder sees.  columns: of sentences in a sample.
    """

    alike = True

    def __init__(self, views: Sequence[View], tokenizer: Tokenizer, length: int, columns: int = 1) -> None:
        if columns > 1 and len(views) != columns:
            raise UserError(f"sentences in {columns} columns make as many views, and {len(views)} are wanted")
        self.views, self.tokenizer, self.length, self.columns = tuple(views), tokenizer, length, columns
        self.random = any(view.edit for view in views)
        self.most = FURTHEST * length if self.random else length

    def __len__(self) -> int:
        return len(self.views)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        return Draws(torch.rand(n, len(self), self.most + 1 if self.random else 0, generator=generator))

    def __call__(self, *columns: Sentences, draws: Draws | None = None) -> list[Tokens]:
        """columns: of sentences, as `fetch` gives them.  draws: from `draw`; not needed where nothing is edited."""
        return [self.tokenizer.closed(words, self.length) for words in self.edited(*columns, draws=draws)]

    def edited(self, *columns: Sentences, draws: Draws | None = None) -> list[Words]:
        """The same before it is cut, and without the tokens at the ends."""
        made = self.unedited(*columns)
        if draws is None:
            return made
        return [
            words if view.edit is None else self._edit(view, words, draws.numbers[:, v].to(words.ids.device))
            for v, (view, words) in enumerate(zip(self.views, made, strict=True))
        ]

    def unedited(self, *columns: Sentences) -> list[Words]:
        """What each view is made of."""
        known = [
            to(self.tokenizer.words(column.texts, self.most, told=self.random), column.device)
            for column in columns[: self.columns]
        ]
        return [known[v % len(known)] for v in range(len(self))]

    def cut(self, made: Sequence[Words]) -> list[Words]:
        """Views as far as an encoder sees them."""
        most = self.length - len(self.tokenizer.first) - len(self.tokenizer.last)
        return [Words(w.ids[:, :most], w.word[:, :most], w.length.clamp(max=most)) for w in made]

    def _edit(self, view: View, words: Words, chance: Tensor) -> Words:
        strength = {"strength": view.strength} if view.strength else {}
        assert view.edit is not None
        edited = view.edit(words, chance, mask=self.tokenizer.mask, **strength)
        short = (words.count <= FEWEST)[:, None]
        width = words.ids.shape[1] - edited.ids.shape[1]
        ids, word = (torch.nn.functional.pad(part, (0, width)) for part in (edited.ids, edited.word))
        return Words(
            torch.where(short, words.ids, ids),
            torch.where(short, words.word, word),
            torch.where(short[:, 0], words.length, edited.length),
        )


class ConceptViews(Views):
    """Turn a sentence into four views (CALM, arXiv 2011.07956): itself; its words with blanks between; the same with
    nouns and verbs in another order, or the same where none can change places; and its concepts.

    tagger: finds them.  columns: 2 where the samples bring the concepts, as their second column.
    """

    def __init__(self, tagger: Tagger, tokenizer: Tokenizer, length: int, columns: int = 1) -> None:
        super().__init__([View()] * 4, tokenizer, length)
        self.tagger, self.columns, self.random = tagger, columns, True

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        return Draws(torch.rand(n, 1, 1, generator=generator))

    def edited(self, *columns: Sentences, draws: Draws | None = None) -> list[Words]:
        texts, device = columns[0].texts, columns[0].device
        seeds = [0.0] * len(texts) if draws is None else draws.numbers[:, 0, 0].tolist()
        found = [self.tagger(text) for text in texts]
        given = columns[1].texts if self.columns > 1 else [concepts(one) if eligible(one) else "" for one in found]
        made = (texts, [*map(joined, found)], [*map(corrupted, found, seeds)], given)
        return [to(self.tokenizer.words(view, self.most), device) for view in made]


def views(
    name: str,
    tokenizer: Tokenizer,
    *,
    length: int,
    strength: float = 0.0,
    count: int = 0,
    columns: int = 1,
    tagger: str = "rules",
) -> Views:
    """The views called `name`: dropout, where sentences stay as they are, deletion, reorder, mask, crop, or concepts.

    count: so many of them; 0 makes two, or one for each of several columns.  tagger: of concepts, see `Settings`.
    Raises ValueError for another name, and where pairs, triplets or concepts are to have another number of views.
    """
    if name == "concepts":
        if count not in (0, 4):
            raise UserError(f"--views concepts makes 4 views, and --view-count is {count}: leave it out")
        return ConceptViews(tagger_of(tagger), tokenizer, length, columns)
    if name not in ("dropout", *EDITS):
        raise UserError(f"--views {name!r} is not for sentences: choose one of dropout, {', '.join(EDITS)}, concepts")
    view = View(EDITS.get(name), strength)
    return Views([view] * (count or max(2, columns)), tokenizer, length, columns)


def plain(tokenizer: Tokenizer, length: int) -> Views:
    """Sentences as they are; of pairs and triplets the first."""
    return Views([View()], tokenizer, length)
