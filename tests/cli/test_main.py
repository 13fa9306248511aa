from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.cli.main import COMMANDS
from nearfar.errors import NotFound, UserError
from tests.tiny import FLAGS, array_file

SURFACE = [
    *("demo", "doctor", "train", "embed", "search", "duplicates", "outliers", "curate", "explore", "suspects"),
    *("evaluate", "checkpoints", "finetune", "predict", "distill"),
    *("label-plan", "helps", "generate", "runs", "card", "report", "look", "export", "compare", "transfer"),
    *("views", "methods"),
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
        (UserError("odd"), 2, "nearfar methods: odd\n"),
        (NotFound("gone"), 2, "nearfar methods: gone\n"),
        (
            PermissionError(13, "Permission denied", "x.csv"),
            2,
            "nearfar methods: [Errno 13] Permission denied: 'x.csv'\n",
        ),
        (MemoryError(), 2, "nearfar methods: out of memory. Lower "),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), 2, "nearfar methods: out of memory (DefaultCPUAlloc"),
        (ValueError("odd"), 1, "nearfar methods: this is a bug of nearfar, not a mistake of yours (ValueError: odd)."),
        (KeyError("x"), 1, "nearfar methods: this is a bug of nearfar"),
        (FileNotFoundError("gone"), 1, "nearfar methods: this is a bug of nearfar"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_a_sentence_and_a_status(
    error: BaseException,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fails(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("nearfar.cli.methods.methods", fails)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["methods", "--odd name"]) == status
    heard = capsys.readouterr().err
    assert heard.startswith(told)
    assert heard.count("\n") == len(told[:1])
    written = list(tmp_path.iterdir())
    assert len(written) == (status == 1)
    for path in written:
        assert str(path) in heard
        text = path.read_text(encoding="utf-8")
        assert f"nearfar {version('nearfar')}" in text
        assert "nearfar methods '--odd name'" in text
        assert "in fails" in text
        assert repr(error).partition("(")[0] in text


def test_an_error_in_code_of_ones_own_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, mine = array_file(tmp_path / "data.npz", 8), tmp_path / "mine.py"
    mine.write_text("def views(size):\n    return {}[size]\n")
    words = ["train", "simclr", str(data), *FLAGS[:-2], "--views", f"{mine}:views", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert f"{mine}, line 2, in code of your own: KeyError: 16." in capsys.readouterr().err
    mine.write_text("import nothing_of_that_name\n")
    assert main(words) == 2
    assert "nothing_of_that_name" in capsys.readouterr().err


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARFAR_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no method 'simclear'"):
        main(["methods", "simclear"])


@pytest.mark.parametrize(
    "argv",
    [
        *(
            ["--help"],
            ["--version"],
            ["methods"],
            ["methods", "moco"],
            ["train", "--help"],
            ["train", "moco", "--help"],
        ),
        *(
            ["evaluate", "--help"],
            ["compare", "--help"],
            ["finetune", "--help"],
            ["train", "barlow", "drawings", "--help"],
        ),
    ],
)
def test_what_only_tells_does_not_wait_for_torch(argv: list[str]) -> None:
    code = (
        "import atexit, os, sys; from nearfar.cli import main\n"
        "atexit.register(lambda: 'torch' in sys.modules and os._exit(9))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
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
