"""What does CALM teach a model that writes? `python -m benchmarks.calm`, on CommonGen.

A T5 with random weights (t5-2x64, a vocabulary of 3,000, 24 tokens) learns by span corruption first, on sentences of
CommonGen's training sets; then by the three tasks of CALM, then in the joint stage. Beside it the same model goes on
with span corruption for as many steps. Concepts are CommonGen's own for sentences that are written; those that are
shuffled are found by the tagger of rules. Measured on all sentences of some sets of CommonGen's dev part, which took
part in nothing else; the last step counts, and nothing was tuned (--tune measures on training sets instead). One file a
row and seed, so that a stopped series goes on where it was.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.compare import DATA
from benchmarks.learn import source
from nearfar.evaluation.intervals import over_seeds
from nearfar.methods.calm import PROMPTS
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.report.writing import BLEU, CHOICE, HELD, ORDER
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.writing import writing

RESULTS = Path(__file__).parent / "results" / "calm"
BATCH = 32
SHARED: dict[str, Any] = {
    "text_column": "sentence",
    "concept_column": "concepts",
    "encoder": "t5-2x64",
    "encoder_dropout": 0.0,
    "length": 24,
    "batch": BATCH,
    "probe_every": 0,
}
ROWS = {
    "span corruption only": ["span", "span", "span"],
    "stage 1": ["span", "mix"],
    "stages 1 and 2": ["span", "mix", "joint"],
}
"""Stages of each row, one after the other; of those that rows have in common, one run is made."""
MEASURES = (CHOICE, ORDER, HELD, BLEU)


@dataclass(frozen=True)
class Calm:
    """How long."""

    seeds: int = 3
    """Models of each row."""
    first: int = 0
    """The seed of the first."""
    steps: tuple[int, int, int] = (600, 900, 60)
    """Of each stage, batches of 32 sentences."""
    passes: int = 4
    """Times that a stage sees each of its sentences; it has so many times its steps."""
    rates: tuple[float, float, float] = (3e-3, 3e-3, 1e-4)
    """The highest learning rate of each stage."""
    sets: int = 80
    """Sets of concepts that are measured, with all their sentences."""
    tune: bool = False
    """Measure on training sets that are held out, and keep nothing."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Calm) -> None:
    """Run what is missing, then print the table."""
    for seed in range(asked.first, asked.first + asked.seeds if not asked.table else 0):
        if not all(path(row, seed, asked).exists() for row in ROWS) or asked.tune:
            ensure(seed, asked)
    if not asked.tune:
        print(table(asked))


def path(row: str, seed: int, asked: Calm) -> Path:
    """Where the result of a row is kept, by the steps of all three stages."""
    return RESULTS / f"{row.replace(' ', '-')}-{sum(asked.steps) * asked.passes}-seed{seed}.json"


def ensure(seed: int, asked: Calm) -> None:
    """Train and measure all rows with one seed."""
    with gzip.open(DATA / "commongen.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    learned = [row for row in rows if row["split"] == "train"]
    draw = random.Random(seed)
    draw.shuffle(learned)
    tested = learned[-asked.sets :] if asked.tune else [row for row in rows if row["split"] == "dev"]
    tested = random.Random(0).sample(tested, asked.sets)
    folder = Path(tempfile.mkdtemp())
    try:
        taken = pairs(learned[: -asked.sets])
        draw.shuffle(taken)
        parts = [[taken.pop() for _ in range(steps * BATCH)] for steps in asked.steps]
        files = [write(folder / f"{k}.jsonl", part) for k, part in enumerate(parts)]
        test = write(folder / "test.jsonl", pairs(tested))
        texts = [row["sentence"] for part in parts for row in part]
        tokenizer = Tokenizer.learn([*texts, *PROMPTS * (1 + len(texts) // 100)], 3000, sentinels=16)
        (folder / "tokenizer.json").write_text(tokenizer.text, encoding="utf-8")
        for row, stages in ROWS.items():
            before, spent = "", 0.0
            for k, stage in enumerate(stages):
                own = folder / "-".join(stages[: k + 1])
                spent += 0.0 if own.exists() else step(own, stage, files[k], before, asked, seed)
                before = str(own)
            began = time.process_time()
            measured = writing(load(before), test)["rows"]
            result = {
                "row": row,
                "seed": seed,
                "results": {one["name"]: {m: one["values"][m]["value"] for m in MEASURES} for one in measured},
                "written": json.loads((Path(before) / "results" / "written.json").read_text())["rows"][:5],
                "cpu_seconds": round(spent, 1),
                "cpu_seconds_measuring": round(time.process_time() - began, 1),
                "steps": asked.steps[: len(stages)],
                "passes": asked.passes,
                "rates": asked.rates,
                "sets": asked.sets,
                "sentences": sum(len(one["sentences"]) for one in tested),
                "source": source("calm"),
                "flags": SHARED | {"epochs": asked.passes},
                "command": "python -m benchmarks.calm",
                "threads": torch.get_num_threads(),
            }
            print(row, seed, result["results"]["trained encoder"], result["written"], spent, flush=True)
            if not asked.tune:
                keep(path(row, seed, asked), result)
    finally:
        shutil.rmtree(folder)


def step(out: Path, stage: str, data: Path, before: str, asked: Calm, seed: int) -> float:
    """A stage, from the run before; CPU seconds."""
    began = time.process_time()
    start = {"from_run": before} if before else {}
    tokenizer = start or {"tokenizer": str(data.parent)}  # a run that begins with another takes that one's
    rate = asked.rates[int(data.stem)]
    flags = SHARED | tokenizer | {"stage": stage, "lr": rate * 256 / BATCH, "epochs": asked.passes, "seed": seed}
    if not training.train(plans.make("calm", str(data), None, flags), out, say=lambda text: None):
        raise KeyboardInterrupt("stopped before the end: nothing was measured")
    return time.process_time() - began


def pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sentences with their concepts."""
    return [{"sentence": s, "concepts": row["concepts"]} for row in rows for s in row["sentences"]]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def table(asked: Calm) -> str:
    """What there is, in Markdown: means over seeds with their 95 % intervals."""
    lines = ["| row | seeds | " + " | ".join(MEASURES) + " |", "|---|---|" + "---|" * len(MEASURES)]
    kept = {
        row: [json.loads(p.read_text()) for p in sorted(RESULTS.glob(path(row, 0, asked).name[:-6] + "*.json"))]
        for row in ROWS
    }
    untrained = [one["results"]["untrained encoder"] for one in kept["span corruption only"]]
    found = {"random weights": untrained} | {
        row: [r["results"]["trained encoder"] for r in of] for row, of in kept.items()
    }
    for row, results in found.items():
        cells = []
        for measure in MEASURES:
            values = [one[measure] for one in results]
            if len(values) > 1:
                mean = over_seeds(values)
                cells.append(f"{mean.mean:.1f} [{max(0, mean.low):.1f}, {min(100, mean.high):.1f}]")
            else:
                cells.append(", ".join(f"{value:.1f}" for value in values))
        lines.append(f"| {row} | {len(results)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Calm))
