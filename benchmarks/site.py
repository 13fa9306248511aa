"""What the documentation site has beside the pages in docs/: a hook of MkDocs, named in mkdocs.yml.

The glossary is cut out of docs/design.md, contributing and the changelog are the files at the root, the pages of the
API follow from the package, and the lists of commands and methods from the command line: each is written in one place.
"""

from __future__ import annotations

import ast
import html
import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearfar import methods
from nearfar.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "nearfar"
REPOSITORY = re.compile(r"^(?:src|tests|benchmarks|examples|\.\./(?:src|tests|examples|benchmarks))\b")
"""Links to what is in the repository and not on the site."""

ROOMS = {
    "losses": "Losses are pure functions of tensors. Each returns this rank's share, and can be used alone.",
    "memory": "Queues, banks and prototypes: what a method keeps from one step to the next, in buffers.",
    "nn": "Modules that methods share: heads, momentum pairs, norms, micro-batches.",
    "evaluation": "Probes and measures on features that were computed once, and what is told of them.",
    "views": "Random views of images, tables, recordings, graphs, sentences and videos.",
}
"""The rooms that the API pages show, file by file; views are those of each kind of data."""


FIRST = ("method", "batch")
"""Files that have a page of their own, though `import nearfar` gives what is in them."""


def document(*modules: str) -> str:
    """Lines that have the public names of modules documented."""
    return "\n\n".join(f"::: nearfar.{module}" for module in modules)


def top() -> str:
    """The page of what `import nearfar` gives, each by its short name."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    home = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME"
    )
    lines = [
        "# nearfar",
        "What `import nearfar` gives. `fit` trains and returns a `Run`, `load` opens one; the rest are their parts. "
        "`nearfar.MISSING`, -1, is the number of a label, a group or an attribute that is not known.",
    ]
    shown = home.keys() - {"MISSING"}
    for name in sorted(shown, key=lambda name: (name[0].isupper(), name.lower())):
        path = f"nearfar.{home[name]}.{name}"
        if home[name] in FIRST:
            lines.append(f"## nearfar.{name}\n\nSee [{name}](method.md#{path}).")
        else:
            lines.append(f"::: {path}\n    options:\n      heading: nearfar.{name}")
    return "\n\n".join(lines) + "\n"


def room(name: str) -> str:
    """The page of a room: its files one after the other."""
    if name == "views":
        files = [f"modalities.{path.parent.name}.views" for path in sorted(PACKAGE.glob("modalities/*/views.py"))]
        files.insert(0, "modalities.image.named")
    else:
        files = [f"{name}.{path.stem}" for path in sorted((PACKAGE / name).glob("*.py")) if path.stem != "__init__"]
    return f"# nearfar.{name}\n\n{ROOMS[name]}\n\n{document(*files)}\n"


def api() -> dict[str, str]:
    """The pages of the API, by the path of each."""
    pages = {
        "api/nearfar.md": top(),
        "api/contrast.md": "# nearfar.contrast\n\nThe two halves of every loss, exact and in little memory.\n\n"
        + document("contrast"),
        "api/method.md": "# nearfar.method\n\nWhat a method and an encoder are.\n\n" + document("method", "batch"),
    }
    return pages | {f"api/{name}.md": room(name) for name in ROOMS}


def glossary() -> str:
    """The table of words of docs/design.md."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    found = re.search(r"^## Glossary\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "docs/design.md has no section Glossary"
    return (
        "# Glossary\n\nOne word, one meaning, in the code, on these pages and in what the commands print.\n\n"
        + found[1]
    )


