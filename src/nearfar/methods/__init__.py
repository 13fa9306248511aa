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

FILLED = ("self", "encoder", "samples", "classes", "counts", "channels")
"""Arguments of a method's constructor that a run fills."""

PARTS = ("projector", "labeled")
"""Arguments by which a method that extends another has another part built in place of its own; all others are flags."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a method's file says of it: its name, its class, and its docstring, the first line of which sums it up.

    family: the heading it is listed under.  base: the method of the library whose flags it takes over, if any.
    """

    name: str
    title: str
    text: str
    family: str
    base: str = ""

    @property
    def flag_text(self) -> str:
        """What is said of the flags, those that are taken over first."""
        return f"{page(self.base).flag_text}\n\n{self.text}" if self.base else self.text

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
    tree = ast.parse(path.read_text(encoding="utf-8"))
    methods = _methods(tree)
    if not methods:
        raise ValueError(f"{str(path)!r} holds no public class that extends nearfar.Method")
    method = methods[0]
    base = _base(tree, method)
    said = [
        node.value.value
        for node in method.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "family"
        if isinstance(node.value, ast.Constant)
    ]
    family = str(said[0]) if said else page(base).family if base else "others"
    text = inspect.cleandoc(ast.get_docstring(method) or "")
    return Page(path.stem, method.name, text, family, base if _takes_over(method) else "")


def listed_flags(name: str) -> dict[str, str]:
    """The flags of a method and their defaults as text, `int = 128`, without importing it."""
    path, known = _path(name), page(name)
    taken = listed_flags(known.base) if known.base else {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == known.title:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    pairs = zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)
                    own = {
                        a.arg: f"{ast.unparse(a.annotation)} = {ast.unparse(d)}"
                        for a, d in pairs
                        if a.annotation and d and a.arg not in PARTS
                    }
                    return own | {name: text for name, text in taken.items() if name not in own}
    return taken


def _takes_over(method: ast.ClassDef) -> bool:
    """Whether a method's own constructor, if it has one, passes what it does not know to the method it extends."""
    inits = [node for node in method.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return not inits or inits[0].args.kwarg is not None


def _base(tree: ast.Module, method: ast.ClassDef) -> str:
    """The name of the library's method that a method extends, or an empty one."""
    extended = {ast.unparse(base) for base in method.bases}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and extended & {alias.asname or alias.name for alias in node.names}:
            room, _, name = (node.module or "").rpartition(".")
            return name if room == "nearfar.methods" else ""
    return ""


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
    chosen = {name: p for name, p in _parameters(method).items() if name not in FILLED + PARTS}
    for name, parameter in chosen.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{method.__name__}.__init__: {name!r} must be keyword-only and have a default")
    return chosen


def _parameters(method: type[Method]) -> dict[str, inspect.Parameter]:
    """What the constructor takes; where it passes on `**others`, also what the constructor above it takes."""
    found: dict[str, inspect.Parameter] = {}
    for kind in method.__mro__:
        if "__init__" in vars(kind):
            here = inspect.signature(kind.__init__, eval_str=True).parameters
            passed_on = [name for name, p in here.items() if p.kind is inspect.Parameter.VAR_KEYWORD]
            found |= {name: p for name, p in here.items() if name not in found and name not in passed_on}
            if not passed_on:
                break
    return found


def build(method: type[Method], encoder: Any, arguments: dict[str, Any], **known: Any) -> Method:
    """The method on an encoder; of what the run knows (`samples`, `classes`, `counts` of
    each class, `channels`) it gets what it asks for."""
    wanted = _parameters(method)
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
