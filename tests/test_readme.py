"""What the README shows is true: its Python runs, its commands are commands."""

from __future__ import annotations

import re
import shlex
import wave
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.cli.main import COMMANDS
from tests.snippets import blocks, run, stopped
from tests.tiny import folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
SHELL = [
    *(
        line
        for language, code in BLOCKS
        if language in ("", "bash", "sh", "shell", "console")
        for line in code.splitlines()
    ),
    *(
        line[4:]
        for line in re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL).splitlines()
        if line[:4] == " " * 4
    ),
    *re.findall(r"`((?:nearfar|torchrun|make|python) [^`\n]+)`", README),
]
COMMANDS_SHOWN = [words for line in SHELL if (words := shlex.split(line.removeprefix("$ "), comments=True))]
NEARFAR = [words[words.index("nearfar") + 1 :] for words in COMMANDS_SHOWN if "nearfar" in words]
TARGETS = [word for words in COMMANDS_SHOWN if words[0] == "make" for word in words[1:] if "=" not in word]


def test_the_readme_shows_python_and_commands() -> None:
    assert PYTHON
    assert NEARFAR
    assert {language for language, _ in BLOCKS} <= {"python", "bash", "sh", "shell", "console", "", "text"}
    known = {"nearfar", "make", "torchrun", "python", "pip", "uv", "git", "cd"}
    assert {words[0] for words in COMMANDS_SHOWN} <= known, "a command that this test does not know how to check"


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_runs_as_it_stands(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not PYTHON[number].mark
    run([PYTHON[number]])


@pytest.mark.parametrize("words", NEARFAR, ids=" ".join)
def test_a_command_is_one(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken up to where it would open files: flags and their values are known, and what is needed is named."""
    assert words[0] in COMMANDS
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 4)
    (tmp_path / "sounds").mkdir()
    with wave.open(str(tmp_path / "sounds" / "one.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2000))
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "dino.pth").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "cameras.csv").write_text("path,sequence,camera\na.mp4,1,a\n")
    (tmp_path / "people.csv").write_text("age,income\n39,low\n50,high\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text((ROOT / "src" / "nearfar" / "methods" / "simclr.py").read_text(encoding="utf-8"))
    if words[0] == "methods":
        assert main(words) == 0
        return

    with pytest.raises(stopped(monkeypatch)):
        main(words)


@pytest.mark.parametrize("target", sorted({"demo", "test", *TARGETS}))
def test_a_target_of_make_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_names_the_two_targets() -> None:
    assert {"demo", "test"} <= set(TARGETS)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README))))
def test_a_link_leads_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:src|docs|tests|benchmarks|examples)/[^`\s]+)`", README))))
def test_a_file_that_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists()
