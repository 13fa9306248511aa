"""Will pre-training help me? Accuracy on one's own data against the number of labels, with and without it."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.splits import holdout
from nearfar.evaluation.intervals import Interval, over_seeds
from nearfar.fewlabels.classifier import embedded
from nearfar.fewlabels.finetuning import Rows, Tuning, frozen, labeled_rows, relabeled, tune
from nearfar.files import replace_csv, replace_text
from nearfar.method import Stage
from nearfar.modalities import kind as kinds
from nearfar.report.compared import compared
from nearfar.run import Run
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF = (
    "from scratch",
    "linear on untrained",
    "linear on pre-trained",
    "pre-trained, fine-tuned",
    "linear on given weights",
)
WITH, WITHOUT = (LINEAR, TUNED), (SCRATCH, UNTRAINED)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked. Everything is saved in helps.json, and an answer is gone on with only for the same.

    method: that pre-trains, for so many epochs (0 as its recipe has it).  recipe: of pre-training, where it is not by
    the kind of data.  run: a run that was pre-trained before, instead.  weights: a file of weights off the shelf, for
    the network `shelf` of timm.
    budgets: labels of each class.  seeds: draws of the labels, and of all else that is random in a classifier.
    tuning: epochs of training from scratch and of fine-tuning; 0 as they suit.  flags: of the pre-training.
    """

    data: str
    labels: str = ""
    label_column: str = "label"
    method: str = "simclr"
    epochs: int = 0
    recipe: str = ""
    run: str = ""
    weights: str = ""
    shelf: str = ""
    budgets: tuple[int, ...] = (1, 2, 5, 10, 25)
    seeds: int = 3
    tuning: int = 0
    flags: dict[str, Any] = field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.__dict__))


