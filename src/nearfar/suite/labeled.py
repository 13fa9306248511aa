"""The parts of a suite that take labels and features alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.clustering.kmeans import kmeans
from nearfar.evaluation.calibration import calibration_error
from nearfar.evaluation.clusters import clusters, matched
from nearfar.evaluation.evaluate import evaluate_knn, evaluate_linear
from nearfar.evaluation.groups import group_accuracy
from nearfar.evaluation.identities import per_identity
from nearfar.evaluation.intervals import wilson
from nearfar.evaluation.kshot import few_labels_in_folds
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.evaluation.longtail import long_tail
from nearfar.evaluation.retrieval import per_query
from nearfar.fewlabels.settings import Tuning
from nearfar.studies.transfer import Row, tuned_answers
from nearfar.suite.case import Case, drawn
from nearfar.suite.part import Number, Part, Told, of_each, of_hits, of_result

SHOTS = (1, 5)
SHARES = (0.01, 0.1)
RECALLS = (1, 5, 10)
CLUSTERED, RESTARTS = 4000, 5
RANKED = 8000
LEAST = 20
"""Tested samples without which a group of class and attribute is not looked at."""
STEPS, EPOCHS = 300, 20
"""Of fine-tuning: as many epochs as make so many steps, and so many epochs at least."""
FLOPS = 4e9
"""Products a second that a core makes, for estimates."""


def no_labels(case: Case) -> str:
    """Why nothing that takes labels can be measured; "" where it can."""
    return case.unlabeled


def _attributes(case: Case) -> str:
    if why := no_labels(case):
        return why
    return "no column attribute" if bool((case.samples.attribute == MISSING).all()) else ""


def _width(case: Case) -> int:
    return case.main.encoder.dim


def _knn(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    made = evaluate_knn(case.features(row), case.label, case.splits, group=case.group, seed=case.seed)
    number = of_result(made, _grouped(case))
    per_class = Number(value=made["class_accuracy"])
    return Told(
        numbers={"accuracy (%)": number, "mean over classes (%)": per_class},
        protocol=_shown(made["protocol"]),
        result={"knn": made},
    )


def _linear(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    made = evaluate_linear(
        case.features(row),
        case.label,
        case.splits,
        group=case.group,
        solver=ridge,
        strengths=RIDGE_STRENGTHS,
        seed=case.seed,
    )
    number, per_class = of_result(made, _grouped(case)), Number(value=made["class_accuracy"])
    return Told(
        numbers={"accuracy (%)": number, "mean over classes (%)": per_class},
        protocol=_shown(made["protocol"]),
        notes=made["protocol"]["notes"],
        result={"linear": made},
    )


def _kshot(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    x, y = case.features(row), case.label
    folds = [(x[learn], y[learn], x[test], y[test]) for learn, test in case.splits]
    group = None if case.group is None else case.group[case.tested]
    told = Told(numbers={}, protocol={})
    for shots in SHOTS:
        made = few_labels_in_folds(folds, group=group, shots=shots, scaled=(False, True), seed=case.seed)
        told.numbers[f"{shots} a class (%)" if shots > 1 else "1 label a class (%)"] = of_result(made, _grouped(case))
        told.protocol = _shown(made["protocol"]) | {"shots": list(SHOTS)}
        told.notes += made["protocol"]["notes"]
        told.result[f"few_labels_{shots}"] = made
    return told


def _finetune(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    learn, test = case.once
    classes = case.label[learn].unique()
    told = Told(numbers={}, protocol={})
    made: dict[int, tuple[Tensor, dict[str, object]]] = {}
    for share in SHARES:
        count = max(1, int(share * len(learn) / len(classes)))
        some = drawn_of_each(case.label, learn, count, case.seed)
        tuning = Tuning(epochs=_epochs(len(some)), device=str(case.run.device), seed=case.seed)
        if count not in made:
            made[count] = tuned_answers(row, case.samples, some, test, tuning)
        hit, facts = made[count]
        told.numbers[f"{share:.0%} of labels, {count} a class (%)"] = of_hits(hit, case, test)
        told.protocol = {**facts, "splits": 1, "test": len(test), "seed": case.seed}
    if len(made) < len(SHARES):
        told.notes.append("1 % and 10 % of the labels are as many of each class here: trained once")
    return told


def _epochs(rows: int) -> int:
    return max(EPOCHS, -(-STEPS // max(1, rows // min(64, rows))))


def drawn_of_each(label: Tensor, rows: Tensor, count: int, seed: int) -> Tensor:
    """So many rows of each class, drawn by the seed, rising; more of the same seed hold the fewer."""
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    return torch.cat([order[label[order] == c][:count] for c in label[rows].unique()]).sort().values


def _tuning_seconds(case: Case) -> float:
    learn, test = case.once
    classes, total = len(case.label[learn].unique()), 0
    for count in {max(1, int(share * len(learn) / classes)) for share in SHARES}:
        rows = count * classes
        total += 3 * rows * _epochs(rows) + len(test) + min(30, _epochs(rows)) * rows // 5
    return case.pace * total


def _clusters(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = drawn(case.tested, CLUSTERED, case.seed)
    x, y = F.normalize(case.features(row)[rows], dim=1), case.label[rows]
    k = len(y.unique())
    tries = [kmeans(x, k, seed=case.seed + turn) for turn in range(RESTARTS)]
    best = min(tries, key=lambda one: float(one.distance.square().sum()))
    made = clusters(best.assigned, y)
    number = of_hits(matched(best.assigned, y), case, rows)
    return Told(
        numbers={
            "ACC (%)": number,
            "NMI": Number(value=made["nmi"], places=3),
            "ARI": Number(value=made["ari"], places=3),
        },
        protocol={
            "clusters": k,
            "rows": len(rows),
            "algorithm": "k-means on unit rows",
            "restarts": RESTARTS,
            "matching": "Hungarian",
            "seed": case.seed,
        },
    )


def _retrieval(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = drawn(case.tested, RANKED, case.seed)
    x, y = F.normalize(case.features(row)[rows], dim=1), case.label[rows]
    asked = torch.bincount(y)[y] > 1
    found = per_query(x, y, x, y, True, RECALLS, None)  # leaves out queries without a relevant item
    titles = ("mAP (%)", "R-precision (%)", "mAP@R (%)", None, *(f"recall@{k} (%)" for k in RECALLS))
    numbers = {title: of_each(100 * found[:, place], case, rows[asked]) for place, title in enumerate(titles) if title}
    protocol = {
        "similarity": "cosine",
        "queries": int(asked.sum()),
        "gallery": len(rows),
        "self_excluded": True,
        "mAP of a random ranking (%)": 100 * float(found[:, 3].mean()),
        "seed": case.seed,
    }
    notes = [] if case.group is None else ["samples of one group are looked for like any others"]
    return Told(numbers=numbers, protocol=protocol, notes=notes)


def _unranked(case: Case) -> str:
    if why := no_labels(case):
        return why
    count = torch.bincount(case.label[case.tested])
    return "" if bool((count > 1).any()) else "no class has two tested samples"


def _cameras(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = drawn(case.tested, RANKED, case.seed)
    x, y = F.normalize(case.features(row)[rows], dim=1), case.label[rows]
    camera = case.samples.attribute[rows]
    found = per_identity(x, y, camera, x, y, camera, True, RECALLS)
    kept = ~found[:, 0].isnan()
    titles = ("mAP (%)", *(f"CMC@{k} (%)" for k in RECALLS))
    numbers = {
        title: of_each(100 * found[kept, place], case, rows[kept], places=1) for place, title in enumerate(titles)
    }
    protocol = {
        "similarity": "cosine",
        "camera": "column attribute",
        "same_camera": "removed",
        "queries": int(kept.sum()),
        "gallery": len(rows),
        "seed": case.seed,
    }
    return Told(numbers=numbers, protocol=protocol)


def _one_camera(case: Case) -> str:
    if why := _attributes(case):
        return why
    rows = drawn(case.tested, RANKED, case.seed)
    known = case.samples.attribute[rows] != MISSING
    pairs = torch.stack([case.label[rows][known], case.samples.attribute[rows][known]], 1).unique(dim=0)
    several = bool((torch.bincount(pairs[:, 0]) > 1).any()) if len(pairs) else False
    return "" if several else "no class was seen under two attributes"


def _groups(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    _, tested = case.once
    answer, label, attribute = _answers(case, row, tested), case.label[tested], case.samples.attribute[tested]
    made = group_accuracy(_one_hot(answer), label, attribute, least=LEAST)
    c, a = made["worst"]
    own = (label == c) & (attribute == a)
    low, high = wilson(int((answer[own] == c).sum()), int(own.sum()))
    known = attribute != MISSING
    numbers = {
        "worst group (%)": Number(value=made["worst_group"], low=low, high=high),
        "mean over groups (%)": Number(value=made["mean_group"]),
        "all (%)": of_hits((answer == label)[known], case, tested[known]),
    }
    named = f"the worst is {case.samples.classes[c]!r} with attribute number {a}, of {int(own.sum())} tested samples"
    protocol = {"group": "class x attribute", "groups": made["groups"], "least": LEAST, **case.probe(row).facts}
    return Told(numbers=numbers, protocol=protocol, notes=[f"{row.name}: {named}"])


def _no_groups(case: Case) -> str:
    if why := _attributes(case):
        return why
    _, tested = case.once
    label, attribute = case.label[tested], case.samples.attribute[tested]
    known = attribute != MISSING
    if not known.any():
        return "no tested sample has an attribute"
    count = torch.stack([label[known], attribute[known]], 1).unique(dim=0, return_counts=True)[1]
    if int(count.max()) < LEAST:
        return f"no group of class and attribute has {LEAST} tested samples"
    return ""


def _longtail(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    learned, tested = case.once
    counts = torch.bincount(case.label[learned], minlength=len(case.samples.classes)).tolist()
    answer = _answers(case, row, tested)
    made = long_tail(answer, case.label[tested], counts)
    numbers = {f"{name} (%)": Number(value=made[name]) for name in ("many", "medium", "few") if made[name] is not None}
    numbers["all (%)"] = of_hits(answer == case.label[tested], case, tested)
    numbers["from worst to best class"] = Number(value=made["spread"], better="lower")
    of = {name: len(members) for name, members in made["protocol"]["of"].items()}
    protocol = {"many": "> 100 training samples", "few": "< 20", "classes": of, **case.probe(row).facts}
    return Told(numbers=numbers, protocol=protocol)


def _no_tail(case: Case) -> str:
    if why := no_labels(case):
        return why
    counts = torch.bincount(case.label[case.once[0]])
    counts = counts[counts > 0]
    kinds = {"many" if n > 100 else "few" if n < 20 else "medium" for n in counts.tolist()}
    if len(kinds) > 1:
        return ""
    return f"all classes have {kinds.pop()} training samples, {int(counts.min())} to {int(counts.max())}"


def _calibration(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    _, tested = case.once
    probe = case.probe(row)
    logits, label = probe.logits(case.features(row)[tested]).double(), probe.numbers(case.label[tested])
    known = label < len(probe.present)
    logits, label, rows = logits[known], label[known], tested[known]
    heats = {"": probe.plain}
    if probe.calibration.temperature is not None:
        heats[" with temperature"] = probe.calibration.temperature
    numbers: dict[str, Number] = {}
    for words, heat in heats.items():
        log_p = (logits / heat).log_softmax(1)
        p, own = log_p.exp(), log_p.gather(1, label[:, None])[:, 0]
        each = p.square().sum(1) - 2 * own.exp() + 1  # the Brier score of each row
        ece = Number(value=100 * calibration_error(p, label), better="lower")
        numbers |= {
            f"ECE{words} (%)": ece,
            f"NLL{words}": of_each(-own, case, rows, better="lower", places=3),
            f"Brier{words}": of_each(each, case, rows, better="lower", places=3),
        }
    protocol = {"bins": 15, "temperatures": list(heats.values()), "test": len(rows), **probe.facts}
    notes = [] if probe.calibration.temperature is not None else [f"{row.name}: {probe.calibration}"]
    return Told(numbers=numbers, protocol=protocol, notes=notes)


def _answers(case: Case, row: Row, tested: Tensor) -> Tensor:
    """The class that the linear classifier names for each tested sample."""
    probe = case.probe(row)
    return probe.present[probe.logits(case.features(row)[tested]).argmax(1)]


def _one_hot(answer: Tensor) -> Tensor:
    return F.one_hot(answer).float()


def _grouped(case: Case) -> list[int] | None:
    return None if case.group is None else case.group[case.tested].tolist()


def _shown(protocol: dict[str, object]) -> dict[str, object]:
    """A protocol without what is listed for each split."""
    return {k: v for k, v in protocol.items() if k not in ("notes", "choices", "version", "name")}


def _products(case: Case, rows: int, others: int) -> float:
    """Seconds to multiply so many rows by others and rank them."""
    return rows * others * (2 * _width(case) + 200) / FLOPS


def _by_folds(case: Case) -> float:
    return sum(_products(case, len(learn), len(test) + 4000) for learn, test in case.splits)


def _ridge_seconds(case: Case) -> float:
    classes, d = len(case.samples.classes), _width(case)
    each = sum(
        min(len(learn), 5000) * d * (d + classes) * 8 + 20 * (d**3 + d * d * classes) for learn, _ in case.splits
    )
    return 2 * each / FLOPS


def _probe_seconds(case: Case) -> float:
    learned = len(case.once[0])
    work = learned * _width(case) * len(case.samples.classes)
    return _ridge_seconds(case) if work > 10**9 else 1 + 600 * work / FLOPS


def _kmeans_seconds(case: Case) -> float:
    rows, k = min(len(case.tested), CLUSTERED), len(case.samples.classes)
    return 1 + RESTARTS * rows * k * _width(case) * 60 / FLOPS


def _ranked_seconds(case: Case) -> float:
    rows = min(len(case.tested), RANKED)
    return 0.5 + 3 * _products(case, rows, rows)


PARTS = (
    Part(name="knn", source="arXiv 1805.01978", unfit=no_labels, seconds=_by_folds, measure=_knn),
    Part(name="linear", source="arXiv 2011.13377", unfit=no_labels, seconds=_ridge_seconds, measure=_linear),
    Part(name="kshot", source="arXiv 1703.05175", unfit=no_labels, seconds=_by_folds, measure=_kshot),
    Part(name="finetune", source="arXiv 2002.05709", unfit=no_labels, seconds=_tuning_seconds, measure=_finetune),
    Part(name="clusters", source="arXiv 2005.12320", unfit=no_labels, seconds=_kmeans_seconds, measure=_clusters),
    Part(name="retrieval", source="arXiv 2003.08505", unfit=_unranked, seconds=_ranked_seconds, measure=_retrieval),
    Part(name="cameras", source="Zheng et al. 2015", unfit=_one_camera, seconds=_ranked_seconds, measure=_cameras),
    Part(name="groups", source="arXiv 1911.08731", unfit=_no_groups, seconds=_probe_seconds, measure=_groups),
    Part(name="longtail", source="arXiv 1904.05160", unfit=_no_tail, seconds=_probe_seconds, measure=_longtail),
    Part(name="calibration", source="arXiv 1706.04599", unfit=no_labels, seconds=_probe_seconds, measure=_calibration),
)
