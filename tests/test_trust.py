"""Code that a run directory names is run only where the user says so, and only as it was in training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nearfar
from nearfar.cli import main
from nearfar.export.encoder import load_encoder
from nearfar.files import code_digests, read_json, replace_json
from nearfar.modalities import kind as kinds
from nearfar.training.directory import read_config, write_config
from tests.modalities.test_own_kind import RAGGED, series
from tests.tiny import FLAGS, array_file

METHOD = "from nearfar.methods.simclr import SimCLR\n\n\nclass Mine(SimCLR):\n    pass\n"
VIEWS = "from nearfar.modalities.image.views import View, Views\n\n\n"
VIEWS += "def two(size):\n    return Views([View(size=size), View(size=size)])\n"
LOUD = "from pathlib import Path\n\nPath({!r}).touch()\n"
"""What leaves a mark when it is run."""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once code of the user's own was run."""
    kinds._own.cache_clear()
    return tmp_path / "mark"


@pytest.fixture
def own(tmp_path: Path, mark: Path) -> dict[str, str]:
    """A method, views and a kind of one's own, each of which leaves the mark."""
    texts = {"method": METHOD, "views": VIEWS, "kind": (Path(RAGGED) / "kind.py").read_text(encoding="utf-8")}
    for name, text in texts.items():
        future, sep, rest = text.rpartition("from __future__ import annotations\n")
        (tmp_path / f"{name}.py").write_text(f"{future}{sep}{LOUD.format(str(mark))}{rest}", encoding="utf-8")
    return {name: str(tmp_path / f"{name}.py") for name in texts}


def all_commands(run: Path, data: Path, out: Path) -> list[list[str]]:
    """Every command that opens a run."""
    place = ["--out", str(out / "new")]
    return [
        ["embed", str(run), str(data), *place],
        ["evaluate", str(run), str(data)],
        ["report", str(run)],
        ["report", str(run), "--data", str(data)],
        ["look", str(run), str(data), "--out", str(out / "new.html")],
        ["export", str(run), *place],
        ["finetune", str(run), str(data), *place],
        ["finetune", str(run), str(data), "--train", "full", "--epochs", "1", *place],
        ["label-plan", str(run), str(data), "--labels", "none", "--count", "2", *place],
    ]


def statuses(commands: list[list[str]], out: Path, *flags: str) -> set[int]:
    """What they end with."""
    found = set()
    for words in commands:
        found.add(main([*words, *flags]))
        for path in out.glob("new*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def test_a_method_and_views_of_ones_own_are_not_needed_for_most(
    own: dict[str, str], mark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = array_file(tmp_path / "data.npz"), tmp_path / "run"
    words = ["train", own["method"], str(data), *FLAGS[:-2], "--views", f"{own['views']}:two", "--out", str(run)]
    assert main(words) == 0
    mark.unlink()
    assert statuses(all_commands(run, data, tmp_path), tmp_path) == {0}
    begun = ["train", "simclr", str(data), *FLAGS, "--from-run", str(run), "--out", str(tmp_path / "new")]
    assert main(begun) == 0
    kept = ["finetune", str(run), str(data), "--layer", "1", "--out", str(tmp_path / "kept")]
    assert main(kept) == 2
    assert f"{own['method']!r} run" in (said := capsys.readouterr().err)
    assert "--trust" in said
    assert not mark.exists()
    with pytest.raises(ValueError, match="--trust"):
        _ = nearfar.load(run).method
    assert main([*kept, "--trust"]) == 0
    assert main([*words, "--resume"]) == 0
    assert mark.exists()
    Path(own["method"]).write_text(METHOD, encoding="utf-8")
    assert main([*words, "--resume"]) == 2
    assert f"the file of {own['method']!r} has changed" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"method\.py' is not the file.*Put that version back"):
        _ = nearfar.load(run, trust=True).method


def test_a_kind_of_ones_own_is_run_only_with_trust(
    own: dict[str, str], mark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, classifier = series(tmp_path / "waves.jsonl", 24), tmp_path / "run", tmp_path / "classifier"
    flags = ["--epochs", "1", "--batch", "16", "--kind", own["kind"]]
    assert main(["train", "simclr", str(data), *flags, "--out", str(run)]) == 0
    assert main(["finetune", str(run), str(data), "--out", str(classifier), "--trust"]) == 0
    commands = [
        *(words for words in all_commands(run, data, tmp_path) if "label-plan" not in words),
        ["predict", str(classifier), str(data), "--out", str(tmp_path / "new")],
        ["distill", str(classifier), str(data), "--epochs", "1", "--out", str(tmp_path / "new")],
    ]
    kinds._own.cache_clear()
    mark.unlink()
    capsys.readouterr()
    assert statuses(commands, tmp_path) == {2}
    assert capsys.readouterr().err.count("give --trust") == len(commands)
    assert not mark.exists()
    assert statuses(commands, tmp_path, "--trust") == {0}
    again = ["train", "simclr", str(data), *flags, "--from-run", str(run), "--out", str(tmp_path / "new")]
    assert main(again) == 0
    shutil.rmtree(tmp_path / "new")
    with open(own["kind"], "a", encoding="utf-8") as file:
        file.write("\n# Changed.\n")
    capsys.readouterr()
    assert statuses(commands, tmp_path, "--trust") == {2}
    assert capsys.readouterr().err.count("Put that version back") == len(commands)


@pytest.mark.parametrize("place", ["method", "recipe", "kind", "views", "encoder", "tower", "encoder.json"])
def test_names_that_somebody_put_into_a_run_run_nothing(
    place: str, own: dict[str, str], mark: Path, tmp_path: Path
) -> None:
    data, run = array_file(tmp_path / "data.npz", 12), tmp_path / "run"
    nearfar.fit(str(data), out=run, say=lambda text: None, encoder="conv4", epochs=1, batch=4, probe_every=0)
    config, bomb = read_config(run), own["kind"]
    towers = {"kind": "towers", "towers": {"a": config["made"]["encoder"] | {"kind": bomb}}}
    config["code"] = code_digests([bomb, f"{bomb}:run"])
    match place:
        case "method" | "kind":
            config[place] = bomb
        case "recipe":
            config[place] = f"{bomb}:run"
        case "views":
            config["settings"][place] = f"{bomb}:run"
        case "encoder":
            config["made"]["encoder"]["kind"] = bomb
        case "tower":
            config["made"]["encoder"] = towers
        case _:
            description = read_json(run / "encoder.json", "")
            description |= {"encoder": towers, "code": code_digests([bomb])}
            replace_json(run / "encoder.json", description)
            with pytest.raises(ValueError, match="--trust"):
                load_encoder(run)
            begun = ["train", "simclr", str(data), *FLAGS, "--from-run", str(run), "--out", str(tmp_path / "new")]
            assert main(begun) == 2
    write_config(run, config)
    assert statuses(all_commands(run, data, tmp_path), tmp_path) <= {0, 2}
    assert not mark.exists()
