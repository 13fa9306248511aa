"""How sure a classifier may be: the temperature that its logits are divided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.evaluation.calibration import fit_temperature
from nearfar.fewlabels.rows import FEWEST_HELD


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it rests on.

    temperature: None where it could not be fitted.
    rows: the labeled rows that there were to fit it.
    teacher: whether a teacher's probabilities stood for labels.
    """

    temperature: float | None
    rows: int
    teacher: bool = False

    def __str__(self) -> str:
        if self.temperature is None:
            return f"not calibrated: that takes {FEWEST_HELD} labeled rows, and there are {self.rows}"
        if self.teacher:
            return "temperature fitted to what the calibrated teacher says"
        return f"temperature fitted on {self.rows} labeled rows, none of them learned from when it was named"

    def facts(self) -> dict[str, Any]:
        """As `classifier.json` keeps it."""
        return {"calibration": str(self), "calibration_rows": self.rows, "calibrated_by_teacher": self.teacher}


def calibrate(logits: Tensor, label: Tensor) -> Calibration:
    """Fit the temperature to rows that the classifier has not learned from.

    logits: N x C.
    label: N. Rows of a class that the classifier does not know are left out.
    Where it is right on all of them, no finite confidence would be too much: then the fit is as if it had been wrong on
    one more row, on which it was as sure as on the middle one.
    """
    if len(label):
        known = label < logits.shape[1]
        logits, label = logits[known], label[known]
        possible = logits.gather(1, label[:, None])[:, 0] > -torch.inf
        logits, label = logits[possible], label[possible]
    if (count := len(label)) < FEWEST_HELD:
        return Calibration(None, count)
    if bool((logits.argmax(1) == label).all()):
        lead = logits.topk(2).values.diff(dim=1)[:, 0]
        middle = logits[lead.argsort()[len(lead) // 2]]
        logits = torch.cat([logits, middle[None]])
        label = torch.cat([label, middle.topk(2).indices[1:]])
    return Calibration(fit_temperature(logits, label), count)
