"""What an encoder with a decoder writes: the likelihood of texts, texts of its own, and hidden spans restored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nearfar.batch import size, split
from nearfar.distributed import local, world
from nearfar.errors import UserError
from nearfar.losses.classification import per_token, single
from nearfar.modalities.text.tagger import lemma
from nearfar.modalities.text.tokenizer import Tokens
from nearfar.nn import writer
from nearfar.precision import network

if TYPE_CHECKING:
    from nearfar.modalities.text.encoder import TextEncoder

HIDDEN, SPAN = 0.15, 3
"""Of the tokens of a sentence, the share that is hidden, and the mean length of a span (T5, arXiv 1910.10683)."""


class Writer(writer.Writer):
    """The decoder of an encoder of sentences, with the encoder, whose weights it shares."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        tokenizer = encoder.tokenizer
        self.head, self.tail = len(tokenizer.first), len(tokenizer.last)

    def forward(self, view: dict[str, Tokens]) -> Tensor:
        ids, seen = self._padded(view["source"])
        target, told = self._padded(_without_head(view["target"], self.head))
        label = target.masked_fill(~told, -100)
        net = self.encoder.net
        given = net.prepare_decoder_input_ids_from_labels(label)
        logits = net(input_ids=ids, attention_mask=seen.long(), decoder_input_ids=given).logits  # N x L x tokens
        lost = F.cross_entropy(single(logits).transpose(1, 2), label, reduction="none")  # 0 where the label is -100
        return lost.sum(1, keepdim=True)

    def filled(self, prompt: str, *views: Tokens) -> Tokens:
        tokenizer, n = self.encoder.tokenizer, len(views[0].ids)
        device, blocks, inside = views[0].ids.device, [], []
        texts = [text.strip() for text in prompt.split("{}")]
        for k, text in enumerate(texts):
            ids = tokenizer.words([text], len(prompt), told=False).ids.to(device).expand(n, -1) if text else None
            if ids is not None:
                blocks.append(ids)
                inside.append(torch.ones_like(ids, dtype=torch.bool))
            if k < len(views):
                bare = self.bare(views[k])
                blocks.append(bare.ids)
                inside.append(bare.mask)
        last = torch.tensor(tokenizer.last, device=device).expand(n, -1)
        ids, there = torch.cat([*blocks, last], 1), torch.cat([*inside, torch.ones_like(last, dtype=torch.bool)], 1)
        order, length = (~there).long().argsort(dim=1, stable=True), there.sum(1)
        return Tokens(ids.gather(1, order)[:, : int(length.max())], length)

    def bare(self, view: Tokens) -> Tokens:
        short = _without_head(view, self.head)
        return replace(short, length=short.length - self.tail)

    @torch.no_grad()
    def write(self, view: Tokens, beams: int = 1) -> Tokens:
        net, training = self.encoder.net, self.encoder.net.training
        ids, seen = self._padded(view)
        more: dict[str, Any] = {"num_beams": beams, "length_penalty": 0.6} if beams > 1 else {}
        net.eval()
        rows = net.generate(
            input_ids=ids,
            attention_mask=seen.long(),
            max_new_tokens=self.encoder.length,
            do_sample=False,
            no_repeat_ngram_size=3,
            **more,
        )
        net.train(training)
        tokenizer = self.encoder.tokenizer
        texts = tokenizer.net.decode_batch(rows.tolist(), skip_special_tokens=True)
        made = tokenizer(texts, self.encoder.length)
        return Tokens(made.ids.to(ids.device), made.length.to(ids.device))

    def texts(self, view: Tokens) -> list[str]:
        rows = [ids[:n] for ids, n in zip(view.ids.tolist(), view.length.tolist(), strict=True)]
        return self.encoder.tokenizer.net.decode_batch(rows, skip_special_tokens=True)

    def lemmas(self, view: Tokens) -> list[list[str]]:
        return [[lemma(word) for word in re.findall(r"\w+", text.lower())] for text in self.texts(view)]

    def _padded(self, view: Tokens) -> tuple[Tensor, Tensor]:
        """Numbers of tokens, and where there is one: N x L each, L being the longest of these."""
        most = int(view.length.max())
        seen = view.mask[:, :most]
        return view.ids[:, :most].masked_fill(~seen, self.encoder.pad), seen


