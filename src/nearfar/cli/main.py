"""`nearfar COMMAND ...`: finds the command, and reports errors of the user in one sentence."""

from __future__ import annotations

import importlib
import os
import sys

from nearfar.cli.printing import allow_every_name, print

COMMANDS = {
    "demo": ("demo", "Train on packaged drawings for a minute, and show what the encoder learned."),
    "doctor": ("doctor", "DATA: check for broken files, duplicates and class imbalance; recommend how to train."),
    "train": ("train", "METHOD DATA: train an encoder; METHOD is a name or a .py file of your own."),
    "embed": ("use", "RUN DATA: write one vector for each sample, as an .npz file."),
    "evaluate": ("use", "RUN DATA: measure the quality of the encoder on labeled data."),
    "finetune": ("fewlabels", "RUN DATA: train a classifier on few labels."),
    "predict": ("fewlabels", "CLASSIFIER FILES: predict label and probability, with the most similar labeled samples."),
    "distill": ("fewlabels", "CLASSIFIER DATA: train another network to imitate the classifier on unlabeled data."),
    "label-plan": ("fewlabels", "RUN DATA: choose the samples to label next; write a table to fill in and an image."),
    "helps": ("studies", "DATA: test whether pre-training helps, as accuracy against the number of labels."),
    "report": ("use", "RUN: write one HTML page about a run."),
    "export": ("use", "RUN: write weights that load without nearfar."),
    "compare": ("studies", "METHODS DATA: compare methods at equal budget, over several seeds."),
    "views": ("train", "DATA: draw samples and the views that a method would see."),
    "methods": ("methods", "[NAME]: list the methods, or describe one."),
}
"""The commands: the file in this folder that holds a function of that name, and one line for `--help`."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line. The exit status: 0 when done, 2 for a mistake in the call or the data, 130 when stopped."""
    allow_every_name()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"nearfar {version('nearfar')}")
        return 0
    if argv[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(argv[0], COMMANDS, 1)
        print(
            f"nearfar: there is no command {argv[0]!r}" + (f"; did you mean {near[0]}?" if near else ""),
            file=sys.stderr,
        )
        print(usage(), file=sys.stderr)
        return 2
    try:
        command = getattr(importlib.import_module(f"nearfar.cli.{COMMANDS[argv[0]][0]}"), argv[0].replace("-", "_"))
        return command(argv[1:]) or 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it once more at exit)
        return 0
    except (ValueError, TypeError, OSError, ArithmeticError, ModuleNotFoundError) as error:
        if os.environ.get("NEARFAR_TRACEBACK"):
            raise
        print(f"nearfar {argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


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
            "Set NEARFAR_TRACEBACK=1 to see the traceback of an error.",
        ]
    )
