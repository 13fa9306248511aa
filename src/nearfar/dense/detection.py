"""How well objects are found by a light head on an encoder's maps."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.data.boxes import Boxes
from nearfar.data.digests import digests, fingerprint
from nearfar.dense.scene import Say, Scene, Split, maps, splits, told, with_boxes
from nearfar.errors import NotInstalled
from nearfar.evaluation.boxes import Guess, Ranking, ranked
from nearfar.files import origin
from nearfar.method import Encoder, derive_seed
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.dense import detection_table
from nearfar.run import Run

WIDTH = 64
"""Channels of the pyramid and of the head."""

FINEST = 8
"""Pixels of the view from which on cells are looked at: finer ones cost more than all others together."""

RATE, OWN_RATE, BATCH = 2e-3, 2e-4, 8
"""The learning rate of the head, that of an encoder that is trained with it, and images a step."""


@writes
@checked
def detect(
    run: Run,
    data: Any,
    boxes: str | Path,
    *,
    box_origin: Literal[0, 1] = 0,
    annotated_only: bool = False,
    finetune: bool = False,
    size: PositiveInt = 256,
    steps: PositiveInt = 300,
    seeds: PositiveInt = 3,
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """How well objects are found by a light head (FCOS with a feature pyramid) on the encoder's frozen maps: AP50 and
    AP, beside the same head on the untrained encoder.

    boxes, box_origin: see `nearfar.data.boxes.read_boxes`.  annotated_only: leave out images without boxes, which are
    background otherwise.  finetune: the encoder is trained with the head.  size: of the longer side of an image as the
    encoder sees it, in pixels.  steps: of the head, on 8 images each.  seeds: of the head, so many.
    Images of the split test are tested where one is named, by DATA or by the table of boxes, else a quarter by a seed.
    Raises ModuleNotFoundError without torchvision.
    Writes results/boxes-DATA-DIGEST.json and returns what it holds.
    """
    insist_torchvision()
    scene, truth = with_boxes(run, data, boxes, box_origin, size, say)
    filled = torch.tensor([len(own) > 0 for own in truth.boxes])
    if not filled.all():
        empty = f"{int((~filled).sum()):,} of {len(filled):,} {run.kind.noun} have no boxes"
        say(f"{empty}: they are {'left out' if annotated_only else 'background. --annotated-only leaves them out'}.")
    there = filled if annotated_only else torch.ones_like(filled)
    (part,) = splits(scene, there, seed, say, "boxes", once=True)
    rankings: dict[str, list[list[Ranking]]] = {}
    for name, encoder in scene.encoders().items():
        rankings[name] = _found(
            encoder, scene, truth, part, finetune, steps, [derive_seed(seed, k) for k in range(seeds)]
        )
        say(f"{name}: done")
    known = scene.known()
    how = f"{told(scene, [part], known, choices=False)} The head took {steps:,} steps; the encoder was "
    how += "trained with it." if finetune else "frozen."
    table = detection_table(rankings, truth.classes, scene.samples.group[part.tested], how, seed)
    table["seen"] = {"samples": int(known[part.tested].sum()), "of": len(part.tested)}
    own = {"steps": steps, "seeds": seeds, "finetune": finetune, "annotated_only": annotated_only}
    table["protocol"] |= {"boxes": origin(boxes), "box_origin": box_origin, "side": scene.whole.side, **own}
    made = [fingerprint(digests(scene.samples), scene.samples), str(boxes), str(box_origin), str(size), str(own)]
    return run.kept(table, "boxes", data, made, known)


def insist_torchvision() -> None:
    """Raise ModuleNotFoundError, with the extra that brings it, where torchvision is not installed."""
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise NotInstalled("--boxes takes torchvision: pip install 'nearfar[detection]'") from error


class Detector(nn.Module):
    """FCOS (arXiv 1904.01355) with a feature pyramid (arXiv 1612.03144) on given maps.

    Of one grid (a transformer's) the pyramid has a level of half its cells besides, as that of arXiv 2203.16527.
    given: maps such as it will take, each n x C x h x w.  side: of the view, in pixels.
    """

    def __init__(self, given: Sequence[Tensor], side: int, classes: int) -> None:
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOS, FCOSHead
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.side = side
        levels = self._levels(given)
        channels, strides = [m.shape[1] for m in levels], [side // m.shape[2] for m in levels]
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        self.pyramid = FeaturePyramidNetwork(channels, WIDTH)
        anchors = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides))
        head, nothing = FCOSHead(WIDTH, 1, classes, num_convs=1), nn.Identity()
        nothing.out_channels = WIDTH  # pyright: ignore[reportArgumentType]
        self.fcos = FCOS(nothing, classes, anchor_generator=anchors, head=head, score_thresh=0.05)

    @staticmethod
    def _levels(given: Sequence[Tensor]) -> list[Tensor]:
        """Maps of one grid side by side, the finest first."""
        grids: dict[int, list[Tensor]] = {}
        for m in given:
            grids.setdefault(m.shape[2], []).append(m)
        levels = [torch.cat(own, 1) for _, own in sorted(grids.items(), reverse=True)]
        if len(levels) == 1:
            finer = F.interpolate(levels[0], scale_factor=2, mode="bilinear", align_corners=False)
            levels.insert(0, finer)
        return levels

    def _outputs(
        self, given: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, Tensor], Any, list[int]]:
        from torchvision.models.detection.image_list import ImageList

        levels = [norm(m) for norm, m in zip(self.norms, self._levels(given), strict=True)]
        made = list(self.pyramid(OrderedDict((str(i), m) for i, m in enumerate(levels))).values())
        images = ImageList(made[0].new_zeros(len(made[0]), 1, self.side, self.side), list(sizes))
        return self.fcos.head(made), self.fcos.anchor_generator(images, made), [m.shape[2] * m.shape[3] for m in made]

    def loss(self, given: Sequence[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """targets: of each image its "boxes", m x 4 in pixels of the view, and "labels", m."""
        outputs, anchors, cells = self._outputs(given, [(self.side, self.side)] * len(targets))
        return torch.stack(list(self.fcos.compute_loss(targets, outputs, anchors, cells).values())).sum()

    @torch.no_grad()
    def guess(self, given: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Guess]:
        """Boxes in pixels of the view, inside the rows and columns that each image takes, `sizes`."""
        outputs, anchors, cells = self._outputs(given, sizes)
        split = {name: list(own.split(cells, 1)) for name, own in outputs.items()}
        made = self.fcos.postprocess_detections(split, [list(own.split(cells)) for own in anchors], list(sizes))
        area = [((one["boxes"][:, 2:] - one["boxes"][:, :2]) > 0).all(1) for one in made]
        return [Guess(*(one[k][ok] for k in ("boxes", "scores", "labels"))) for one, ok in zip(made, area, strict=True)]


@dataclass(frozen=True)
class _Cache:
    """Maps of all samples, by depth. place: where a sample stands in them."""

    held: list[Tensor]
    place: Tensor

    def __call__(self, index: Tensor) -> list[Tensor]:
        return [one[self.place[index]] for one in self.held]


def _found(
    encoder: Encoder, scene: Scene, truth: Boxes, part: Split, finetune: bool, steps: int, seeds: Sequence[int]
) -> list[list[Ranking]]:
    """The ranked guesses of each class on what is tested, for each seed."""
    look: Callable[[Tensor], list[Tensor]] = partial(_coarse, encoder, scene)
    learned = torch.cat([part.fit, part.held])
    if not finetune:
        every = torch.cat([learned, part.tested])
        several = [look(rows) for rows in every.split(16)]
        place = torch.full((len(truth),), -1)
        place[every] = torch.arange(len(every))
        look = _Cache([torch.cat(depth) for depth in zip(*several, strict=True)], place)
    scale = [scene.whole.side / max(scene.size(i)) for i in range(len(truth))]
    made = []
    for seed in seeds:
        own = copy.deepcopy(encoder).cpu() if finetune else encoder  # beside its head
        seen = partial(_trained_look, own, scene) if finetune else look
        detector = _fitted(own if finetune else None, seen, scene, truth, learned, scale, steps, seed)
        guesses: list[Guess] = []
        for rows in part.tested.split(16):
            with torch.no_grad():
                given = seen(rows)
            found = detector.guess(given, [scene.whole.extent(int(i)) for i in rows])
            guesses += [
                dataclasses.replace(one, boxes=one.boxes / scale[int(i)]) for one, i in zip(found, rows, strict=True)
            ]
        tested = part.tested.tolist()
        made.append(
            ranked(guesses, [truth.boxes[i] for i in tested], [truth.label[i] for i in tested], len(truth.classes))
        )
    return made


def _fitted(
    encoder: Encoder | None,
    look: Callable[[Tensor], list[Tensor]],
    scene: Scene,
    truth: Boxes,
    learned: Tensor,
    scale: Sequence[float],
    steps: int,
    seed: int,
) -> Detector:
    """A head that was trained on some images, and an encoder with it where one is given."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.no_grad():
            detector = Detector(look(learned[:1]), scene.whole.side, len(truth.classes)).train()
    groups = [{"params": list(detector.parameters()), "lr": RATE}]
    if encoder is not None:
        groups.append({"params": list(encoder.parameters()), "lr": OWN_RATE})
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [group["lr"] for group in groups], total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, learned[torch.randperm(len(learned), generator=generator)]])
        rows, order = order[:BATCH], order[BATCH:]
        targets = [{"boxes": truth.boxes[i] * scale[i], "labels": truth.label[i]} for i in rows.tolist()]
        loss = detector.loss(look(rows), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 10)
        optimizer.step()
        schedule.step()
    return detector.eval()


def _coarse(encoder: Encoder, scene: Scene, index: Tensor) -> list[Tensor]:
    return _coarser(maps(encoder, scene.whole, index), scene.whole.side)


def _trained_look(encoder: Encoder, scene: Scene, index: Tensor) -> list[Tensor]:
    """The maps of an encoder that is trained: norms keep their statistics."""
    device = next(encoder.parameters()).device
    return _coarser(encoder.eval().maps(scene.whole.view(index).to(device)), scene.whole.side)


def _coarser(given: Sequence[Tensor], side: int) -> list[Tensor]:
    """The maps whose cells are wide enough, or else the last."""
    return [m for m in given if m.shape[2] * FINEST <= side] or [given[-1]]
