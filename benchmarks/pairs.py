"""What do pairs teach? `python -m benchmarks.pairs`: emoji with their names, and captions of one picture.

Emoji: one of each, without its skin tones; those of held-out bases are tested, pictures and names looking for each
other, and the nine groups told by prompts alone. clip, siglip (--sigmoid) and lit (--lock, an image tower of SimCLR)
are trained on pairs; *apart* are SimCLR on the pictures and SimCSE on the names, and *untrained* the towers with which
clip begins, each joined by ridge regression from one space to the other on the training pairs. Captions: the first
caption of a picture and the other four look for each other, in 1,000 held-out pictures. Settings were looked at by
--pilot on held-out training bases, or pictures, one seed; so are the direction and strength of ridge regression chosen.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from sklearn.linear_model import Ridge
from torch import Tensor

from benchmarks.bench.results import keep
from benchmarks.compare import DATA, trained
from nearfar.data.tables import read
from nearfar.evaluation.cross import chance, class_weights, ranks
from nearfar.evaluation.intervals import of_answers
from nearfar.evaluation.protocol import packed, unpacked
from nearfar.modalities import kind as kinds
from nearfar.modalities.pair.kind import PairKind
from nearfar.modalities.pair.samples import PairSamples
from nearfar.modalities.pair.settings import Settings
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.words import counted
from nearfar.nn.towers import pick_tower
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "pairs"
KS = (1, 5)
STRENGTHS = (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)
"""Of ridge regression from standardized rows."""
PROMPTS = {
    "Smileys & Emotion": ("smiling face", "crying face", "angry face", "red heart", "face with open mouth"),
    "People & Body": ("man", "woman", "person", "hand", "family", "child", "worker"),
    "Animals & Nature": ("animal", "dog face", "bird", "fish", "insect", "flower", "tree"),
    "Food & Drink": ("food", "fruit", "bread", "cake", "meat", "vegetable", "glass of wine", "cup of tea"),
    "Travel & Places": ("car", "train", "ship", "airplane", "building", "house", "sun and cloud", "moon"),
    "Activities": ("ball", "sports medal", "game", "musical party", "ticket"),
    "Objects": ("tool", "book", "telephone", "computer", "clothes", "shoe", "musical instrument", "envelope"),
    "Symbols": ("button", "arrow", "sign", "circle", "letter", "symbol"),
    "Flags": ("flag", "flag of a country"),
}
"""Written by hand, once, before anything was measured."""
EMOJI: dict[str, Any] = {
    "pair": "image=picture,text=name",
    "encoder": "image=conv4,text=bert-2x128",
    "sides": ("text.length=16", "text.vocabulary=2000"),
    "space": 128,
    "epochs": 12,
    "batch": 128,
    "lr": 2e-3,
    "warmup": 3,
}
ARMS = {"clip": {}, "siglip": {"sigmoid": True, "temperature": 0.1}, "lit": {"lock": "image"}}
"""What is trained on pairs of emoji, and how it differs."""
WORDS = ("TF-IDF", "bag of words")
CAPTIONS: dict[str, Any] = {"epochs": 2, "batch": 128, "lr": 2e-3, "warmup": 0.1}


@dataclass(frozen=True)
class Pairs:
    """Which data, and how."""

    data: tyro.conf.Positional[tuple[str, ...]] = ("emoji", "captions")
    seeds: int = 3
    pilot: bool = False
    """Test on training bases, or pictures, that are held out, one seed; keep nothing."""
    given: str = "{}"
    """With --pilot: other settings, as JSON."""
    arms: tuple[str, ...] = ()
    """Of these alone."""
    table: bool = False
    """Run nothing, and show what there is."""


Rows = tuple[Tensor, Tensor]
"""Of all entries of the two sides of pairs."""


@cache
def emoji(pilot: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pictures of 32 px on white, their names and groups: to learn from, and to test."""
    z = dict(np.load(DATA / "emoji.npz"))
    groups = z["group_names"][z["group"]]
    kept = (z["skin_tone"] == "") & (groups != "Component")
    at = kept.nonzero()[0]
    parts = [z["png"][z["offsets"][i] : z["offsets"][i + 1]] for i in at]
    rgba = np.stack([np.asarray(Image.open(io.BytesIO(part)).convert("RGBA"), np.float32) for part in parts])
    white = rgba[..., :3] * (rgba[..., 3:] / 255) + 255 - rgba[..., 3:]
    pictures = white.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4)).round().astype(np.uint8)
    test = z["split"][at] == "test"
    if pilot:
        bases = np.unique(z["base"][at][~test])
        held = np.random.default_rng(0).permutation(bases)[: len(bases) // 5]
        pictures, at = pictures[~test], at[~test]
        test = np.isin(z["base"][at], held)
    made = {"picture": pictures, "name": z["name"][at], "label": groups[at]}
    return tuple({key: column[which] for key, column in made.items()} for which in (~test, test))  # pyright: ignore


def opened(data: dict[str, Any], pair: str) -> PairSamples:
    samples = PairKind().samples(data, Settings(pair=pair))
    assert isinstance(samples, PairSamples)
    return samples


def through(one: Any, two: Any, samples: PairSamples) -> Rows:
    """What two networks make of all that two sides hold."""
    sides = samples.sides.values()
    made = [_rows(network, side) for network, side in zip((one, two), sides, strict=True)]
    return made[0], made[1]


def _rows(network: Any, samples: Any) -> Tensor:
    return probing.passed(network, kinds.of(network.spec["kind"]).plain(network), samples)


def found(rows: Rows, samples: PairSamples) -> dict[str, Any]:
    """Recall@1 and 5 of each side among all of the other: which queries, and of which sample each is."""
    one, two = samples.sides
    belongs, _ = samples.across(one, two)
    made = {}
    for name, (a, b), which, side in (
        (f"{one} to {two}", rows, belongs, one),
        (f"{two} to {one}", rows[::-1], belongs.flip(1), two),
    ):
        rank = ranks(a, b, which)
        made[name] = {
            "right": {str(k): packed(rank < k) for k in KS},
            "chance": {str(k): round(value, 3) for k, value in chance(which, len(b), KS).items()},
            "sample": samples.of_entries(side).tolist(),
        }
    return made


def told(rows: Rows, prompts: Tensor, samples: PairSamples) -> dict[str, Any]:
    """Which pictures are told right by prompts for the nine groups."""
    names = list(PROMPTS)
    of = torch.tensor([names.index(name) for name, texts in PROMPTS.items() for _ in texts])
    label = torch.tensor([names.index(samples.classes[c]) for c in samples.label[samples.of_entries("image")].tolist()])
    right = (torch.nn.functional.normalize(rows[0], dim=1) @ class_weights(prompts, of, len(names)).T).argmax(
        1
    ) == label
    each = [float(right[label == c].float().mean()) for c in label.unique().tolist()]
    often = int(label.bincount().max()) / len(label)
    return {
        "right": packed(right),
        "sample": samples.of_entries("image").tolist(),
        "mean_over_groups": round(100 * sum(each) / len(each), 2),
        "most_frequent": round(100 * often, 2),
    }


def prompts() -> Any:
    return open_texts([text for texts in PROMPTS.values() for text in texts], columns=("",))


@dataclass(frozen=True)
class Join:
    """Ridge regression from one side's space into the other's. forward: from the first side into the second's."""

    forward: bool
    strength: float

    def fit(self, rows: Rows, pairs: Tensor) -> Callable[[Tensor, int], Tensor]:
        """What brings rows of a side, 0 or 1, into the space in which both are compared."""
        start, end = (0, 1) if self.forward else (1, 0)
        x, y = (rows[side][pairs[:, side]] for side in (start, end))
        mean, spread, center = x.mean(0), x.std(0).clamp(min=1e-6), y.mean(0)
        model = Ridge(alpha=self.strength).fit(((x - mean) / spread).numpy(), (y - center).numpy())

        def bring(given: Tensor, side: int) -> Tensor:
            if side == end:
                return given - center
            return torch.from_numpy(model.predict(((given - mean) / spread).numpy()))

        return bring


def joined(rows: Rows, samples: PairSamples) -> tuple[Callable[[Tensor, int], Tensor], Join]:
    """The ridge regression that reaches most recall@1 on a fifth of the training pairs, fitted to all of them."""
    one, two = samples.sides
    pairs, _ = samples.across(one, two)
    held = torch.from_numpy(np.random.default_rng(0).random(len(pairs)) < 0.2)

    def reached(join: Join) -> float:
        bring, (a, b) = join.fit(rows, pairs[~held]), pairs[held].T
        u, v = bring(rows[0][a], 0), bring(rows[1][b], 1)
        own = torch.arange(len(a))[:, None].expand(-1, 2)
        return float(sum((ranks(x, y, own) == 0).float().mean() for x, y in ((u, v), (v, u))))

    best = max((Join(forward, s) for forward in (True, False) for s in STRENGTHS), key=reached)
    return best.fit(rows, pairs), best


Result = dict[str, Any]


def emoji_arms(seed: int, asked: Pairs, wanted: set[str]) -> Iterator[tuple[str, Result]]:
    """What is measured on emoji, of what is wanted, one after the other."""
    learn, test = emoji(asked.pilot)
    samples, tested = opened(learn, EMOJI["pair"]), opened(test, EMOJI["pair"])
    common, words = {"seed": seed, "probe_every": 0, "epochs": EMOJI["epochs"]}, {"length": 16, "vocabulary": 2000}

    def on_pairs(arm: str, *more: str) -> Result:
        flags = EMOJI | ARMS[arm] | common | json.loads(asked.given)
        own = flags | {"sides": (*flags["sides"], *more)}
        with trained(plans.make("clip", learn, None, own)) as (run, took):
            one, two = (pick_tower(run.encoder, name) for name in ("image", "text"))
            rows = through(one, two, tested)
            return found(rows, tested) | {
                "told": told(rows, _rows(two, prompts()), tested),
                "took": took,
                "flags": flags,
            }

    def by_ridge(one: Any, two: Any) -> Result:
        bring, join = joined(through(one, two, samples), samples)
        rows = through(one, two, tested)
        rows = bring(rows[0], 0), bring(rows[1], 1)
        said = told(rows, bring(_rows(two, prompts()), 1), tested)
        return found(rows, tested) | {"told": said, "join": dataclasses.asdict(join)}

    for arm in ("clip", "siglip"):
        if arm in wanted:
            yield arm, on_pairs(arm)
    if not wanted & {"lit", "apart", "untrained"}:
        return
    with trained(plans.make("simclr", learn["picture"], None, common | {"encoder": "conv4"})) as (image, first):
        if "lit" in wanted:
            yield "lit", on_pairs("lit", f"image.from_run={image.path}") | {"before": first}
        names = plans.make(
            "simcse", learn["name"].tolist(), None, common | words | {"encoder": "bert-2x128"}, kind="text"
        )
        with trained(names) as (text, second):
            took = {key: round(first[key] + second[key], 1) for key in ("seconds", "cpu_seconds")}
            yield "apart", by_ridge(image.encoder, text.encoder) | {"took": took}
            yield "untrained", by_ridge(image.untrained(), text.untrained())


@cache
def captions(pilot: bool) -> tuple[list[list[str]], list[list[str]]]:
    """The captions of each picture: to learn from, and to test."""
    rows = read(DATA / "multi30k_captions.jsonl.gz")[0].to_pylist()
    part = {name: [row["captions"] for row in rows if row["split"] == name] for name in ("train", "val", "test")}
    return part["train"], part["val" if pilot else "test"]


def caption_arms(seed: int, asked: Pairs, wanted: set[str]) -> Iterator[tuple[str, Result]]:
    """What is measured on captions, likewise."""
    learn, test = captions(asked.pilot)
    tested = opened({"first": [own[:1] for own in test], "others": [own[1:] for own in test]}, "text=first,text=others")
    flags = CAPTIONS | {"seed": seed, "probe_every": 0} | json.loads(asked.given)
    if wanted & {*WORDS}:
        texts = [text for side in tested.sides.values() for (text,) in side.texts]  # pyright: ignore
        for name, rows in counted(texts).items():
            one, two = rows.split([len(side) for side in tested.sides.values()])
            yield name, found((one, two), tested)
    if "clip" in wanted:
        columns = {"captions": learn}
        own = {"pair": "text=captions,text=captions", "encoder": "text1=bert-1x128,text2=bert-1x128", "space": 128}
        plan = plans.make("clip", columns, None, own | {"sides": ("text1.length=24", "text2.length=24")} | flags)
        with trained(plan) as (run, took):
            one, two = (pick_tower(run.encoder, name) for name in run.sides)
            rows = through(one, two, tested)
            yield "clip", found(rows, tested) | {"took": took, "flags": flags}
    if wanted & {"simcse", "untrained"}:
        # As many pairs as clip draws in its epochs.
        pairs = [(own[2 * k], own[2 * k + 1], i) for k in range(flags["epochs"]) for i, own in enumerate(learn)]
        columns = dict(zip(("one", "other", "group"), map(list, zip(*pairs, strict=True)), strict=True))
        own = {"text_column": "one", "positive_column": "other", "encoder": "bert-1x128", "length": 24}
        plan = plans.make("simcse", columns, None, own | flags | {"epochs": 1}, kind="text")
        with trained(plan) as (run, took):
            yield "untrained", found(through(run.untrained(), run.untrained(), tested), tested)
            yield "simcse", found(through(run.encoder, run.encoder, tested), tested) | {"took": took, "flags": flags}


DATA_SETS: dict[str, tuple[Callable[..., Iterator[tuple[str, Result]]], dict[str, str]]] = {
    "emoji": (
        emoji_arms,
        {
            "clip": "clip",
            "siglip": "clip --sigmoid",
            "lit": "clip --lock image, of SimCLR",
            "apart": "SimCLR and SimCSE, joined by ridge",
            "untrained": "the same untrained, joined by ridge",
        },
    ),
    "captions": (
        caption_arms,
        {
            "clip": "clip, two text towers",
            "simcse": "simcse on pairs",
            "untrained": "simcse untrained",
            "TF-IDF": "TF-IDF",
            "bag of words": "bag of words",
        },
    ),
}
"""What is measured on which data, and what it is called."""


def main(asked: Pairs) -> None:
    """Measure what is missing, seed by seed, then print the tables."""
    if unknown := sorted({*asked.data} - DATA_SETS.keys()):
        raise ValueError(f"there is no data {unknown[0]!r}; there are {', '.join(DATA_SETS)}")
    for seed in range(0 if asked.table else 1 if asked.pilot else asked.seeds):
        for name in asked.data:
            arms, said = DATA_SETS[name]
            missing = {arm for arm in asked.arms or said if asked.pilot or not path(name, arm, seed).exists()}
            for arm, result in arms(seed, asked, missing) if missing else ():
                print(name, arm, f"seed {seed}:", *_cells([result]), result.get("took", ""), flush=True)
                if not asked.pilot:
                    keep(path(name, arm, seed), result | {"command": "python -m benchmarks.pairs", "seed": seed})
    if not asked.pilot:
        print("\n\n".join(table(name, asked.seeds) for name in asked.data))


def path(data: str, arm: str, seed: int) -> Path:
    """Where a result is kept; of words alone no seed counts."""
    return RESULTS / f"{data}-{arm.replace(' ', '-')}-seed{0 if arm in WORDS else seed}.json"


def table(name: str, seeds: int) -> str:
    """The results of a data set as a Markdown table, with 95 % intervals over test samples and seeds."""
    rows: list[str] = []
    for arm, title in DATA_SETS[name][1].items():
        paths = dict.fromkeys(path(name, arm, seed) for seed in range(seeds))
        results = [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.exists()]
        if not results:
            continue
        if not rows:
            columns = [
                *(f"{way}, R@{k} %" for way, k in _measures(results[0])),
                *(["groups %"] if "told" in results[0] else []),
            ]
            random = [f"{results[0][way]['chance'][k]:.1f}" for way, k in _measures(results[0])]
            random += ["11.1"] if "told" in results[0] else []
            rows += [f"| {name} | seeds | {' | '.join(columns)} | CPU s |", "|---" * (len(columns) + 3) + "|"]
            rows.append(f"| chance | | {' | '.join(random)} | |")
        seconds = [r["took"]["cpu_seconds"] + r.get("before", {}).get("cpu_seconds", 0) for r in results if "took" in r]
        took = f"{sum(seconds) / len(seconds):.0f}" if seconds else ""
        rows.append(f"| {title} | {len(results)} | {' | '.join(_cells(results))} | {took} |")
    return "\n".join(rows)


def _measures(result: Result) -> list[tuple[str, str]]:
    ways = [way for way, value in result.items() if isinstance(value, dict) and "chance" in value]
    return [(way, str(k)) for way in ways for k in KS]


def _cells(results: list[Result]) -> list[str]:
    """Each measure over the seeds of an arm."""

    def cell(parts: list[Result], right: Callable[[Result], str]) -> str:
        answers = torch.cat([unpacked(right(part)) for part in parts])
        return f"{of_answers(answers, group=torch.tensor(parts[0]['sample'])):.1f}"

    made = [cell([r[way] for r in results], lambda part, k=k: part["right"][k]) for way, k in _measures(results[0])]
    return made + ([cell([r["told"] for r in results], lambda part: part["right"])] if "told" in results[0] else [])


if __name__ == "__main__":
    main(tyro.cli(Pairs, args=sys.argv[1:]))
