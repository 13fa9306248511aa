"""What the command line says of the next step can be given as it stands; and one rule for files that are in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nearfar.cli import flags, main, train
from nearfar.report.record import read
from nearfar.settings import SYNONYMS, Settings, meant
from tests.tiny import FLAGS, evaluated, folder


def next_calls(said: str) -> list[list[str]]:
    """The words of each call that is named as a next step."""
    return [shlex.split(line) for line in re.findall(r"^(?:Go on:)?\s+(nearfar .*)$", said, re.MULTILINE)]


def parses(monkeypatch: pytest.MonkeyPatch, call: list[str]) -> Any:
    """What the command's own parser makes of a call, of which nothing is carried out."""

    class Parsed(Exception):
        pass

    def stop(*args: Any, **keywords: Any) -> Any:
        raise Parsed(flags.parsed(*args, **keywords))

    with monkeypatch.context() as patched:
        patched.setenv("NEARFAR_TRACEBACK", "1")
        for name in ("use", "evaluate", "fewlabels", "train"):
            patched.setattr(f"nearfar.cli.{name}.parsed", stop)
        with pytest.raises(Parsed) as end:
            main(call[1:])
    return end.value.args[0]


@pytest.mark.parametrize("labels", ["", "none", "my labels.csv"])
def test_the_next_steps_of_a_run_run_as_they_stand(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(Path("my photos"), 24)
    Path("my labels.csv").write_text("path,label\n" + "".join(f"{i:03d}.png,{i % 4}\n" for i in range(24)))
    out = tmp_path / "it's a run"
    asked = ["--labels", str(tmp_path / labels) if labels.endswith("csv") else labels] if labels else []
    assert main(["train", "simclr", "my photos", *FLAGS, *asked, "--epochs", "1", "--out", str(out)]) == 0
    calls = next_calls(capsys.readouterr().out)
    first = "evaluate" if labels.endswith("csv") else "label-plan"
    assert [words[1] for words in calls] == [first, "embed", "export"]
    asked = parses(monkeypatch, calls[0])
    assert (asked.run, asked.data) == ("it's a run", "my photos")
    if first == "label-plan":
        assert main(calls[0][1:]) == 0
        return
    assert asked.labels == "my labels.csv"
    for words in calls:
        assert main(words[1:]) == 0
    capsys.readouterr()
    assert main(["finetune", "it's a run", "my photos", "--labels", "my labels.csv", "--out", "few"]) == 0
    (call,) = next_calls(capsys.readouterr().out)
    assert call[1:] == ["predict", "few", "my photos"]
    assert main(call[1:]) == 0


def test_the_next_step_of_a_label_plan_is_parsed(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["label-plan", str(run), str(data), "--labels", "none", "--label-column", "kind of", "--out", "a b.csv"]
    assert main(words) == 0
    (call,) = next_calls(capsys.readouterr().out)
    asked = parses(monkeypatch, call)
    assert (asked.run, asked.data, asked.settings.labels) == (str(run), str(data), "a b.csv")
    assert asked.settings.label_column == "kind of"


def test_code_of_ones_own_is_trusted_in_the_next_step() -> None:
    config = {"settings": {"labels": ""}, "code": {"./mine.py": "0"}, "made": {"counts": [3, 3], "classes": ["a", "b"]}}
    config["made"] |= {"samples": 6, "labeled": 6}
    first, *_ = train.next_steps(config, Path("run"), "-odd")
    assert first == "nearfar evaluate run ./-odd --trust"


def written(place: Path) -> dict[str, Callable[[str], list[str]]]:
    """Calls that write a file, by its name."""
    run, data = str(place / "run"), str(place / "images.npz")
    return {
        "vectors.npz": lambda out: ["embed", run, data, "--out", out],
        "plan.csv": lambda out: ["label-plan", run, data, "--labels", "none", "--count", "4", "--out", out],
        "views.png": lambda out: ["views", data, "--samples", "2", "--out", out],
    }


@pytest.mark.parametrize("name", written(Path()))
def test_a_file_in_the_way_stays_unless_it_may_be_replaced(
    name: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(data, tmp_path / "images.npz")
    out = tmp_path / name
    out.write_text("precious")
    call = written(tmp_path)[name](str(out))
    assert main(call) == 2
    err = capsys.readouterr().err
    assert "is there already" in err
    assert "replace it by --force" in err
    assert out.read_text() == "precious"
    assert main([*call, "--force"]) == 0
    assert out.read_bytes() != b"precious"


def test_an_export_in_the_way_stays_unless_it_may_be_replaced(run: Path, tmp_path: Path) -> None:
    call = ["export", str(run), "--out", str(tmp_path / "out")]
    assert main(call) == 0
    assert main(call) == 2
    assert main([*call, "--force"]) == 0


def test_each_data_have_a_result_of_their_own(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, other = shutil.copytree(run, tmp_path / "run"), folder(tmp_path / "other one", 24, nested=True)
    for _ in range(2):
        assert main(["evaluate", str(copy), str(data)]) == 0
    first = evaluated(copy)
    content = first.read_bytes()
    assert main(["evaluate", str(copy), str(other), "--labels", "folders"]) == 0
    names = sorted(path.name for path in (copy / "results").glob("evaluate-*.json"))
    assert [re.sub("-[0-9a-f]{8}.json$", "", name) for name in names] == ["evaluate-images.npz", "evaluate-other-one"]
    assert first.read_bytes() == content
    said = capsys.readouterr().out
    assert str(copy / "results" / names[1]) in said
    assert "Of 2 results this is the newest on the run's own data 'images.npz'." in said
    assert list(read(copy).tables) == [first.stem, names[1].removesuffix(".json")]
    page = (copy / "report.html").read_text()
    assert all(f"represent{'ation'}: {name}" in page for name in ("images.npz", "other one"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["help", "embed"], "usage: nearfar embed"),
        (["help", "train"], "usage: nearfar train METHOD DATA"),
        (["help", "train", "moco"], "usage: nearfar train moco"),
        (["help", "methods"], "usage: nearfar methods"),
    ],
)
def test_help_may_stand_first(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main(given) == 0
    assert told in capsys.readouterr().out


def test_a_method_that_is_no_command_names_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simclr", "my photos", "--epochs", "3"]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.endswith("nearfar train simclr 'my photos' --epochs 3")


def test_names_that_others_use_lead_to_ours() -> None:
    ours = {field.name for field in dataclasses.fields(Settings)}
    ours |= {"size", "weights", "temperature", "out", "resume", "force", "count", "length", "text_column", "per_class"}
    assert set(SYNONYMS.values()) <= ours
    assert not SYNONYMS.keys() & ours
    assert meant("batch_size", ["batch", "epochs"]) == "; did you mean batch?"
    assert meant("batch_size", ["epochs"]) == ""
    assert meant("epohcs", ["epochs"]) == "; did you mean epochs?"
