"""`nearfar methods [NAME]`, read from the sources, without torch."""

from __future__ import annotations

import ast
from pathlib import Path

from nearfar import methods as catalogue


def methods(argv: list[str]) -> int:
    """List the methods, or tell all about one."""
    if argv and argv[0] in ("-h", "--help"):
        print("usage: nearfar methods [NAME]\n\nThe methods there are; with a name, all about that one.")
        return 0
    if argv:
        page = catalogue.page(argv[0])
        print(f"{page.name}: {page.title}\n\n{page.text}\n\nFlags, with the paper's values (recipes may set others):")
        for line in _flags(argv[0]):
            print(f"  {line}")
        print(f"\nusage: nearfar train {argv[0]} DATA [flags]")
        return 0
    pages = [catalogue.page(name) for name in catalogue.names()]
    width = max(len(page.name) for page in pages)
    for page in pages:
        print(f"{page.name:<{width}}  {page.summary}")
        print(f"{'':<{width}}  arXiv {page.paper}")
    print("\n`nearfar methods NAME` tells more; `nearfar train NAME DATA` trains.")
    return 0


def _flags(name: str) -> list[str]:
    path = Path(catalogue.__file__).parent / f"{name}.py" if not name.endswith(".py") else Path(name)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return [
                f"--{arg.arg.replace('_', '-')}: {ast.unparse(arg.annotation)} = {ast.unparse(default)}"
                for arg, default in pairs
                if arg.annotation is not None and default is not None
            ]
    return []