class SpanRestorer(torch.nn.Module):
    """Span corruption (T5, arXiv 1910.10683): spans are hidden, a token of its own in the place of each, and the
    decoder writes these tokens, each followed by what it hides. Its weights are the encoder's."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        if not encoder.tokenizer.sentinels:
            raise UserError("span corruption takes a tokenizer with tokens such as <extra_id_0>, and it has none")
        self.decoder, self.head = encoder.net.get_decoder(), encoder.net.get_output_embeddings()

    def forward(self, encoder: TextEncoder, view: Tokens, generator: torch.Generator, most: int = 0) -> Tensor:
        """This rank's share of the mean, over the tokens to be written on all ranks, of minus the log-probability.

        most: sentences that pass at a time, and once more in the backward pass; 0 for all at once.
        """
        chance = local(torch.rand(world() * len(view.ids), 2, encoder.length, generator=generator))
        source, target = self.hide(encoder, view, chance)
        return per_token(self._lost(encoder, {"source": source, "target": target}, most)[:, 0], target.length)

    @network
    def _lost(self, encoder: TextEncoder, view: dict[str, Tokens], most: int) -> Tensor:
        writer, n = Writer(encoder), size(view)
        if not 0 < most < n:
            return writer(view)
        return torch.cat([checkpoint(writer, part, use_reentrant=False) for part in split(view, -(-n // most))])

    def hide(self, encoder: TextEncoder, view: Tokens, chance: Tensor) -> tuple[Tokens, Tokens]:
        """Sentences with hidden spans, and what restores them.  chance: N x 2 x at least L, uniform numbers."""
        tokenizer = encoder.tokenizer
        bare = Writer(encoder).bare(view)
        sources, targets = [], []
        for ids, n, drawn in zip(bare.ids.tolist(), bare.length.tolist(), chance.tolist(), strict=True):
            source, target, marks = [], [], iter(tokenizer.sentinels)
            for kept, hidden in spans(n, *drawn):
                source += ids[kept]
                if hidden.stop > hidden.start and (mark := next(marks, None)) is not None:
                    source.append(mark)
                    target += [mark, *ids[hidden]]
                else:
                    source += ids[hidden]
            sources.append([*source, *tokenizer.last])
            targets.append([*tokenizer.first, *target, *tokenizer.last])
        return _tokens(sources, view.ids.device), _tokens(targets, view.ids.device)


def spans(n: int, cuts: Sequence[float], gaps: Sequence[float]) -> list[tuple[slice, slice]]:
    """A sentence of n tokens as stretches that are kept, each with the one behind it that is hidden.

    Hidden are `HIDDEN` of the tokens, one at least, in spans of `SPAN` on average. cuts, gaps: uniform numbers, by
    which hidden and kept tokens are divided.
    """
    hidden = min(n - 1, max(1, round(HIDDEN * n))) if n > 1 else 0
    if not hidden:
        return [(slice(0, n), slice(n, n))]
    count = min(max(1, round(hidden / SPAN)), n - hidden)
    sizes, kept = _parts(hidden, count, cuts), _parts(n - hidden + 2, count + 1, gaps)
    kept[0], kept[-1] = kept[0] - 1, kept[-1] - 1  # none need be kept before the first span, and behind the last
    made, start = [], 0
    for before, span in zip(kept, [*sizes, 0], strict=True):
        made.append((slice(start, start + before), slice(start + before, start + before + span)))
        start += before + span
    return made


def _parts(total: int, count: int, drawn: Sequence[float]) -> list[int]:
    """A whole number as the sum of `count` positive ones, of which each such sum is as likely."""
    cuts = sorted(sorted(range(1, total), key=lambda i: drawn[i - 1])[: count - 1])
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def _without_head(view: Tokens, head: int) -> Tokens:
    return Tokens(view.ids[:, head:], view.length - head)


def _tokens(rows: Sequence[Sequence[int]], device: torch.device) -> Tokens:
    length = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([[*row, *[0] * (int(length.max()) - len(row))] for row in rows])
    return Tokens(ids.to(device), length.to(device))
