"""The methods of the library: one file each, which holds one public class; its name is the name on the command line.

There is no registry. Docstrings, titles and flags are read from the source of a file without running it, so that lists
and `--help` need not wait for torch.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from nearfar import ranges
from nearfar.errors import NotFound, UserError
from nearfar.files import run_file

if TYPE_CHECKING:
    from nearfar.method import Method

FILLED = ("self", "encoder", "samples", "classes", "counts", "channels", "size")
"""Arguments of a method's constructor that a run fills."""

PARTS = ("projector", "labeled")
"""Arguments by which a method that extends another has another part built in place of its own; all others are flags."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the file of a method says about it, read without importing it.

    Args:
        name: Name on the command line: the name of the file.
        class_name: Name of the class.
        title: Full name with authors and year, under which people search for it: the class attribute `title`.
        text: Docstring of the class; its first line is the summary.
        family: Heading of lists: the class attribute `family`, or that of the method it extends.
        base: Method of the library whose flags it also takes, by `**others`; "" for none.
    """

    name: str
    class_name: str
    title: str
    text: str
    family: str
    base: str = ""

    @property
    def summary(self) -> str:
        return self.text.splitlines()[0] if self.text else ""

    @property
    def about(self) -> str:
        """The text before the arguments, without the summary."""
        return self.text.partition("\n\nArgs:\n")[0].partition("\n\n")[2]

    @property
    def citation(self) -> str:
        """The text after the arguments: authors, year, title and arXiv id of the paper."""
        return self.text.partition("\n\nArgs:\n")[2].partition("\n\n")[2]

    @property
    def paper(self) -> str:
        """The arXiv ids named in the text."""
        words = self.text.replace(",", " ").replace(";", " ").replace(")", " ").split()
        ids = [b.rstrip(".") for a, b in pairwise(words) if a.strip("(") == "arXiv"]
        return ", ".join(dict.fromkeys(ids))


def names() -> list[str]:
    """Every method of the library, by file."""
    return list(_names())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")))


def page(name: str) -> Page:
    """The page of a method, by name or by path of a file, without importing it."""
    path = _path(name)
    tree = _tree(path)
    methods = _methods(tree)
    if not methods:
        raise UserError(f"{str(path)!r} holds no public class that extends nearfar.Method")
    method = methods[0]
    base = _base(tree, method)
    constants = {
        ast.unparse(node.targets[0]): str(node.value.value)
        for node in method.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    family = constants.get("family") or (page(base).family if base else "others")
    title = constants.get("title", method.name)
    text = inspect.cleandoc(ast.get_docstring(method) or "")
    return Page(path.stem, method.name, title, text, family, base if _takes_over(method) else "")


def by_family() -> dict[str, list[Page]]:
    """The pages of all methods of the library: by family, then by name."""
    families: dict[str, list[Page]] = {}
    for known in sorted((page(name) for name in names()), key=lambda known: (known.family, known.name)):
        families.setdefault(known.family, []).append(known)
    return families


def flag_texts(name: str) -> dict[str, str]:
    """What a method's docstring says about each flag in `Args:`, after what the method it extends says about its own.

    A flag about which nothing is said is missing.
    """
    from docstring_parser import DocstringStyle, ParseError, parse  # here, as most commands do not need it

    known = page(name)
    texts = flag_texts(known.base) if known.base else {}
    try:
        parsed = parse(known.text, DocstringStyle.GOOGLE)
    except ParseError as error:
        raise UserError(f"the docstring of {known.class_name}, {name!r}, cannot be read ({error})") from error
    for argument in parsed.params:
        words = (argument.description or "").split("\n\n")[0].split()  # the parser adds what follows the last argument
        if words:
            texts[argument.arg_name] = " ".join(words)
    return texts


def listed_flags(name: str) -> dict[str, str]:
    """The flags of a method and their defaults as text, `int, 1 or more = 128`, without importing it."""
    return {flag: f"{_type_text(hint)} = {ast.unparse(default)}" for flag, (hint, default) in _written(name).items()}


def read_flags(name: str) -> dict[str, inspect.Parameter]:
    """What `flags` gives, of a method by its name; one of the library is read without importing it, as torch takes
    seconds to load, and a file of the user's own is run."""
    if _path(name).parent != Path(__file__).parent:
        return flags(load(name))
    return dict(_library_flags(name))


@cache
def _library_flags(name: str) -> dict[str, inspect.Parameter]:
    known = vars(typing) | vars(ranges)

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), name, "eval"), known)

    return {
        flag: inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, annotation=value(hint), default=value(default))
        for flag, (hint, default) in _written(name).items()
    }


