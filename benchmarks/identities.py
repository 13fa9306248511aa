"""Are characters told apart that have no names? `python -m benchmarks.identities`, on handwritten characters.

Re-identification in small: the character is the identity, who drew it is the camera. The seed draws alphabets for a
source domain, whose characters are known, and as many for a target domain, whose are not; tested are the characters of
alphabets that are in neither. Each test drawing ranks all others; mAP, and CMC-1, the share of those whose nearest is
of their character. As nobody drew a character twice, the rule that removes an identity's items of the same camera
removes the query itself alone.

Every line sees as many samples. spcl unsupervised and simclr see both domains without names, supcon the source alone,
spcl adaptive both, and the source's names. The paper begins with a network trained on ImageNet; here all begin with
random weights, and with the settings of the recipe `drawings`. Where LINES says 0.4, that is spcl's radius, with fewer
neighbors: both were chosen on four more alphabets, by how pure clusters are; else they are the paper's.

--pilot: a look at those four, of which nothing is kept. One result file per run, so that a stopped series goes on where
it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import nn

from benchmarks.bench.results import keep
from benchmarks.compare import trained
from nearfar.batch import MISSING
from nearfar.evaluation.identities import identities
from nearfar.evaluation.intervals import over_seeds
from nearfar.modalities.image.drawings import alphabets, drawers, drawings
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.views import plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "identities"
DOMAIN = 3
"""Alphabets of the source, and of the target."""
PILOTS = 4
"""Alphabets that a pilot is judged by."""
SEEN = 20_000
"""Samples that each line sees, two views of each."""
SHARED: dict[str, Any] = {
    "encoder": "conv4", "views": "drawing", "batch": 256,
    "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2, "probe_every": 0,
}  # fmt: skip
Seen = Literal["both", "source", "adaptive"]


@dataclass(frozen=True)
class Line:
    """A method, and what it sees: both domains without names, the source, or both and the source's names."""

    method: str
    sees: Seen
    flags: dict[str, Any] = field(default_factory=dict)


PAPER, CHOSEN = {"eps": 0.6, "k1": 30}, {"eps": 0.4, "k1": 20}
LINES: dict[str, Line] = {
    "supcon, source": Line("supcon", "source"),
    "simclr": Line("simclr", "both"),
    "spcl, unsupervised": Line("spcl", "both", PAPER),
    "spcl, adaptive": Line("spcl", "adaptive", PAPER),
    "spcl 0.4, unsupervised": Line("spcl", "both", CHOSEN),
    "spcl 0.4, adaptive": Line("spcl", "adaptive", CHOSEN),
}
MEASURES = ("mAP", "cmc@1")


@dataclass(frozen=True)
class Identities:
    """Which lines, and how."""

    lines: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that LINES names, if none is given."""
    seeds: int = 3
    """Runs of each."""
    seen: int = SEEN
    """Samples that a line sees."""
    pilot: bool = False
    """Look at other alphabets than those of the test, and keep nothing."""
    flags: str = "{}"
    """Settings and arguments of a pilot other than those of the line, as JSON."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Identities) -> int:
    """Run what is missing, then print the table."""
    if asked.flags != "{}" and not asked.pilot:
        raise ValueError("--flags is for a --pilot: what is reported has the settings of its line")
    if unknown := [name for name in asked.lines if name not in LINES]:
        raise ValueError(f"there is no line {unknown[0]!r}; there are {', '.join(LINES)}")
    for seed in range(0 if asked.table else asked.seeds):
        for line in asked.lines or LINES:
            path = _path(line, seed, asked)
            if asked.pilot or not path.exists():
                found = one(line, seed, asked)
                print(f"{line} {asked.flags} seed {seed}: {found['results']} {found['cpu_seconds']:.0f} s", flush=True)
                if not asked.pilot:
                    keep(path, found)
    if not asked.pilot:
        print(table(asked))
    return 0


