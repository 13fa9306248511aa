"""Does a method do better than its baseline, as its paper says? `python -m benchmarks.claims`, or with names of claims.

Each claim is a row of CLAIMS: method and baseline with the same small encoder, optimizer, views and samples seen, over
seeds; the difference, seed by seed, with its interval. The budget is a minute a run on one core, far below that of any
paper, so that most differences cannot be seen, which is then said; nothing is refuted here. Settings are those of the
papers or of benchmarks/compare.py, and none was chosen on these results. One result file per run, so that a stopped
series goes on where it was, and claims share runs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks.bench.results import keep
from benchmarks.compare import COMMON, DATA, METHODS, trained
from benchmarks.learn import source
from nearfar import methods
from nearfar.clustering.kmeans import kmeans
from nearfar.distributed import normalize
from nearfar.evaluation.clusters import clusters
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.knn import knn
from nearfar.evaluation.linear import linear_fit
from nearfar.evaluation.robustness import accuracy_under, fgsm
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.settings import DRAWINGS
from nearfar.modalities.image.views import plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "claims"
SHARED = COMMON | {"lr": 2e-3, "views": "simclr"}
BANK, ATTACKED = 10_000, 2_000
"""Labeled training images that kNN and the linear classifier learn from, and test images that are attacked."""
EPSILON = 2 / 255
"""The length of an attack, as a share of the range of pixels."""

Metric = Literal["knn", "nmi", "fgsm", "clusters"]
SAID = {
    "knn": "kNN accuracy, %",
    "nmi": "NMI of k-means, x 100",
    "fgsm": "linear accuracy under FGSM, %",
    "clusters": "Hungarian accuracy of clusters, a method's own or k-means, %",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """A method with its flags, on some data, measured: what a run is."""

    method: str
    flags: dict[str, Any]
    data: Literal["cifar10", "drawings"]
    samples: int
    epochs: int
    metric: Metric

    def path(self, seed: int) -> Path:
        """Where the result of a run is kept; other settings, another file."""
        known = json.dumps(self.__dict__, sort_keys=True).encode()
        digest = hashlib.blake2b(known, digest_size=4).hexdigest()
        return RESULTS / f"{self.method}-{self.metric}-{self.samples}x{self.epochs}-{digest}-seed{seed}.json"

    def plan(self, data: Any, seed: int) -> plans.Plan:
        # No recipe of the method's own, as rate and schedule must be those of the other side.
        return plans.make(self.method, data, "small_images:default", self.flags | {"epochs": self.epochs, "seed": seed})


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says, and the two sides that are held against each other.

    both: flags of both sides.  flags, against_flags: of the method and of the baseline.
    """

    says: str
    method: str
    against: str
    flags: dict[str, Any] = field(default_factory=dict)
    against_flags: dict[str, Any] = field(default_factory=dict)
    both: dict[str, Any] = field(default_factory=dict)
    data: Literal["cifar10", "drawings"] = "cifar10"
    samples: int = 10_000
    epochs: int = 3
    metric: Metric = "knn"

    def sides(self) -> tuple[Side, Side]:
        """The method's, and the baseline's."""
        budget: dict[str, Any] = {
            "data": self.data, "samples": self.samples, "epochs": self.epochs, "metric": self.metric,
        }  # fmt: skip
        shared = SHARED | self.both
        return (
            Side(method=self.method, flags=shared | self.flags, **budget),
            Side(method=self.against, flags=shared | self.against_flags, **budget),
        )


