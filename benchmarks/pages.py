"""A page for each method, made of what is known of it: `python -m benchmarks.pages` writes docs/methods/.

What a method is comes from its docstring and its signature, how to train it from the recipes, and the numbers from
benchmarks/results, whatever they are; one that is missing, or older than the method's file, is said to be.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from benchmarks import claims, compare, cost, learn
from nearfar import methods
from nearfar.files import replace_text
from nearfar.modalities import recipes

DOCS = Path(__file__).parents[1] / "docs" / "methods"
RESULTS = "## Our result"
"""The heading below which a page changes with what was measured."""
MADE = "<!-- Made by `python -m benchmarks.pages` from the method's docstring and results: change those. -->\n"


def main() -> None:
    """Write all pages, and take away those of methods that are gone."""
    DOCS.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": page(name) for name in methods.names()} | {"README.md": index()}
    for path in set(DOCS.glob("*.md")) - {DOCS / name for name in pages}:
        path.unlink()
    for name, text in pages.items():
        replace_text(DOCS / name, text)
    print(f"{len(pages)} pages in {DOCS}")


def page(name: str) -> str:
    """The page of a method."""
    known = methods.page(name)
    text = parts(known.about)
    papers = ", ".join(f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in known.paper.split(", ") if paper)
    extends = f", extends [{known.base}]({known.base}.md)" if known.base else ""
    sections = {
        f"# {known.title}": f"[All methods](README.md) · `{name}` · {known.family}{extends} · {papers}\n\n"
        f"**{prose(known.summary)}**",
        "## The idea": "\n\n".join(text["idea"]),
        "## When to use it": "\n".join(text["use"]),
        "## Choices, omissions, unverified points": "\n".join(text["note"]),
        "## Training": training(name),
        "## Flags": flags(name),
        "## Source": prose(" ".join(known.citation.split())),
        RESULTS: result(name),
        "## Cost": costs(name),
    }
    return MADE + "\n".join(f"{heading}\n\n{text}\n" for heading, text in sections.items() if text)


def parts(about: str) -> dict[str, list[str]]:
    """The paragraphs of a docstring between its first line and its arguments, in Markdown: "use" is what begins with
    "Use it", "note" what begins with "Note:", and "idea" the rest, with its equations."""
    paragraphs: dict[str, list[str]] = {"idea": [], "use": [], "note": []}
    for block in re.split(r"\n(?:[ ]*\n|(?=Use it |Note: ))", about) if about else []:
        text = " ".join(block.split())
        if block.startswith("    "):
            paragraphs["idea"].append(f"```text\n{textwrap.dedent(block)}\n```")
        elif text.startswith("Note: "):
            paragraphs["note"].append(prose(text.removeprefix("Note: ")))
        else:
            paragraphs["use" if text.startswith("Use it ") else "idea"].append(prose(text))
    return paragraphs


def prose(text: str) -> str:
    """Words as Markdown shows them: outside of code, nothing is a sign but for line ends."""
    code = re.compile(r"(`[^`\n]+`)")
    signs = re.compile(r"[\\*<~\[`]|(?<!\w)_|_(?!\w)")
    return "".join(bit if code.fullmatch(bit) else signs.sub(r"\\\g<0>", bit) for bit in code.split(text))


def row(*cells: str) -> str:
    """A row of a table; cells are Markdown."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def literal(code: str) -> str:
    """Code as Markdown, whatever it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{code}{fence}" if len(fence) == 1 else f"{fence} {code} {fence}"


def flags(name: str) -> str:
    """The flags of a method, and of which method they are where it takes them over."""
    listed = methods.listed_flags(name)
    texts = methods.flag_texts(name)
    rows = [row("flag", "type", "default", "meaning", "of"), "|---|---|---|---|---|"]
    for flag, text in listed.items():
        kind, _, default = text.partition(" = ")
        owner = origin(name, flag)
        link = "" if owner == name else f"[{owner}]({owner}.md)"
        words = (literal(word) for word in (f"--{flag.replace('_', '-')}", kind, default))
        rows.append(row(*words, prose(texts.get(flag, "")), link))
    return "\n".join(rows) + "\n\nDefaults are the paper's where they are known; recipes may set others."


def origin(name: str, flag: str) -> str:
    """The method whose own constructor names a flag."""
    known = methods.page(name)
    own = vars(methods.load(name)).get("__init__")
    if not known.base or (own is not None and flag in inspect.signature(own).parameters):
        return name
    return origin(known.base, flag)


def training(name: str) -> str:
    """The command, what it takes, and the recipes there are of that name, or that begin with it."""
    kind = methods.load(name)
    takes = "Images only." if kind.needs_pixels else "Images, recordings, rows of tables, sentences, or videos."
    if kind.needs_frames:
        takes = "Videos only."
    if kind.takes_steps:
        takes = "Images, or recordings by an encoder that sees steps (melgru, wavegru)."
    if kind.needs_streams:
        takes = "Pairs of kinds, such as images and captions, or images whose channels are seen apart."
    if kind.needs_writer:
        takes = "Sentences only, and an encoder with a decoder."
    if kind.needs_words:
        takes = "Pairs of kinds of which one is sentences, such as images and captions."
    takes += " Needs labels, if only for a part of the data." if kind.needs_labels else ""
    rows = [row("recipe", "views", "optimizer, rate", "batch", "flags", "notes"), "|---|---|---|---|---|---|"]
    for file in recipes.names():
        module = recipes.module(file)
        for word in sorted(word for word in vars(module) if word == name or word.startswith(f"{name}_")):
            made = getattr(module, word)
            recipe = recipes.load(f"{file}:{word}", name, recipes.kind_of(file))
            chosen, its = recipe.settings, ", ".join(f"{flag} {value}" for flag, value in recipe.method.items())
            called = literal(file if word == name else f"{file}:{word}")
            how = chosen.views, f"{chosen.optimizer} {chosen.lr:g}", str(chosen.batch), its, made.__doc__ or ""
            rows.append(row(called, *map(prose, how)))
    there = "\n".join(rows) if len(rows) > 2 else "No recipe of its own: the defaults of the kind of data."
    return f"    nearfar train {name} DATA\n\n{takes}\n\n{there}"


def result(name: str) -> str:
    """What was measured of what a method learns."""
    text = f"Learning check: not run yet (`python -m benchmarks.learn {name}`)."
    if (path := learn.RESULTS / f"{name}.json").exists():
        known = read(path)
        asked, epochs = known["protocol"], known["flags"]["epochs"]
        labels = "without" if known["flags"].get("labels") == "none" else "with"
        what = known.get("what") or (
            f"{asked['ways']}-way {asked['shots']}-shot accuracy on drawings of alphabets never seen, of conv4 after "
            f"{epochs} passes over 13,180 drawings {labels} labels"
        )
        text = (
            f"{what}: **{known['trained']:.1f} %**, against {known['untrained']:.1f} % untrained. Gain in points: "
            f"{known['gain']}, over {known.get('over', 'alphabets')}; seed "
            f"{known['seed']}.{'' if known['learned'] else ' **It has not learned.**'} "
            f"{origins(known, learn.stale(name))}"
        )
    rows = compare.table([name], compare.BUDGETS)
    if rows.count("\n") > 1:
        text += (
            "\n\nOn CIFAR-10 at equal budget ([results](../results.md), `python -m benchmarks.compare`; a change of "
        )
        text += f"the method since would not show):\n\n{rows}"
    held = {key: claim for key, claim in claims.CLAIMS.items() if name in (claim.method, claim.against)}
    if held:
        text += "\n\nWhat papers say, at a small budget (`python -m benchmarks.claims`):\n\n" + claims.table(held, 3)
    return text


def costs(name: str) -> str:
    """What was measured of a method's step."""
    if name not in cost.timed():
        return "Not compared with SimCLR's: it takes no images."
    if not (path := cost.RESULTS / f"{name}.json").exists():
        return f"Not measured yet (`python -m benchmarks.cost {name}`)."
    known = read(path)
    ratio, step, peak = (known[key] for key in ("ratio", "step_ms", "MiB"))
    share = step["simclr"] / known["batch"]
    left = f", {known['crops_left_out']} left out as too small for conv4" if known["crops_left_out"] else ""
    lines = [
        f"A step takes **{ratio['median']:.2f} times** SimCLR's ({ratio['low']:.2f} to {ratio['high']:.2f} over "
        f"{known['turns']} turns): {step['method']:.0f} ms of {known['clock']} against {step['simclr']:.0f} ms.",
        f"Networks, memories, gradients, optimizer and activations take {memory(peak['method'])} at the peak; SimCLR's "
        f"take {memory(peak['simclr'])}.",
    ]
    for when, spent in known["epoch_ms_per_sample"].items():
        if spent > 0.01 * share:
            epoch = "the first epoch" if when == "first" else "a later epoch"
            lines.append(f"Before {epoch} it works {spent:.2f} ms a sample; a step of SimCLR, {share:.2f} ms a sample.")
    lines.append(
        f"{known['encoder']}{'' if known['encoder'] == 'conv4' else ' (SimCLR: conv4)'}, {known['batch']} of "
        f"{known['samples']:,} noise images of 32 px, flags of the recipe "
        f"{known['recipe']}, {known['views']} views made beforehand{left}, of which SimCLR has the first 2; "
        f"{known['threads']} thread. The peak is what a fresh process's resident memory grew by, without the views. "
        f"{origins(known, cost.stale(name))}"
    )
    return "\n".join(lines)


