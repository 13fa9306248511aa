"""From a run and a few labels to a classifier: a linear layer on frozen features, or the whole network fine-tuned."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nearfar.batch import MISSING
from nearfar.data.labels import alike, some
from nearfar.errors import UserError, counted
from nearfar.fewlabels.classifier import FEW, Classifier, embed
from nearfar.fewlabels.frozen import frozen
from nearfar.fewlabels.publish import Draft, Say, Workplace, finished, publish, workplace
from nearfar.fewlabels.rows import Rows, hold_out, labeled_rows
from nearfar.fewlabels.settings import FinetuneSettings, given, with_keywords
from nearfar.fewlabels.store import is_classifier, read
from nearfar.fewlabels.temperature import calibrate
from nearfar.fewlabels.tuned import Watch, insist_tuning, tune
from nearfar.method import Encoder, Stage
from nearfar.nn.heads import first_layers
from nearfar.run import Run
from nearfar.training import plan as plans


def finetune(
    run: Run | str | Path,
    data: Any,
    settings: FinetuneSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    say: Say = print,
    watch: Watch = lambda step, steps, numbers: None,
    **keywords: Any,
) -> Classifier:
    """A classifier on few labels, from the encoder of a run, written to a directory of its own.

    run: a run, or its directory; it is left as it is.
    data: samples of which some have labels.
    settings, keywords: fields of `FinetuneSettings`, such as labels="labels.csv", train="full".
    out: the directory, new unless `resume`; runs/finetune-DATA-N by default.
    resume: go on with what was begun there, from its newest checkpoint, to the same bits.
    Raises TypeError for a keyword that is no field.
    """
    settings = with_keywords(settings or FinetuneSettings(), keywords)
    run = copy.copy(Run(run) if isinstance(run, str | Path) else run)
    run.__dict__.pop("encoder", None)  # that of the caller stays where it is
    run.on(settings.device, run.batch)
    if resume and out and (there := finished(Path(out), run, say)) is not None:
        return there
    unlabeled = f"no sample to learn from has a label: {run.kind.unlabeled}"
    run.insist_there(data, given(settings), settings.label_column, unlabeled)
    head = _head(run, settings.layer)
    if settings.train == "full":
        insist_tuning(run, settings)
    folder = Path(out) if out else plans.free_directory("finetune", data)
    with workplace("finetune", run, lambda: run.encoder, data, settings, folder, say, resume=resume) as place:
        rows = labeled_rows(
            place.samples,
            share=settings.share,
            per_class=settings.per_class,
            seed=settings.seed,
            unlabeled=run.kind.unlabeled,
        )
        for note in rows.notes:
            say(note)
        if is_classifier(run.path) and (pairs := alike(read(run.path).classes, rows.classes)):
            say(f"Classes of {str(run.path)!r} and of the labels differ only in how they are written: {some(pairs)}.")
        encoder = copy.deepcopy(run.encoder) if settings.weights == "trained" else run.untrained()
        if settings.train == "full":
            embed(encoder, run, place.samples.subset(rows.learn[:FEW]))  # or an error, before it is trained
            encoder.cpu()
        which = f"the {settings.weights} encoder"
        which += f" and the projector up to layer {settings.layer}" if settings.layer else ""
        say(
            f"{counted(len(rows.learn), 'labels')} of {counted(len(rows.classes), 'classes')}, on {which} of "
            f"{str(run.path)!r}, {settings.train}."
        )
        make = _on_frozen_features if settings.train == "frozen" else _by_tuning
        draft = make(place, rows, encoder, head, settings, watch)
        facts = {
            "run": str(run.path),
            "checkpoint": run.checkpoint,
            **{name: getattr(settings, name) for name in ("label_column", "share", "per_class", "train", "layer")},
            **{name: getattr(settings, name) for name in ("weights", "seed")},
            "learned": len(rows.learn),
            "held_out": len(draft.held),
        }
        return publish(place, dataclasses.replace(draft, facts=facts | draft.facts))


def _on_frozen_features(
    place: Workplace, rows: Rows, encoder: Encoder, head: nn.Sequential, settings: FinetuneSettings, watch: Watch
) -> Draft:
    """A linear layer, fitted to all labeled rows."""
    network = nn.Sequential(encoder, *head).eval().to(place.run.device)
    learned, kept = (embed(network, place.run, place.samples.subset(part)) for part in (rows.learn, rows.held))
    network.cpu()
    group = place.samples.group[rows.learn]
    layer, calibration, facts = frozen(
        learned,
        rows.label[rows.learn],
        group=group if bool((group != MISSING).any()) else None,
        held=(kept, rows.label[rows.held]) if len(rows.held) else None,
        seed=settings.seed,
    )
    if accuracies := facts["held_out_accuracy"]:
        say = f"{max(accuracies):.1f} % are named right by a classifier that learned from the others"
        place.say(f"In {facts['held_out_parts']} folds of the labeled rows, {say}.")
    return Draft(
        encoder=encoder,
        layers=[*head, layer],
        rows=rows,
        known=torch.cat([rows.learn, rows.held]).sort().values,
        held=rows.held,
        calibration=calibration,
        facts=facts,
    )


def _by_tuning(
    place: Workplace, rows: Rows, encoder: Encoder, head: nn.Sequential, settings: FinetuneSettings, watch: Watch
) -> Draft:
    """The whole network fine-tuned, with some rows held out where there are enough."""
    samples, run = place.samples, place.run
    parts = hold_out(rows, samples.group, settings.seed)
    place.say(_held_out(rows, parts))
    network = Stage(encoder, *head, dim=_width(encoder.dim, head)).eval()
    method, facts = tune(
        network,
        parts.of(samples, parts.learn),
        parts.of(samples, parts.held) if len(parts.held) else None,
        place.trainer(settings, watch),
    )
    logits = embed(nn.Sequential(network, method.classifier), run, samples.subset(parts.held))
    known = torch.cat([parts.learn, parts.held]).unique()
    return Draft(
        encoder=encoder,
        layers=[*head, method.classifier],
        rows=parts,
        known=known,
        held=parts.held,
        calibration=calibrate(logits, parts.label[parts.held]),
        facts=facts,
        trained_on=samples.subset(known),
        how="fine-tuned",
    )


def _held_out(rows: Rows, parts: Rows) -> str:
    if len(rows.held):
        return f"The {len(rows.held)} labeled rows of the split val choose the epoch."
    if len(parts.held):
        return f"{len(parts.held)} of {len(rows.learn)} labeled rows are held out: they choose the epoch."
    return (
        f"{len(rows.learn)} labels of {len(rows.classes)} classes are too few to hold some out: all are learned from, "
        "the last epoch is kept, and probabilities are not calibrated."
    )


def _head(run: Run, layer: int) -> nn.Sequential:
    """A copy of the projector of a run, up to a layer."""
    if not layer:
        return nn.Sequential()
    if is_classifier(run.path):
        raise UserError(f"--layer {layer}: {str(run.path)!r} is a classifier, and has no projector")
    projector = getattr(run.method, "projector", None)
    if projector is None:
        raise UserError(f"--layer {layer}: {run.config['method']!r} has no projector; 0 is the encoder alone")
    return copy.deepcopy(first_layers(projector, layer))


def _width(dim: int, head: nn.Sequential) -> int:
    return next((part.out_features for part in reversed(head) if isinstance(part, nn.Linear)), dim)
