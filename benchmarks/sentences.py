"""What do sentences gain by contrast, from random weights? `python -m benchmarks.sentences`, on STS-B.

Each row of `ROWS` trains a small BERT, for as many steps on as many sentences, drawn with the seed from `sentences`, or
on triplets made of SNLI; one tokenizer, learned from `sentences`, is that of all. Measured is Spearman's correlation of
cosines with the scores of STS-B. Beside it: the same network untrained, the mean of its words' embeddings alone, and
TF-IDF. One file a run; a stopped series goes on. `--dev` measures on the dev part, where settings were chosen, and
keeps nothing; `--write` makes the table of docs/results.md of what is there.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench.results import keep
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.similarity import correlations, cosines
from nearfar.files import file_digest, replace_text
from nearfar.modalities import kind as kinds
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.modalities.text.words import counted
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "sentences"
DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data"))
COUNT, BATCH = 32_000, 64
COMMON = {"encoder": "bert-1x128", "epochs": 1, "batch": BATCH, "lr": 4e-3}  # 1e-3 for a batch of 64
EDITED = {"views": "deletion", "strength": 0.7}

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "simcse": ("simcse", EDITED | {"mlp": False}),
    "simcse, dropout alone": ("simcse", {"views": "dropout"}),
    "simclr": ("simclr", EDITED),
    "moco": ("moco", EDITED),
    "barlow": ("barlow", EDITED),
    "MLM alone": ("simcse", {"warm_start_epochs": 1.0}),
    "supervised simcse": ("simcse", {"mlp": False, "epochs": 5, "views": "dropout", "columns": True}),
}
"""Method and flags of each row. columns: of triplets."""


@dataclass(frozen=True)
class Sentences:
    """Which rows, and how."""

    rows: tyro.conf.Positional[tuple[str, ...]] = tuple(ROWS)
    seeds: tuple[int, ...] = (0, 1, 2)
    dev: bool = False
    """Measure on the dev part of STS-B, and keep nothing."""
    flags: str = "{}"
    """Settings and arguments other than those of the row, as JSON, for --dev."""
    write: bool = False
    """Make the table of what is there, and train nothing."""


def main(asked: Sentences) -> int:
    if asked.flags != "{}" and not asked.dev:
        raise ValueError("--flags is for --dev: what is reported has the settings of its row")
    for seed in asked.seeds if not asked.write else ():
        for name in asked.rows:
            path = RESULTS / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}.json"
            if asked.dev or not path.exists():
                found = measured(name, seed, "dev" if asked.dev else "test", json.loads(asked.flags))
                if not asked.dev:
                    keep(path, found)
                print(f"{name} seed {seed}: {found['results']}, {found['seconds']:.0f} s", flush=True)
    if not asked.dev:
        print(table())
    return 0


def table() -> str:
    """What is there, as a table: means over seeds, and gains over the same network untrained."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*-seed*.json"))]
    lines = ["| row | seeds | Spearman x 100 | gain over untrained |", "|---|---|---|---|"]
    if files:
        for name in ("TF-IDF", "bag of words", "words of the untrained network", "untrained"):
            runs = {found["seed"]: found["results"][name] for found in files}
            lines.append(f"| {name} | {len(runs)} | {told(list(runs.values()))} | |")
    for name in ROWS:
        own = [found["results"] for found in files if found["row"] == name]
        if own:
            mean = told([found["trained"] for found in own])
            gain = told([found["trained"] - found["untrained"] for found in own], "+.1f")
            lines.append(f"| {name} | {len(own)} | {mean} | {gain} |")
    return "\n".join(lines)


def told(values: list[float], form: str = ".1f") -> str:
    """The mean over seeds, with its interval where there are several."""
    return format(over_seeds(values) if len(values) > 1 else values[0], form)


def measured(row: str, seed: int, part: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Train a row, and measure it and what it is held against on a part of STS-B."""
    method, own = ROWS[row]
    own = COMMON | own | {"seed": seed} | flags
    data: Any = drawn(seed)
    if own.pop("columns", False):
        data, names = triplets(), ("text_column", "positive_column", "negative_column")
        own |= dict(zip(names, data, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
        plan = plans.make(method, data, "sentences", own | {"tokenizer": folder}, kind="text")
        if not training.train(plan, Path(folder) / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        run = load(Path(folder) / "run")
        encoder, untrained, config = run.encoder, run.untrained(), run.config
        seconds = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))["seconds"]
    sides, score = scored(part)
    results = {
        "trained": spearman([embedded(encoder, texts) for texts in sides], score),
        "untrained": spearman([embedded(untrained, texts) for texts in sides], score),
        "words of the untrained network": spearman([of_words(untrained, texts) for texts in sides], score),
    }
    for name, rows in counted([*sides[0], *sides[1]]).items():
        results[name] = spearman(list(rows.chunk(2)), score)
    return {
        "row": row,
        "results": {name: round(value, 2) for name, value in results.items()},
        "part": part,
        "pairs": len(score),
        "seconds": round(seconds, 1),
        "seed": seed,
        "settings": config["settings"] | {"tokenizer": "learned from sentences, 8000 pieces"},
        "arguments": config["arguments"],
        "command": f"python -m benchmarks.sentences '{row}'",
    }


def spearman(rows: list[Tensor], score: Tensor) -> float:
    return float(correlations(cosines(*rows), score)["Spearman, all"])


def embedded(encoder: Any, texts: list[str]) -> Tensor:
    return probing.embed(encoder, kinds.of("text").plain(encoder), open_texts(texts))


@torch.no_grad()
def of_words(encoder: Any, texts: list[str]) -> Tensor:
    """The mean of the embeddings of a sentence's tokens, those at its ends apart."""
    words = encoder.tokenizer.words(texts, encoder.length, told=False)
    rows = encoder.net.get_input_embeddings()(words.ids) * words.inside[..., None]
    return rows.sum(1) / words.length[:, None]


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@cache
def scored(part: str) -> tuple[list[list[str]], Tensor]:
    rows = [row for row in read("stsb_en.jsonl.gz") if row["split"] == part]
    return [[row[side] for row in rows] for side in ("sentence1", "sentence2")], torch.tensor(
        [r["score"] for r in rows]
    )


@cache
def sentences() -> list[str]:
    return [row["text"] for row in read("sentences.jsonl.gz")]


@cache
def tokenizer() -> str:
    """Learned once a machine, as it takes a while."""
    place = Path(tempfile.gettempdir()) / f"nearfar-tokenizer-{file_digest(DATA / 'sentences.jsonl.gz')}.json"
    if not place.exists():
        replace_text(place, Tokenizer.learn(sentences(), 8000).text)
    return place.read_text(encoding="utf-8")


def drawn(seed: int) -> list[str]:
    order = torch.randperm(len(sentences()), generator=torch.Generator().manual_seed(seed))
    return [sentences()[i] for i in order[:COUNT].tolist()]


@cache
def triplets() -> dict[str, list[str]]:
    """Those of which no sentence is one of STS-B's dev or test part."""
    held = {text for part in ("dev", "test") for side in scored(part)[0] for text in side}
    columns = ("anchor", "positive", "negative")
    rows = [row for row in read("snli_devtest_triplets.jsonl.gz") if not held & {row[name] for name in columns}]
    return {name: [row[name] for row in rows] for name in columns}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Sentences, args=sys.argv[1:])))
