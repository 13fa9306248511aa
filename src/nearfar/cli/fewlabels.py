"""`nearfar finetune`, `predict`, `distill` and `label-plan`: from a run and a few labels to names for new samples."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearfar.cli.flags import CheckpointArg, ForceArg, OnDevice, command, from_here, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import DataArg, OfRun, RunArg, TrustArg, opened
from nearfar.errors import UserError, counted, printable
from nearfar.fewlabels.settings import DistillSettings, FinetuneSettings, LabelPlanSettings
from nearfar.files import insist_free, insist_text
from nearfar.ranges import NonNegativeInt
from nearfar.training import plan as plans

if TYPE_CHECKING:
    from nearfar.fewlabels.classifier import Classifier, Predictions

ClassifierArg = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="CLASSIFIER", help="A directory that `nearfar finetune` or distill made; with --prompts a run."
    ),
]
SHOWN = 20
"""Samples whose predictions are shown in the terminal; those of more go to a file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune(OfRun):
    """A classifier on few labels, from the encoder of a run: a linear layer on frozen features, or the whole network
    fine-tuned. Rows of the split test are measured, rows of the split val choose; of the rest a part may be asked for.

    What is written is a run directory with a classifier in it: `nearfar predict` names new samples with it, and
    evaluate, embed, export and report work on it as on any run."""

    run: RunArg
    data: DataArg
    checkpoint: CheckpointArg = "last"
    out: str = ""
    """Where it goes; runs/finetune-DATA-N by default. One that exists is never overwritten."""
    resume: bool = False
    """Go on with the one that was begun in --out, from its newest checkpoint."""
    trust: TrustArg = False
    settings: FinetuneSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(OfRun, OnDevice):
    """Label, probability and the nearest labeled samples of new samples, by a classifier that `nearfar finetune` made;
    or, with --prompts, the nearest class that words describe, by a run on pairs.

    Up to 20 are shown here; more, or with --out, go to a CSV of path, label, probability, calibrated (yes or no),
    near_1, near_1_label, near_1_similarity, and so on; with --prompts, of path, label, prompt_1, prompt_1_label,
    prompt_1_similarity, and so on."""

    classifier: ClassifierArg
    data: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="DATA",
            help="Files, or a folder, an archive, a list of paths, or a table.",
            help_behavior_hint="(required)",
        ),
    ]
    out: str = ""
    """Where the CSV goes; predictions.csv by default."""
    force: ForceArg = False
    near: NonNegativeInt = 3
    """Labeled samples, or prompts, to name beside each."""
    prompts: str = ""
    """For a run on pairs: prompts for the other side, one a line, or a table of them and of the label that each stands
    for."""
    tower: str = ""
    """With --prompts: the side that DATA are of; by default the one whose kind they are."""
    trust: TrustArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(OfRun):
    """Another network, of the same size or smaller, learns what a classifier says of samples without labels (SimCLRv2,
    arXiv 2006.10029). Samples of the splits val and test take no part; labeled ones of test are measured."""

    classifier: ClassifierArg
    data: DataArg
    out: str = ""
    """Where it goes; runs/distill-DATA-N by default. One that exists is never overwritten."""
    resume: bool = False
    """Go on with the one that was begun in --out, from its newest checkpoint."""
    trust: TrustArg = False
    settings: DistillSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanLabels(OfRun, OnDevice):
    """Which samples to label next: a table to fill in, and an image of them.

    Of a run, those that stand for many (coverage); of a classifier, those that stand for many it is unsure of. Samples
    that have a label, or are of the split test or val, are not asked for. What is written is a table for --labels: fill
    in its label column.
    """

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="A run, or a directory of `nearfar finetune`.")
    ]
    data: DataArg
    out: str = "label-plan.csv"
    """Where the table goes, and beside it the image, of the same name with .png."""
    force: ForceArg = False
    trust: TrustArg = False
    settings: LabelPlanSettings


def finetune(argv: list[str]) -> int:
    """Make a classifier."""
    call = parsed(Finetune, "finetune", argv)
    from nearfar.cli.console import Console
    from nearfar.fewlabels.finetuning import finetune

    insist_text(call.out, "--out")
    run = opened(call.run, call.checkpoint, trust=call.trust).reading(call.given())
    out = Path(call.out) if call.out else plans.free_directory("finetune", call.data)
    with _stoppable("finetune", argv, call, out), Console() as console:
        how: dict[str, Any] = {"out": out, "resume": call.resume, "say": console.say, "watch": console.watch}
        classifier = finetune(run, call.data, call.settings, **how)
    _conclude(classifier, call.data)
    return 0


def distill(argv: list[str]) -> int:
    """Teach another network."""
    call = parsed(Distill, "distill", argv)
    from nearfar.cli.console import Console
    from nearfar.fewlabels.classifier import Classifier
    from nearfar.fewlabels.distillation import distill

    insist_text(call.out, "--out")
    teacher = Classifier(call.classifier, trust=call.trust)
    teacher.run.reading(call.given())
    out = Path(call.out) if call.out else plans.free_directory("distill", call.data)
    with _stoppable("distill", argv, call, out), Console() as console:
        how: dict[str, Any] = {"out": out, "resume": call.resume, "say": console.say, "watch": console.watch}
        classifier = distill(teacher, call.data, call.settings, **how)
    _conclude(classifier, call.data)
    return 0


