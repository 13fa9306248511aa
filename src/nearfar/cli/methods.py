"""`nearfar methods [NAME ...]`: the methods, from their sources, without torch."""

from __future__ import annotations

import textwrap

from nearfar import methods as catalog
from nearfar.cli.printing import print

USAGE = """usage: nearfar methods [NAME ...]

List the methods by family, or describe some: the idea, cost, flags and paper."""


def methods(argv: list[str]) -> int:
    """List the methods, or describe some."""
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    print("\n\n".join(map(described, argv)) if argv else listed())
    return 0


def listed() -> str:
    """All methods by family: of each its name, its title and one sentence."""
    families = catalog.by_family()
    width = max(len(page.name) for pages in families.values() for page in pages)
    lines = ["Methods by family. Train one with `nearfar train NAME DATA`.", ""]
    for family, pages in families.items():
        lines.append(family[0].upper() + family[1:])
        for page in pages:
            lines += [f"  {page.name:<{width}}  {page.title}", f"  {'':<{width}}  {page.summary}"]
        lines.append("")
    lines.append("`nearfar methods NAME` describes a method and its flags.")
    return "\n".join(lines)


def described(name: str) -> str:
    """A method: its title, family, text and flags."""
    page = catalog.page(name)
    extends = f", extends {page.base}" if page.base else ""
    texts = catalog.flag_texts(name)
    lines = [page.title, f"Family: {page.family}{extends}", "", page.summary, ""]
    lines += [page.about, ""] if page.about else []
    lines += ["Paper:", textwrap.indent(page.citation, "  "), ""] if page.citation else []
    lines.append("Flags and their defaults, which are the paper's where known; a recipe may set others:")
    for flag, default in catalog.listed_flags(name).items():
        lines.append(f"  --{flag.replace('_', '-')}: {default}")
        lines += textwrap.wrap(texts.get(flag, ""), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", f"usage: nearfar train {name} DATA [flags]"]
    return "\n".join(lines)
