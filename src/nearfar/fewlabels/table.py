"""How good a classifier is on samples that it has not learned from."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.evaluation.calibration import calibration_error
from nearfar.evaluation.evaluate import summary
from nearfar.fewlabels.classifier import Classifier

ACCURACY, CALIBRATION = "accuracy (%)", "calibration error (%)"


def measure(classifier: Classifier, samples: Samples, classes: list[str]) -> dict[str, Any]:
    """The table of a report: accuracy with its interval, calibration, accuracy and confusion by class.

    samples: all labeled, by numbers of `classes`.
    classes: the classifier's, and others, whose samples count as wrong.
    """
    p, label = classifier.probabilities(classifier.features(samples)), samples.label
    seen, unknown = int(classifier.run.seen(samples).sum()), int((label >= p.shape[1]).sum())
    group = samples.group if bool((samples.group != MISSING).any()) else None
    config = {"seen_in_training": seen > 0, "test_seen_in_training": seen, "test_of_unknown_classes": unknown}
    scores = summary("classifier", p.argmax(1), label, group, torch.arange(len(label)), config, [], 0)
    wide = F.pad(p, (0, len(classes) - p.shape[1]))
    note = (
        f"{scores['accuracy']:.1f} % of {len(label):,} test samples are named right (95 % interval "
        f"{scores['low']:.1f} to {scores['high']:.1f}); always naming the most frequent class would give "
        f"{scores['chance']:.1f} %."
    )
    note += f" {unknown:,} are of classes without a label to learn from, and count as wrong." if unknown else ""
    note += f" {seen:,} were in pre-training{classifier.run.seen_how}." if seen else ""
    values = {
        ACCURACY: {"value": scores["accuracy"], "low": scores["low"], "high": scores["high"]},
        CALIBRATION: {"value": 100 * calibration_error(wide, label)},
    }
    each = [
        {"name": classes[c], "values": {ACCURACY: {"value": value}}} for c, value in sorted(scores["per_class"].items())
    ]
    return {
        "title": "The classifier on the test split",
        "note": note,
        "columns": [ACCURACY, CALIBRATION],
        "rows": [{"name": "this classifier", "main": True, "values": values}],
        "per_class": {"columns": [ACCURACY], "rows": each},
        "confusion": {"by": "the classifier", "classes": classes, "counts": scores["confusion"]},
        "protocol": scores["protocol"] | {"temperature": classifier.temperature, **classifier.facts},
    }
