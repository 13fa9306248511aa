"""Distillation: a classifier teaches another network what it says of samples without labels (SimCLRv2's last step)."""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nearfar import optim
from nearfar.batch import MISSING, Batch
from nearfar.data.digests import digests
from nearfar.data.samples import LEARNED, Samples
from nearfar.evaluation.calibration import fit_temperature
from nearfar.export.encoder import load_encoder
from nearfar.fewlabels.classifier import Classifier, embedded, new_directory, publish
from nearfar.fewlabels.finetuning import Say, Tuning, Watch, calibrated, mild, quiet_loop
from nearfar.losses.distillation import distillation
from nearfar.machine import pick_device
from nearfar.method import Encoder, Method, Step
from nearfar.training import plan as plans
from nearfar.training.journal import Journal
from nearfar.training.loop import fit

COMPARED = 2000
"""Samples on which a student's confidence is brought to its teacher's."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DistillTuning(Tuning):
    """The same for a student, which sees more samples and may begin at random weights."""

    least: ClassVar[int] = 20
    batch: int = 256
    lr: float = 1e-3


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
        (view,) = batch.views
        with torch.no_grad():
            taught = self.teacher(view)  # N x classes
        logits = self.classifier(self.embed(view))  # N x classes
        loss = distillation(
            logits,
            taught,
            temperature=self.temperature,
            label=batch.label,
            alpha=self.alpha,
            scaled=self.scaled,
        )
        return Step(loss, {"agreement": (logits.argmax(1) == taught.argmax(1)).float().mean()})


def distill(
    teacher: Classifier | str | Path,
    data: Any,
    *,
    student: str = "",
    start: str | Path = "",
    labels: Any = None,
    label_column: str = "",
    alpha: float = 1.0,
    temperature: float = 1.0,
    scaled: bool = False,
    views: str = "",
    tuning: DistillTuning | None = None,
    out: str | Path | None = None,
    say: Say = print,
    watch: Watch = lambda step, steps, numbers: None,
) -> Classifier:
    """A classifier that has learned from another on samples without labels, in a directory of its own.

    teacher: of `nearfar.finetune`, or its directory; it is left as it is.  data: samples; those of the splits val and
    test take no part.  student: an encoder's name, by default that of the teacher's; its weights begin at random, or as
    those of the run `start`.  labels: with alpha below 1 the rows that have one also teach it; with any alpha those of
    the split test measure, and those of val calibrate.  temperature, alpha, scaled: see
    `nearfar.losses.distillation.distillation`.  views: of which one is made of each sample, for both.
    """
    began = time.perf_counter()
    teacher = Classifier(teacher) if isinstance(teacher, str | Path) else teacher
    if not (0 <= alpha <= 1 and temperature > 0):
        raise ValueError(f"--alpha {alpha:g} --temperature {temperature:g}: alpha of 0 to 1 and more than 0 are wanted")
    tuning = tuning or DistillTuning()
    folder = Path(out) if out is not None else plans.free_directory("distill", data)
    run = teacher.run
    with new_directory(folder):
        samples = run.open(data, labels=labels, label_column=label_column)
        for note in samples.notes:
            say(note)
        label = _numbers(samples, teacher.classes, say)
        learn, held, test = _parts(samples, label)
        if len(learn) < 2:
            raise ValueError(f"{len(learn)} samples of {str(data)!r} are in no other split: 2 or more are needed")
        part = dataclasses.replace(samples.subset(learn), label=label[learn], classes=teacher.classes)
        part.label[part.label >= len(teacher.classes)] = MISSING
        if alpha < 1 and not bool((part.label != MISSING).any()):
            raise ValueError(f"--alpha {alpha:g} learns from labels too, and none are known: give --labels, or alpha 1")
        encoder = _student(teacher, samples, student, start, tuning.seed)
        sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (encoder, run.encoder)]
        say(
            f"{encoder.spec['name']} ({sizes[0]:.2f} M weights) learns from {str(teacher.path)!r} "
            f"({run.encoder.spec['name']}, {sizes[1]:.2f} M) on {len(learn):,} samples."
        )
        torch.manual_seed(tuning.seed)
        method = Distillation(
            encoder,
            nn.Sequential(copy.deepcopy(teacher.network), copy.deepcopy(teacher.layers[-1])),
            classes=len(teacher.classes),
            temperature=temperature,
            alpha=alpha,
            scaled=scaled,
        ).to(device := pick_device(tuning.device))
        settings = dataclasses.replace(run.settings, views=views or mild(run), view_count=1)
        viewer = run.kind.views(part, settings, run.config["made"])
        optimizer = optim.adamw(optim.parameter_groups(method, 1e-2), tuning.lr)
        loop = quiet_loop(tuning, len(part), Journal(folder / "metrics.jsonl"), watch)
        if not fit(method, part.to(device), viewer, optimizer, loop):
            raise KeyboardInterrupt
        method.cpu().eval()
        rests_on, unlearned, label = _evidence(teacher, samples, label, learn if alpha < 1 else learn[:0])
        held = torch.cat([held, unlearned]).unique()
        fitted, said = _confidence(teacher, method, samples, learn, held, label, tuning.seed)
        if not len(rests_on):
            say("None of the labeled samples behind the teacher is in DATA: predictions name no labeled neighbors.")
        facts: dict[str, Any] = {
            "train": "distilled",
            "teacher": str(teacher.path),
            "student": encoder.spec["name"],
            "start": str(start),
            "data": str(data) if isinstance(data, str | Path) else f"{type(data).__name__} in memory",
            "labels": str(labels or ""),
            "alpha": alpha,
            "distillation_temperature": temperature,
            "scaled": scaled,
            "views": settings.views,
            "learned": len(learn),
            "calibration": said,
        }
        return publish(
            folder,
            run,
            encoder,
            [method.classifier],
            samples,
            label=label,
            classes=teacher.classes,
            known=rests_on,
            held=unlearned,
            test=test,
            temperature=fitted,
            facts=facts | {"epochs": loop.epochs, "batch": loop.batch, "lr": tuning.lr, "seed": tuning.seed},
            trained_on=part,
            seconds=time.perf_counter() - began,
            say=say,
        )


def _parts(samples: Samples, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows to learn from, labeled or not, and the labeled ones of the splits val and test."""
    held, test = (samples.of_split(name) & (label != MISSING) for name in ("val", "test"))
    return samples.of_split(*LEARNED).nonzero()[:, 0], held.nonzero()[:, 0], test.nonzero()[:, 0]


