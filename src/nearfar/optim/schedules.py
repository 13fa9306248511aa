"""Schedules: pure functions of the step, so that a run resumes from the step alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nearfar.errors import UserError


def warmup_cosine(step: int, *, steps: int, warmup: int = 0, start: float = 0.0, floor: float = 0.0) -> float:
    """The factor on the learning rate: a line from `start` to 1 over `warmup` steps, then a cosine to `floor`.

    step: from 0; at step == warmup the factor is 1, from step == steps on it is `floor` (arXiv 1608.03983).
    """
    if not 0 <= warmup <= steps:
        raise UserError(f"warm-up must be between 0 and the {steps} steps of training, got {warmup}")
    if step < warmup:
        return start + (1 - start) * step / warmup
    if step >= steps:
        return floor
    return floor + (1 - floor) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def step_decay(step: int, *, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """The factor on the learning rate: times `gamma` at each of the steps `milestones` (MoCo v1, linear probes)."""
    return gamma ** sum(step >= milestone for milestone in milestones)


def cosine_ramp(start: float, progress: float) -> float:
    """BYOL's momentum: from `start` at progress 0 to 1 at progress 1, along a cosine (arXiv 2006.07733, 3.3)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
