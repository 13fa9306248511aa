"""The files beside the weights: damaged, cut, of somebody else; code that a run names; errors nobody expected."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.faults import Faults, Said, command
from nearfar.files import code_digests, read_json, replace_json, with_checksum
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.directory import read_config, write_config
from nearfar.training.journal import Journal

FLAGS = ("--encoder", "conv4", "--epochs", "2", "--batch", "16", "--views", "drawing")


def _directories(folder: Path) -> tuple[Path, Path, Path]:
    """Images, a run on them and a classifier from it, with results in both."""
    random = np.random.default_rng(0)
    data, run, classifier = folder / "data.npz", folder / "run", folder / "classifier"
    np.savez(data, images=random.integers(0, 256, (32, 16, 16), dtype=np.uint8), labels=np.arange(32) % 2)
    for words in (
        ["train", "simclr", data, *FLAGS, "--out", run],
        ["evaluate", run, data],
        ["report", run, "--data", data],
        ["finetune", run, data, "--out", classifier],
        ["evaluate", classifier, data],
    ):
        said = command(words)
        assert said.status == 0, said.text
    return data, run, classifier


def _side_files(*directories: Path) -> list[Path]:
    """All that nearfar reads again."""
    files = [path for one in directories for path in sorted(one.rglob("*")) if path.is_file()]
    return [path for path in files if path.name not in ("report.html", "encoder.py")]


def _answers(data: Path, run: Path, classifier: Path, out: Path) -> dict[str, tuple[Said, bytes]]:
    """What commands that read these files say, and what they make."""
    found = {}
    for name, words, made in (
        ("embed", ["embed", run, data, "--out", out / "a.npz"], out / "a.npz"),
        ("predict", ["predict", classifier, data, "--out", out / "a.csv"], out / "a.csv"),
        ("report", ["report", run], run / "report.html"),
        ("report of the classifier", ["report", classifier], classifier / "report.html"),
        ("evaluate", ["evaluate", run, data], run / "results" / "evaluate-*.json"),
        ("evaluate of the classifier", ["evaluate", classifier, data], classifier / "results" / "evaluate-*.json"),
        ("best", ["embed", run, data, "--checkpoint", "best", "--out", out / "b.npz"], out / "b.npz"),
    ):
        said = command(words)
        made = next(made.parent.glob(made.name), made)
        found[name] = said, _content(made) if made.exists() else b""
        for path in (out / "a.npz", out / "a.csv", out / "b.npz"):
            path.unlink(missing_ok=True)
    return found


def _content(made: Path) -> bytes:
    """What a file holds, but for the time at which a result was written, and the checksum of that."""
    if made.suffix != ".json":
        return made.read_bytes()
    result = {key: value for key, value in json.loads(made.read_bytes()).items() if key not in ("written", "checksum")}
    return json.dumps(result).encode()


def _judge(faults: Faults, what: str, file: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Each answer is the one before, or names the file that was damaged."""
    for name, (said, made) in after.items():
        same = said.status == 0 and made == before[name][1]
        told = file.name in said.text or "checkpoints" in said.text
        sound = (said.refused and told) or (said.status == 0 and told and name.startswith(("report", "evaluate")))
        if not (same or sound):
            return faults.tell(False, f"{what}, {name}: {said.status}, {said.text[-300:]!r}")
    return faults.tell(True, what)