def from_root(name: str) -> str:
    """A page at the root of the repository, as it is linked from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((?:docs/)?", "](", text)


MADE: dict[str, Callable[[], str]] = {
    "glossary.md": glossary,
    "contributing.md": lambda: from_root("CONTRIBUTING.md"),
    "changelog.md": lambda: from_root("CHANGELOG.md"),
}
"""Pages that are on the site alone, and what makes each."""


AT_ROOT = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md", "../README.md": "index.md"}
"""Where on the site that is what lies at the root of the repository, seen from docs/."""


def navigation(nav: list[Any], docs: Path) -> list[Any]:
    """The navigation of mkdocs.yml with its lists filled in, and without pages that are not there."""
    filled: list[Any] = []
    for entry in nav:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(target, list):
            filled.append({title: navigation(target, docs)})
        elif target in LISTS:
            filled.append({title: LISTS[target]()})
        elif target in MADE or (docs / target).exists():
            filled.append(entry)
    return filled


def commands() -> list[Any]:
    return ["commands/README.md", *({name: f"commands/{name}.md"} for name in COMMANDS)]


def by_family() -> list[Any]:
    families = methods.by_family().items()
    listed = [
        {family[0].upper() + family[1:]: [{page.name: f"methods/{page.name}.md"} for page in pages]}
        for family, pages in families
    ]
    return ["methods/README.md", *listed]


def api_list() -> list[Any]:
    return [{Path(path).stem: path} for path in api()]


LISTS: dict[str, Callable[[], list[Any]]] = {"commands": commands, "methods": by_family, "api": api_list}


def on_config(config: Any) -> Any:
    config.nav = navigation(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for path, text in ({path: make() for path, make in MADE.items()} | api()).items():
        files.append(File.generated(config, path, content=text))
    pages = [Path(config.docs_dir, file.src_uri) for file in files.documentation_pages() if file.abs_src_path]
    for path in pages:
        for shown in re.findall(r"!\[[^\]]*\]\(\.\./(benchmarks/[^)]+)\)", path.read_text(encoding="utf-8")):
            if files.get_file_from_path(shown) is None:
                files.append(File.generated(config, shown, abs_src_path=str(ROOT / shown)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return as_shown(markdown, page.file.src_uri)


def as_shown(markdown: str, path: str) -> str:
    """Markdown as MkDocs reads it: a list after a line of text begins a paragraph of its own, figures of the repository
    are those of the site, and what is in the repository alone is named without a link."""
    lines: list[str] = []
    fence, before = "", ""
    for line in markdown.split("\n"):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or line.strip() == fence):
            fence = "" if fence else mark[1]
        elif not fence:
            item, after = (re.match(r"(\s*)(?:[-*+]|\d+\.) ", text) for text in (line, before))
            begins_list = item and not after and not before.startswith((" ", "|", "#"))
            begins_table = line.startswith("|") and not before.startswith("|")
            if before.strip() and (begins_list or begins_table):
                lines.append("")
            line = linked(line, path)
        before = line
        lines.append(line)
    return "\n".join(lines)


def linked(line: str, path: str) -> str:
    """A line whose links lead to what the site holds."""

    def aim(found: re.Match[str]) -> str:
        shown, words, target = found.groups()
        folder = posixpath.dirname(path)
        if shown and (figure := re.sub(r"^(?:\.\./)+", "", target)).startswith("benchmarks/"):
            return f"![{words}]({posixpath.relpath(figure, folder or '.')})"
        name, mark, anchor = target.partition("#")
        if (moved := AT_ROOT.get(posixpath.normpath(posixpath.join(folder, name)))) is not None:
            return f"[{words}]({posixpath.relpath(moved, folder or '.')}{mark}{anchor})"
        return words if REPOSITORY.match(target) else found[0]

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", aim, line)


LISTED = ("results.html", "design.html", "benchmarks.html", "reliability.html")
"""Long pages of which the beginnings of sections are searched, and no more."""


def on_post_build(config: Any) -> None:
    """Make the search index small: every page loads it before a word is typed, as it must where there is no server."""
    path = Path(config.site_dir, "search", "search_index.json")
    if path.exists():
        index = json.loads(path.read_text(encoding="utf-8"))
        index["docs"] = slim(index["docs"])
        path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def slim(entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """The entries of a search index without what nobody searches for: numbers of tables, signatures, words twice.

    A method is one entry: its title, what it does, its idea and the names of its flags. Of the API there are the names,
    and what each file is. Of all else the beginning of each section, and its further words, each once.
    """
    kept: list[dict[str, str]] = []
    of_page: dict[str, dict[str, str]] = {}
    for entry in entries:
        page, _, section = entry["location"].partition("#")
        text = words_of(entry["text"])
        title = words_of(entry["title"]).removesuffix(" module-attribute")
        if page == "changelog.html" or re.search(r"\.[A-Z]\w*\.\w+$", section):
            continue
        if page.startswith("api/"):
            is_file = section.startswith("nearfar.") and title == section
            text = beginning(text, 110, rest=False) if is_file or not section else ""
        elif page.startswith("methods/") and page != "methods/index.html":
            if section in ("training", "source", "our-result", "cost"):
                continue
            text = text.removeprefix("All methods \u00b7 ")
            if section:
                whole = of_page[page]
                if section == "flags":
                    text = " ".join(re.findall(r"--[\w-]+", text))
                elif whole["title"] == page[8:-5]:  # the heading of the page
                    whole["title"] = title
                whole["text"] = f"{whole['text']} {beginning(text, 150, rest=False)}".strip()
                continue
        elif section in ("example", "what-is-given"):
            continue
        else:
            text = beginning(text, 180, rest=page not in LISTED)
        kept.append({"location": entry["location"], "title": title, "text": text})
        of_page.setdefault(page, kept[-1])
    return kept


def words_of(shown: str) -> str:
    """The words of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def beginning(text: str, count: int, *, rest: bool = True) -> str:
    """The first words of a text, up to so many characters; and the rest of its words, each once."""
    if len(text) <= count:
        return text
    cut = text.rfind(" ", 0, count)
    seen = {word.lower() for word in re.findall(r"[\w-]+", text[:cut])}
    more: list[str] = []
    for word in re.findall(r"(?:--)?[A-Za-z][\w-]{2,}", text[cut:]) if rest else []:
        if word.lower() not in seen:
            seen.add(word.lower())
            more.append(word)
    return " ".join([text[:cut], "\u2026", *more])
