"""What a model from text to text writes, as the table of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.evaluation.bleu import bleu
from nearfar.evaluation.intervals import of_answers
from nearfar.evaluation.protocol import packed

DRAWS = 1000
"""Of the bootstrap over sets of concepts."""

CHOICE, ORDER, HELD, BLEU = "true sentence chosen (%)", "order recovered (%)", "concepts written (%)", "BLEU-4"


@dataclass(frozen=True, kw_only=True)
class Written:
    """right, exact: N, bool, of shuffled sentences: whether the true one was likelier, whether it was written again.
    held: S, of sets of concepts the share that was written.  counts: S x 10, see `nearfar.evaluation.bleu.counts`.
    examples: concepts, what was written for them, and a true sentence."""

    right: Tensor
    exact: Tensor
    held: Tensor
    counts: Tensor
    examples: list[tuple[str, str, str]]


def writing_table(made: Mapping[str, Written], seen: int, samples: int, seed: int, how_seen: str) -> dict[str, Any]:
    """The last row is the run's own.

    seen: sentences of so many `samples` that were in training, how_seen: in what way, `Run.seen_how`.
    """
    main = list(made)[-1]
    rows, gains = {}, {}
    for name, one in made.items():
        rows[name] = _compared(one, None, seed)
        if name != main:
            gains[name] = _compared(made[main], one, seed)
    ours = made[main]
    note = (
        f"Of {len(ours.right):,} sentences whose nouns or verbs were shuffled: how often the true one is likelier than "
        "the shuffled one, where both are offered (50 % by chance), and how often it is written again word for word. "
        f"Of {len(ours.held):,} sets of concepts: the share that what is written for them holds, in any form, "
        "and BLEU against all sentences of the same set. All with 95 % intervals."
    )
    note += (
        f" {seen:,} of the {samples:,} sentences were in training{how_seen}: this says how well it knows what it saw."
        if seen
        else " No sentence was in training."
    )
    columns = [title for title in (CHOICE, ORDER, HELD, BLEU) if title in rows[main]]
    return {
        "title": "How well it writes",
        "note": note,
        "columns": columns,
        "rows": [{"name": name, "main": name == main, "values": values} for name, values in rows.items()],
        "gains": gains,
        "seen": {"samples": seen, "of": samples},
        "protocol": {"version": 1, "BLEU": "4 words, lower case, not smoothed, of the whole set", "seed": seed},
    }


def _compared(one: Written, over: Written | None, seed: int) -> dict[str, dict[str, Any]]:
    """The numbers of one, or what it gains over another on the same sentences."""
    cells: dict[str, dict[str, Any]] = {}
    for title, field in ((CHOICE, "right"), (ORDER, "exact"), (HELD, "held")):
        own = getattr(one, field)
        if len(own):
            value, low, high = of_answers(own, over=None if over is None else getattr(over, field), seed=seed)
            cells[title] = {"value": value, "low": low, "high": high}
            if over is None and title != HELD:
                cells[title]["right"] = packed(own)
    if len(one.counts):
        drawn = torch.randint(len(one.counts), (DRAWS, len(one.counts)), generator=torch.Generator().manual_seed(seed))
        value, many = _bleu(one, drawn)
        if over is not None:
            value, many = (a - b for a, b in zip((value, many), _bleu(over, drawn), strict=True))
        low, high = many.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        cells[BLEU] = {"value": float(value), "low": min(low, float(value)), "high": max(high, float(value))}
    return cells


def _bleu(one: Written, drawn: Tensor) -> tuple[Tensor, Tensor]:
    return bleu(one.counts.sum(0, keepdim=True))[0], bleu(torch.stack([one.counts[rows].sum(0) for rows in drawn]))
