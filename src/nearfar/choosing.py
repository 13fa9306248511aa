"""The checkpoints of a run side by side, by scores that need no labels, and by labels where there are some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearfar.batch import MISSING
from nearfar.errors import NotFound, UserError
from nearfar.evaluation.evaluate import evaluate_knn
from nearfar.report.choice import checkpoints_table, scored
from nearfar.run import Run, named
from nearfar.training import probe as probing
from nearfar.training.journal import Journal
from nearfar.training.saved import by_epoch


def checkpoints(
    run: Run,
    data: Any = None,
    *,
    labels: Any = None,
    label_column: str = "",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The checkpoints that can be had by their epoch, with the scores that were measured in training, which take no
    labels; and the one that `checkpoint="auto"` is, with the reason as "note".

    data: labeled, on which the kNN accuracy of each is measured, as `Run.evaluate` does; without data it is that of the
    probe, where there was one. A checkpoint that is damaged or has collapsed is told, and has no accuracy.
    Raises FileNotFoundError where no checkpoint was kept, ValueError where data have no labels or no checkpoint can be
    measured.
    """
    there = by_epoch(run.path, run.config)
    metrics = Journal(run.path / "metrics.jsonl").read()
    if not there or not scored(metrics):
        raise NotFound(
            f"{str(run.path)!r} has no checkpoints to choose from: `nearfar train` keeps some, and measures them, with "
            "--keep-every EPOCHS"
        )
    if data is None:
        probed = {round(line["epoch"]): line["knn"] for line in metrics if "knn" in line and line["step"] > 0}
        known = {epoch: {"value": value} for epoch, value in probed.items() if epoch in there}
        return checkpoints_table(metrics, there, known, f" of {str(run.path)!r}")
    run.insist_there(data, labels, label_column, f"kNN takes labels, and none are known: {run.kind.unlabeled}")
    samples = run.open(data, labels=labels, label_column=label_column)
    for note in samples.notes:
        say(note)
    splits, _ = run.splits(samples, seed, say)
    group = samples.group if bool((samples.group != MISSING).any()) else None
    known, plain = {}, run.kind.plain(run.encoder)
    for epoch in there:
        try:
            features = probing.embed(Run(run.path, epoch, run.tower, run.network, run.trust).encoder, plain, samples)
        except UserError as error:  # which is no reason not to choose among the others
            say(f"epoch {epoch} is not measured: {error}")
            continue
        made = evaluate_knn(features, samples.label, splits, group=group, seed=seed)
        known[epoch] = {"value": made["accuracy"], "low": made["low"], "high": made["high"]}
    if not known:
        raise UserError(f"no checkpoint of {str(run.path)!r} can be measured, for the reasons above")
    return checkpoints_table(metrics, there, known, f" of {str(run.path)!r}, on {named(data)!r}")