@contextmanager
def _stoppable(name: str, argv: list[str], call: Finetune | Distill, out: Path) -> Iterator[None]:
    """Within: whoever stops the command reads how to go on, if anything was saved."""
    try:
        yield
    except UserError:
        with suppress(OSError):  # a directory that came to nothing; rmdir spares one that holds anything
            out.rmdir()
        raise
    except KeyboardInterrupt:
        from nearfar.fewlabels.publish import ASKED

        if (out / ASKED).exists():  # it is gone where nothing was saved
            words = shlex.join(["nearfar", name, *argv]) + ("" if call.out else f" --out {shlex.quote(str(out))}")
            print(f"Stopped and saved. Go on with: {words}{'' if call.resume else ' --resume'}")
        raise


def _conclude(classifier: Classifier, data: str) -> None:
    """Where a classifier is, how far its probabilities can be trusted, and what to do with it."""
    print(f"Probabilities: {classifier.facts['calibration']}.")
    print(f"Classifier: {classifier.path}\nReport:     {classifier.run.report(print)}")
    flags = {"trust": bool(classifier.run.config["code"])}
    print(f"Go on:      {command('predict', classifier.path, data, flags=flags)}")


def predict(argv: list[str]) -> int:
    """Name new samples."""
    call = parsed(Predict, "predict", argv)
    if len(call.data) == 0:
        raise UserError("nothing to name: give files, a folder, an archive, a list of paths, or a table")
    out = Path(call.out or "predictions.csv")
    if call.out:
        insist_free(out, force=call.force)
    (first, *others) = call.data
    if call.prompts:
        return _by_prompts(call, list(call.data) if others else first, out)
    from nearfar.fewlabels.classifier import Classifier

    classifier = Classifier(call.classifier, trust=call.trust)
    classifier.run.reading(call.given()).on(call.device, call.batch)
    samples = classifier.open(call.data if others else first)
    for note in samples.notes:
        print(note)
    if len(samples) > SHOWN:
        insist_free(out, force=call.force)
    predictions = classifier.predict(samples, near=call.near)
    if len(predictions) <= SHOWN:
        face = classifier.run.kind.tiles(samples).face
        _show(predictions, [_with_words(name, face.words(i)) for i, name in enumerate(predictions.names)])
    if len(predictions) > SHOWN or call.out:
        print(f"{counted(len(predictions), 'predictions')}: {predictions.write(out)}")
    if samples.skipped:
        files = counted(len(samples.skipped), "files")
        print(f"{files} could not be read: no row, such as of {samples.skipped[0][0]!r}")
    if not predictions.calibrated:
        print(f"Probabilities: {classifier.facts['calibration']}. Read them as an order only.")
    return 0


def _by_prompts(call: Predict, data: str | list[str], out: Path) -> int:
    """Name new samples by words alone."""
    from nearfar import across
    from nearfar.run import load

    tower = call.tower or across.side_of(load(call.classifier, trust=call.trust), data)
    run = load(call.classifier, tower=tower, trust=call.trust).reading(call.given()).on(call.device, call.batch)
    named = across.name(run, data, call.prompts, near=max(1, call.near), say=print)
    if len(named) > SHOWN:
        insist_free(out, force=call.force)
    else:
        _show_each(named.names, named.label, named.near)
    if len(named) > SHOWN or call.out:
        print(f"{counted(len(named), 'predictions')}: {named.write(out)}")
    print("Similarities are cosines: of one sample they can be compared, and they are no probabilities.")
    return 0


def _with_words(name: str, words: str) -> str:
    """A sample's name, with what is read of it."""
    return f"{name}: {textwrap.shorten(words, 90, placeholder=' ...')}" if words else name


def _show(predictions: Predictions, names: list[str]) -> None:
    rows = zip(predictions.label, predictions.probability.tolist(), strict=True)
    _show_each(names, [f"{label}  {100 * p:.0f} %" for label, p in rows], predictions.near)


def _show_each(names: list[str], said: list[str], near: list[list[tuple[str, str, float]]]) -> None:
    for name, label, others in zip(names, said, near, strict=True):
        print(f"{printable(name)}\n  {label}")
        for other, own, cosine in others:
            print(f"    {cosine:.2f} like {printable(other)}" + (f", which is {own}" if own != other else ""))


def label_plan(argv: list[str]) -> int:
    """Propose samples to label."""
    call = parsed(PlanLabels, "label-plan", argv)
    table = Path(call.out)
    image = table.with_suffix(".png")
    for path in (table, image):
        insist_free(path, force=call.force, holds="perhaps with labels in it")
    from nearfar.fewlabels.classifier import Classifier
    from nearfar.fewlabels.label_plan import label_plan
    from nearfar.fewlabels.store import is_classifier
    from nearfar.files import replace
    from nearfar.run import load

    model = Classifier(call.run, trust=call.trust) if is_classifier(call.run) else load(call.run, trust=call.trust)
    run = (model.run if isinstance(model, Classifier) else model).reading(call.given()).on(call.device, call.batch)
    plan = label_plan(model, call.data, call.settings)
    for note in plan.samples.notes:
        print(note)
    kind = run.kind
    sheet = kind.grid(plan.samples, plan.chosen, plan.captions())
    replace(image, lambda temporary: sheet.save(temporary, format="PNG"))
    plan.write(table, label_column=call.settings.label_column or "label")
    print(
        f"{len(plan.chosen)} of {len(plan.samples):,} samples to label. With them the nearest labeled sample of each "
        f"has a mean cosine of {plan.near:.2f}; with as many drawn at random, {plan.near_random:.2f}."
    )
    print(f"To fill in: {table}\nImage:      {image}")
    flags = {"labels": from_here(table), "label_column": call.settings.label_column, "trust": call.trust}
    print(f"Go on:      {command('finetune', call.run, call.data, flags=flags)}")
    return 0
