"""How well labels can be told from the tokens of a run's encoder, beside its representation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import Samples
from nearfar.errors import UserError
from nearfar.evaluation.attentive import attentive_answers
from nearfar.evaluation.evaluate import evaluate, summary
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.evaluation.protocol import Result
from nearfar.method import Encoder
from nearfar.modalities.kind import plain_view
from nearfar.ops.explanation import at_rest
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
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """The attentive probe of `nearfar.evaluation.attentive`, on the last maps of the encoder, beside neighbors and the
    linear probe on its representation, of the trained and of the untrained encoder, on the same splits.

    Arguments: see `Run.evaluate`.
    Raises ValueError for an encoder without maps, without labels, and where tokens would take more than 2 GiB.
    Writes results/attentive-DATA-DIGEST.json and returns what it holds.
    """
    run.map_shape()  # or an error, before anything is opened
    run.insist_there(data, labels, label_column, f"--attentive takes labels, and none are known: {run.kind.unlabeled}")
    samples = run.open(data, labels=labels, label_column=label_column)
    for note in samples.notes:
        say(note)
    splits, tested = run.splits(samples, seed, say)
    known, plain = run.seen(samples), run.kind.plain(run.encoder)
    group = samples.group if bool((samples.group != MISSING).any()) else None
    evaluations = {}
    for name, encoder in (("untrained encoder", run.untrained()), ("trained encoder", run.encoder)):
        rows = (probing.embed if encoder is run.encoder else probing.passed)(encoder, plain, samples)
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
        tokens = _tokens(encoder, plain, samples)
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


def _tokens(encoder: Encoder, plain: Any, samples: Samples) -> Tensor:
    """The last maps of all samples as tokens: N x T x C, float32."""
    made: list[Tensor] = []
    device = next(encoder.parameters()).device
    with at_rest(encoder), torch.no_grad():
        for index in torch.arange(len(samples)).split(64):
            maps = encoder.maps(plain_view(plain, samples, index, device))[-1].float().cpu()
            if (size := 4 * maps[0].numel() * len(samples)) > MOST:
                raise UserError(
                    f"maps of {' x '.join(map(str, maps.shape[1:]))} of {len(samples):,} samples would take "
                    f"{size / 2**30:.1f} GiB, more than {MOST / 2**30:g}: leave out --attentive, or give fewer samples"
                )
            made.append(maps.flatten(2).mT)
    return torch.cat(made)
