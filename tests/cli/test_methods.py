from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearfar import methods as catalog
from nearfar.cli import main


def test_every_method_is_listed_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    for name in catalog.names():
        assert f"{name} " in said
    assert said.count("arXiv ") == len(catalog.names())


@pytest.mark.parametrize("name", catalog.names())
def test_a_page_tells_flags_paper_and_use(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", name]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: {catalog.page(name).title}\n")
    assert f"usage: nearfar train {name} DATA" in said
    assert "arXiv" in said
    for flag, parameter in catalog.flags(catalog.load(name)).items():
        shown = re.search(rf"--{flag.replace('_', '-')}: .* = (.*)", said)
        assert shown, "the flags are read from the source, and must be those of the class"
        assert eval(shown[1], {}) == parameter.default  # as the source has it: 2**-16, 2 / 3


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
        "    def __init__(self, encoder, *, width: int = 3) -> None: ...\n"
        "    def forward(self, batch): ...\n"
    )
    assert main(["methods", str(file)]) == 0
    said = capsys.readouterr().out
    assert "My own way." in said
    assert "--width: int = 3" in said
