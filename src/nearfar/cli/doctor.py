"""`nearfar doctor DATA`: what is in the data, before training, and the command that trains on them."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nearfar import modalities
from nearfar.cli.flags import ForceArg, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import DataArg, Reading
from nearfar.data.csv import MISSING_WORDS
from nearfar.errors import AlreadyThere, UserError, counted, printable
from nearfar.files import insist_free, is_checked, name_text
from nearfar.ranges import AtMostHalf, NonNegativeFloat, NonNegativeInt

if TYPE_CHECKING:
    from nearfar.modalities.examination import Advice, Examination
    from nearfar.modalities.kind import Kind
    from nearfar.training.pace import Pace
    from nearfar.training.plan import Plan

SHOWN = ("encoder", "views", "batch", "epochs")
"""Settings that are shown in any case."""

BUDGETS = (5, 30, 120)
"""Minutes for which it is said how far training comes."""

FEWEST_TESTED = 10
"""Samples below which a test says nothing, so that none are held out for it."""

USUAL = 30.0
"""Minutes that training may take, if nobody says how many."""

FEW = 200
"""Steps below which little is gained: glyphs gained no kNN in the 24 of two minutes (docs/results.md)."""

STEPS, EPOCHS = 10_000, 1000
"""Of a run for which minutes were named, at most: more teach little."""

FEWEST = 1000
"""Steps below which cheaper ones teach more: of photographs for five minutes, 2,700 at 32 px were better than 680 at
64 px by 5 points of kNN (docs/results.md)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor(Reading):
    """Look at images, a table or sentences before training: broken files, copies, uneven classes, columns that are
    empty, give the label away or are a label; how to train on what is there, and how long that takes."""

    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label; or the word folders."""
    kind: str = ""
    """What the samples are: image, table, text, video, or the path of your own. By default recognized from DATA."""
    label_column: str = ""
    """The column of that file, or of the table, which holds the labels; by default label, where there is one."""
    drop: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of a table whose numbers are codes."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are values all the same."""
    encoder: str = ""
    """The network to train; by default what suits the data and the machine."""
    size: NonNegativeInt = 0
    """Side of the views; 0 takes the images' own up to 64, else 128, on a CPU 64."""
    minutes: NonNegativeFloat = 0.0
    """The time that training may take, from which the number of epochs follows; 0 takes the epochs of the recipe, or
    what of them fits in 30 minutes."""
    hold_out: AtMostHalf = 0.2
    """The share of the labeled samples to be named test where the method learns from labels and no split is known; 0
    lets it learn from all."""
    out: str = ""
    """Where the table of labels, splits and copies goes, if there is one to write; DATA-labels.csv beside DATA by
    default."""
    force: ForceArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advised:
    """How to train. plan: as `nearfar train` will have it.  choices: of method and flags, with reasons.
    words: the command.  pace: of its steps.  most: the epochs that are of use."""

    plan: Plan
    choices: list[Advice]
    words: list[str]
    pace: Pace
    most: int


def doctor(argv: list[str]) -> int:
    """Examine, and print."""
    began = time.perf_counter()
    asked = parsed(Doctor, "doctor", argv)
    out = Path(asked.out) if asked.out else beside(asked.data)
    if out.exists() and Path(asked.data).exists() and out.samefile(asked.data):
        raise AlreadyThere(f"--out {str(out)!r} is DATA itself: name another file")
    insist_free(out, force=asked.force or is_checked(out))  # its own table, as it left it, it may write again
    from nearfar.modalities import kind as kinds
    from nearfar.training import plan as plans

    kind = kinds.of(asked.kind or modalities.kind_of(asked.data, asked.given()))
    looking = plans.make("simclr", asked.data, None, _given(asked, kind, {"max_bad": 1.0}), kind=asked.kind)
    samples = kind.samples(asked.data, looking.settings)
    opened = time.perf_counter() - began
    examination = kind.examine(samples, looking.settings)
    tell(examination.facts)
    for note in samples.notes:
        print(note)
    print()
    for warning in examination.warnings:
        print(f"- {warning}")
    if not examination.warnings:
        print(f"Nothing to mend: {examination.sound}.")
    given: dict[str, Any] = _given(asked, kind)
    examination, held = hold_out(asked.hold_out, kind, examination)
    if held:
        print(f"{counted(held, examination.noun)} with labels named test; --hold-out 0 lets all be learned from.")
    if held or (examination.copies.group >= 0).any():
        given |= write(out, asked, kind, looking, examination)
        print(f"Labels, splits and the sets of copies as groups: {out}")
    if examination.too_little:
        print(f"\nToo little to learn from. {examination.too_little}")
        return 0
    given |= {a.name: a.value for a in examination.flags}
    advised = advise(asked, kind, examination, given)
    print()
    tell(times(advised, opened))
    print()
    for choice in advised.choices:
        print(f"  {choice.name:<14} {_shown(choice.value):<10} {choice.reason}".rstrip())
    for caution in cautions(advised, examination):
        print(f"\n- {caution}")
    print(f"\n{shell(advised.words)}")
    return 0


