"""From a run and a few labels to a classifier: a linear layer on frozen features, or the whole network fine-tuned.

Labeled rows of the split test are only measured; those of the split val, where there are any, choose and calibrate;
of the others so many are learned from as were asked for.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nearfar import optim
from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.splits import folds, holdout
from nearfar.evaluation.calibration import fit_temperature, nll
from nearfar.evaluation.linear import LinearFit, linear_fit
from nearfar.fewlabels.classifier import Classifier, embedded, is_classifier, new_directory, publish
from nearfar.machine import pick_device
from nearfar.method import Stage, derive_seed
from nearfar.methods.crossentropy import CrossEntropy
from nearfar.nn.heads import first_layers
from nearfar.run import Run
from nearfar.training import plan as plans
from nearfar.training.checkpoints import copied
from nearfar.training.journal import Journal
from nearfar.training.loop import fit
from nearfar.training.options import Loop

Say = Callable[[str], None]
Watch = Callable[[int, int, dict[str, float]], None]

FEWEST_HELD = 20
"""Labeled rows without which no temperature is fitted and no epoch chosen: fewer would say too little."""
FEWEST_EACH = 4
"""Labeled rows a class, on the average, from which some are held out of fine-tuning the whole network."""
LOOKS = 30
"""At held-out rows during fine-tuning, of which the best is kept."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Positions of labeled samples: to learn from, to choose and calibrate by, to measure by.

    held is empty where the data name no split val. classes: the numbers of the classes that are learned, in order.
    """

    learn: Tensor
    held: Tensor
    test: Tensor
    classes: list[int]

    def number(self, label: Tensor) -> Tensor:
        """Labels as positions among the classes that are learned; another class gets a number behind theirs."""
        size = int(label.max().clamp(min=max(self.classes))) + 2  # the last stands for MISSING, -1
        place = torch.arange(size) + len(self.classes)
        place[torch.tensor(self.classes)] = torch.arange(len(self.classes))
        place[-1] = MISSING
        return place[label]


def labeled_rows(samples: Samples, *, share: float = 0.0, per_class: int = 0, seed: int = 0) -> Rows:
    """Which labeled samples are learned from, and which measure.

    share, per_class: how many of each class are learned from, drawn by the seed: so many, or an equal part of that share
    of all labeled training rows, at least one (Chen et al. 2020 draw 1 % of ImageNet so); neither takes all. More of
    the same seed hold the fewer.
    Raises ValueError where there are fewer than two classes to learn.
    """
    if share and per_class:
        raise ValueError(f"--share {share:g} and --per-class {per_class} both say how many: give one")
    if not 0 <= share <= 1 or per_class < 0:
        raise ValueError(f"--share {share:g} --per-class {per_class}: a share of 0 to 1, or 1 or more of each class")
    known = samples.label != MISSING
    rows, held, test = ((samples.of_split(*of) & known).nonzero()[:, 0] for of in (LEARNED, ("val",), ("test",)))
    if not len(rows):
        raise ValueError(
            "no sample to learn from has a label: give --labels FILE with a column split that is empty or train, or "
            "--labels folders"
        )
    classes = samples.label[rows].unique().tolist()
    if len(classes) < 2:
        raise ValueError(f"every label is {samples.classes[classes[0]]!r}: a classifier needs two classes or more")
    if share:
        per_class = max(1, int(share * len(rows) / len(classes)))
    if per_class:
        generator = torch.Generator().manual_seed(derive_seed(seed, 4))
        drawn = rows[torch.randperm(len(rows), generator=generator)]
        rows = torch.cat([drawn[samples.label[drawn] == c][:per_class] for c in classes]).sort().values
    return Rows(learn=rows, held=held, test=test, classes=classes)


def frozen(
    features: Tensor,
    label: Tensor,
    *,
    group: Tensor | None = None,
    held: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> tuple[nn.Linear, float | None, dict[str, Any]]:
    """A linear classifier on cached features: the layer, its temperature if one can be fitted, and what was chosen.

    features: N x D.  label: N, each of 0 to C - 1 at least once.  group: N, rows that stay together.
    held: features and labels of other rows, which fit the temperature. Without them it is fitted on what classifiers of
    the other folds say of each row, at the strength that was chosen, and all rows are learned from.
    """
    chosen = linear_fit(features, label, group=group, scale="one", seed=seed)
    layer = _layer(chosen)
    if held is not None and len(held[1]):
        logits, truth = held[0] @ layer.weight.T.detach() + layer.bias.detach(), held[1]
    else:
        logits, truth = _across_folds(features, label, group, chosen, seed)
    temperature, said = calibrated(logits, truth)
    facts = {key: chosen.config[key] for key in ("strength", "held_out_accuracy", "held_out_parts")}
    return layer, temperature, {**facts, "calibration": said, "notes": chosen.notes}


def _layer(chosen: LinearFit) -> nn.Linear:
    weight, bias = chosen.folded()
    layer = nn.Linear(weight.shape[0], weight.shape[1])
    layer.load_state_dict({"weight": weight.T.contiguous(), "bias": bias})
    return layer


def _across_folds(
    features: Tensor, label: Tensor, group: Tensor | None, chosen: LinearFit, seed: int
) -> tuple[Tensor, Tensor]:
    """What is said of each row by a classifier that has not learned from it: logits n x C, and labels n."""
    most = int(torch.bincount(label).max())
    try:
        parts = folds(label, group, folds=min(5, most), seed=seed)
    except ValueError:  # one row a class, or all rows of one group
        return features.new_empty(0, len(chosen.present)), label[:0]
    logits = []
    for learn, rest in parts:
        if len(label[learn].unique()) < 2:
            return features.new_empty(0, len(chosen.present)), label[:0]
        own = None if group is None else group[learn]
        strength = float(str(chosen.config["strength"]))
        part = linear_fit(features[learn], label[learn], group=own, strengths=[strength], scale="one")
        scores = part.scores(features[rest])
        short = len(chosen.present) - scores.shape[1]
        logits.append(torch.nn.functional.pad(scores, (0, short), value=-torch.inf))
    return torch.cat(logits), label[torch.cat([rest for _, rest in parts])]


def calibrated(logits: Tensor, label: Tensor) -> tuple[float | None, str]:
    """The temperature that fits rows the classifier has not learned from, None where they are too few; and how it came.

    logits: N x C.  label: N. Rows of a class that the classifier does not know are left out. Where it is right on all
    of them, no finite confidence would be too much: then as if it had been wrong on one more, on which it was as sure
    as on the middle one.
    """
    if len(label):
        known = label < logits.shape[1]
        logits, label = logits[known], label[known]
        possible = logits.gather(1, label[:, None])[:, 0] > -torch.inf
        logits, label = logits[possible], label[possible]
    if (count := len(label)) < FEWEST_HELD:
        return None, f"not calibrated, as {FEWEST_HELD} labeled rows to do it by are wanted and there are {count}"
    if bool((logits.argmax(1) == label).all()):
        lead = logits.topk(2).values.diff(dim=1)[:, 0]
        middle = logits[lead.argsort()[len(lead) // 2]]
        logits = torch.cat([logits, middle[None]])
        label = torch.cat([label, middle.topk(2).indices[1:]])
    said = f"temperature fitted on {count} labeled rows, each named without knowing its label"
    return fit_temperature(logits, label), said


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a whole network is trained on, by AdamW.

    epochs: 0 is `least`, or as many as make 300 steps.  batch: at most as many as there are rows.
    lr: peak learning rate; in fine-tuning, the new layer has ten times that.
    """

    least: ClassVar[int] = 60

    epochs: int = 0
    batch: int = 64
    lr: float = 3e-4
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 2 or not self.lr > 0:
            raise ValueError(
                f"--epochs {self.epochs} --batch {self.batch} --lr {self.lr:g}: epochs of 0 (as many as suit) or more, "
                "a batch of 2 or more and a rate above 0 are wanted"
            )

    def passes(self, rows: int) -> int:
        """The epochs."""
        return self.epochs or max(self.least, -(-300 // (rows // min(self.batch, rows))))


def tune(
    network: Stage,
    run: Run,
    data: Samples,
    held: Samples | None,
    *,
    classes: int,
    tuning: Tuning,
    views: str = "",
    journal: Journal | None = None,
    watch: Watch = lambda step, steps, numbers: None,
) -> tuple[CrossEntropy, dict[str, Any]]:
    """Fine-tune a network with a fresh linear layer, which begins at zero; and what was chosen.

    network: the encoder of `run` (trained or not) and what follows it; tuned in place.  data: labeled 0 to C - 1.
    held: other labeled samples, on which the best of some thirty looks is chosen; without them it is the last epoch.
    views: of which one is made of each sample; by default `mild(run)`.
    """
    device = pick_device(tuning.device)
    epochs = tuning.passes(len(data))
    torch.manual_seed(tuning.seed)
    counts = torch.bincount(data.label, minlength=classes).tolist()
    method = CrossEntropy(network, classes=classes, counts=tuple(counts))
    nn.init.zeros_(method.classifier.weight)
    nn.init.zeros_(method.classifier.bias)
    method = method.to(device)
    settings = dataclasses.replace(run.settings, views=views or mild(run), view_count=1)
    viewer = run.kind.views(data, settings, run.config["made"])
    groups = [
        {"params": list(network.parameters()), "weight_decay": 0.0},
        {"params": list(method.classifier.parameters()), "weight_decay": 0.0, "lr": 10 * tuning.lr},
    ]
    best: dict[str, Any] = {"score": None, "state": None, "look": 0}
    looks, every = 0, max(1, epochs // LOOKS)

    def probe() -> dict[str, float]:
        nonlocal looks
        assert held is not None
        looks += 1
        logits = embedded(nn.Sequential(network, method.classifier), run, held)
        found = float((logits.argmax(1) == held.label).double().mean()), -nll(logits, held.label)
        if best["score"] is None or found > best["score"]:
            best.update(score=found, state=copied(method.state_dict()), look=looks)
        return {"held_out_accuracy": 100 * found[0], "held_out_loss": -found[1]}

    loop = quiet_loop(tuning, len(data), journal, watch)
    loop.probe, loop.probe_every = None if held is None else probe, every
    if not fit(method, data.to(device), viewer, optim.adamw(groups, tuning.lr), loop):
        raise KeyboardInterrupt
    if best["state"] is not None:
        method.load_state_dict(best["state"])
    chosen = min(epochs, best["look"] * every) if held is not None else epochs
    return method.cpu().eval(), {
        "epochs": epochs,
        "batch": loop.batch,
        "lr": tuning.lr,
        "views": settings.views,
        "epoch": chosen,
        "chosen": "the last epoch" if held is None else f"the best of {looks} looks at {len(held)} held-out rows",
    }


def quiet_loop(tuning: Tuning, rows: int, journal: Journal | None, watch: Watch) -> Loop:
    """The loop over so many rows, which tells nobody of epochs: a warm-up of a twentieth, a cosine, norms up to 1."""
    return Loop(
        epochs=tuning.passes(rows),
        batch=min(tuning.batch, rows),
        schedule=lambda step, steps: optim.warmup_cosine(step, steps=steps, warmup=steps // 20),
        seed=tuning.seed,
        clip=1.0,
        journal=journal,
        watch=watch,
        say=lambda text: None,
    )


def mild(run: Run) -> str:
    """The views of which fine-tuning takes the first: crop and flip; for drawings a mild map, for rows none."""
    if run.kind.name == "table":
        return "scarf"
    return "drawing" if run.settings.views.endswith("drawing") else "cmc"


def hold_out(rows: Rows, label: Tensor, group: Tensor, seed: int) -> tuple[Tensor, Tensor, str]:
    """The rows to fine-tune on, those to choose by, and a sentence: a stratified fifth, where labels are many enough.

    label: of all samples, as numbers of classes.  group: of all samples.
    """
    if len(rows.held):
        return rows.learn, rows.held, f"The {len(rows.held)} labeled rows of the split val choose the epoch."
    each = len(rows.learn) / len(rows.classes)
    known = torch.full_like(label, MISSING)
    known[rows.learn] = label[rows.learn]
    none = rows.learn[:0]
    try:
        learn, held = holdout(known, group, share=0.2, seed=seed)
    except ValueError:
        learn, held = rows.learn, none
    if each < FEWEST_EACH or len(held) < FEWEST_HELD or len(label[learn].unique()) < len(rows.classes):
        return (
            rows.learn,
            none,
            f"{len(rows.learn)} labels of {len(rows.classes)} classes are too few to hold some out: all are learned "
            "from, the last epoch is kept, and probabilities are not calibrated.",
        )
    return learn, held, f"{len(held)} of {len(rows.learn)} labeled rows are held out: they choose the epoch."


def finetune(
    run: Run | str | Path,
    data: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    share: float = 0.0,
    per_class: int = 0,
    train: Literal["frozen", "full"] = "frozen",
    layer: int = 0,
    weights: Literal["trained", "untrained"] = "trained",
    views: str = "",
    tuning: Tuning | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    say: Say = print,
    watch: Watch = lambda step, steps, numbers: None,
) -> Classifier:
    """A classifier on few labels, from the encoder of a run, written to a directory of its own.

    run: a run, or its directory; it is left as it is.  data: samples of which some have labels.  labels, label_column:
    as in training.  share, per_class: how many of each class are learned from, see `labeled_rows`; all by default.
    train: "frozen" fits a linear layer to the features; "full" fine-tunes the whole network, as `tuning` says.
    layer: of the method's projector, up to which it is kept: 0 none of it, 1 as SimCLRv2 has it (arXiv 2006.10029).
    weights: of the encoder; "untrained" are those that the run began with, which shows what it is worth.
    out: the directory, new; runs/finetune-DATA-N by default.
    """
    began = time.perf_counter()
    run = Run(run) if isinstance(run, str | Path) else run
    if train not in ("frozen", "full") or weights not in ("trained", "untrained"):
        raise ValueError(f"--train {train!r} --weights {weights!r}: frozen or full, trained or untrained are wanted")
    if layer and weights == "untrained":
        raise ValueError(f"--layer {layer} keeps a part of what was learned, and --weights untrained nothing: give one")
    folder = Path(out) if out is not None else plans.free_directory("finetune", data)
    with new_directory(folder):
        samples = run.open(data, labels=labels, label_column=label_column)
        for note in samples.notes:
            say(note)
        rows = labeled_rows(samples, share=share, per_class=per_class, seed=seed)
        label, names = rows.number(samples.label), [samples.classes[c] for c in rows.classes]
        encoder = copy.deepcopy(run.encoder) if weights == "trained" else run.untrained()
        head = _head(run, layer)
        network = Stage(encoder, *head, dim=_width(encoder.dim, head)).eval()
        which = f"the {weights} encoder" + (f" and the projector up to layer {layer}" if layer else "")
        say(f"{len(rows.learn)} labels of {len(names)} classes, on {which} of {str(run.path)!r}, {train}.")
        facts: dict[str, Any] = {
            "run": str(run.path),
            "checkpoint": run.checkpoint,
            "data": str(data) if isinstance(data, str | Path) else f"{type(data).__name__} in memory",
            "labels": str(labels or ""),
            "label_column": label_column,
            "share": share,
            "per_class": per_class,
            "train": train,
            "layer": layer,
            "weights": weights,
            "seed": seed,
        }
        if train == "frozen":
            learned, kept = (embedded(network, run, samples.subset(part)) for part in (rows.learn, rows.held))
            group = samples.group[rows.learn]
            last, temperature, chosen = frozen(
                learned,
                label[rows.learn],
                group=group if bool((group != MISSING).any()) else None,
                held=(kept, label[rows.held]) if len(rows.held) else None,
                seed=seed,
            )
            known, held = torch.cat([rows.learn, rows.held]).sort().values, rows.held
            if across := chosen["held_out_accuracy"]:
                told = f"{max(across):.1f} % are named right by a classifier of the others"
                say(f"In {chosen['held_out_parts']} folds, {told}.")
        else:
            learn, held, said = hold_out(rows, label, samples.group, seed)
            say(said)
            method, chosen = tune(
                network,
                run,
                relabeled(samples, label, names, learn),
                relabeled(samples, label, names, held) if len(held) else None,
                classes=len(names),
                tuning=dataclasses.replace(tuning or Tuning(), seed=seed),
                views=views,
                journal=Journal(folder / "metrics.jsonl"),
                watch=watch,
            )
            last = method.classifier
            logits = embedded(nn.Sequential(network, last), run, samples.subset(held))
            temperature, chosen["calibration"] = calibrated(logits, label[held])
            known = torch.cat([learn, held]).unique()
        return publish(
            folder,
            run,
            encoder,
            [*head, last],
            samples,
            label=label,
            classes=names,
            known=known,
            held=held,
            test=rows.test,
            temperature=temperature,
            facts=facts | {"learned": len(rows.learn)} | chosen,
            trained_on=None if train == "frozen" else samples.subset(known),
            seconds=time.perf_counter() - began,
            say=say,
        )


def relabeled(samples: Samples, label: Tensor, classes: list[str], rows: Tensor) -> Samples:
    """Some samples with other labels, N numbers of `classes`."""
    part = samples.subset(rows)
    return dataclasses.replace(part, label=label[rows], classes=classes)


def _head(run: Run, layer: int) -> nn.Sequential:
    """The projector of a run up to a layer, apart from it."""
    if not layer:
        return nn.Sequential()
    if is_classifier(run.path):
        raise ValueError(f"--layer {layer}: {str(run.path)!r} is a classifier, and has no projector")
    projector = getattr(run.method, "projector", None)
    if projector is None:
        raise ValueError(f"--layer {layer}: {run.config['method']!r} has no projector; 0 is the encoder alone")
    return copy.deepcopy(first_layers(projector, layer))


def _width(dim: int, head: nn.Sequential) -> int:
    return next((part.out_features for part in reversed(head) if isinstance(part, nn.Linear)), dim)