def _numbers(samples: Samples, classes: list[str], say: Say) -> Tensor:
    """Labels as the teacher numbers its classes, by name; a class that it does not know gets a number behind theirs."""
    place = torch.arange(len(samples.classes) + 1) + len(classes)
    for number, name in enumerate(samples.classes):
        if name in classes:
            place[number] = classes.index(name)
    place[-1] = MISSING
    strange = [name for name in samples.classes if name not in classes]
    if strange:
        say(f"{len(strange)} classes, such as {strange[0]!r}, are none of the teacher's: their labels teach nothing.")
    return place[samples.label]


def _student(teacher: Classifier, samples: Samples, name: str, start: str | Path, seed: int) -> Encoder:
    run = teacher.run
    if start:
        encoder = load_encoder(start)
        if name and encoder.spec["name"] != name:
            raise ValueError(
                f"--from-run {str(start)!r} has the encoder {encoder.spec['name']!r}, not --student {name!r}"
            )
        return encoder
    torch.manual_seed(seed)
    settings = dataclasses.replace(run.settings, encoder=name or run.settings.encoder)
    return run.kind.encoder(samples, settings, run.config["made"])


def _confidence(
    teacher: Classifier, method: Distillation, samples: Samples, learn: Tensor, held: Tensor, label: Tensor, seed: int
) -> tuple[float | None, str]:
    """The student's temperature: by labels that nobody has learned where there are enough, else by what its teacher
    believes, which is too little where the student has become the better of the two."""
    student = nn.Sequential(method.encoder, method.classifier).eval()
    temperature, said = calibrated(embedded(student, teacher.run, samples.subset(held)), label[held])
    if temperature is not None or teacher.temperature is None:
        return temperature, said
    generator = torch.Generator().manual_seed(seed)
    part = samples.subset(learn[torch.randperm(len(learn), generator=generator)[:COMPARED]])
    believed = (teacher.logits(teacher.features(part)) / teacher.temperature).softmax(1)
    drawn = torch.multinomial(believed, 4, replacement=True, generator=generator)  # as labels would be, if it is right
    logits = embedded(student, teacher.run, part).repeat_interleave(4, dim=0)
    return fit_temperature(logits, drawn.flatten()), "temperature brought to what the calibrated teacher believes"


def _evidence(teacher: Classifier, samples: Samples, label: Tensor, learned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that are labeled samples behind the teacher, by their contents; those of them that neither has learned
    the label of; and all labels with theirs.

    learned: rows whose own labels the student has learned from: they count as well.
    """
    own = {digest: i for i, digest in enumerate(teacher.evidence.digests)}
    place = torch.tensor([own.get(digest, MISSING) for digest in digests(samples)])
    there = (place != MISSING).nonzero()[:, 0]
    label = label.clone()
    taught = learned[(label[learned] != MISSING) & (label[learned] < len(teacher.classes))]
    label[there] = teacher.evidence.label[place[there]]
    held = there[teacher.evidence.held[place[there]]]
    return torch.cat([there, taught]).unique(), held[~torch.isin(held, taught)], label
