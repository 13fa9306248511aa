"""How well a model that was trained from text to text writes, and tells true sentences from shuffled ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nearfar import methods
from nearfar.batch import cat, select
from nearfar.data.digests import digests, fingerprint
from nearfar.errors import UserError
from nearfar.evaluation.bleu import counts
from nearfar.methods.calm import CALM, CONCEPTS, ORDER, differing
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.writing import Written, writing_table
from nearfar.run import Run

PART = 64
"""Sentences that pass together."""

SHOWN = 12
"""Examples in the report."""


def learned_to_write(run: Run) -> bool:
    """Whether a run is of a method of the library that learned to write."""
    return run.config["method"] in methods.names() and methods.load(run.config["method"]).needs_writer


@writes
@checked
def writing(
    run: Run, data: Any, *, most: PositiveInt = 2000, seed: Seed = 0, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Of a run of CALM: how often the true sentence is likelier than the shuffled one, as the answer to the prompt of
    the choice; how often the order of a shuffled sentence is recovered exactly; and of sentences that are written for
    concepts the share of concepts that they hold, and BLEU against all sentences of the same concepts.

    Rows of the split test are measured where one is named.  most: sentences that are looked at; of more some are drawn.
    Raises ValueError for a run of another method, and where no sentence has concepts that could change places.
    Writes results/writing-DATA-DIGEST.json, and some of what was written to results/written.json; returns the first.
    """
    trained = run.method
    if not isinstance(trained, CALM):
        raise UserError(f"{str(run.path)!r} is a run of {run.config['method']}, which does not learn to write: as calm")
    samples: Any = run.measured(data, say)
    if len(samples) > most:
        say(f"{most:,} of {len(samples):,} sentences are looked at, drawn with seed {seed}.")
        samples = samples.at_most(most, seed)
    settings = dataclasses.replace(run.settings, views="concepts", view_count=0)
    views = run.kind.views(samples, settings, run.made)
    draws = views.draw(len(samples), torch.Generator().manual_seed(seed))
    parts = [
        views(*samples.fetch(part), draws=draws.rows(slice(int(part[0]), int(part[-1]) + 1)))
        for part in torch.arange(len(samples)).split(PART)
    ]
    made = {
        name: measured(method.eval(), parts, seed)
        for name, method in (("untrained encoder", CALM(run.untrained().cpu())), ("trained encoder", trained))
    }
    ours = made["trained encoder"]
    run.write("written", {"rows": [list(row) for row in ours.examples[:SHOWN]]})
    known = run.seen(samples)
    table = writing_table(made, int(known.sum()), len(samples), seed, run.seen_how)
    return run.kept(table, "writing", data, [fingerprint(digests(samples), samples), str(most)], known)


@torch.no_grad()
def measured(method: CALM, parts: list[Any], seed: int) -> Written:
    """What a model makes of sentences. parts: of them, each the four views of some."""
    writer, clock = method.encoder.writer(), method.clock
    right, exact = [], []
    for step, (_, words, shuffled, _) in enumerate(parts):
        method.clock = dataclasses.replace(clock, seed=seed, step=step)
        keep = differing(words, shuffled)
        prompt = method.choice(words, shuffled)
        true, other = (writer({"source": prompt, "target": view})[:, 0] for view in (words, shuffled))
        right.append((true < other)[keep])
        repaired = _words(writer.texts(writer.write(writer.filled(ORDER, shuffled), method.beams)))
        same = [a == b for a, b in zip(repaired, _words(writer.texts(words)), strict=True)]
        exact.append(torch.tensor(same)[keep])
    method.clock = clock
    sentences = _words([text for _, words, _, _ in parts for text in writer.texts(words)])
    sets: dict[str, list[int]] = {}
    concepts = cat([view for *_, view in parts])
    for i, text in enumerate(writer.texts(concepts)):
        sets.setdefault(" ".join(sorted(text.split())), []).append(i)
    sets.pop("", None)
    asked = torch.tensor([own[0] for own in sets.values()])
    texts, held = [], []
    for part in asked.split(PART):
        view = select(concepts, part)
        written = writer.write(writer.filled(CONCEPTS, view), method.beams)
        texts += writer.texts(written)
        for wanted, there in zip(writer.lemmas(view), writer.lemmas(written), strict=True):
            held.append(sum(one in there for one in wanted) / max(1, len(wanted)))
    stats = [
        counts(words, [sentences[i] for i in own]) for words, own in zip(_words(texts), sets.values(), strict=True)
    ]
    examples = [
        (name, text, " ".join(sentences[own[0]])) for (name, own), text in zip(sets.items(), texts, strict=True)
    ]
    return Written(
        right=torch.cat(right), exact=torch.cat(exact), held=torch.tensor(held), counts=_rows(stats), examples=examples
    )


def _words(texts: list[str]) -> list[list[str]]:
    """Words and signs in lower case."""
    return [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]


def _rows(rows: list[Tensor]) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, 10, dtype=torch.float64)
