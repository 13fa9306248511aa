"""Files that are either whole or not there, and that are checked when they are read.

A text that is read again carries a checksum of all that stands before it: a JSON object, or a line of them, as its last
entry, `"checksum"`; YAML, CSV and Python as a last line, `# checksum: ...`. Other programs read them as before.
"""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from nearfar.errors import AlreadyThere, Damaged, DiskFull, NotFound, UserError

T = TypeVar("T")
OWN_CODE = "nearfar_user_"
"""How the modules of users' own files are called begins with this."""
OBJECT_END = re.compile(rb',\s*"checksum": "([0-9a-f]{16})"\s*\}\s*\Z')
TEXT_END = re.compile(rb"# checksum: ([0-9a-f]{16}),*\s*\Z")

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp", re.DOTALL)
"""What a temporary file or directory is called; the number is of the process."""


def replace(path: Path, write: Callable[[Path], object]) -> Path:
    """Make `path` by letting `write` fill a temporary file beside it, then put that in its place.

    A crash at any moment leaves the old file or the new one, never a part; an error leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_dead(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def replace_text(path: Path, text: str) -> Path:
    """`replace` for a text."""
    content = text.encode("utf-8", "backslashreplace")  # with \n on every system
    return replace(path, lambda temporary: temporary.write_bytes(content))


def replace_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """`replace` for a table, of which the first row names the columns. Text is written as `cell_of` says."""
    return replace_text(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """What `replace_csv` writes."""
    lines = []
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line).writerow([cell_of(cell) for cell in row])  # only so does it quote both line breaks
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def to_json(content: Mapping[str, object], indent: int | None = None) -> str:
    """One JSON object, with its checksum as the last entry."""
    text = json.dumps(content, indent=indent)[:-1].rstrip()
    gap = " " if indent is None else "\n" + " " * indent
    end = "" if indent is None else "\n"
    return f'{text},{gap}"checksum": "{digest(text.encode())}"{end}}}'


def from_json(text: bytes) -> dict[str, Any]:
    """The object that `to_json` wrote. Raises ValueError, with the reason in a few words, where it is damaged."""
    _verify(text, OBJECT_END)
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    content.pop("checksum")
    return content


def with_checksum(text: str, *, cells: int = 1) -> str:
    """A text of whole lines, in which # begins a comment, and its checksum as the last of them.

    cells: of a row of a CSV, all but the first of which are empty in that line.
    """
    return f"{text}# checksum: {digest(text.encode())}{',' * (cells - 1)}\n"


def replace_json(path: Path, content: Mapping[str, object], indent: int | None = None) -> Path:
    """`replace` for a JSON object, with its checksum."""
    return replace_text(path, to_json(content, indent) + "\n")


def replace_yaml(path: Path, content: Mapping[str, object]) -> Path:
    """`replace` for YAML, with its checksum."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    text = yaml.dump(dict(content), Dumper=Plain, sort_keys=False, allow_unicode=True)
    return replace_text(path, with_checksum(text))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """What `replace_json` wrote.

    remedy: what brings the file back, for the message.
    Raises Damaged where it is another than was written, NotFound where it is not there.
    """
    return _read(path, remedy, OBJECT_END, from_json)


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """What `replace_yaml` wrote; else as `read_json`."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for billions of entries
                raise ValueError("it repeats parts of itself by reference")
            return super().compose_node(parent, index)

    def parse(text: bytes) -> dict[str, Any]:
        try:
            content = yaml.load(text, Plain)
        except yaml.YAMLError as error:
            raise ValueError(str(error).splitlines()[0]) from error
        if not isinstance(content, dict):
            raise ValueError("it is no mapping")
        return content

    return _read(path, remedy, TEXT_END, parse)


def read_text(path: Path, remedy: str) -> str:
    """What was written `with_checksum`, without it; else as `read_json`."""
    return _read(path, remedy, TEXT_END, lambda text: TEXT_END.sub(b"", text).decode())


def is_checked(path: Path) -> bool:
    """Whether a text was written `with_checksum`, and not edited since."""
    try:
        return path.is_file() and read_text(path, "") is not None
    except Damaged:
        return False


def digest(*parts: bytes) -> str:
    """Of some bytes, one part after the other: 16 hexadecimal digits of SHA-256."""
    made = hashlib.sha256()
    for part in parts:
        made.update(part)
    return made.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def insist_digest(path: Path, wanted: object, remedy: str) -> Path:
    """A file of that SHA-256. Raises Damaged where it is another, NotFound where it is not there."""
    _insist_file(path, remedy)
    if file_digest(path) != wanted:
        raise Damaged(f"{str(path)!r} is not the file that it was (its SHA-256 is another): {remedy}")
    return path


def _verify(text: bytes, end: re.Pattern[bytes]) -> None:
    found = end.search(text)
    if found is None:
        raise ValueError("it does not end with a checksum")
    if digest(text[: found.start()]) != found[1].decode():
        raise ValueError("its checksum is wrong")


def _read(path: Path, remedy: str, end: re.Pattern[bytes], parse: Callable[[bytes], T]) -> T:
    _insist_file(path, remedy)
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            if end.search(file.read(200)) is None:  # before a file of any size is read
                raise ValueError("it does not end with a checksum, so it was cut short or not written by nearfar")
            file.seek(0)
            text = file.read()
        _verify(text, end)
        return parse(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise Damaged(f"{str(path)!r} is damaged, or was edited ({reason}): {remedy}") from error


def _insist_file(path: Path, remedy: str) -> None:
    if not path.is_file():
        raise NotFound(f"{str(path)!r} is {'no file' if path.exists() else 'missing'}: {remedy}")


FORMULA = ("=", "+", "-", "@", "'")
"""How text begins that a spreadsheet takes as a formula, or, of the last, hides the beginning of."""


def cell_of(value: object) -> object:
    """A cell as it is written: text that begins as in `FORMULA` or with white space has an apostrophe before it, so
    that a spreadsheet shows it and does not compute it. Numbers, in text or not, stay as they are.

    `nearfar.data.csv` takes the apostrophe away.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(FORMULA) or value[:1].isspace() else value


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def origin(given: Any) -> str:
    """How files tell of data or labels that were given: by their path, or word, and of what is in memory its type, as
    what it holds may be long."""
    return str(given) if given is None or isinstance(given, str | os.PathLike) else f"{type(given).__name__} in memory"


