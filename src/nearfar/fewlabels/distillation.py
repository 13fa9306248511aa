"""Distillation: a classifier teaches another network what it says of samples without labels (SimCLRv2's last step)."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar import optim
from nearfar.batch import MISSING, Batch
from nearfar.data.digests import digests
from nearfar.data.samples import Samples
from nearfar.errors import UserError, counted
from nearfar.evaluation.calibration import fit_temperature
from nearfar.export.encoder import load_encoder
from nearfar.fewlabels.classifier import FEW, Classifier, embed
from nearfar.fewlabels.publish import Draft, Say, finished, publish, workplace
from nearfar.fewlabels.rows import Rows, all_rows
from nearfar.fewlabels.settings import DistillSettings, with_keywords
from nearfar.fewlabels.temperature import Calibration, calibrate
from nearfar.fewlabels.tuned import Watch, insist_tuning
from nearfar.losses.distillation import distillation
from nearfar.method import Encoder, Method, Step
from nearfar.training import plan as plans
from nearfar.training.probe import insist_alive

COMPARED = 2000
"""Samples on which a student's confidence is brought to its teacher's."""


class Distillation(Method):
    """A student that is to say what a fixed teacher says of the same view.

    teacher: from a view to logits, N x classes; it stays in eval mode, and gets no gradient.
    temperature, alpha, scaled: of `nearfar.losses.distillation.distillation`.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: nn.Module,
        *,
        classes: int,
        temperature: float = 1.0,
        alpha: float = 1.0,
        scaled: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, classes)
        self.teacher = teacher.requires_grad_(False).eval()
        self.temperature, self.alpha, self.scaled = temperature, alpha, scaled

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> Step:
        view, *_ = batch.views  # a kind of the user's own may make more than it is asked for
        with torch.no_grad():
            target = self.teacher(view)  # N x classes
        logits = self.classifier(self.embed(view))  # N x classes
        loss = distillation(
            logits,
            target,
            temperature=self.temperature,
            label=batch.label,
            alpha=self.alpha,
            scaled=self.scaled,
        )
        return Step(loss, {"agreement": (logits.argmax(1) == target.argmax(1)).float().mean()})


def distill(
    teacher: Classifier | str | Path,
    data: Any,
    settings: DistillSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    say: Say = print,
    watch: Watch = lambda step, steps, numbers: None,
    **keywords: Any,
) -> Classifier:
    """A classifier that has learned from another on samples without labels, in a directory of its own.

    teacher: of `nearfar.finetune`, or its directory; it is left as it is.
    data: samples; those of the splits val and test take no part. With alpha below 1 the rows that have a label also
        teach it; with any alpha labeled rows of the split test measure, and those of val calibrate.
    settings, keywords: fields of `DistillSettings`, such as student="conv4", epochs=20.
    out: the directory, new unless `resume`; runs/distill-DATA-N by default.
    resume: go on with what was begun there, from its newest checkpoint, to the same bits.
    Raises TypeError for a keyword that is no field.
    """
    settings = with_keywords(settings or DistillSettings(), keywords)
    teacher = Classifier(teacher) if isinstance(teacher, str | Path) else teacher
    run = teacher.run
    if resume and out and (there := finished(Path(out), run, say)) is not None:
        return there
    insist_tuning(run, settings)
    started = _started(settings, teacher) if settings.from_run else None
    if settings.student:
        run.kind.insist_encoder(settings.student)
    folder = Path(out) if out else plans.free_directory("distill", data)
    with workplace("distill", run, lambda: teacher.network, data, settings, folder, say, resume=resume) as place:
        samples = place.samples
        rows = all_rows(samples, teacher.classes)
        for note in rows.notes:
            say(f"{note} Their labels teach nothing.")
        part = _lesson(rows, samples, settings.alpha)
        teacher.features(part.subset(range(min(len(part), FEW))))  # or an error, before the student learns from it
        encoder = started or _student(teacher, part, settings)
        sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (encoder, run.encoder)]
        say(
            f"{encoder.spec['name']} ({sizes[0]:.2f} M weights) learns from {str(teacher.path)!r} "
            f"({run.encoder.spec['name']}, {sizes[1]:.2f} M) on {len(part):,} samples."
        )
        torch.manual_seed(settings.seed)
        method = Distillation(
            encoder,
            nn.Sequential(copy.deepcopy(teacher.network), copy.deepcopy(teacher.layers[-1])),
            classes=len(teacher.classes),
            temperature=settings.temperature,
            alpha=settings.alpha,
            scaled=settings.scaled,
        )
        training = place.trainer(settings, watch).train(method, part, optim.parameter_groups(method, 1e-2))
        known, held, rows = _evidence(teacher, samples, rows, rows.learn if settings.alpha < 1 else rows.learn[:0])
        if not len(known):
            say("None of the labeled samples behind the teacher is in DATA: predictions name no labeled neighbors.")
        student = nn.Sequential(method.encoder, method.classifier).eval()
        draft = Draft(
            encoder=encoder,
            layers=[method.classifier],
            rows=rows,
            known=known,
            held=held,
            calibration=_calibration(teacher, student, samples, rows, held, settings.seed),
            facts={
                "train": "distilled",
                "teacher": str(teacher.path),
                "student": encoder.spec["name"],
                "start": settings.from_run,
                "label_column": settings.label_column,
                "alpha": settings.alpha,
                "distillation_temperature": settings.temperature,
                "scaled": settings.scaled,
                "seed": settings.seed,
                "learned": len(part),
                **training,
            },
            trained_on=part,
            how="distilled",
        )
        return publish(place, draft)


