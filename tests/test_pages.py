"""What the pages of docs/ show is true: their code runs, their links lead somewhere, what is made is up to date.

`python -m tests.test_pages` runs what is marked as long as well (`make docs-check`).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks import commands
from nearfar.cli import main
from nearfar.cli.main import COMMANDS
from tests.snippets import DOCS, ROOT, Block, blocks, lines, run, stopped

GENERATED = "methods"
"""Of the pages of methods the one block is a call on DATA: tests/benchmarks/test_pages.py holds them to the methods."""
START, EMBEDDINGS = DOCS / "index.md", DOCS / "embeddings.md"
COMMAND_PAGES = [
    DOCS / "commands" / f"{name}.md"
    for names in commands.GROUPS.values()
    for name in names
    if name in commands.EXAMPLES
]
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] != GENERATED]
OTHERS = [
    path for path in PAGES if path != START and path not in COMMAND_PAGES and any(not b.mark for b in blocks(path))
]
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def stand(folder: Path) -> None:
    """What the commands' examples stand on besides the page that trains the first run."""
    shutil.copytree(folder / "shapes", folder / "sets" / "shapes")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the start page was gone through."""
    folder, before = tmp_path_factory.mktemp("started"), Path.cwd()
    os.chdir(folder)
    try:
        run(blocks(START))
    finally:
        os.chdir(before)
    stand(folder)
    return folder


def test_the_examples_of_the_commands_run_one_after_the_other(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started)
    (started / "runs" / "first" / "embeddings.npz").unlink()
    for page in COMMAND_PAGES:
        run(blocks(page))
    assert (started / "vectors" / "index.json").exists()
    assert (started / "runs" / "small" / "classifier.safetensors").exists()


@pytest.mark.parametrize("page", OTHERS, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_the_code_of_a_page_runs(page: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(started / "shapes", tmp_path / "shapes")
    shutil.copytree(started / "runs" / "first", tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    run(blocks(page))


LONG = [block for page in PAGES for block in blocks(page) if block.mark == "long"]


@pytest.mark.parametrize("block", LONG, ids=str)
def test_a_call_that_is_long_is_one_all_the_same(block: Block, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where it would open its data."""
    monkeypatch.chdir(started)
    stop = stopped(monkeypatch)
    for words in lines(block.code):
        if words[1] == "generate":  # of a run that the call before it would have trained
            continue
        with pytest.raises(stop):
            main(words[1:])


def test_what_is_not_run_says_why() -> None:
    """And is listed, so that it is seen when it grows."""
    every = [block for page in PAGES for block in blocks(page)]
    unrun = [block for block in every if block.mark in ("long", "not run")]
    for block in unrun:
        print(f"{block.mark}: {block}: {block.why}")
    assert all(len(block.why.split()) > 2 for block in unrun)
    known = ("sh", "bash", "shell", "console", "python")
    assert [str(block) for block in every if not block.mark and block.language not in known] == []
    assert len(every) - len(unrun) > 40


def test_a_mark_belongs_to_the_block_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.snippets.ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text(
        "# A\n\n<!-- long: it takes an hour -->\n```sh\nnearfar a\n```\n\n```python\nx = 1\n```\n\nText:\n\n"
        "    nearfar b\n    nearfar c  # d\n\n```text\nnearfar e\n```\n",
        encoding="utf-8",
    )
    assert [(b.line, b.language, b.code, b.mark) for b in blocks(page)] == [
        (3, "sh", "nearfar a\n", "long"),
        (8, "python", "x = 1\n", ""),
        (14, "sh", "nearfar b\nnearfar c  # d\n", ""),
    ]
    page.write_text("# A\n<!-- page not run: of another machine -->\n\n    nearfar a\n", encoding="utf-8")
    assert [(b.mark, b.why) for b in blocks(page)] == [("not run", "of another machine")]
    with pytest.raises(AssertionError, match=r"a\.md, line 3: nearfar none"):
        run([Block("a.md", 3, "sh", "nearfar none\n", "", "")])


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made of their words."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?)\s*$", plain, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_anchors_hold(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outside = re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in slugs(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


def test_anchors_are_made_as_they_are_read() -> None:
    assert slugs("# A `b` c\n## Why? (d, e)\n## Why? (d, e)\n```\n# no\n```\n### [f](g.md) -h") == {
        "a-b-c",
        "why-d-e",
        "why-d-e-1",
        "f--h",
    }


@pytest.mark.parametrize("name", [*COMMANDS, "README"])
def test_the_page_of_a_command_is_what_its_help_says_now(name: str) -> None:
    path = commands.DOCS / f"{name}.md"
    assert path.exists(), "run python -m benchmarks.commands"
    made = commands.index() if name == "README" else commands.page(name)
    assert path.read_text(encoding="utf-8") == made, "run python -m benchmarks.commands"


@pytest.mark.parametrize("name", ["evaluate", "embed", "label-plan"])
def test_no_word_of_a_help_is_lost_on_its_page(name: str) -> None:
    words = re.compile(r"[\w-]{3,}")
    lost = set(words.findall(commands.told(name, "--help"))) - set(words.findall(commands.page(name)))
    of_boxes = {"usage", "positional", "arguments", "options", "settings", "required"}
    assert lost <= of_boxes | {"--help", "show", "this", "help", "message", "and", "exit"}


def test_there_is_a_page_for_every_command_and_no_other() -> None:
    assert {path.stem for path in commands.DOCS.glob("*.md")} == {*COMMANDS, "README"}
    assert set(commands.EXAMPLES) == set(COMMANDS)


def check_all() -> None:
    """Run all that is not marked `not run`, also what is long."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        for page in [START, *COMMAND_PAGES]:
            (folder / "runs" / "first" / "embeddings.npz").unlink(missing_ok=True)
            print(f"-- {page.relative_to(ROOT)}", flush=True)
            run(blocks(page), long=True)
            if page == START:
                stand(folder)
        for page in [path for path in PAGES if path != START and path not in COMMAND_PAGES]:
            print(f"-- {page.relative_to(ROOT)}", flush=True)
            own = folder / page.stem
            shutil.copytree(folder / "shapes", own / "shapes")
            shutil.copytree(folder / "runs" / "first", own / "runs" / "first")
            os.chdir(own)
            run(blocks(page), long=True)


if __name__ == "__main__":
    check_all()
