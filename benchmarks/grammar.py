"""Sentences of a small grammar, in which who does what to what is not left to chance: what one that writes learns."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nearfar.report.writing import CHOICE
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.writing import writing

AGENTS = ["dog", "cat", "boy", "girl", "horse", "man", "woman", "farmer", "nurse", "child"]
ACTS = {
    "eating": ["apple", "bread", "cake", "soup", "carrot"],
    "driving": ["car", "truck", "bus", "taxi", "train"],
    "reading": ["book", "letter", "map", "poem", "menu"],
    "washing": ["shirt", "window", "plate", "towel", "spoon"],
}
PLACES = ["house", "tree", "lake", "bridge", "school", "church", "river", "garden"]
FLAGS: dict[str, Any] = {"epochs": 3, "batch": 32, "encoder": "t5-1x64", "length": 16, "lr": 0.024, "probe_every": 0}


def sentences(n: int, seed: int) -> list[str]:
    """N sentences, no two the same."""
    every = [
        f"the {agent} is {act} the {thing} near the {place}"
        for agent in AGENTS
        for act, things in ACTS.items()
        for thing in things
        for place in PLACES
    ]
    return random.Random(seed).sample(every, n)


def check(name: str, *, seed: int = 0) -> dict[str, Any]:
    """Train a method on some sentences, and tell others from those whose nouns were shuffled, trained and untrained."""
    drawn = sentences(1500, seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        plan = plans.make(name, drawn[:1300], "sentences", FLAGS | {"seed": seed}, kind="text")
        if not training.train(plan, Path(folder) / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        seconds = time.perf_counter() - began
        table = writing(load(Path(folder) / "run"), drawn[1300:])
    before, after = (row["values"][CHOICE]["value"] for row in table["rows"])
    gain = table["gains"]["untrained encoder"][CHOICE]
    return {
        "untrained": round(before, 2),
        "trained": round(after, 2),
        "gain": f"{gain['value']:+.2f} (95 % interval {gain['low']:+.2f} to {gain['high']:+.2f})",
        "learned": gain["low"] > 0 and gain["value"] >= 5,
        "what": "How often the true sentence is likelier than the same with its nouns shuffled (50 % by chance), on "
        "200 sentences of a small grammar, after 3 passes over 1,300 others",
        "over": "sentences",
        "seconds": round(seconds, 1),
        "seed": seed,
        "flags": FLAGS,
        "recipe": "sentences",
        "data": "sentences of benchmarks/grammar.py",
        "protocol": table["protocol"],
        "command": f"python -m benchmarks.learn {name}",
        "threads": torch.get_num_threads(),
    }
