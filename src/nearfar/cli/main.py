"""`nearfar COMMAND ...`: finds the command, and turns an error of the user's into a sentence."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS = {
    "demo": ("demo", "Train on real drawings for a minute and show what was learned."),
    "doctor": ("doctor", "DATA: broken files, copies, uneven classes; and how to train on what is there."),
    "train": ("train", "METHOD DATA: train an encoder; METHOD is a name or a .py file of your own."),
    "embed": ("use", "RUN DATA: one vector for every sample, as a .npz file."),
    "evaluate": ("use", "RUN DATA: how good the encoder is where there are labels."),
    "finetune": ("fewlabels", "RUN DATA: a classifier on few labels."),
    "predict": ("fewlabels", "CLASSIFIER FILES: what new samples are, how surely, and which labeled ones are near."),
    "distill": ("fewlabels", "CLASSIFIER DATA: another network learns from it on samples without labels."),
    "label-plan": ("fewlabels", "RUN DATA: which samples to label next, as a table to fill in and an image."),
    "helps": ("studies", "DATA: whether pre-training helps, by accuracy against the number of labels."),
    "report": ("use", "RUN: one HTML page about a run."),
    "export": ("use", "RUN: weights that load without nearfar."),
    "compare": ("studies", "METHODS DATA: several methods at equal budget, over seeds."),
    "views": ("train", "DATA: an image of what a method would see."),
    "methods": ("methods", "[NAME]: the methods there are, or all about one."),
}
"""The commands: the file in this folder that holds a function of that name, and one line."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line. The exit status: 0 when done, 2 for a mistake in the call or the data, 130 when stopped."""
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
            "`nearfar COMMAND --help` tells the flags; `nearfar train METHOD --help` those of a method too.",
            "NEARFAR_TRACEBACK=1 shows where an error came from.",
        ]
    )