MOCO = {name: METHODS["moco"][name] for name in ("temperature", "queue", "momentum")}
MICE = MOCO | {"temperature": 1.0, "experts": 10}
CLAIMS = {
    "hcl": Claim(
        says="hard negatives help, arXiv 2010.04592",
        method="hcl",
        flags={"beta": 1.0, "tau_plus": 0.1},
        # NT-Xent on the same projector, which differs from SimCLR's: the authors' own baseline.
        against="debiased",
        against_flags={"tau_plus": 0.0},
        both={"temperature": 0.5},
    ),
    "debiased": Claim(
        says="taking false negatives into account helps, arXiv 2007.00224",
        method="debiased",
        flags={"tau_plus": 0.1},
        against="debiased",
        against_flags={"tau_plus": 0.0},
        both={"temperature": 0.5},
    ),
    "dcl": Claim(
        says="without the positive in the denominator small batches suffice, arXiv 2110.06848",
        method="dcl",
        against="simclr",
        both={"batch": 32, "temperature": 0.1},
    ),
    "mochi": Claim(
        says="negatives mixed from the hardest help, arXiv 2010.01028",
        method="mochi",
        flags={"hardest": 256, "mixed": 128, "mixed_query": 64, "start": 1},  # the paper's shares of the queue
        against="moco",
        both=MOCO,
    ),
    "pcl": Claim(
        says="prototypes make clusters of classes, arXiv 2005.04966",
        method="pcl",
        flags={"clusters": 300, "start": 1, "restarts": 1},
        against="moco",
        both=MOCO | {"views": "drawing"},
        data="drawings",  # many classes, each of images that look alike
        metric="nmi",
    ),
    "sce": Claim(
        says="soft targets from the similarities of other samples help, arXiv 2111.14585",
        method="sce",
        against="moco",
        both=MOCO | {"temperature": 0.1},
    ),
    "imix": Claim(
        says="mixing inputs and their virtual labels helps most where data are few, arXiv 2010.08887",
        method="imix",
        against="simclr",
        both={"temperature": 0.2},
        samples=1_000,
        epochs=30,
    ),
    "clae": Claim(
        says="adversarial positives make representations sturdier, arXiv 2010.12050",
        method="clae",
        against="simclr",
        both={"temperature": 0.5},
        metric="fgsm",
    ),
    "supcon-queue": Claim(
        says="a queue of earlier keys makes up for small batches, arXiv 2004.11362",
        method="supcon",
        flags={"queue": 4096, "momentum": 0.99},
        against="supcon",
        both={"batch": 32, "temperature": 0.1, "views": "drawing"},
        data="drawings",
    ),
    "mice": Claim(
        says="experts find better clusters than k-means on MoCo's embeddings, arXiv 2105.01899",
        method="mice",
        flags=MICE,
        against="moco",
        against_flags=MOCO,
        samples=5_000,
        metric="clusters",
    ),
    "mice-simclr": Claim(
        says="the same, on SimCLR's, arXiv 2105.01899",
        method="mice",
        flags=MICE,
        against="simclr",
        against_flags={"temperature": 0.2},
        samples=5_000,
        metric="clusters",
    ),
}


@dataclass(frozen=True)
class Ask:
    """Which claims, and how long."""

    claims: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that CLAIMS names, if none is given."""
    seeds: int = 3
    """Runs of each side."""
    samples: int = 0
    """Training images, the first of the data; 0 as the claim has it."""
    epochs: int = 0
    """Passes over them; 0 as the claim has it."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Ask) -> None:
    """Run what is missing, then print the table."""
    if unknown := [name for name in asked.claims if name not in CLAIMS]:
        raise ValueError(f"there is no claim {unknown[0]!r}; there are {', '.join(CLAIMS)}")
    wanted = {name: budgeted(CLAIMS[name], asked) for name in asked.claims or CLAIMS}
    for name, claim in wanted.items():
        if not asked.table and (why := obstacle(claim)):
            print(f"{name}: left out, as {why}", flush=True)
        elif not asked.table:
            for seed in range(asked.seeds):
                for side in claim.sides():
                    ensure(side, seed, f"python -m benchmarks.claims {name}")
    print(table(wanted, asked.seeds))


def budgeted(claim: Claim, asked: Ask) -> Claim:
    """The claim at the budget that was asked for."""
    return replace(claim, samples=asked.samples or claim.samples, epochs=asked.epochs or claim.epochs)


def obstacle(claim: Claim) -> str:
    """Why a claim cannot be run: a method or a flag that there is not, or data; empty if it can."""
    for side in claim.sides():
        if side.method not in methods.names():
            return f"there is no method {side.method!r}"
        try:
            side.plan(DRAWINGS, 0)
        except (TypeError, ValueError) as error:
            return str(error)
    if claim.data == "cifar10" and not (DATA / "cifar10_train.npz").exists():
        return f"{DATA.name!r} has no cifar10_train.npz: set NEARFAR_DATA to the folder that holds it"
    return ""


def ensure(side: Side, seed: int, command: str) -> None:
    """Train and measure, unless that was done."""
    path = side.path(seed)
    if not path.exists():
        result = one(side, seed) | {"command": command, "threads": torch.get_num_threads()}
        keep(path, result)
        print(f"{path.stem}: {result['untrained']} untrained, {result['value']}, {result['seconds']} s", flush=True)


def one(side: Side, seed: int) -> dict[str, Any]:
    """A run: the measure of the trained and of the untrained encoder."""
    train, bank, test = data(side.data)
    with trained(side.plan(train.subset(range(side.samples)), seed)) as (run, took):
        value, untrained = (measure(side.metric, encoder, bank, test) for encoder in (run.encoder, run.untrained()))
        if side.metric == "clusters" and hasattr(run.method, "assign"):
            value = clusters(assigned(run.method, test), test.label)["accuracy"]
    return {
        **side.__dict__,
        "seed": seed,
        "source": source(side.method),
        "value": round(value, 2),
        "untrained": round(untrained, 2),
        **took,
        "protocol": {"bank": len(bank), "test": len(test), "epoch": "last"},
    }