def memory(peak: float | str) -> str:
    return peak if isinstance(peak, str) else f"{peak:.0f} MiB"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def origins(known: dict[str, Any], stale: bool) -> str:
    """Where a result is from, and whether it still holds."""
    where, aged = known["environment"], " **The method was changed since.**" if stale else ""
    return f"`{known['command']}`, {where['date'][:10]}, {where['cpu']}, torch {where['versions']['torch']}.{aged}"


def index() -> str:
    """All methods, by family."""
    lines = [
        f"{MADE}# The methods\n",
        "A gain is of 20-way 1-shot accuracy on drawings of alphabets never seen, in points over the same network",
        "untrained, after three passes over other drawings (`python -m benchmarks.learn`); of one that writes, what",
        "its page says.",
    ]
    for family, pages in methods.by_family().items():
        lines += [f"\n## {family[0].upper()}{family[1:]}\n"]
        lines += [row("name", "method", "what it does", "arXiv", "gain"), "|---|---|---|---|---|"]
        for known in pages:
            link = f"[{known.name}]({known.name}.md)"
            lines.append(row(link, prose(known.title), prose(known.summary), known.paper, gain(known.name)))
    return "\n".join(lines) + "\n"


def gain(name: str) -> str:
    """The gain of the learning check, and whether it still holds."""
    path = learn.RESULTS / f"{name}.json"
    if not path.exists():
        return "not run yet"
    return read(path)["gain"] + ("; changed since" if learn.stale(name) else "")


if __name__ == "__main__":
    main()
