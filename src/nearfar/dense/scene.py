"""What every measure of places rests on: samples seen whole, the networks that look at them, and who is tested."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.data.splits import apart, holdout
from nearfar.errors import UserError
from nearfar.evaluation.parts import learned_and_tested
from nearfar.method import Encoder
from nearfar.modalities.kind import Whole
from nearfar.run import Run, load

Say = Callable[[str], None]
Look = Callable[[Tensor], list[Tensor]]
"""Takes n positions and gives maps at a few depths, each n x C x h x w."""

FOLDS = 3
"""Where no split is named: an image costs more than a row of features."""


@dataclass(frozen=True)
class Split:
    """Positions: what is learned from, what choices are made on and is learned from afterwards, and what is tested."""

    fit: Tensor
    held: Tensor
    tested: Tensor


@dataclass(frozen=True)
class Scene:
    """Samples seen whole.  run: which opens data so.  given: what they were opened from."""

    run: Run
    given: Any
    samples: Samples
    whole: Whole

    def cells(self) -> list[Mapping[str, str]]:
        """What the columns of a list say of each sample."""
        if not isinstance(self.given, str | Path):
            return [{}] * len(self.samples)
        settings = dataclasses.replace(self.run.settings, labels="")
        return list(self.run.kind.cells(self.given, settings, self.samples).of) or [{}] * len(self.samples)

    def root(self) -> Path | None:
        return self.run.kind.root(self.given)

    def encoders(self) -> dict[str, Encoder]:
        """The encoder untrained, with the weights that training began with, where it began with some, and trained."""
        found = {"untrained encoder": self.run.untrained()}
        start, _ = self.run.kind.starts(self.run.settings).get("", ("", ""))
        if start and (Path(start) / "config.yaml").is_file():
            found["given weights"] = load(start, trust=self.run.trust).encoder
        return found | {"trained encoder": self.run.encoder}

    def looks(self) -> dict[str, Look]:
        """The maps of each of these."""
        return {name: partial(maps, encoder, self.whole) for name, encoder in self.encoders().items()}

    def known(self) -> Tensor:
        return self.run.seen(self.samples)


@torch.no_grad()
def maps(encoder: Encoder, whole: Whole, index: Tensor) -> list[Tensor]:
    """Maps of some samples seen whole: each n x C x h x w, float32, on the CPU."""
    device = next(encoder.parameters()).device
    return [one.float().cpu().contiguous() for one in encoder.maps(whole.view(index).to(device))]


def opened(run: Run, data: Any, size: int, say: Say) -> Scene:
    """Data to be seen whole at a side of `size` pixels, or at that which the network takes.

    Raises ValueError for samples in which nothing has a place, and for encoders without maps.
    """
    own = copy.copy(run)
    facts = run.kind.whole_facts(run.encoder, size)
    own.made = run.made | facts
    samples = own.open(data, labels="none")
    for note in samples.notes:
        say(note)
    whole = run.kind.whole(samples, run.encoder)
    if whole.side != size:
        say(f"The network takes views of {whole.side} px alone: --size {size} is not used.")
    return Scene(own, data, samples, whole)


def splits(scene: Scene, there: Tensor, seed: int, say: Say, what: str) -> list[Split]:
    """Who is learned from and who is tested: the split that data name, else folds by a seed; groups stay whole.

    there: N, which samples are annotated.  what: with, such as masks.
    """
    if not there.any():
        raise UserError(f"none of the {scene.run.kind.noun} has {what}")
    samples = dataclasses.replace(scene.samples, label=torch.where(there, 0, MISSING), classes=[what])
    noun = scene.run.kind.noun
    parts, _ = learned_and_tested(samples, None, FOLDS, seed, say, noun, "")
    val = (samples.of_split("val") & there).nonzero()[:, 0]
    made = []
    for learned, tested in parts:
        if len(val) and samples.split[int(tested[0])] == "test":
            # Copies of what is tested are not learned from, nor are choices made on copies of what is learned from.
            fit, held = learned, apart(samples.group, torch.cat([learned, tested]), val)
        else:
            fit, held = (
                learned[part] for part in holdout(samples.label[learned], samples.group[learned], share=0.2, seed=seed)
            )
        made.append(Split(fit, held, tested))
    return made


def told(scene: Scene, parts: list[Split], seen: Tensor) -> str:
    """How samples were divided, in a sentence or two."""
    noun, tested = scene.run.kind.noun, torch.cat([part.tested for part in parts])
    if len(parts) > 1:
        how = f"{len(parts)} folds by a seed, of {len(tested):,} {noun}"
    else:
        on = "the split val" if scene.samples.split[int(parts[0].held[0])] == "val" else "held-out training rows"
        how = (
            f"{len(tested):,} {noun} of the split test; learned from {len(parts[0].fit) + len(parts[0].held):,}, "
            f"{len(parts[0].held):,} of which ({on}) choices were made on"
        )
    said = int(seen[tested].sum())
    return f"{how}. " + (
        f"{said:,} of the {len(tested):,} tested {noun} were in pre-training{scene.run.seen_how}."
        if said
        else f"No tested {noun.removesuffix('s')} was in pre-training."
    )
