"""`nearfar COMMAND ...`: finds the command, and reports errors of the user in one sentence, bugs in a file."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version

from nearfar import methods
from nearfar.cli.printing import allow_every_name, print
from nearfar.errors import UserError, out_of_memory
from nearfar.files import OWN_CODE

COMMANDS = {
    "demo": ("demo", "Train on packaged drawings for a minute, and show what the encoder learned."),
    "doctor": ("doctor", "DATA: check for broken files, duplicates and class imbalance; recommend how to train."),
    "train": ("train", "METHOD DATA: train an encoder; METHOD is a name or a .py file of your own."),
    "embed": ("use", "RUN DATA: write one vector for each sample, as an .npz file or as Parquet shards."),
    "search": ("embeddings", "DIR QUERY: find what is most similar to a file, words or a row."),
    "duplicates": ("embeddings", "DIR: find near-duplicates, and leaks between train and test."),
    "outliers": ("embeddings", "DIR: find what lies far from everything else."),
    "curate": ("embeddings", "DIR: choose a balanced part of the data to train on."),
    "explore": ("explore", "DIR: write a page to explore embeddings: a map, search, selection, pictures."),
    "suspects": ("embeddings", "RUN DATA: find labels that are probably wrong."),
    "evaluate": ("evaluate", "RUN DATA: measure the quality of the encoder on labeled data."),
    "checkpoints": ("use", "RUN [DATA]: show the checkpoints that were kept, and choose one, without labels too."),
    "finetune": ("fewlabels", "RUN DATA: train a classifier on few labels."),
    "predict": ("fewlabels", "CLASSIFIER FILES: predict label and probability, with the most similar labeled samples."),
    "distill": ("fewlabels", "CLASSIFIER DATA: train another network to imitate the classifier on unlabeled data."),
    "label-plan": ("fewlabels", "RUN DATA: choose the samples to label next; write a table to fill in and an image."),
    "helps": ("studies", "DATA: test whether pre-training helps, as accuracy against the number of labels."),
    "generate": ("generate", "RUN: write images that a run's generator makes; compare them with real ones."),
    "runs": ("runs", "[FOLDER]: list the runs below a folder: what differs between them, and what came out."),
    "card": ("runs", "RUN: write a model card, whose licenses are yours to fill in."),
    "report": ("use", "RUN: write one HTML page about a run."),
    "look": ("use", "RUN DATA: write a page of what the encoder has learned: filters, maps, attention, pairs."),
    "export": ("use", "RUN: write weights that load without nearfar."),
    "compare": ("studies", "METHODS DATA: compare methods at equal budget, over several seeds."),
    "transfer": ("studies", "RUNS --to DATASETS: measure runs on many data sets: one table, ranks, correlations."),
    "views": ("views", "DATA: draw samples and the views that a method would see."),
    "methods": ("methods", "[NAME] [--kind KIND]: list the methods, or describe one."),
}
"""The commands: the file in this folder that holds a function of that name, and one line for `--help`."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line. The exit status: 0 when done, 2 for a mistake in the call, the data or the machine, 1 for a
    bug, 130 when stopped."""
    allow_every_name()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"] and argv[1:2] and argv[1] in COMMANDS:  # as others write it
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"nearfar {version('nearfar')}")
        return 0
    if argv[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(argv[0], COMMANDS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        if argv[0] in methods.names():
            meant = f"; it is a method: {shlex.join(['nearfar', 'train', *argv])}"
        print(f"nearfar: there is no command {argv[0]!r}{meant}", file=sys.stderr)
        print(usage(), file=sys.stderr)
        return 2
    try:
        command = getattr(importlib.import_module(f"nearfar.cli.{COMMANDS[argv[0]][0]}"), argv[0].replace("-", "_"))
        return command(argv[1:]) or 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it once more at exit)
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("NEARFAR_TRACEBACK"):
            raise
        sentence = out_of_memory(error)
        # What the system says of a file, such as that it may not be read, needs no other words.
        if sentence is None and (isinstance(error, UserError) or (isinstance(error, OSError) and error.errno)):
            sentence = str(error)
        print(f"nearfar {argv[0]}: {bug(error, argv) if sentence is None else sentence}", file=sys.stderr)
        return 1 if sentence is None else 2


def bug(error: Exception, argv: list[str]) -> str:
    """A sentence on an error that should not have come, whose traceback it writes to a file."""
    kind = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    frames = list(traceback.walk_tb(error.__traceback__))
    lacking = type(frames[-1][0].f_locals.get("self"))
    if isinstance(error, NotImplementedError) and lacking.__module__.startswith(OWN_CODE):
        return f"{lacking.__name__}, in code of your own, has no {frames[-1][0].f_code.co_name!r}: give it one"
    own = [(f.f_code.co_filename, line) for f, line in frames if f.f_globals.get("__name__", "").startswith(OWN_CODE)]
    text = "\n".join([*_versions(), shlex.join(["nearfar", *argv]), "", "".join(traceback.format_exception(error))])
    try:
        number, name = tempfile.mkstemp(prefix="nearfar-bug-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        told = f"The traceback is in {name}"
    except OSError as problem:  # a full disk may be what the bug is about
        told = f"Its traceback could not be written ({problem}); NEARFAR_TRACEBACK=1 shows it"
    if own:
        return f"{own[-1][0]}, line {own[-1][1]}, in code of your own: {kind}. {told}."
    return f"this is a bug of nearfar, not a mistake of yours ({kind}). {told}: please report it with that file."


def _versions() -> list[str]:
    """Of what runs, a line each."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    for package in ("nearfar", "torch", "timm", "numpy", "pyarrow", "pillow", "safetensors"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    return lines


def usage() -> str:
    """What is printed for --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "nearfar: contrastive representation learning, from a folder of files to an encoder you can trust.",
            "",
            "usage: nearfar COMMAND ...",
            "",
            *lines,
            "",
            "`nearfar COMMAND --help` shows the flags; `nearfar train METHOD --help` also those of the method.",
            "Exit status: 0 done, 2 a mistake in the call, the data or the machine, 1 a bug, 130 stopped.",
            "Set NEARFAR_TRACEBACK=1 to see the traceback of an error.",
        ]
    )
