"""Spoken digits by speakers never heard: `python -m benchmarks.digits`.

3,000 recordings of ten digits by six speakers. With each seed two of these are held out: a method learns from the 2,000
recordings of the other four without their labels, and classifiers on 2,000, 50 or 10 of their labels name the digits of
the two. Over three seeds each speaker is tested once. Beside it: the same network untrained, and mean and deviation of
log-mel. `--pilot` holds out one of the four instead, and tests on him and on other recordings of the three: what
recipes/recordings.py says was chosen there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from nearfar.batch import MISSING
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.linear import ridge
from nearfar.modalities import kind as kinds
from nearfar.modalities.audio.samples import AudioSamples, open_audio
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "digits"
DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data")) / "fsdd_spoken_digits.npz"
METHODS = ("simclr", "cpc", "byol")
MEASURES = {"knn": "kNN", "linear": "linear", "few_labels_5": "5 labels", "few_labels_1": "1 label"}
PER_SPEAKER = 500


@dataclass(frozen=True)
class Digits:
    """Which methods, and how."""

    methods: tyro.conf.Positional[tuple[str, ...]] = METHODS
    seeds: int = 3
    pilot: bool = False
    """Test on one of the speakers that are learned from otherwise, and keep nothing."""
    recordings: int = 1000
    """Of a pilot, those that are learned from."""
    flags: str = "{}"
    """Settings and arguments of a pilot other than the recipe's, as JSON."""


def main(asked: Digits) -> int:
    if asked.flags != "{}" and not asked.pilot:
        raise ValueError("--flags is for a --pilot: what is reported has the recipe's settings")
    spoken = open_audio(DATA, label_column="digit")
    speaker = open_audio(DATA, label_column="speaker")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(asked.seeds):
        for method in asked.methods:
            path = RESULTS / f"{method}-seed{seed}.json"
            if asked.pilot or not path.exists():
                found = measured(method, spoken, speaker, seed, asked)
                if not asked.pilot:
                    keep(path, found)
            else:
                found = json.loads(path.read_text(encoding="utf-8"))
            print(f"{method} seed {seed} ({', '.join(found['held_out'])}): {found['results']}", flush=True)
            for name, numbers in found["results"].items():
                if not name.startswith("mel statistics") or method == asked.methods[0]:
                    rows.setdefault(name, []).append(numbers)
    if asked.seeds < 2:  # nothing to be said of the spread
        return 0
    print(f"\n{'':<20}" + "".join(name.ljust(26) for name in MEASURES.values()))
    for name, runs in rows.items():
        means = (over_seeds([run[key] for run in runs]) for key in MEASURES)
        print(f"{name:<20}" + "".join(f"{m:.1f}".ljust(26) for m in means))
    for method in asked.methods:
        for other in (f"untrained, {method}", "mel statistics"):
            for key, title in MEASURES.items():
                each = [a[key] - b[key] for a, b in zip(rows[method], rows[other], strict=True)]
                told = ", ".join(f"{gain:+.1f}" for gain in each)  # two speakers differ much: an interval says little
                print(f"{method} over {other}, {title}: {told}; mean {over_seeds(each):+.1f}")
    return 0


def measured(method: str, spoken: AudioSamples, speaker: AudioSamples, seed: int, asked: Digits) -> dict[str, Any]:
    """Train one method on the recordings of some speakers, and measure it on those of others."""
    held = [2 * seed, 2 * seed + 1]
    others = [s for s in range(len(speaker.classes)) if s not in held]
    if asked.pilot:
        held, others = others[:1], others[1:]
    own, test = (torch.isin(speaker.label, torch.tensor(s)).nonzero()[:, 0] for s in (others, held))
    assert (len(own), len(test)) == (PER_SPEAKER * len(others), PER_SPEAKER * len(held))
    tests = {"": test}
    if asked.pilot:
        own = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]
        own, rest = own[: asked.recordings], own[asked.recordings :]
        tests |= {", same speakers": rest} if len(rest) else {}
    train = spoken.subset(own)
    seen = replace(train, label=torch.full_like(train.label, MISSING), classes=[])
    with tempfile.TemporaryDirectory() as name:
        plan = plans.make(method, seen, "recordings", {"seed": seed, "probe_every": 0} | json.loads(asked.flags))
        if not training.train(plan, Path(name) / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        run = load(Path(name) / "run")
        encoder, untrained, config = run.encoder, run.untrained(), run.config
        seconds = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))["seconds"]
    kind = kinds.of("audio")
    plain = kind.plain(encoder)
    results = {}
    for title, index in tests.items():
        test = spoken.subset(index)
        features = {
            method: torch.cat([probing.embed(encoder, plain, part) for part in (train, test)]),
            f"untrained, {method}": torch.cat([probing.embed(untrained, plain, part) for part in (train, test)]),
            **kind.baselines([train, test], encoder),
        }
        order = torch.arange(len(train) + len(test))
        for what, rows in features.items():
            found = evaluate(
                rows,
                torch.cat([train.label, test.label]),
                [(order[: len(train)], order[len(train) :])],
                seen_in_training=False,
                solver=ridge,
                shots=(1, 5),
                seed=seed,
            )
            results[what + title] = {key: round(found[key]["accuracy"], 2) for key in MEASURES}
    return {
        "results": results,
        "held_out": [speaker.classes[s] for s in held],
        "trained": len(train),
        "tested": len(tests[""]),
        "seconds": round(seconds, 1),
        "seed": seed,
        "settings": config["settings"],
        "arguments": config["arguments"],
        "command": f"python -m benchmarks.digits {method}",
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Digits, args=sys.argv[1:])))