def flipped_bits_of_side_files(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """One bit flipped in a file of a run or a classifier"""
    data, run, classifier = _directories(folder)
    files, before = _side_files(run, classifier), _answers(data, run, classifier, folder)
    for number in range(many):
        path = files[number % len(files)] if number < len(files) else random.choice(files)
        whole = path.read_bytes()
        content = bytearray(whole)
        place, bit = random.randrange(len(content)), random.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        results = {file: file.read_bytes() for file in (*run.glob("results/*"), *classifier.glob("results/*"))}
        after = _answers(data, run, classifier, folder)
        for file, kept in (results | {path: whole}).items():
            file.write_bytes(kept)
        _judge(faults, f"bit {bit} of byte {place} of {path.relative_to(folder)}", path, before, after)


def cut_and_foreign_side_files(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """A file of a run cut, emptied, zeroed, removed, or of another kind"""
    data, run, classifier = _directories(folder)
    files, before = _side_files(run, classifier), _answers(data, run, classifier, folder)
    packed = io.BytesIO()
    zipfile.ZipFile(packed, "w").writestr("a.txt", "no checkpoint")
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    others = {
        "empty": b"",
        "zip": packed.getvalue(),
        "deep JSON": b'{"a":' * 100_000,
        "deep YAML": with_checksum("a: " + "[" * 5000 + "]" * 5000 + "\n").encode(),
        "billion laughs": with_checksum(laughs).encode(),
        "large JSON": b'{"a": [' + b"0, " * 2_000_000 + b"0]}",
        "no text": bytes(range(256)),
        "a JSON list": b"[1, 2]",
        "an object": b'{"a": 1}',
    }
    for _ in range(many):
        path = random.choice(files)
        whole = path.read_bytes()
        how = random.choice(["cut", "zeroed", "removed", *others])
        path.write_bytes(whole[: random.randrange(len(whole))] if how == "cut" else others.get(how, bytes(len(whole))))
        if how == "removed":
            path.unlink()
        results = {file: file.read_bytes() for file in (*run.glob("results/*"), *classifier.glob("results/*"))}
        after = _answers(data, run, classifier, folder)
        for file, kept in (results | {path: whole}).items():
            file.write_bytes(kept)
        gone = (how == "removed" and path.parent.name in ("results", "checkpoints")) or path.suffix in (".csv", ".png")
        if gone or (how == "removed" and path.name in ("metrics.jsonl", "environment.json", "classifier.json")):
            after = {name: answer for name, answer in after.items() if answer[0].status != 0}  # nothing to be told of
        _judge(faults, f"{how}: {path.relative_to(folder)}", path, before, after)


def damaged_exports(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """encoder.safetensors, .json or .py damaged, and written again by `nearfar export RUN`"""
    _, run, _ = _directories(folder)
    whole = {path: path.read_bytes() for path in run.glob("encoder.*")}
    for _ in range(min(many, 30)):
        path = random.choice(list(whole))
        content = bytearray(whole[path])
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        said = command(["export", run])
        same = all(file.read_bytes() == kept for file, kept in whole.items())
        faults.tell(said.status == 0 and same and path.name in said.text, f"{path.name}: {said.text[-300:]!r}")


def damaged_lines_of_metrics(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Lines of metrics.jsonl with one bit flipped"""
    journal = Journal(folder / "metrics.jsonl")
    for step in range(30):
        journal.write({"step": step, "loss": random.random(), "knn": None})
    whole, lines = journal.path.read_bytes(), journal.read()
    for _ in range(20 * many):
        content = bytearray(whole)
        place, bit = random.randrange(len(content)), random.randrange(8)
        content[place] ^= 1 << bit
        journal.path.write_bytes(content)
        left = journal.read()
        lost = 2 if whole[place : place + 1] == b"\n" and place < len(whole) - 1 else 1
        kept = all(line in lines for line in left) and len(left) >= len(lines) - lost
        told = journal.damaged > 0 if len(left) < len(lines) else True
        faults.tell(kept and told, f"bit {bit} of byte {place}: {len(left)} lines, {journal.damaged} damaged")


def places_that_are_no_run(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Directories that are no run, of another method, or of another version"""
    data, run, _ = _directories(folder)
    config = read_config(run)
    places: dict[str, Path] = {
        name: folder / f"place{i}" for i, name in enumerate(("nothing", "empty", "a file", "loop"))
    }
    places["empty"].mkdir()
    places["a file"].write_text("no directory")
    places["loop"].symlink_to(places["loop"])
    places["a name that is too long"] = folder / ("x" * 300)
    made = config["made"]
    changes: dict[str, dict[str, Any]] = {
        "a key less": {name: value for name, value in config.items() if name != "settings"},
        "another version": config | {"made": {}},
        "an unknown setting": config | {"settings": config["settings"] | {"of_tomorrow": 1}},
        "an unknown kind": config | {"kind": "sound"},
        "settings of other types": config | {"settings": 3},
        "an unknown encoder": config | {"made": made | {"encoder": {"kind": "image", "name": "none"}}},
        "text for numbers": config | {"made": made | {"encoder": made["encoder"] | {"size": "large"}}},
    }
    for name, changed in changes.items():
        places[name] = Path(shutil.copytree(run, folder / f"place{len(places)}"))
        write_config(places[name], changed)
        (places[name] / "encoder.json").unlink()
        (places[name] / "encoder.safetensors").unlink()
    places["a checkpoint of another method"] = other = Path(shutil.copytree(run, folder / "other"))
    (other / "encoder.safetensors").unlink()
    shutil.rmtree(other / "checkpoints")
    with Checkpoints(other / "checkpoints") as checkpoints:
        checkpoints.save(6, {"method": {"encoder.net.0.weight": torch.zeros(3)}, "step": 6})
    places["a description of nothing"] = Path(shutil.copytree(run, folder / "nothing"))
    description = places["a description of nothing"] / "encoder.json"
    replace_json(description, read_json(description, "") | {"encoder": {"kind": "image"}})
    words = [["embed", data], ["evaluate", data], ["finetune", data], ["label-plan", data, "--count", "2"]]
    for name, place in places.items():
        for rest in words:
            out = ["--out", folder / "out"] if rest[0] != "evaluate" else []
            said = command([rest[0], place, *rest[1:], *out])
            faults.tell(said.refused and not (folder / "out").exists(), f"{name}, {rest[0]}: {said.text[-300:]!r}")


def code_that_a_run_names(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Names of code put into a run, which must not be run without --trust"""
    data, run, _ = _directories(folder)
    mark, bomb = folder / "mark", folder / "bomb.py"
    bomb.write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    whole = read_config(run)
    for place in ("method", "kind", "recipe", "views", "encoder", "towers"):
        for name in (str(bomb), f"{bomb}:run"):
            config = json.loads(json.dumps(whole)) | {"code": code_digests([name])}
            tower = config["made"]["encoder"] | {"kind": name}
            if place in ("encoder", "towers"):
                nested = {"kind": "towers", "towers": {"a": tower}}
                config["made"]["encoder"] = tower if place == "encoder" else nested
            else:
                (config["settings"] if place == "views" else config)[place] = name
            write_config(run, config)
            for rest in (
                ["embed", data],
                ["evaluate", data],
                ["export"],
                ["finetune", data, "--train", "full", "--epochs", "1"],
            ):
                out = ["--out", folder / "out"] if rest[0] != "evaluate" else []
                said = command([rest[0], run, *rest[1:], *out])
                shutil.rmtree(folder / "out", ignore_errors=True)
                (folder / "out").unlink(missing_ok=True)
                faults.tell(said.sound and not mark.exists(), f"{name} as {place}, {rest[0]}: {said.text[-300:]!r}")
                mark.unlink(missing_ok=True)


def errors_that_nobody_expected(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Errors of many kinds raised inside a command: a bug ends with a file, the system's and memory with a sentence"""
    expected = {
        1: [
            KeyError("a"),
            ValueError("b"),
            TypeError("c"),
            RuntimeError("d"),
            AssertionError(),
            ZeroDivisionError("e"),
        ],
        2: [PermissionError(13, "no", "f"), OSError(36, "long", "g"), MemoryError(), RuntimeError("not enough memory")],
    }
    with mock.patch.object(tempfile, "tempdir", os.fspath(folder)):
        for status, errors in expected.items():
            for error in errors:
                with mock.patch("nearfar.cli.methods.methods", side_effect=error):
                    said = command(["methods"])
                written = list(folder.glob("nearfar-bug-*"))
                held = [type(error).__name__ in path.read_text() and str(path) in said.text for path in written]
                sound = said.status == status and held == [True] * (status == 1) and said.text.count("\n") == 1
                faults.tell(sound, f"{error!r}: {said.status}, {said.text[-300:]!r}")
                for path in written:
                    path.unlink()