@cache
def data(name: str) -> tuple[Images, Images, Images]:
    """What is learned from, the labeled samples that a test asks, and the test part.

    The test drawings are of characters that are in no training part, so that they ask each other.
    """
    if name == "drawings":
        test = drawings("test")
        return drawings("train"), test, test
    train = open_images(DATA / "cifar10_train.npz")
    return train, train.subset(range(BANK)), open_images(DATA / "cifar10_test.npz")


def measure(metric: Metric, encoder: nn.Module, bank: Images, test: Images) -> float:
    """One number, the larger the better, of an encoder in eval mode."""
    features = probing.embed(encoder, plain(32), test)
    if metric == "nmi":
        found = kmeans(normalize(features), len(torch.unique(test.label)), seed=0)
        return 100 * clusters(found.assigned, test.label)["nmi"]
    if metric == "clusters":
        found = best_of(features, len(torch.unique(test.label)))
        return clusters(found, test.label)["accuracy"]
    if metric == "fgsm":
        return attacked(encoder, bank, test.subset(range(min(ATTACKED, len(test)))))
    if bank is test:
        return knn(features, test.label, features, test.label, k=10, temperature=0.1, exclude_self=True)["accuracy"]
    known = probing.embed(encoder, plain(32), bank)
    return knn(known, bank.label, features, test.label, k=200, temperature=0.1)["accuracy"]


def best_of(features: Tensor, k: int, restarts: int = 10) -> Tensor:
    """The cluster of each row, by the k-means with the least spread of several, on rows of unit length: N."""
    every = [kmeans(normalize(features), k, seed=seed) for seed in range(restarts)]
    return min(every, key=lambda found: float(found.distance.square().sum())).assigned


@torch.no_grad()
def assigned(method: Any, data: Images) -> Tensor:
    """The cluster of each image by a method, in eval mode, that has `assign`: N."""
    return torch.cat([method.assign(*plain(32)(*data.fetch(index))) for index in torch.arange(len(data)).split(256)])


def attacked(encoder: nn.Module, bank: Images, test: Images) -> float:
    """Linear accuracy, in per cent, on images that went EPSILON in the direction that hurts."""
    fit = linear_fit(probing.embed(encoder, plain(32), bank), bank.label, strengths=(1e-3,))
    (x,) = plain(32)(*test.fetch(torch.arange(len(test))))
    return accuracy_under(partial(fgsm, epsilon=EPSILON), lambda at: fit.scores(encoder(at)), x, test.label)


def table(claims: dict[str, Claim], seeds: int) -> str:
    """The claims as a Markdown table; differences are taken seed by seed, with 95 % t-intervals over seeds."""
    rows = [
        "| claim | budget | measure | method | baseline | difference, 95 % interval | | CPU seconds a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, claim in claims.items():
        found = [[json.loads(path.read_text()) for path in paths(side, seeds)] for side in claim.sides()]
        done, names = (
            sum(map(len, found)),
            (titled(claim.method, claim.flags), titled(claim.against, claim.against_flags)),
        )
        said = f"| {name}: {claim.says} | {claim.samples:,} x {claim.epochs} {claim.data} | {SAID[claim.metric]} |"
        if done < 2 * seeds or seeds < 2:
            rows.append(f"{said} {names[0]} | {names[1]} | | {done} of {2 * max(seeds, 2)} runs | |")
            continue
        values = [[result["value"] for result in results] for results in found]
        means = [sum(v) / seeds for v in values]
        seconds = [sum(result["cpu_seconds"] for result in results) / seeds for results in found]
        gap = over_seeds([a - b for a, b in zip(*values, strict=True)])
        old = "; a method was changed since" if any(map(outdated, chain(*found))) else ""
        rows.append(
            f"{said} {names[0]}: {means[0]:.1f} | {names[1]}: {means[1]:.1f} | "
            f"{gap:+.1f} | {verdict(gap.low, gap.high)}{old} | "
            f"{seconds[0]:.0f}, {seconds[1]:.0f} |"
        )
    return "\n".join(rows)


def titled(method: str, flags: dict[str, Any]) -> str:
    """A method with the flags that are its side's own."""
    return " ".join([method, *(f"{name}={value}" for name, value in flags.items())])


def outdated(result: dict[str, Any]) -> bool:
    """Whether a result is of another version of its method's file."""
    return result["source"] != source(result["method"])


def paths(side: Side, seeds: int) -> list[Path]:
    """The results there are of a side's runs."""
    return [path for seed in range(seeds) if (path := side.path(seed)).exists()]


def verdict(low: float, high: float) -> str:
    """What an interval of a difference says."""
    if low <= 0 <= high:
        return "no difference seen at this budget"
    return "better at this budget" if low > 0 else "worse at this budget"


if __name__ == "__main__":
    main(tyro.cli(Ask, args=sys.argv[1:]))
