"""`nearfar methods [NAME ...] [--kind KIND]`: the methods; without a kind from their sources, without torch."""

from __future__ import annotations

import textwrap

from nearfar import methods as catalog
from nearfar import modalities
from nearfar.cli.printing import print
from nearfar.errors import UserError

USAGE = """usage: nearfar methods [NAME ...] [--kind KIND]

List the methods by family, or describe some: the idea, cost, flags and paper.
--kind lists those that train on data of a kind by their own recipe, and says why the others do not."""


def methods(argv: list[str]) -> int:
    """List the methods, or describe some."""
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    names, kind = _asked(argv)
    without = _unfit(names or catalog.names(), kind) if kind else {}
    if names:
        print("\n\n".join(described(name, without.get(name, "")) for name in names))
    else:
        print(listed(kind, without))
    return 0


def _asked(argv: list[str]) -> tuple[list[str], str]:
    """The names, and the kind or ""."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--kind=") else [word])]
    if "--kind" not in words:
        return words, ""
    at = words.index("--kind")
    known = modalities.names()
    if at + 1 == len(words) or words[at + 1] not in known:
        given = f", not {words[at + 1]!r}" if at + 1 < len(words) else ""
        raise UserError(f"--kind takes one of {', '.join(known)}{given}")
    return words[:at] + words[at + 2 :], words[at + 1]


def _unfit(names: list[str], kind: str) -> dict[str, str]:
    """Those of some methods that do not train on data of a kind by their recipe, and why."""
    from nearfar.training import build, plan  # here, as they load torch

    why = {name: build.unfit(plan.make(name, None, None, {}, kind=kind)) for name in names}
    return {name: text for name, text in why.items() if text}


def listed(kind: str = "", without: dict[str, str] | None = None) -> str:
    """All methods by family: of each its name, its title and one sentence; of those that do not train on data of a kind
    the reason alone."""
    without = without or {}
    families = {
        family: [page for page in pages if page.name not in without] for family, pages in catalog.by_family().items()
    }
    width = max(map(len, catalog.names()))
    on = f" that train on data of the kind {kind}" if kind else ""
    lines = [f"Methods{on} by family. Train one with `nearfar train NAME DATA`.", ""]
    for family, pages in families.items():
        if not pages:
            continue
        lines.append(family[0].upper() + family[1:])
        for page in pages:
            lines += [f"  {page.name:<{width}}  {page.title}", f"  {'':<{width}}  {page.summary}"]
        lines.append("")
    if without:
        lines.append(f"Not for data of the kind {kind}")
        reasons: dict[str, list[str]] = {}
        for name, why in without.items():
            reasons.setdefault(why.replace(repr(name), "each"), []).append(name)
        for why, names in reasons.items():
            lines += textwrap.wrap(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ")
            lines += textwrap.wrap(why, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    lines.append("`nearfar methods NAME` describes a method and its flags.")
    return "\n".join(lines)


def described(name: str, why_not: str = "") -> str:
    """A method: its title, family, text and flags. why_not: what stands against it on a kind of data."""
    page = catalog.page(name)
    extends = f", extends {page.base}" if page.base else ""
    texts = catalog.flag_texts(name)
    lines = [page.title, f"Family: {page.family}{extends}", "", page.summary, ""]
    lines += [page.about, ""] if page.about else []
    lines += [f"Not for this kind of data: {why_not}", ""] if why_not else []
    lines += ["Paper:", textwrap.indent(page.citation, "  "), ""] if page.citation else []
    lines.append("Flags and their defaults, which are the paper's where known; a recipe may set others:")
    for flag, default in catalog.listed_flags(name).items():
        lines.append(f"  --{flag.replace('_', '-')}: {default}")
        lines += textwrap.wrap(texts.get(flag, ""), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", f"usage: nearfar train {name} DATA [flags]"]
    return "\n".join(lines)