def _lesson(rows: Rows, samples: Samples, alpha: float) -> Samples:
    """The samples that the student learns from, with their labels as far as the teacher knows their classes."""
    if len(rows.learn) < 2:
        raise UserError(
            f"{counted(len(rows.learn), 'samples')} in no split val or test: 2 or more to learn from are needed"
        )
    part = rows.of(samples, rows.learn)
    part.label[part.label >= len(rows.classes)] = MISSING
    if alpha < 1 and not bool((part.label != MISSING).any()):
        raise UserError(f"--alpha {alpha:g} learns from labels too, and none are known: give --labels, or alpha 1")
    return part


def _started(settings: DistillSettings, teacher: Classifier) -> Encoder:
    """The encoder of the run that the student begins with."""
    name, encoder = settings.student, load_encoder(settings.from_run, trust=teacher.run.trust)
    insist_alive(encoder, str(settings.from_run))
    if name and encoder.spec["name"] != name:
        raise UserError(
            f"--from-run {str(settings.from_run)!r} has the encoder {encoder.spec['name']!r}, not --student "
            f"{name!r}: leave out one of the two"
        )
    return encoder


def _student(teacher: Classifier, samples: Samples, settings: DistillSettings) -> Encoder:
    """A new network."""
    run, name = teacher.run, settings.student
    torch.manual_seed(settings.seed)
    own = dataclasses.replace(run.settings, encoder=name or run.settings.encoder)
    return run.kind.encoder(samples, own, run.config["made"])


def _calibration(
    teacher: Classifier, student: nn.Module, samples: Samples, rows: Rows, held: Tensor, seed: int
) -> Calibration:
    """The student's temperature: by labels that nobody has learned where there are enough, else by what its teacher
    says, which is too little where the student has become the better of the two.

    student: from views to logits.
    held: labeled rows that nobody has learned from, besides `rows.held`.
    """
    held = torch.cat([rows.held, held]).unique()
    calibration = calibrate(embed(student, teacher.run, samples.subset(held)), rows.label[held])
    if calibration.temperature is not None or teacher.temperature is None:
        return calibration
    generator = torch.Generator().manual_seed(seed)
    part = samples.subset(rows.learn[torch.randperm(len(rows.learn), generator=generator)[:COMPARED]])
    p = teacher.probabilities(teacher.features(part))
    drawn = torch.multinomial(p, 4, replacement=True, generator=generator)  # as labels would be, if it is right
    logits = embed(student, teacher.run, part).repeat_interleave(4, dim=0)
    return Calibration(fit_temperature(logits, drawn.flatten()), calibration.rows, teacher=True)


def _evidence(teacher: Classifier, samples: Samples, rows: Rows, learned: Tensor) -> tuple[Tensor, Tensor, Rows]:
    """The rows that are labeled samples behind the teacher, known by their contents; those of them that neither has
    learned the label of; and all rows with the teacher's labels for these.

    learned: rows whose own labels the student has learned from: they count as well.
    """
    own = {digest: i for i, digest in enumerate(teacher.evidence.digests)}
    place = torch.tensor([own.get(digest, MISSING) for digest in digests(samples)])
    there = (place != MISSING).nonzero()[:, 0]
    label = rows.label.clone()
    taught = learned[(label[learned] != MISSING) & (label[learned] < len(teacher.classes))]
    label[there] = teacher.evidence.label[place[there]]
    held = there[teacher.evidence.held[place[there]]]
    known = torch.cat([there, taught]).unique()
    return known, held[~torch.isin(held, taught)], dataclasses.replace(rows, label=label)
