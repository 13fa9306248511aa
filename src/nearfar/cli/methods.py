"""`nearfar methods [NAME]`, read from the sources, without torch."""

from __future__ import annotations

from itertools import groupby

from nearfar import methods as catalog


def methods(argv: list[str]) -> int:
    """List the methods, or tell all about one."""
    if argv and argv[0] in ("-h", "--help"):
        print("usage: nearfar methods [NAME]\n\nThe methods there are; with a name, all about that one.")
        return 0
    if argv:
        page = catalog.page(argv[0])
        print(f"{page.name}: {page.title}\n\n{page.text}\n\nFlags, with the paper's values (recipes may set others):")
        for flag, text in catalog.listed_flags(argv[0]).items():
            print(f"  --{flag.replace('_', '-')}: {text}")
        print(f"\nusage: nearfar train {argv[0]} DATA [flags]")
        return 0
    pages = sorted((catalog.page(name) for name in catalog.names()), key=lambda page: (page.family, page.name))
    width = max(len(page.name) for page in pages)
    for family, members in groupby(pages, key=lambda page: page.family):
        print(f"{family[0].upper()}{family[1:]}")
        for page in members:
            print(f"  {page.name:<{width}}  {page.summary}")
            print(f"  {'':<{width}}  arXiv {page.paper}")
        print()
    print("`nearfar methods NAME` tells more; `nearfar train NAME DATA` trains.")
    return 0