def name_text(name: str) -> str:
    """A file's name as text that can be written anywhere: of a name that is not UTF-8 the other bytes as \\xe9."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which names can hold where they are no bytes
        return name.encode("utf-8", "backslashreplace").decode()


def insist_text(path: str, flag: str) -> None:
    """Raise ValueError where a path is not UTF-8: several libraries cannot write there."""
    if name_text(path) != path:
        raise UserError(f"{flag} '{name_text(path)}' is not UTF-8: choose a name that is")


def insist_free(path: Path, flag: str = "--out", *, force: bool = False, holds: str = "") -> None:
    """Raise FileExistsError where a file is in the way of a new one, ValueError where none can be written.

    flag: by which another place can be named.  force: whether the user lets it be replaced.
    holds: what would be lost, for the message.
    """
    insist_text(str(path), flag)
    if path.is_dir():
        raise AlreadyThere(f"{flag} {str(path)!r} is a directory, and a file is wanted: name one in it")
    if path.exists() and not force:
        raise AlreadyThere(
            f"{str(path)!r} is there already{holds and ', '}{holds}: name another {flag}, or replace it by --force"
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {str(path)!r} cannot be written: {str(folder)!r} is no directory that lets you")


def is_not_utf8(name: str) -> bool:
    """Whether `name_text` had to write bytes so."""
    return re.search(r"\\x[89a-f][0-9a-f]", name) is not None


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Within: the error of a full disk names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            error.errno,
            f"the disk is full: {str(path)!r} could not be written, and what was there before is whole. Free some "
            "space and try again (a training run: with --resume)",
        ) from error


def run_file(path: Path, purpose: str) -> ModuleType:
    """Run a .py file of the user's own, and give what it defines.

    Raises FileNotFoundError where there is none, ValueError where it cannot be run.
    """
    if not path.is_file():
        raise NotFound(f"there is no {purpose} file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"{OWN_CODE}{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's code raises
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"the {purpose} file {str(path)!r} cannot be run ({reason}): mend it") from error
    return module


def code_file(name: str) -> Path | None:
    """The file that is run for a name of a method, of views, of a recipe or of a kind of data; None where the name is
    one of the library's."""
    before, mark, _ = name.partition(".py:")
    if mark or name.endswith(".py"):
        return Path(f"{before}.py" if mark else name)
    return Path(name) / "kind.py" if os.sep in name else None