def hold_out(share: float, kind: Kind, examination: Examination) -> tuple[Examination, int]:
    """The same with a share of the labeled samples named test, and how many these are: 0 where the method that is
    advised needs no labels, where something is held out already, or there is too little to test with. Copies are on
    one side, those without a label as well, and no class is tested of which nothing is left to learn from.
    """
    import torch

    from nearfar import methods
    from nearfar.batch import MISSING
    from nearfar.data.cells import LabelCells
    from nearfar.data.labels import number
    from nearfar.data.splits import holdout

    samples = examination.samples
    few = share * int((samples.label != MISSING).sum()) < FEWEST_TESTED
    if few or len(examination.to_train()) < len(samples):
        return examination, 0
    if not methods.load(kind.method_advice(examination.to_train()).value).needs_labels:
        return examination, 0
    label, group = samples.label, number(examination.groups(LabelCells()))[0]
    alone = -1 - torch.arange(len(samples))  # a number that no group has
    unit = torch.where(group == MISSING, alone, group)
    try:
        learned, tested = holdout(label, group, share=share)
    except UserError:  # a sample a class, or all of one group: the last line of `cautions` says what to do
        return examination, 0
    needed = unit[tested[~torch.isin(label[tested], label[learned])]]
    held = torch.isin(unit, unit[tested]) & ~torch.isin(unit, needed)
    split = ["test" if test else part for test, part in zip(held.tolist(), samples.split, strict=True)]
    count = int((held & (label != MISSING)).sum())
    return dataclasses.replace(examination, samples=dataclasses.replace(samples, split=split)), count


def beside(data: str) -> Path:
    """Where the table goes if no other place is named: beside DATA, or here where nothing can be written there."""
    path = Path(data)
    path = path if path.name not in ("", "..") else path.resolve()
    stem = path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem
    folder = path.parent
    if not path.exists() or not os.access(folder, os.W_OK) or name_text(str(folder)) != str(folder):
        folder = Path()
    return folder / f"{name_text(stem)}-labels.csv".replace("\\", "")


def write(out: Path, asked: Doctor, kind: Kind, plan: Plan, examination: Examination) -> dict[str, Any]:
    """Write the table of labels and groups, and give the flags by which training reads it."""
    from nearfar.data.cells import write_labels

    given = kind.cells(asked.data, plan.settings, examination.samples)
    write_labels(out, examination.samples, examination.groups(given), given, column=asked.label_column or "label")
    words = {*asked.keep_words, *MISSING_WORDS.intersection(examination.samples.classes)}
    return {"labels": str(out), **({"keep_words": tuple(sorted(words))} if words else {})}