def helps(ask: Ask, out: Path, *, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Pre-train on the training part, without its labels; then classify with and without. None: told to stop.

    Rows of the split test are tested; where there are none, a stratified fifth is, which no training sees.
    Results are kept as they come, so that a stopped answer goes on where it was.
    Raises ValueError where `out` holds another answer, or there are not two seeds and two classes.
    """
    if ask.seeds < 2 or not ask.budgets or min(ask.budgets) < 1:
        raise ValueError(
            f"--seeds {ask.seeds} --budgets {' '.join(map(str, ask.budgets))}: two seeds are needed to tell a "
            "difference from luck, and budgets of 1 label a class or more"
        )
    saved = out / "helps.json"
    if saved.exists() and json.loads(saved.read_text(encoding="utf-8"))["asked"] != ask.saved():
        raise ValueError(f"{str(out)!r} holds another answer: give the same flags to go on with it, or another --out")
    plan = _plan(ask)
    if ask.weights and plan.kind != "image":
        raise ValueError(f"--weights {ask.weights!r}: there are none off the shelf for {plan.kind}")
    samples = _split(_opened(ask, plan), say)
    if ask.weights:
        _shelf(ask, samples)  # before anything takes its time: whether they can be read
    if not saved.exists():
        labeled_rows(samples)  # before anything is written: whether there is anything to learn
        out.mkdir(parents=True, exist_ok=True)
        replace_text(saved, json.dumps({"asked": ask.saved(), "accuracies": {}}, indent=1))
    if not ask.run and not _pretrained(plan, samples, out / "pretrained", say):
        return None
    run = Run(ask.run or out / "pretrained")
    tested = samples.of_split("test") & (samples.label != MISSING)
    if seen := int(run.seen(samples.subset(tested.nonzero()[:, 0])).sum()):
        say(f"{seen} of {int(tested.sum())} samples that are tested were in the pre-training of {ask.run!r}.")
    made = json.loads(saved.read_text(encoding="utf-8"))
    _measured(ask, run, samples, made["accuracies"], say, lambda: replace_text(saved, json.dumps(made)))
    made |= {"tested": int(tested.sum()), "seen": seen, **judged(made["accuracies"])}
    replace_text(saved, json.dumps(made, indent=1))
    replace_csv(out / "helps.csv", lines(made))
    _page(made, out)
    return made


def _plan(ask: Ask) -> plans.Plan:
    flags = ask.flags | {"labels": ask.labels, "label_column": ask.label_column, "probe_every": 0}
    return plans.make(ask.method, ask.data, ask.recipe or None, flags | ({"epochs": ask.epochs} if ask.epochs else {}))


def _opened(ask: Ask, plan: plans.Plan) -> Samples:
    if ask.run:
        return Run(ask.run).open(ask.data, labels=ask.labels or None, label_column=ask.label_column)
    return kinds.of(plan.kind).open(plan.data, plan.settings)


def _split(samples: Samples, say: Callable[[str], None]) -> Samples:
    """The samples with a split test: theirs, or a stratified fifth of those that have labels."""
    known = samples.label != MISSING
    if (samples.of_split("test") & known).any():
        return samples
    if not known.any():
        raise ValueError("no sample has a label: give --labels FILE, or --labels folders")
    label = torch.where(samples.of_split(*LEARNED), samples.label, MISSING)
    _, test = holdout(label, samples.group, share=0.2, seed=0)
    held = set(test.tolist())
    say(f"The labels name no split test: {len(held)} labeled samples are held out, and no training sees them.")
    return dataclasses.replace(samples, split=["test" if i in held else split for i, split in enumerate(samples.split)])


def _pretrained(plan: plans.Plan, samples: Samples, out: Path, say: Callable[[str], None]) -> bool:
    part = samples.subset(samples.of_split(*LEARNED).nonzero()[:, 0])
    part = dataclasses.replace(part, label=torch.full_like(part.label, MISSING), classes=[])
    say(f"Pre-training {plan.method} on {len(part):,} samples, without their labels.")
    plan = dataclasses.replace(plan, data=part)
    return training.train(plan, out, resume=out.exists(), say=lambda text: None)


def _measured(
    ask: Ask,
    run: Run,
    samples: Samples,
    known: dict[str, dict[str, list[float]]],
    say: Callable[[str], None],
    save: Callable[[], object],
) -> None:
    """Fill in what is missing of `known`, accuracies by way and budget, seed after seed."""
    samples = samples.subset((samples.label != MISSING).nonzero()[:, 0])
    ways = [SCRATCH, UNTRAINED, LINEAR, TUNED, *([SHELF] if ask.weights else [])]
    features: dict[str, Tensor] = {}
    for seed in range(ask.seeds):
        learned = 0
        for budget in sorted(ask.budgets):
            rows = labeled_rows(samples, per_class=budget, seed=seed)
            if len(rows.learn) == learned:
                continue  # no class has more labels than the smaller budget takes
            learned = len(rows.learn)
            for way in ways:
                done = known.setdefault(way, {}).setdefault(str(budget), [])
                if len(done) > seed:
                    continue
                done.append(round(_accuracy(ask, run, way, samples, rows, seed, features), 2))
                save()
            told = ", ".join(f"{way} {done[str(budget)][seed]:.1f} %" for way, done in known.items())
            say(f"{budget} label{'s' * (budget > 1)} a class, draw {seed + 1} of {ask.seeds}: {told}")


def _shelf(ask: Ask, samples: Samples) -> tuple[nn.Module, Any]:
    """The network off the shelf, and the views that it takes: of its own size, gray images as three equal channels.

    Raises FileNotFoundError or ValueError where the weights are not its own.
    """
    from timm import get_pretrained_cfg

    from nearfar.modalities.image.encoder import image_encoder
    from nearfar.modalities.image.views import plain

    cfg, channels = get_pretrained_cfg(ask.shelf, allow_unregistered=True), getattr(samples, "channels", 0)
    if channels not in (1, 3):
        raise ValueError(f"--weights {ask.weights!r} are for color images, and these have {channels} channels")
    size = cfg.input_size[-1] if cfg is not None else 224
    encoder = image_encoder(ask.shelf, size=size, small_stem=False, weights=ask.weights).eval()
    return encoder if channels == 3 else nn.Sequential(_Thrice(), encoder), plain(size)


class _Thrice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def _accuracy(
    ask: Ask, run: Run, way: str, samples: Samples, rows: Rows, seed: int, features: dict[str, Tensor]
) -> float:
    """On the rows that are tested, in per cent. features: of all samples, by way, kept from seed to seed."""
    label, names = rows.number(samples.label), [samples.classes[c] for c in rows.classes]
    if way in (SCRATCH, TUNED):
        encoder = run.untrained() if way == SCRATCH else copy.deepcopy(run.encoder)
        method, _ = tune(
            Stage(encoder, dim=encoder.dim),
            run,
            relabeled(samples, label, names, rows.learn),
            None,
            classes=len(names),
            tuning=Tuning(epochs=ask.tuning, seed=seed),
        )
        said = embedded(nn.Sequential(encoder.eval(), method.classifier), run, samples.subset(rows.test))
    else:
        if way not in features:
            encoder = run.untrained() if way == UNTRAINED else run.encoder
            network, view = _shelf(ask, samples) if way == SHELF else (encoder.eval(), run.kind.plain(encoder))
            features[way] = probing.embed(network, view, samples)
        last, *_ = frozen(features[way][rows.learn], label[rows.learn], seed=seed)
        with torch.no_grad():
            said = last(features[way][rows.test])
    return 100 * float((said.argmax(1) == label[rows.test]).double().mean())


def judged(accuracies: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Means with 95 % t-intervals, and at each budget the gain of the better way with pre-training over that without.

    The better of two is taken by its mean on the tested rows, on both sides alike; the gain is taken draw by draw.
    """
    means = {way: {b: over_seeds(v)._asdict() for b, v in done.items()} for way, done in accuracies.items()}
    gains: dict[str, dict[str, Any]] = {}
    for budget in accuracies[LINEAR]:
        ours, theirs = (max(ways, key=lambda way: means[way][budget]["mean"]) for ways in (WITH, WITHOUT))
        pairs = zip(accuracies[ours][budget], accuracies[theirs][budget], strict=True)
        gains[budget] = {"of": ours, "over": theirs, **over_seeds([a - b for a, b in pairs])._asdict()}
    return {"means": means, "gains": gains, "sentence": sentence(gains, means)}


def sentence(gains: dict[str, dict[str, Any]], means: dict[str, dict[str, dict[str, float]]]) -> str:
    """The answer."""
    better = [b for b, gain in gains.items() if gain["low"] > 0]
    worse = [b for b, gain in gains.items() if gain["high"] < 0]
    equal = [b for b in gains if b not in better and b not in worse]

    def told(b: str) -> str:
        gain = gains[b]
        it = _gain(gain)
        labels = f"{b} label{'s' * (b != '1')} a class"
        ours, theirs = (means[gain[side]][b]["mean"] for side in ("of", "over"))
        return (
            f"with {labels} the better way with pre-training ({gain['of']}) names {ours:.1f} % right, and the better "
            f"way without ({gain['over']}) {theirs:.1f} %: {it.mean:+.1f} points, 95 % interval {it.low:+.1f} to "
            f"{it.high:+.1f}"
        )

    if better:
        first = max(better, key=lambda b: gains[b]["mean"])
        out = f"Yes: {told(first)}."
    elif worse:
        out = f"No: {told(min(worse, key=lambda b: gains[b]['mean']))}."
    else:
        first = max(gains, key=lambda b: gains[b]["mean"])
        out = f"No difference seen: {told(first)}."
    if better and equal:
        out += f" No difference is seen with {' or '.join(equal)} labels a class."
    if better and worse:
        out += f" With {' or '.join(worse)} labels a class it does worse than doing without."
    return out


def lines(made: dict[str, Any]) -> list[list[str]]:
    """The table: a header, and a row for each way to a classifier."""
    budgets = list(made["gains"])
    rows = [["", *(f"{b} label{'s' * (b != '1')} a class" for b in budgets)]]
    rows += [[way, *(f"{Interval(**done[b]):.1f}" for b in budgets)] for way, done in made["means"].items()]
    return [*rows, ["gain", *(f"{_gain(made['gains'][b]):+.1f}" for b in budgets)]]


def _gain(told: dict[str, Any]) -> Interval:
    return Interval(*(told[key] for key in Interval._fields))


def _page(made: dict[str, Any], out: Path) -> None:
    asked, (_, *columns) = made["asked"], lines(made)[0]
    cells = {way: dict(zip(columns, done.values(), strict=True)) for way, done in made["means"].items()}
    facts = {
        "Pre-training": asked["run"] or asked["method"],
        "Draws of the labels": asked["seeds"],
        "Tested samples": f"{made['tested']:,}",
        "Numbers": "test samples named right, in %",
    }
    heading = f"Does pre-training help on {Path(asked['data']).name}?"
    compared(out / "helps.html", heading, facts, [made["sentence"]], cells, by="helps", main=LINEAR)