def _is_folder(name: str) -> bool:
    return code_file(name) == Path(name) / "kind.py"


def same_code(name: str, other: str) -> bool:
    """Whether two names stand for one file of the user's own."""
    file, another = code_file(name), code_file(other)
    return file is not None and another is not None and file.resolve() == another.resolve()


def code_digests(names: Iterable[str]) -> dict[str, str]:
    """By what the user's own code behind each name that has some is known again: the SHA-256 of the file; of a folder,
    that of the names and digests of all code in it."""
    return {name: known for name in names if (known := _code_digest(name)) is not None}


def _code_digest(name: str) -> str | None:
    file = code_file(name)
    if file is None or not file.is_file():
        return None
    if not _is_folder(name):
        return file_digest(file)
    code = [f"{path.relative_to(name).as_posix()} {file_digest(path)}" for path in sorted(Path(name).rglob("*.py"))]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def insist_trusted(name: str, digests: object, source: Path, *, trust: bool) -> None:
    """Raise ValueError where a file names code of the user's own that must not be run.

    name: of a method, of views or of a kind, as `source` has it; names of the library's own pass.
    digests: what `code_digests` gave when `source` was written.
    trust: whether the user has said that this code may be run.
    """
    file = code_file(name)
    if file is None:
        return
    if not trust:
        raise UserError(
            f"{str(source)!r} wants the code in {str(file)!r} run, and code that a run names is run only where you "
            "say so: read it, then give --trust (in Python nearfar.load(path, trust=True))"
        )
    wanted = digests.get(name) if isinstance(digests, dict) else None
    remedy = (
        f"{str(source)!r} was made with code whose SHA-256 begins with {str(wanted)[:12]}. Put that version back, or "
        "train a new run with this one"
    )
    _insist_file(file, remedy)
    if _code_digest(name) != wanted:
        beside = ", or one beside it," if _is_folder(name) else ""
        raise Damaged(f"{str(file)!r}{beside} is not the file that it was (its SHA-256 is another): {remedy}")


def load_function(given: str, flag: str) -> Callable[..., Any]:
    """A function of the user's own, named FILE.py:FUNCTION; the file is run.

    Raises FileNotFoundError where there is no such file, ValueError where it holds no such function.
    """
    function = load_named(given, flag)
    if not callable(function):
        file, _, name = given.partition(".py:")
        raise UserError(f"{flag} {given!r}: {file}.py has no function {name!r}")
    return function


def load_named(given: str, flag: str) -> Any:
    """What a file of the user's own defines under a name, FILE.py:NAME; the file is run.

    Raises FileNotFoundError where there is no such file, ValueError where it defines nothing of that name.
    """
    file, _, name = given.partition(".py:")
    if not name:
        raise UserError(f"{flag} {given!r}: a function in a file is named FILE.py:FUNCTION")
    found = getattr(run_file(Path(file + ".py").resolve(), flag), name, None)
    if found is None:
        raise UserError(f"{flag} {given!r}: {file}.py has no function {name!r}")
    return found


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary directory in `folder`, for files that go to their places together; gone afterwards."""
    _clear_dead(folder / "export")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.", suffix=f".{os.getpid()}.tmp") as name:
        yield Path(name)


def is_leftover(path: Path) -> bool:
    """Whether a file or directory is a temporary one: of a process that was killed while it wrote, if none is writing
    now."""
    return _TEMPORARY.fullmatch(path.name) is not None


def leftovers(folder: Path) -> Iterator[Path]:
    """The temporary files and directories in a run directory."""
    for part in (folder, *(folder / name for name in ("checkpoints", "results", "export"))):
        yield from (path for path in part.glob(".*.tmp") if is_leftover(path))


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a run directory. Nobody may be writing there."""
    for path in [*leftovers(folder)]:
        _remove(path)


def _clear_dead(path: Path) -> None:
    """Remove what killed processes left of writing `path`, in a folder that may hold files of anyone's."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        found = _TEMPORARY.fullmatch(other.name)
        if found is not None and not lives(int(found[1])):
            _remove(other)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is a process of that number on this machine; True where that cannot be known."""
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
