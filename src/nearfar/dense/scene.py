"""What every measure of places rests on: samples seen whole, the networks that look at them, and who is tested."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.boxes import Boxes, place_boxes, read_boxes
from nearfar.data.samples import Samples
from nearfar.data.splits import apart, holdout
from nearfar.errors import UserError
from nearfar.evaluation.parts import learned_and_tested
from nearfar.method import Encoder
from nearfar.modalities.kind import Whole
from nearfar.run import Run

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
    """Samples seen whole.  run: which opens data so.  given: what they were opened from.  sizes: those known so far."""

    run: Run
    given: Any
    samples: Samples
    whole: Whole
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of sample i, which is opened once for it."""
        if i not in self.sizes:
            self.sizes[i] = self.whole.size(i)
        return self.sizes[i]

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
        return self.run.beginnings() | {"trained encoder": self.run.encoder}

    def looks(self) -> dict[str, Look]:
        """The maps of each of these."""
        return {name: partial(maps, encoder, self.whole) for name, encoder in self.encoders().items()}

    def whole_look(self, look: Callable[[Tensor, Tensor], list[Tensor]]) -> Look:
        """Maps that no network makes, of the views of some samples, and of which of their pixels are no padding."""

        def made(index: Tensor) -> list[Tensor]:
            inside = torch.zeros(len(index), 1, self.whole.side, self.whole.side)
            for row, i in enumerate(index.tolist()):
                height, width = self.whole.extent(i)
                inside[row, :, :height, :width] = 1
            return look(self.whole.view(index), inside)

        return made

    def split_by(self, split: list[str]) -> Scene:
        """The same, of the split that annotations name, where the samples name none."""
        if not any(split) or any(self.samples.split):
            return self
        return dataclasses.replace(self, samples=dataclasses.replace(self.samples, split=split))

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
        say(f"The network takes views of {whole.side} px alone, and not of {size} px: images are seen at that size.")
    return Scene(own, data, samples, whole)


def with_boxes(run: Run, data: Any, boxes: str | Path, box_origin: int, size: int, say: Say) -> tuple[Scene, Boxes]:
    """Data seen whole, and their boxes, which are read before anything is opened."""
    written = read_boxes(boxes, box_origin)
    scene = opened(run, data, size, say)
    truth = place_boxes(written, scene.samples.names, scene.size, scene.root())
    for note in truth.notes:
        say(note)
    return scene.split_by(truth.split), truth


def splits(scene: Scene, there: Tensor, seed: int, say: Say, what: str, *, once: bool = False) -> list[Split]:
    """Who is learned from and who is tested: the split that data name, else folds by a seed; groups stay whole.

    there: N, which samples are annotated.  what: with, such as masks.  once: a quarter is tested instead of folds.
    """
    noun = scene.run.kind.noun
    if not there.any():
        raise UserError(f"none of the {noun} has {what}")
    samples = dataclasses.replace(scene.samples, label=torch.where(there, 0, MISSING), classes=[what])
    if once and not samples.of_split("test").any():
        parts = [holdout(samples.label, samples.group, share=0.25, seed=seed)]
    else:
        parts, _ = learned_and_tested(samples, None, FOLDS, seed, say, noun, "")
    val = (samples.of_split("val") & there).nonzero()[:, 0]
    made = []
    for learned, tested in parts:
        if len(val) and samples.split[int(tested[0])] == "test":
            # Copies of what is tested are not learned from, nor are choices made on copies of what is learned from.
            fit, held = learned, apart(samples.group, torch.cat([learned, tested]), val)
        else:
            label, group = samples.label[learned], samples.group[learned]
            fit, held = (learned[part] for part in holdout(label, group, share=0.2, seed=seed))
        made.append(Split(fit, held, tested))
    return made


def told(scene: Scene, parts: list[Split], seen: Tensor, *, choices: bool = True) -> str:
    """How samples were divided, in a sentence or two. choices: whether any were made."""
    noun, tested = scene.run.kind.noun, torch.cat([part.tested for part in parts])
    if len(parts) > 1:
        how = f"{len(parts)} folds by a seed, of {len(tested):,} {noun}"
    else:
        named, held = scene.samples.split, parts[0].held
        of = "the split test" if named[int(tested[0])] == "test" else "a split by a seed"
        how = f"{len(tested):,} {noun} of {of}; learned from {len(parts[0].fit) + len(held):,}"
        on = "the split val" if len(held) and named[int(held[0])] == "val" else "held-out training rows"
        how += f", {len(held):,} of which ({on}) choices were made on" if choices else ""
    said = int(seen[tested].sum())
    return f"{how}. " + (
        f"{said:,} of the {len(tested):,} tested {noun} were in pre-training{scene.run.seen_how}."
        if said
        else f"No tested {noun.removesuffix('s')} was in pre-training."
    )