def one(name: str, seed: int, asked: Identities) -> dict[str, Any]:
    """Train once, and measure the trained and the untrained encoder."""
    line = LINES[name]
    data, test = domains(seed, line.sees), unseen(seed, pilot=asked.pilot)
    flags = SHARED | {"epochs": max(1, round(asked.seen / len(data))), "seed": seed}
    flags |= line.flags | json.loads(asked.flags)
    with trained(plans.make(line.method, data, "drawings", flags)) as (run, took):
        results = {name: measured(run.encoder, test)}
        if not asked.pilot:
            results["untrained"] = measured(run.untrained(), test)
    return {
        "results": results,
        "method": line.method,
        "sees": line.sees,
        "seed": seed,
        "flags": flags,
        "source": drawn(seed)[0],
        "target": drawn(seed)[1],
        "trained_on": len(data),
        "with_names": int((data.label != MISSING).sum()),
        "tested_on": len(test),
        **took,
        "protocol": {"name": "identities", "camera": "drawer", "epoch": "last"},
        "command": f"python -m benchmarks.identities {name!r}",
        "threads": torch.get_num_threads(),
    }


def measured(encoder: nn.Module, test: Images) -> dict[str, float]:
    """mAP and CMC-1, in per cent."""
    found = identities(probing.embed(encoder, plain(32), test), test.label, drawers(test))
    return {name: round(found[name], 2) for name in MEASURES}


@cache
def drawn(seed: int) -> tuple[list[str], list[str], list[str]]:
    """The alphabets of the source, of the target, and of pilots."""
    names = sorted(set(alphabets(drawings("train"))))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    mixed = [names[i] for i in order]
    return mixed[:DOMAIN], mixed[DOMAIN : 2 * DOMAIN], mixed[2 * DOMAIN : 2 * DOMAIN + PILOTS]


def domains(seed: int, sees: Seen) -> Images:
    """What a line is trained on: drawings of its alphabets, with the names that it may see."""
    source, target, _ = drawn(seed)
    data = drawings("train")
    alphabet = alphabets(data)
    data = data.subset([i for i, a in enumerate(alphabet) if a in source or (a in target and sees != "source")])
    known = torch.tensor([a in source for a in alphabets(data)]) & (sees != "both")
    data.label = torch.where(known, data.label, MISSING)
    names, place = torch.unique(data.label[known], return_inverse=True)
    data.label[known], data.classes = place, [data.classes[i] for i in names.tolist()]
    return data


def unseen(seed: int, *, pilot: bool) -> Images:
    """Drawings of characters that no line has seen."""
    if not pilot:
        return drawings("test")
    data = drawings("train")
    return data.subset([i for i, a in enumerate(alphabets(data)) if a in drawn(seed)[2]])


def table(asked: Identities) -> str:
    """The results of all seeds as a Markdown table, with 95 % t-intervals over seeds, of differences seed by seed."""
    rows = [
        "| line | mAP % | CMC-1 % | mAP over supcon on the source | mAP over simclr | CPU seconds a run |",
        "|---|---|---|---|---|---|",
    ]
    found = {line: _found(line, asked) for line in LINES}
    values: dict[str, list[dict[str, float]]] = {
        "untrained": [r["results"]["untrained"] for r in found["simclr"] if "untrained" in r["results"]]
    }
    values |= {line: [r["results"][line] for r in results] for line, results in found.items()}
    for line, several in values.items():
        if len(several) < max(2, asked.seeds):
            rows.append(f"| {line} | {len(several)} of {asked.seeds} runs | | | | |")
            continue
        spread = [over_seeds([v[name] for v in several]) for name in MEASURES]
        told = [f"{s:.1f}" for s in spread]
        told += [_gap(several, values[other]) if other != line else "" for other in ("supcon, source", "simclr")]
        seconds = [result["cpu_seconds"] for result in found.get(line, [])]
        told.append(f"{sum(seconds) / len(seconds):.0f}" if seconds else "")
        rows.append(f"| {line} | {' | '.join(told)} |")
    return "\n".join(rows)


def _gap(one: list[dict[str, float]], other: list[dict[str, float]]) -> str:
    if len(one) != len(other):
        return ""
    gap = over_seeds([a["mAP"] - b["mAP"] for a, b in zip(one, other, strict=True)])
    seen = "" if gap.low > 0 or gap.high < 0 else "no difference seen at this budget: "
    return f"{seen}{gap:+.1f}"


def _found(line: str, asked: Identities) -> list[dict[str, Any]]:
    paths = [_path(line, seed, asked) for seed in range(asked.seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _path(line: str, seed: int, asked: Identities) -> Path:
    return RESULTS / f"{line.replace(', ', '-').replace(' ', '-')}-{asked.seen}-seed{seed}.json"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Identities, args=sys.argv[1:])))
