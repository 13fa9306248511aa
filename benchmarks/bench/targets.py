"""What the measurements are held to. Free of torch, as is all that only prints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.bench.timing import OURS


@dataclass(frozen=True, slots=True)
class Target:
    """A number of a section, and its bound. "one": judged on one thread; "all": on all threads, or only there."""

    section: str
    number: str
    sense: Literal["at least", "at most"]
    bound: float
    threads: Literal["one", "all"] = "one"
    inverse: bool = False  # the bound is on 1 / number

    def met(self, value: float) -> bool:
        """Whether a value of the number is good enough."""
        value = self.value(value)
        return value >= self.bound if self.sense == "at least" else value <= self.bound

    def value(self, value: float) -> float:
        """What the bound is on."""
        return 1 / value if self.inverse else value

    def text(self) -> str:
        """What is wanted, in words."""
        name, _, quotient = self.number.rpartition(": ")
        if self.inverse:
            above, _, below = quotient.partition(" / ")
            quotient = f"{below} / {above}"
        return f"{name}: {quotient}" if name else quotient


def _faster(section: str, key: str, over: str, bound: float, threads: Literal["one", "all"] = "one") -> Target:
    return Target(section, f"{key}: {over} / {OURS}", "at least", bound, threads)


_FLOOR = "NT-Xent N{} D128: three matrix products / " + OURS
_PML = "pytorch-metric-learning SupCon"

TARGETS = (
    _faster("losses", "NT-Xent N4096 D128", "plain", 4),
    _faster("losses", "NT-Xent N4096 D128", "lightly", 6),
    _faster("losses", "NT-Xent N4096 D128", _PML, 10),
    _faster("losses", "SupCon N4096 D128", "plain", 7),
    _faster("losses", "SupCon N4096 D128", "solo-learn's formula", 5),
    _faster("losses", "DCL N4096 D128", "lightly", 9),
    _faster("losses", "2C N1024 D128", "cosines of all pairs", 3),
    _faster("losses", "MoCo N1024 D128 Queue65536", "lightly", 5),
    _faster("losses", "Barlow Twins N256 D8192", "lightly", 30),
    _faster("losses", "SwAV N4096 K3000", "plain", 1 / 0.5),
    _faster("losses", "CLIP N4096 D128", "plain", 3),
    _faster("losses", "CLIP N4096 D128", "open_clip", 3),
    Target("losses", _FLOOR.format(1024), "at most", 1.3, inverse=True),
    Target("losses", _FLOOR.format(4096), "at most", 1.0, inverse=True),
    Target("losses", _FLOOR.format(8192), "at most", 1.0, inverse=True),
    Target("losses", _FLOOR.format(16384), "at most", 1.0, inverse=True),
    _faster("memory", "MoCo N1024 D128 Queue65536 memory", "lightly", 300, "all"),
    _faster("memory", "NT-Xent N16384 D128 memory", "plain", 150, "all"),
    Target("memory", "exponent of NT-Xent's extra memory in N", "at most", 1.1, "all"),
    _faster("views", "views 32 px", "lightly", 20),
    _faster("views", "views 32 px", "kornia, batched", 5),
    _faster("views", "views 32 px", "albumentations", 6),
    _faster("views", "views 224 px", "lightly", 4),
    _faster("views", "views 224 px", "albumentations", 1),
    _faster("views", "view pairs", "lightly, DataLoader of 4 workers", 10, "all"),
    _faster("step", "SimCLR step", "loop by hand", 1),
    Target("step", "share of the input in a step, %", "at most", 5),
    Target("step", f"loop: {OURS} / bare loop by hand", "at most", 1.3),
    _faster("job", "job", "lightly's parts, plain loop", 2.2),
    _faster("video", "clips from an mp4", "whole file decoded", 5),
    _faster("graphs", "GraphCL step", "PyG, a change for each graph", 3),
    _faster("knn", "kNN", "lightly", 3),
    Target("knn", "GiB of the whole process, kNN by a bank of 1,000,000 x 128", "at most", 2, "all"),
    _faster("linear", "linear 10", "SGD, DataLoader", 15),
    Target("linear", "linear 10: accuracy above SGD, points", "at least", 0),
    _faster("linear", "linear 100", "SGD, DataLoader", 10),
    Target("linear", "linear 100: accuracy above SGD, points", "at least", 0),
    Target("text", "SimCSE step: sentence-transformers / padded to the longest of the batch", "at least", 1.3),
    _faster("text", "SimCSE step", "sentence-transformers", 1.3),
    Target("text", "seconds, tokens of 186,225 sentences", "at most", 10),
    Target("text", "MiB more for ten times the sentences, rows apart", "at most", 50),
    _faster("mel", "log-mel of 1,000 recordings", "librosa", 5),
    Target("start", "CPU seconds, nearfar --help", "at most", 0.5),
    Target("start", "CPU seconds, nearfar.losses above torch", "at most", 0.2),
    _faster("embeddings", "embed 32 px", "bare loop", 0.95),
    Target("embeddings", "seconds a query, exact search of 1,000,000 x 128", "at most", 1),
    Target("embeddings", "seconds, near-duplicates of 200,000 x 128", "at most", 120),
    Target("gpu", "GiB beyond the inputs, NT-Xent of 65536 rows", "at most", 1, "all"),
    Target("gpu", f"NT-Xent 65536 rows: three matrix products / {OURS}", "at most", 3, "all", inverse=True),
    _faster("gpu", "NT-Xent 65536 rows", "plain", 1, "all"),
    _faster("gpu", "NT-Xent 65536 rows", "plain, compiled", 1, "all"),
    Target("gpu", "seconds, an epoch of SimCLR, ResNet-18", "at most", 6, "all"),
    Target("gpu", "share of the networks in a step, %", "at least", 85, "all"),
    Target("start", f"start: {OURS} train simclr drawings, 1 step / import torch", "at most", 2),
)


def table(reports: Iterable[dict[str, Any]]) -> str:
    """Each target beside what was reached, on one thread and on all; judged where the target says, quick runs never."""
    reports = list(reports)
    quick = {r["section"] for r in reports if r["setting"]["quick"]}
    found = {(r["section"], r["setting"]["threads"] == 1): r["numbers"] for r in reports}
    lines = [f"{'target':66s} {'wanted':>14s}   {'one thread':>22s}   {'all threads':>22s}   met"]
    met = judged = 0
    for target in TARGETS:
        told, good = [], None
        for alone in (True, False):
            number = found.get((target.section, alone), {}).get(target.number)
            told.append(_span(target, number) if number else "-")
            if number and alone == (target.threads == "one") and target.section not in quick:
                good = target.met(number["median"])
        judged += good is not None
        met += good is True
        verdict = {None: "tiny sizes" if target.section in quick else "not measured", True: "yes", False: "NO"}[good]
        wanted = f"{target.sense} {target.bound:g}"
        lines.append(f"{target.text():66s} {wanted:>14s}   {told[0]:>22s}   {told[1]:>22s}   {verdict}")
    return "\n".join([*lines, f"{met} of {judged} measured targets met; {len(TARGETS) - judged} not judged"])


def _span(target: Target, number: dict[str, float]) -> str:
    middle, low, high = (target.value(number[name]) for name in ("median", "low", "high"))
    if low == high:
        return f"{middle:.3g}"
    return f"{middle:.3g} ({min(low, high):.3g} to {max(low, high):.3g})"


def reports(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The saved results of machines of this kind."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*-{kind}.json"))]
