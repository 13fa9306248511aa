"""What a terminal gets to see of names that were made to command it."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from nearfar.cli import main, printing
from nearfar.cli.console import Console


def test_control_characters_are_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print("a\x1b[2Jb\r\x07\x9b1m\u202e", "é\u3000図\n\tc")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\r\\x07\\x9b1m\\u202e é\u3000図\n\tc\n"
    with Console() as console:
        console.say("odd \x1b]0;title\x07 name")
    out = capsys.readouterr().out
    assert "odd \\x1b]0;title\\x07 name" in out


def test_every_module_of_the_command_line_prints_so() -> None:
    for path in Path(printing.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "printing.py" and re.search(r"(?<![\w.])print\b(?!_)", text):
            assert re.search(r"from nearfar\.cli\.printing import .*\bprint$", text, re.MULTILINE), path.name


def test_what_the_encoding_of_the_terminal_lacks_is_printed_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    assert main(["evaluate", "caf\udce9", "x\x1b[2J"]) == 2
    assert main(["caf\udce9"]) == 2
    sys.stdout.flush()
    assert b"\\udce9" in raw.getvalue()
    assert b"\x1b" not in raw.getvalue()
