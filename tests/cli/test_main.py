from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from nearfar.cli import main
from nearfar.cli.main import COMMANDS

SURFACE = [
    *("demo", "doctor", "train", "embed", "evaluate", "finetune", "predict", "distill"),
    *("label-plan", "helps", "report", "export", "compare", "views", "methods"),
]
"""Frozen: a new command is a deliberate act."""


def test_the_commands_are_those_that_were_agreed_on() -> None:
    assert list(COMMANDS) == SURFACE


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"], ["help"]])
def test_help_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in SURFACE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nearfar {version('nearfar')}\n"


def test_an_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert heard.err.startswith("nearfar: there is no command 'trian'; did you mean train?\n")


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "--help"])
    except SystemExit as end:
        status = end.code
    assert status == 0
    assert f"usage: nearfar {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("odd"), 2, "nearfar methods: odd\n"),
        (FileNotFoundError("gone"), 2, "nearfar methods: gone\n"),
        (OSError(28, "full"), 2, "nearfar methods: [Errno 28] full\n"),
        (ArithmeticError("diverged"), 2, "nearfar methods: diverged\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_a_sentence_and_a_status(
    error: BaseException,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("nearfar.cli.methods.methods", fails)
    assert main(["methods"]) == status
    assert capsys.readouterr().err == told


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARFAR_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no method 'simclear'"):
        main(["methods", "simclear"])


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["methods"], ["methods", "moco"], ["train", "--help"]])
def test_what_only_tells_does_not_wait_for_torch(argv: list[str]) -> None:
    code = "import sys; from nearfar.cli import main; status = main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "import sys; from nearfar.cli import main; sys.exit(main(['methods']))"
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-c", code], stdout=writes, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writes)
    assert done.stderr == ""
    assert done.returncode == 0
