from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearfar import methods as catalog
from nearfar.cli import main


def test_every_method_is_listed_below_its_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed: dict[str, list[tuple[str, str]]] = {}
    family = ""
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            family = line.lower()
        elif entry := re.fullmatch(r"  (\w+) +(.+)", line):
            listed.setdefault(family, []).append((entry[1], entry[2]))
    families = catalog.by_family()
    assert listed == {family: [(page.name, page.title) for page in pages] for family, pages in families.items()}
    assert sorted(page.name for pages in catalog.by_family().values() for page in pages) == catalog.names()


def test_a_kind_lists_the_methods_that_train_on_it_and_why_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", "--kind", "graph"]) == 0
    trained, _, others = capsys.readouterr().out.partition("Not for data of the kind graph")
    assert re.search(r"^  graphcl ", trained, re.M)
    assert not re.search(r"^  (cvrl|rotation) ", trained, re.M)
    assert re.search(r"colorization, .*rotation\n +each takes views apart as pixels", others, re.S)
    assert main(["methods", "cvrl", "--kind=audio"]) == 0
    assert "Not for this kind of data: 'cvrl' takes views apart as frames" in capsys.readouterr().out
    own = tmp_path / "mine.py"
    text = 'from nearfar.methods.rotation import Rotation\n\n\nclass Mine(Rotation):\n    """Mine."""\n'
    own.write_text(text)
    assert main(["methods", str(own), "--kind", "audio"]) == 0
    assert "takes views apart as pixels" in capsys.readouterr().out
    own.write_text(text.replace("Mine.", "Mine.\n\n    Args:\n\n    Me.\n    "))
    assert main(["methods", str(own)]) == 2
    assert "docstring of Mine" in capsys.readouterr().err
    assert main(["methods", "--kind", "foo"]) == 2
    assert "'foo'" in capsys.readouterr().err


@pytest.mark.parametrize("name", catalog.names())
def test_a_page_shows_title_family_paper_and_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = catalog.page(name)
    assert main(["methods", name]) == 0
    out = capsys.readouterr().out
    head, family, _, summary, *_ = out.splitlines()
    assert (head, summary) == (page.title, page.summary)
    assert family.startswith(f"Family: {page.family}")
    assert f"nearfar train {name} DATA" in out
    shown = " ".join(out.split())
    assert " ".join(page.citation.split()) in shown
    texts = catalog.flag_texts(name)
    for flag, parameter in catalog.flags(catalog.load(name)).items():
        default = re.search(rf"--{flag.replace('_', '-')}: .* = (.*)", out)
        assert default, "the flags are read from the source, and must be those of the class"
        assert eval(default[1], {}) == parameter.default  # as the source has it: 2**-16, 2 / 3
        assert texts[flag] in shown


@pytest.mark.parametrize("name", catalog.names())
def test_a_title_names_authors_and_year_of_a_paper_that_is_cited(name: str) -> None:
    page = catalog.page(name)
    named = re.fullmatch(r"[^()]+ \((\S[^()]* (?:19|20)\d\d)\)", page.title)
    assert named, page.title
    assert named[1] in " ".join(page.citation.split())
    assert re.search(r"\nUse it ", page.about), "the docstring says when to use the method"


def test_titles_differ() -> None:
    titles = [catalog.page(name).title for name in catalog.names()]
    assert len(set(titles)) == len(titles)


def test_no_flag_has_the_help_of_another() -> None:
    for name in catalog.names():
        texts = catalog.flag_texts(name)
        assert len(set(texts.values())) == len(texts), name


def test_an_unknown_method_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "simlcr"]) == 2
    err = capsys.readouterr().err
    assert "there is no method 'simlcr'; did you mean simclr or" in err
    assert err.count("\n") == 1


def test_a_users_own_file_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import a_module_that_is_not_there\n"
        "class Mine(Method):\n"
        '    """My own way."""\n'
        "    def __init__(self, encoder, *, width: int = 3, channels: int = 3) -> None: ...\n"
        "    def forward(self, batch): ...\n"
    )
    assert main(["methods", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Mine\n")
    assert "My own way." in out
    assert "--width: int = 3" in out
    assert "--channels" not in out, "a run fills it"
