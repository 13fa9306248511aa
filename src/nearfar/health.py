"""Is training well? Readings of the representation while it is learnt, and alarms with cause and remedy.

All from numbers that are at hand: what the encoder made of the last batch, the loss and chance, the gradient's length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.evaluation.health import alignment, effective_rank, spread, uniformity

ROWS = 128
"""Samples of a batch that are looked at: enough to tell, and quick."""

COLLAPSED = 0.02
"""Spread below which all samples have, for all that matters, one representation; untrained networks have 0.1 to 0.6."""

FLAT = 0.1
"""Share of the effective rank at the start below which the representation has lost its dimensions."""

STUCK_STEPS = 200
"""Steps after which a loss that has not left chance is called stuck."""

EXPLODED = 100.0
"""Times the usual length of the gradient."""

STARVED = 0.5
"""Share of the time that waits for input."""

Line = Mapping[str, float]
"""A line of the journal: step, epoch, and numbers by name."""


@dataclass(frozen=True)
class Alarm:
    """Something is wrong. name: one word or two.  text: what was seen, the likely cause, and a remedy."""

    name: str
    text: str


@torch.no_grad()
def readings(passes: Sequence[Tensor], samples: int) -> dict[str, float]:
    """Numbers on the representation of a batch of `samples`, from what passed the encoder: V views, one after another.

    spread: 0 where all samples are alike, 1 where they are spread evenly.  effective_rank: dimensions in use.
    Of two views also accuracy: how often, in per cent, a sample's other view is the nearest of all; alignment and
    uniformity (arXiv 2005.10242). All of the encoder's output, not of the projector's.
    """
    whole = [h for h in passes if h.dim() == 2 and len(h) % samples == 0]
    views = [view for h in whole for view in h.float().split(samples)]
    if not views or samples < 2 or not all(view.isfinite().all() for view in views[:2]):
        return {}
    first = views[0][:ROWS]
    numbers = {"spread": spread(first), "effective_rank": effective_rank(first)}
    if len(views) > 1 and views[1].shape == views[0].shape:
        second = views[1][:ROWS]
        both = F.normalize(torch.cat([first, second]), dim=1)
        cosine = (both @ both.T).fill_diagonal_(-math.inf)
        partner = torch.arange(len(both), device=both.device).roll(len(first))
        numbers["accuracy"] = 100 * float((cosine.argmax(1) == partner).float().mean())
        numbers |= {"alignment": alignment(first, second), "uniformity": uniformity(first)}
    return numbers


def alarms(lines: Sequence[Line], *, rate: str = "--lr") -> list[Alarm]:
    """What the journal so far gives reason to worry about; nothing, where all is well.

    A loss or a weight that is no longer finite is not among them: it ends the run.
    """
    found = []
    looks = [line for line in lines if "spread" in line]
    losses = [line for line in lines if "loss" in line]
    if looks:
        first, last = looks[0], looks[-1]
        if last["spread"] < COLLAPSED and last["spread"] < first["spread"] / 2:
            found.append(
                Alarm(
                    "collapse",
                    f"all samples have nearly the same representation (spread {last['spread']:.3f}, at first "
                    f"{first['spread']:.3f}). Mostly the rate is too high, or what keeps the method from collapsing "
                    f"(predictor, slow copy, batch norm, negatives) is out of action. Try {rate} at a third of its "
                    "value, and the method's own defaults.",
                )
            )
        elif last["effective_rank"] < FLAT * first["effective_rank"]:
            found.append(
                Alarm(
                    "dimensional collapse",
                    f"{last['effective_rank']:.1f} dimensions of the representation are in use, of "
                    f"{first['effective_rank']:.1f} at first. Views that are too strong, or a temperature too high, do "
                    f"that. Try milder --views, or {rate} at a third of its value.",
                )
            )
    if losses and "chance" in losses[-1] and losses[-1]["step"] >= STUCK_STEPS:
        chance, late = losses[-1]["chance"], [line["loss"] for line in losses if line["step"] > STUCK_STEPS / 2]
        if chance > 0 and min(late) > 0.99 * chance:
            found.append(
                Alarm(
                    "stuck at chance",
                    f"after {losses[-1]['step']:.0f} steps the loss is {late[-1]:.3f}, and a model that knows nothing "
                    f"has {chance:.3f}. The rate is too high or far too low, or the views share nothing. Look at "
                    f"`nearfar views`, and try {rate} at a third of its value.",
                )
            )
    norms = [line["gradient_norm"] for line in losses if "gradient_norm" in line]
    if len(norms) >= 10 and fmean(norms[-3:]) > EXPLODED * median(norms[:-3]):
        found.append(
            Alarm(
                "exploding gradient",
                f"the gradient is {fmean(norms[-3:]) / median(norms[:-3]):.0f} times as long as usual. "
                f"Try --clip 1, or a lower {rate}.",
            )
        )
    shares = [line["input_share"] for line in losses if "input_share" in line]
    if len(shares) >= 5 and min(shares[-5:]) > STARVED:
        found.append(
            Alarm(
                "input starvation",
                f"{shares[-1]:.0%} of the time goes to reading samples and making views: the network waits. "
                "Try a smaller --size, samples that fit in memory, or more cores.",
            )
        )
    return found