def _tree(path: Path) -> ast.Module:
    """The source of a file, parsed once while it stays as it is."""
    known = path.stat()
    return _parsed(path, known.st_mtime_ns, known.st_size)


@cache
def _parsed(path: Path, changed: int, size: int) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"the method file {str(path)!r} is no Python: {error}") from error


def _written(name: str) -> dict[str, tuple[ast.expr, ast.expr]]:
    """The type and the default of each flag, as they stand in the sources of a method and of those it extends."""
    path, known = _path(name), page(name)
    taken = _written(known.base) if known.base else {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ClassDef) and node.name == known.class_name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    pairs = zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)
                    own = {
                        a.arg: (a.annotation, d) for a, d in pairs if a.annotation and d and a.arg not in FILLED + PARTS
                    }
                    return own | {name: text for name, text in taken.items() if name not in own}
    return taken


def _type_text(annotation: ast.expr) -> str:
    """A type as text, with the ranges that `nearfar.ranges` names spelled out behind it."""
    text = ast.unparse(annotation)
    for name in {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}:
        if get_origin(named := getattr(ranges, name, None)) is Annotated:
            ends = ranges.bounds(named)
            text = re.sub(rf"\b{name}\b", get_args(named)[0].__name__, text) + (f", {ends}" if ends else "")
    return text


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
    known, methods = {"Method"}, []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearfar.methods."):
            known |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).rpartition(".")[2] in known for b in node.bases):
            known.add(node.name)
            methods += [] if node.name.startswith("_") else [node]
    return methods


def load(name: str) -> type[Method]:
    """The class of a method: by name, or from a file of the user's own (`./mine.py`), which is run."""
    from nearfar.method import Method

    path = _path(name)
    own = path.parent != Path(__file__).parent
    if own:
        module = run_file(path, "method")
    else:
        module = importlib.import_module(f"nearfar.methods.{path.stem}")
    public = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
        if not value.__name__.startswith("_")
    ]
    if len(public) != 1:
        raise UserError(
            f"{str(path)!r} must hold exactly one public class that extends nearfar.Method, "
            f"and holds {len(public)}: {', '.join(c.__name__ for c in public) or 'none'}"
        )
    return public[0]


def flags(method: type[Method]) -> dict[str, inspect.Parameter]:
    """The flags of a method: the keyword arguments of its constructor, but those that a run fills."""
    chosen = {name: p for name, p in ranges.constructor(method).items() if name not in FILLED + PARTS}
    for name, parameter in chosen.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty:
            raise UserError(f"{method.__name__}.__init__: {name!r} must be keyword-only and have a default")
    return chosen


def build(method: type[Method], encoder: Any, arguments: dict[str, Any], **known: Any) -> Method:
    """The method on an encoder; of what the run knows (`samples`, `classes`, `counts` of
    each class, `channels` and `size` of images) it gets what it asks for."""
    wanted = ranges.constructor(method)
    return method(encoder, **{name: value for name, value in known.items() if name in wanted}, **arguments)


def _path(name: str) -> Path:
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise NotFound(f"there is no method file {name!r}")
        return path
    if name not in names():
        near = get_close_matches(name, names(), 3)
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise UserError(f"there is no method {name!r}{meant} The methods are: {', '.join(names())}")
    return Path(__file__).parent / f"{name}.py"
