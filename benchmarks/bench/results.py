"""What a section found, where it was found, and how that is kept."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.bench.timing import OURS, Row, Spread
from nearfar.files import replace_text

PACKAGES = [
    "nearfar",
    "torch",
    "torchvision",
    "numpy",
    "timm",
    "scikit-learn",
    "lightly",
    "pytorch-metric-learning",
    "open-clip-torch",
    "torch-geometric",
    "kornia",
    "albumentations",
    "opencv-python-headless",
    "simplejpeg",
    "pillow",
    "sentence-transformers",
    "tokenizers",
    "transformers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to measure. quick: tiny sizes, to see that all works."""

    threads: int
    quick: bool = False
    compiled: bool = False


@dataclass(slots=True)
class Found:
    """Rows of times, peaks of memory in MiB, and the numbers that targets are held to, by name."""

    rows: list[Row] = field(default_factory=list)
    peaks: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, Spread] = field(default_factory=dict)

    def add(self, row: Row, key: str) -> None:
        """Keep a row; the ratio of each contender becomes the number '<key>: <contender> / ours'."""
        self.rows.append(row)
        for who, ratio in row.ratio.items():
            if who != row.reference:
                self.numbers[f"{key}: {who} / {row.reference}"] = ratio

    def number(self, name: str, value: float) -> None:
        self.numbers[name] = Spread(value, value, value)
        print(f"    {name}: {value:.4g}", flush=True)

    def peak(self, name: str, size: dict[str, int], peak: dict[str, float | str], key: str) -> None:
        """Keep peaks in MiB, or why there is none; ratios become the numbers '<key> memory: <contender> / ours'."""
        self.peaks.append({"name": name, "size": size, "MiB": peak})
        ours = peak[OURS]
        print(f"{name}  {' '.join(f'{k}={v}' for k, v in size.items())}  peak extra memory")
        for who, value in peak.items():
            told = value if isinstance(value, str) else f"{value:10.1f} MiB"
            if not isinstance(value, str) and not isinstance(ours, str) and who != OURS and ours > 0:
                told += f"   {value / ours:7.1f} x"
                self.numbers[f"{key} memory: {who} / {OURS}"] = Spread(*[value / ours] * 3)
            print(f"    {who:30s} {told}", flush=True)


def machine_kind() -> str:
    """A short name for machines of one kind."""
    return f"{platform.machine()}-{os.cpu_count()}-cores"


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write the result of a run down, with where it was found; whole or not at all, as a series may be stopped."""
    text = json.dumps(result | {"environment": environment()}, indent=1)
    rows_of_numbers = re.sub(r"\[[\d\s,.eE+-]+\]", lambda row: " ".join(row[0].split()), text)
    replace_text(path, rows_of_numbers + "\n")


def environment() -> dict[str, Any]:
    """Where and with what this was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "commit": commit(),
        "versions": versions(),
    }


def cpu_model() -> str:
    """The name of the processor, with the widest vector instructions that it has."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = fields.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "")
    return f"{fields.get('model name', platform.processor())} {vectors}".strip()


def commit() -> str:
    """The commit of the working tree, marked where files differ from it."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def save(path: Path, section: str, setting: Setting, command: str, found: Found, where: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"section": section, "command": command, "setting": asdict(setting), "environment": where}
    path.write_text(json.dumps(_rounded(report | asdict(found)), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Five digits say all that a measurement knows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
