"""A page for each command, made of its own help: `python -m benchmarks.commands` writes docs/commands/.

What a command and its flags do is said by the command line alone; the examples below run one after the other in the
tests, on the shapes of docs/index.md and the run that is trained there.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.pages import literal, prose, row
from nearfar import modalities
from nearfar.cli import main as command_line
from nearfar.cli.main import COMMANDS
from nearfar.files import replace_text

DOCS = Path(__file__).parents[1] / "docs" / "commands"
MADE = "<!-- Made by `python -m benchmarks.commands` from the command's own help: change that. -->\n"
WIDE = "400"
"""Columns of the help that is read: so many that hardly a line of it is broken."""

GROUPS = {
    "Before training": ("doctor", "views", "methods", "helps"),
    "Training": ("demo", "train", "compare"),
    "What came out": ("evaluate", "report", "look", "checkpoints", "transfer", "runs", "card"),
    "Few labels": ("label-plan", "finetune", "predict", "distill"),
    "Using it": ("embed", "search", "duplicates", "outliers", "curate", "explore", "suspects", "generate", "export"),
}
"""The commands in the order in which one comes to them."""

LONG = "<!-- long: {} -->\n"
EXAMPLES: dict[str, str] = {
    "doctor": LONG.format("it times the steps of several methods")
    + "nearfar doctor shapes --labels folders --minutes 1",
    "views": "nearfar views shapes --views drawing --out views.png",
    "methods": "nearfar methods\nnearfar methods moco",
    "helps": LONG.format("it trains a network for each way, share of labels and seed")
    + "nearfar helps shapes --labels folders --encoder conv4 --epochs 2 --budgets 1 --seeds 2 "
    "--tuning 2 --out studies/helps",
    "demo": LONG.format("a minute or two of training") + "nearfar demo",
    "train": "nearfar train moco shapes --encoder conv4 --epochs 2 --batch 16 --queue 64 --keep-every 1 "
    "--out runs/kept",
    "compare": LONG.format("it trains six networks")
    + "nearfar compare simclr,barlow shapes --labels folders --encoder conv4 --epochs 2 --batch 16 "
    "--out studies/compare",
    "evaluate": "nearfar evaluate runs/first shapes --labels folders",
    "report": "nearfar report runs/first",
    "look": "nearfar look runs/first shapes",
    "checkpoints": "nearfar checkpoints runs/kept",
    "runs": "nearfar runs runs --page runs.html",
    "card": "nearfar card runs/first",
    "transfer": LONG.format("it measures two runs by several protocols")
    + "nearfar transfer runs/first runs/kept --to sets --out studies/transfer",
    "label-plan": "nearfar label-plan runs/first shapes --count 8 --out plan.csv",
    "finetune": "nearfar finetune runs/first shapes --labels folders --epochs 2 --out runs/named",
    "predict": "nearfar predict runs/named shapes/bar0/000.png shapes/bar1/001.png",
    "distill": "nearfar distill runs/named shapes --student conv4 --epochs 2 --out runs/small",
    "embed": "nearfar embed runs/first shapes\nnearfar embed runs/first shapes --out vectors",
    "search": "nearfar search vectors shapes/bar0/000.png --k 5",
    "duplicates": "nearfar duplicates vectors --threshold 0.98 --save groups.csv",
    "outliers": "nearfar outliers vectors --save far.csv",
    "curate": "nearfar curate vectors --keep 20 --out curated.csv",
    "explore": "nearfar explore vectors --out map.html",
    "suspects": "nearfar suspects runs/first shapes --labels folders --save wrong.csv",
    "generate": LONG.format("it trains a generator")
    + "nearfar train contragan shapes --labels folders --size 32 --encoder biggan8 --width 8 --epochs 2 --batch 16 "
    "--out runs/gan\n"
    "nearfar generate runs/gan --count 8 --out made",
    "export": "nearfar export runs/first",
}
"""Of each command a call or two; what begins with a mark of docs/ is not run with the other tests."""


def main() -> None:
    """Write all pages, and take away those of commands that are gone."""
    DOCS.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": page(name) for name in COMMANDS} | {"README.md": index()}
    for path in set(DOCS.glob("*.md")) - {DOCS / name for name in pages}:
        path.unlink()
    for name, text in pages.items():
        replace_text(DOCS / name, text)
    print(f"{len(pages)} pages in {DOCS}")


def told(*words: str) -> str:
    """What the command line prints for some words, on a wide terminal and without colors."""
    kept = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS=WIDE, NO_COLOR="1")
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # whose encoding lets boxes be drawn
    try:
        with redirect_stdout(said):
            command_line([*words])
    except SystemExit:
        pass
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    said.flush()
    return said.buffer.getvalue().decode()  # pyright: ignore[reportAttributeAccessIssue]


Entries = dict[str, str]


def taken_apart(text: str) -> tuple[str, str, dict[str, Entries]]:
    """Of a help text: the line of usage, what stands before the first box, and each box as flags and meanings."""
    head, *boxes = re.split(r"^╭─ (?=\w)", text, flags=re.MULTILINE)
    usage, _, about = head.partition("\n\n")
    found: dict[str, Entries] = {}
    for box in boxes:
        title, *lines = box.splitlines()
        entries: Entries = {}
        name = about_box = ""
        for line in lines:
            inside = line.removeprefix("│").removesuffix("│")[1:].rstrip()
            if not line.startswith("│"):
                continue
            if set(inside) == {"─"}:  # what stood above is said of the box
                entries = {"": about_box}
                continue
            about_box = f"{about_box} {inside.strip()}".strip()
            if inside and not inside.startswith(" ") and re.match(r"-|[A-Z]+( |$)|\[", inside):
                parts = re.split(r"\s{2,}", inside, maxsplit=1)
                name, words = parts[0], parts[1] if len(parts) > 1 else ""
                entries[name] = words
            elif name:
                entries[name] = f"{entries[name]} {inside.strip()}".strip()
        found[title.partition(" ─")[0]] = entries
    return " ".join(usage.split()), about.strip(), found


def table(entries: Entries) -> str:
    """Flags, what they mean and their defaults, as a table below what is said of them all."""
    rows = [row("flag", "meaning", "default"), "|---|---|---|"]
    for name, words in entries.items():
        if name.startswith("-h"):
            continue
        if not name:
            rows.insert(0, f"{prose(words)}\n")
            continue
        words, found, default = words.rpartition(" (default: ")
        if not found:
            words, default = default, ""
        words = words.removesuffix(" (required)")
        rows.append(row(literal(name), prose(words), literal(set_to) if (set_to := default.removesuffix(")")) else ""))
    return "\n".join(rows)


def example(name: str) -> str:
    mark, shell = re.fullmatch(r"(<!--.*?-->\n)?(.*)", EXAMPLES[name], re.DOTALL).groups("")  # pyright: ignore[reportOptionalMemberAccess]
    return (
        "## Example\n\nOn [the shapes](../index.md#shapes-to-try-it-on) and the run that is trained there:\n\n"
        f"{mark}```sh\n{shell}\n```\n"
    )


def page(name: str) -> str:
    """The page of a command."""
    head = f"{MADE}# nearfar {name}\n\n[All commands](README.md)\n\n"
    if name == "methods":
        return f"{head}```text\n{told(name, '--help').rstrip()}\n```\n\n{example(name)}"
    if name == "train":
        return head + train()
    usage, about, boxes = taken_apart(told(name, "--help"))
    called = re.sub(r"\[-h\] ?(\[OPTIONS\])?", r"\1", usage.removeprefix("usage: ")).replace("  ", " ")
    text = head + f"```text\n{called.strip()}\n```\n\n{prose(' '.join(about.split()))}\n\n{example(name)}"
    for title, entries in boxes.items():
        if entries and set(entries) != {"-h, --help"}:
            heading = "What is given" if title.startswith("positional") else "Flags"
            text += f"\n## {heading}\n\n{table(entries)}\n"
    return text


def train() -> str:
    """The page of `nearfar train`: what is said of the command, and the flags that each kind of data has."""
    boxes = taken_apart(told("train", "simclr", "--help"))[2]
    text = f"```text\n{told('train', '--help').rstrip()}\n```\n\n{example('train')}"
    text += (
        "\nThe flags of a method stand on [its page](../methods/README.md). Defaults are those of the recipe "
        "that suits the data; where it goes by the samples, those for 5,000 images are shown, and `nearfar train "
        "METHOD DATA --help` shows those for yours.\n"
    )
    text += f"\n## Where to read and where to write\n\n{table(boxes['place options'])}\n"
    shared = boxes["settings options"]
    text += "\n## How to train\n\nOf images; those that other kinds have besides, or explain otherwise, follow."
    text += f"\n\n{table(shared)}\n"
    for kind in modalities.names():
        if kind == "image":
            continue
        method = {"pair": "clip", "video": "cvrl", "text": "simcse"}.get(kind, "simclr")
        own = taken_apart(told("train", method, "--kind", kind, "--help"))[2]["settings options"]
        other = {
            flag: words
            for flag, words in own.items()
            if (flag and flag not in shared) or said_of(words) != said_of(shared.get(flag, words))
        }
        text += f"\n### {kind[0].upper()}{kind[1:]}\n\n{table(other)}\n"
    return text


def said_of(words: str) -> str:
    """What is said of a flag without its default, which differs from recipe to recipe."""
    return words.rpartition(" (default: ")[0]


def index() -> str:
    """All commands, in the order in which one comes to them."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
    lines = [
        f"{MADE}# The commands\n",
        "Each page has the words of `nearfar COMMAND --help`, and an example that runs. Exit status: 0 done, 2 a",
        "mistake in the call, the data or the machine, 1 a bug, 130 stopped. A file that is there stays, unless",
        "`--force` is given.",
    ]
    for title, names in GROUPS.items():
        lines += [f"\n## {title}\n", row("command", "what it does"), "|---|---|"]
        lines += [row(f"[{name}]({name}.md)", prose(COMMANDS[name][1])) for name in names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
