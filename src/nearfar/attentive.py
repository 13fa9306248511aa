"""How well labels can be told from the tokens of a run's encoder, beside its representation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.errors import UserError
from nearfar.evaluation.attentive import attentive_answers
from nearfar.evaluation.evaluate import evaluate, summary
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.evaluation.protocol import Result
from nearfar.owner import writes
from nearfar.ranges import Seed, checked
from nearfar.report.measured import results_table
from nearfar.run import Run
from nearfar.training import probe as probing

Say = Callable[[str], None]
MOST = 2**31
"""Bytes that the tokens of all samples may take."""


@writes
@checked
def attentive(
    run: Run,
    data: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    keep_words: Sequence[str] = (),
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """The attentive probe of `nearfar.evaluation.attentive`, on the last maps of the encoder, beside neighbors and the
    linear probe on its representation, of the trained encoder and of what it began with, on the same splits.

    Arguments: see `Run.evaluate`.
    Raises ValueError for an encoder without maps, without labels, and where tokens would take more than 2 GiB.
    Writes results/attentive-DATA-DIGEST.json and returns what it holds.
    """
    shape = run.map_shape()  # or an error, before anything is opened
    run.insist_there(data, labels, label_column, f"--attentive takes labels, and none are known: {run.kind.unlabeled}")
    samples = run.open(data, labels=labels, label_column=label_column, keep_words=keep_words)
    for note in samples.notes:
        say(note)
    if (size := 4 * math.prod(shape) * len(samples)) > MOST:
        raise UserError(
            f"maps of {' x '.join(map(str, shape))} of {len(samples):,} samples would take {size / 2**30:.1f} GiB, "
            f"more than {MOST / 2**30:g}: leave out --attentive, or give fewer samples"
        )
    splits, tested = run.splits(samples, seed, say)
    known, plain = run.seen(samples), run.kind.plain(run.encoder)
    group = samples.group if bool((samples.group != MISSING).any()) else None
    evaluations = {}
    for name, encoder in (run.beginnings() | {"trained encoder": run.encoder}).items():
        rows = (probing.embed if encoder is run.encoder else probing.passed)(encoder, plain, samples, run.batch)
        results = evaluate(
            rows,
            samples.label,
            splits,
            group=group,
            seen_in_training=bool(known[tested].any()),
            solver=ridge,
            strengths=RIDGE_STRENGTHS,
            seed=seed,
        )
        some = probing.each_map(encoder, plain, samples, batch=min(64, run.batch))
        tokens = torch.cat([maps.flatten(2).mT for maps in some])  # N x T x C
        evaluations[name] = results | {"attentive": _measured(tokens, samples.label, splits, group, seed)}
    table = results_table(
        evaluations,
        samples.classes,
        int(known[tested].sum()),
        len(tested),
        len(splits),
        run.seen_how,
        None if group is None else group[tested],
    )
    table["title"] = "How well labels can be told from tokens"
    table["note"] += f" The attentive probe was trained once for each split, with the seed {seed}."
    return run.kept(table, "attentive", data, [fingerprint(digests(samples), samples)], known)


def _measured(
    tokens: Tensor, label: Tensor, splits: list[tuple[Tensor, Tensor]], group: Tensor | None, seed: int
) -> Result:
    answers, choices, notes = [], [], []
    for train, test in splits:
        own = None if group is None else group[train]
        answer, chosen, said = attentive_answers(tokens[train], label[train], tokens[test], group=own, seed=seed)
        answers.append(answer)
        choices.append(chosen)
        notes += [note for note in said if note not in notes]
    named = [f"decay {one['decay']:g}" for one in choices]
    config = {
        "chosen": {name: named.count(name) for name in named},
        "tokens": f"{tokens.shape[1]} of {tokens.shape[2]}",
        "splits": len(splits),
        "seed": seed,
    }
    tested = torch.cat([test for _, test in splits])
    return summary("attentive", torch.cat(answers), label, group, tested, config, notes, seed)