def advise(asked: Doctor, kind: Kind, examination: Examination, given: dict[str, Any]) -> Advised:
    """The method, the encoder and the epochs for these samples, as fast as some steps of them are here.

    given: flags that training gets in any case.
    """
    from nearfar.modalities.examination import Advice
    from nearfar.training import plan as plans
    from nearfar.training.build import settled
    from nearfar.training.pace import pace

    samples = examination.to_train()
    method = kind.method_advice(samples)

    def planned(flags: dict[str, Any]) -> Plan:
        """As `nearfar train` has it once the samples are open."""
        return settled(plans.make(method.value, asked.data, None, flags, kind=asked.kind), samples)

    plan, minutes = planned(given), asked.minutes or USUAL
    speed, usual, cheaper = pace(plan, samples), kind.Settings().encoder, {}
    asked_for = set(given)
    while speed.epochs(60 * minutes) * speed.per_epoch < FEWEST:
        choice = kind.cheaper(plan.settings, samples)
        if choice is None or choice.name in asked_for:
            break
        cheaper[choice.name] = f"{choice.reason}, as less than {FEWEST:,} steps of that would fit in {minutes:g} min"
        given = given | {choice.name: choice.value}
        plan = planned(given)
        speed = pace(plan, samples)
    reasons = plan.reasons | cheaper
    if asked.encoder == "" and plan.settings.encoder != usual:
        other = pace(plans.with_flags(plan, {"encoder": usual}), samples)
        times = f"{spell(speed.step)} a step; {usual} takes {spell(other.step)}"
        reasons["encoder"] = "; ".join(filter(None, (reasons.get("encoder"), times)))
    most = plan.settings.epochs
    if asked.minutes and "epochs" not in reasons:  # else the recipe says why there are no more
        most = min(EPOCHS, max(most, -(-STEPS // speed.per_epoch)))
    epochs = max(1, min(most, speed.epochs(60 * minutes)))
    if epochs != plan.settings.epochs:
        given = given | {"epochs": epochs}
        plan = planned(given)
        reasons["epochs"] = f"what fits in {minutes:g} min" if epochs < most else f"{STEPS:,} steps are plenty"
    reasons |= {choice.name: choice.reason for choice in examination.flags}
    if given.get("labels", asked.labels) != asked.labels:
        reasons["labels"] = "says which are copies, and which are there to test with: these are not learned from"
    chosen = dataclasses.asdict(plan.settings) | plan.arguments | {"batch": speed.batch}
    named = list(dict.fromkeys((*SHOWN, *reasons, *given)))
    choices = [method, *(Advice(name, chosen[name], reasons.get(name, "")) for name in named if name in chosen)]
    words = ["nearfar", "train", method.value, asked.data]
    words += ["--kind", asked.kind] if asked.kind else []
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return Advised(plan=plan, choices=choices, words=words, pace=speed, most=most)


def times(advised: Advised, opened: float) -> list[tuple[str, str]]:
    """How long training takes, and how far it comes in other times. opened: seconds that it took to come so far."""
    pace, epochs = advised.pace, advised.plan.settings.epochs

    def length(epochs: int) -> str:
        return f"{counted(epochs, 'epochs')}, {counted(epochs * pace.per_epoch, 'steps')}"

    facts = [
        ("memory", f"about {pace.memory / 2**30:.1f} GiB for a batch of {pace.batch}"),
        ("one step", f"{spell(pace.step)}: {advised.plan.settings.encoder}, batch {pace.batch}, {pace.device}"),
        ("whole run", f"about {spell(pace.seconds(epochs) + 2 * opened)}: {length(epochs)}, from start to end"),
    ]
    for budget in BUDGETS:
        fit = min(advised.most, pace.epochs(60 * budget))
        facts.append(
            (f"in {budget} min", length(fit) if fit else f"not one epoch, which takes {spell(pace.seconds(1))}")
        )
    return facts


def cautions(advised: Advised, examination: Examination) -> Iterator[str]:
    """What makes the advice worth less than it looks."""
    from nearfar import methods

    pace, epochs = advised.pace, advised.plan.settings.epochs
    if (steps := epochs * pace.per_epoch) < min(FEW, advised.most * pace.per_epoch):
        enough = pace.seconds(math.ceil(FEW / pace.per_epoch)) / 60
        yield f"{counted(steps, 'steps')} are too few to gain much: give --minutes {math.ceil(enough)} or more."
    samples = examination.samples
    if methods.load(advised.plan.method).needs_labels and len(examination.to_train()) == len(samples):
        yield (
            f"All labels are learned from, so that none are left to test with: name some {examination.noun} test in a "
            "column split of --labels, or measure on others by `nearfar evaluate RUN DATA --test OTHERS`."
        )


def shell(words: list[str]) -> str:
    """Words as a line for a shell; what terminals cannot show, such as bytes that are not UTF-8, as $'...'."""
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    safe = set(range(32, 127)) - set(b"\\'")
    return "$'" + "".join(chr(b) if b in safe else f"\\x{b:02x}" for b in os.fsencode(word)) + "'"


def tell(facts: list[tuple[str, str]]) -> None:
    """Print names and what is to be said of them, in two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, text in facts:
        grid.add_row(Text(printable(name)), Text(printable(text)))
    Console(highlight=False, soft_wrap=True).print(grid)


def spell(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shown(value: Any) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _given(asked: Doctor, kind: Kind, more: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The flags that training gets as they were given here, and `more`, if its kind of data has them.

    Raises ValueError for one that is not for this kind of data.
    """
    names = ("labels", "label_column", "drop", "categorical", "keep_words", "size", "encoder")
    usual = {f.name: f.default for f in dataclasses.fields(Doctor)}
    given = {name: value for name in names if (value := getattr(asked, name)) != usual[name]} | asked.given()
    known = {f.name for f in dataclasses.fields(kind.Settings)}
    if strange := [name for name in given if name not in known]:
        raise UserError(f"--{strange[0].replace('_', '-')} is not for data of the kind {kind.name}")
    return given | {name: value for name, value in more.items() if name in known}
