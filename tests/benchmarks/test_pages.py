from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmarks import claims, cost, learn, pages
from nearfar import methods

OLDEST = ("barlow", "byol", "moco", "simclr", "supcon", "swav")


def steady(text: str) -> str:
    """What of a page does not change with results: all above them; of the list, all but its last column."""
    return re.sub(r"\|[^|]*\|$", "|", text.split(pages.RESULTS)[0], flags=re.MULTILINE)


def cells(table: str) -> list[list[str]]:
    """The cells of the first table, as they are shown."""
    html = MarkdownIt("commonmark").enable("table").render(table)
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", line, re.DOTALL) for line in html.split("<tr>")[1:]]


@pytest.mark.parametrize("name", [*methods.names(), "README"])
def test_a_page_is_what_is_made_now(name: str) -> None:
    path = pages.DOCS / f"{name}.md"
    assert path.exists(), "run python -m benchmarks.pages"
    made = pages.index() if name == "README" else pages.page(name)
    assert steady(path.read_text(encoding="utf-8")) == steady(made), "run python -m benchmarks.pages"


@pytest.mark.parametrize("name", methods.names())
def test_links_between_pages_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+\.md)\)", pages.page(name)):
        assert (pages.DOCS / target).exists(), target


@pytest.mark.parametrize("name", OLDEST)
def test_the_parts_of_a_page_are_found(name: str) -> None:
    text = pages.page(name)
    headings = ("## The idea", "## When to use it", "## Training", "## Flags", "## Source", pages.RESULTS, "## Cost")
    assert [line for line in text.splitlines() if line.startswith("## ") and "Choices" not in line] == [*headings]
    assert f"# {methods.page(name).title}\n" in text
    assert f"    nearfar train {name} DATA" in text
    assert f"`python -m benchmarks.learn {name}`" in text
    assert f"| {name} | 50,000 x 5 | 3 | 42.7 |" in text  # the untrained network on CIFAR-10
    rows = cells(text[text.index("## Flags") : text.index("## Source")])
    assert [row[0] for row in rows[1:]] == [
        f"<code>--{flag.replace('_', '-')}</code>" for flag in methods.listed_flags(name)
    ]
    assert all(row[3] for row in rows[1:]), "a flag without help"


def test_a_docstring_is_taken_apart() -> None:
    about = """It is so: a b.
Here follows more:

    x = y * z
        + w

after.

Use it when f;
it costs g.
Note: Decided here: e. It is _unverified_."""
    assert pages.parts(about) == {
        "idea": ["It is so: a b. Here follows more:", "```text\nx = y * z\n    + w\n```", "after."],
        "use": ["Use it when f; it costs g."],
        "note": ["Decided here: e. It is \\_unverified\\_."],
    }
    assert pages.parts("") == {"idea": [], "use": [], "note": []}


def test_flags_are_said_to_be_of_the_method_they_are_taken_from() -> None:
    rows = {row[0]: row[-1] for row in cells(pages.flags("pcl"))}
    assert rows["<code>--clusters</code>"] == rows["<code>--queue</code>"] == ""
    assert rows["<code>--momentum</code>"] == '<a href="moco.md">moco</a>'


def test_no_sign_breaks_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "a | b \\| *c* _d_ <i> `|` [x](y) ~e~ `f"
    hostile = {"bad_one": "int | None = None", "other": "Literal['|', '`', '``'] = '\\|'", "third": "str = '<b>*'"}
    monkeypatch.setattr(methods, "listed_flags", lambda name: hostile)
    monkeypatch.setattr(methods, "flag_texts", lambda name: {"bad_one": words, "third": "two\nlines | more"})
    monkeypatch.setattr(pages, "origin", lambda name, flag: name)
    head, *rows = cells(pages.flags("simclr"))
    assert {len(row) for row in (head, *rows)} == {5}
    assert rows[0][:3] == ["<code>--bad-one</code>", "<code>int | None</code>", "<code>None</code>"]
    assert rows[0][3] == "a | b \\| *c* _d_ &lt;i&gt; <code>|</code> [x](y) ~e~ `f"
    assert rows[1][1] == "<code>Literal['|', '`', '``']</code>"
    assert rows[2][2:4] == ["<code>'&lt;b&gt;*'</code>", "two lines | more"]


def test_a_result_that_is_missing_or_old_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "result": json.loads((learn.RESULTS / "simclr.json").read_text()),
        "cost": json.loads((cost.RESULTS / "simclr.json").read_text()),
    }
    for module in (learn, cost, claims):
        monkeypatch.setattr(module, "RESULTS", tmp_path / module.__name__)
        (tmp_path / module.__name__).mkdir()
    assert "not run yet" in pages.result("simclr")
    assert "0 of 6 runs" in pages.result("simclr")
    assert "Not measured yet" in pages.costs("simclr")
    assert pages.gain("simclr") == "not run yet"
    arguments = json.loads(json.dumps(cost.plan("simclr").arguments))
    for source, old in ((learn.source("simclr"), False), ("of old", True)):
        for module, kind in ((learn, "result"), (cost, "cost")):
            changed = known[kind] | {"source": source, "arguments": arguments}
            (module.RESULTS / "simclr.json").write_text(json.dumps(changed))
        assert ("changed since" in pages.result("simclr")) == old
        assert ("changed since" in pages.costs("simclr")) == old
        assert ("changed since" in pages.gain("simclr")) == old
    failed = known["cost"] | {"MiB": {"method": "does not fit", "simclr": 2.0}, "crops_left_out": 2}
    (cost.RESULTS / "simclr.json").write_text(json.dumps(failed))
    assert "does not fit at the peak; SimCLR's take 2 MiB" in pages.costs("simclr")
    assert "2 left out as too small" in pages.costs("simclr")
    (learn.RESULTS / "simclr.json").write_text(json.dumps(known["result"] | {"learned": False}))
    assert "has not learned" in pages.result("simclr")


def test_pages_of_methods_that_are_gone_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(methods, "names", lambda: ["simclr"])
    (tmp_path / "timetravel.md").write_text("of old")
    pages.main()
    assert {path.name for path in tmp_path.iterdir()} == {"simclr.md", "README.md"}
