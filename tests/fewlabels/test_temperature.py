from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nearfar.fewlabels.temperature import Calibration, calibrate


def test_a_classifier_that_is_always_right_is_not_made_sure_without_end() -> None:
    label = torch.arange(40) % 4
    logits = 0.1 * F.one_hot(label, 4).float()
    calibration = calibrate(logits, label)
    assert calibration.temperature is not None
    confidence = (logits / calibration.temperature).softmax(1).amax()
    assert float(confidence) == pytest.approx(40 / 41, abs=0.01)


def test_rows_of_unknown_classes_do_not_calibrate() -> None:
    logits, label = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    more = torch.cat([logits, torch.ones(5, 3)]), torch.cat([label, torch.full((5,), 7)])
    assert calibrate(*more) == calibrate(logits, label)
    assert calibrate(logits[:19], label[:19]) == Calibration(None, 19)
    impossible = logits.index_fill(1, torch.tensor([2]), -torch.inf)
    assert calibrate(impossible, label).rows == int((label < 2).sum())


@pytest.mark.parametrize(
    ("calibration", "begins"),
    [
        (Calibration(None, 7), "not calibrated"),
        (Calibration(2.0, 30), "temperature"),
        (Calibration(2.0, 0, True), "te"),
    ],
)
def test_a_report_knows_by_the_first_word_whether_it_is_calibrated(calibration: Calibration, begins: str) -> None:
    facts = calibration.facts()
    assert facts["calibration"].startswith(begins)
    assert (facts["calibration_rows"], facts["calibrated_by_teacher"]) == (calibration.rows, calibration.teacher)
