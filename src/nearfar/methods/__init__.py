"""The systems: one file each, whose name is the name on the command line and which holds one public method.

There is no registry. What can be known without running a file, its docstring and its flags, is read from the source, so
that lists and `--help` need not wait for torch.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.method import Method

FILLED = ("self", "encoder", "samples", "classes", "channels")
"""Arguments of a method's constructor that a run fills; all others are flags."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a method's file says of it: its name, its class, and its docstring, the first line of which sums it up."""

    name: str
    title: str
    text: str

    @property
    def summary(self) -> str:
        return self.text.splitlines()[0] if self.text else ""

    @property
    def paper(self) -> str:
        """The arXiv ids named in the text."""
        words = self.text.replace(",", " ").replace(";", " ").replace(")", " ").split()
        ids = [b.rstrip(".") for a, b in pairwise(words) if a.strip("(") == "arXiv"]
        return ", ".join(dict.fromkeys(ids))


def names() -> list[str]:
    """Every method of the library, by file."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def page(name: str) -> Page:
    """The page of a method, by name or by path of a file, without importing it."""
    path = _path(name)
    methods = _methods(ast.parse(path.read_text(encoding="utf-8")))
    if not methods:
        raise ValueError(f"{str(path)!r} holds no public class that extends nearfar.Method")
    return Page(path.stem, methods[0].name, inspect.cleandoc(ast.get_docstring(methods[0]) or ""))


def _methods(tree: ast.Module) -> list[ast.ClassDef]:
    """The public classes of a file that extend Method, or a method; a head or a loss beside them does not."""
    known, found = {"Method"}, []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearfar.methods."):
            known |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).rpartition(".")[2] in known for b in node.bases):
            known.add(node.name)
            found += [] if node.name.startswith("_") else [node]
    return found


def load(name: str) -> type[Method]:
    """The class of a method: by name, or from the user's own file (`./mine.py`), which is run."""
    from nearfar.method import Method

    path = _path(name)
    own = path.parent != Path(__file__).parent
    if own:
        spec = importlib.util.spec_from_file_location(f"nearfar_user_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(f"nearfar.methods.{path.stem}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    public = [value for value in found if not value.__name__.startswith("_")]
    if len(public) != 1:
        raise ValueError(
            f"{str(path)!r} must hold exactly one public class that extends nearfar.Method, "
            f"and holds {len(public)}: {', '.join(c.__name__ for c in public) or 'none'}"
        )
    return public[0]


def flags(method: type[Method]) -> dict[str, inspect.Parameter]:
    """The arguments of a method that a user may set, from its signature."""
    parameters = inspect.signature(method.__init__, eval_str=True).parameters
    chosen = {name: p for name, p in parameters.items() if name not in FILLED}
    for name, parameter in chosen.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{method.__name__}.__init__: {name!r} must be keyword-only and have a default")
    return chosen


def build(method: type[Method], encoder: Any, arguments: dict[str, Any], **known: int) -> Method:
    """The method on an encoder; of what the run knows (`samples`, `classes`, `channels`) it gets what it asks for."""
    wanted = inspect.signature(method.__init__).parameters
    return method(encoder, **{name: value for name, value in known.items() if name in wanted}, **arguments)


def _path(name: str) -> Path:
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"there is no method file {name!r}")
        return path
    if name not in names():
        near = get_close_matches(name, names(), 3)
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"there is no method {name!r}{meant} The methods are: {', '.join(names())}")
    return Path(__file__).parent / f"{name}.py"
