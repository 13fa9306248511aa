"""A whole network, trained on one random view of each sample: fine-tuned on labels, or any other method's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nearfar import optim
from nearfar.data.samples import Samples
from nearfar.evaluation.calibration import nll
from nearfar.fewlabels.classifier import embed
from nearfar.fewlabels.settings import Tuning
from nearfar.machine import pick_device
from nearfar.method import Method, Stage
from nearfar.methods.crossentropy import CrossEntropy
from nearfar.run import Run
from nearfar.training.checkpoints import Checkpoints, copied
from nearfar.training.journal import Journal
from nearfar.training.loop import fit
from nearfar.training.options import Loop, Stateful

Watch = Callable[[int, int, dict[str, float]], None]
Groups = list[dict[str, Any]]
SAVES = 10
"""Checkpoints that are written on the way, at most: a killed process loses a tenth of the work."""
TRIES = 30
"""Times that held-out rows are tried during fine-tuning, of which the best is kept."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a network of a run is trained, and who is told of it.

    run: that it began with, whose kind of data makes the views.
    journal: where the numbers are written.
    checkpoints: where it goes on from, and what it saves to; none are kept by default.
    watch: called with (step, steps, numbers).
    say: called with sentences, such as that it goes on; not with one for each epoch.
    """

    run: Run
    tuning: Tuning
    journal: Journal | None = None
    checkpoints: Checkpoints | None = None
    watch: Watch = lambda step, steps, numbers: None
    say: Callable[[str], None] = lambda text: None

    def train(
        self,
        method: Method,
        data: Samples,
        groups: Groups,
        probe: Callable[[], dict[str, float]] | None = None,
        probe_every: int = 1,
        beside: Stateful | None = None,
    ) -> dict[str, Any]:
        """Train a method in place, saying nothing of epochs, and leave it on the CPU in eval mode; what was chosen.

        The rate rises over a twentieth of the steps and falls by a cosine; norms of gradients are clipped at 1.
        groups: parameters, as `optim.adamw` takes them.
        probe: numbers about the network, taken every `probe_every` epochs.
        beside: what checkpoints keep besides the method and its optimizer.
        Raises KeyboardInterrupt where it is stopped, once it has saved.
        """
        run, tuning, epochs = self.run, self.tuning, self.tuning.passes(len(data))
        settings = _settings(run, tuning)
        loop = Loop(
            epochs=epochs,
            batch=min(tuning.batch, len(data)),
            schedule=lambda step, steps: optim.warmup_cosine(step, steps=steps, warmup=steps // 20),
            seed=tuning.seed,
            clip=1.0,
            journal=self.journal,
            checkpoints=self.checkpoints,
            save_every=max(1, epochs // SAVES),
            probe=probe,
            probe_after={*range(probe_every, epochs, probe_every), epochs},
            watch=self.watch,
            say=self.say,
            beside=beside,
            quiet=True,
        )
        if not tuning.views:
            run.insist_trusted(settings.views)
        device = pick_device(tuning.device)
        viewer = run.kind.views(data, settings, run.config["made"])
        data = dataclasses.replace(data, max_bad=None)  # nothing is said meanwhile: whatever is lost ends it
        if not fit(method.to(device), data.to(device), viewer, optim.adamw(groups, tuning.lr), loop):
            raise KeyboardInterrupt
        method.cpu().eval()
        return {"epochs": loop.epochs, "batch": loop.batch, "lr": tuning.lr, "views": settings.views}


def insist_tuning(run: Run, tuning: Tuning) -> None:
    """Raise ValueError for views and a device with which no network of a run can be trained."""
    run.kind.insist_settings(_settings(run, tuning))
    pick_device(tuning.device)


def _settings(run: Run, tuning: Tuning) -> Any:
    """Those of the run, with the one view of each sample that tuning takes."""
    return run.settings.with_views(tuning.views or run.kind.mild_views(run.settings), 1)


def tune(network: Stage, data: Samples, held: Samples | None, trainer: Trainer) -> tuple[CrossEntropy, dict[str, Any]]:
    """Fine-tune a network with a fresh linear layer, which begins at zero; and what was chosen.

    network: the encoder of `trainer.run`, trained or not, and what follows it; tuned in place.
    data: labeled 0 to C - 1, where C is the number of its classes.
    held: other labeled samples, on which the best of some thirty states is chosen; without them it is the last epoch.
    """
    tuning = trainer.tuning
    torch.manual_seed(tuning.seed)
    counts = torch.bincount(data.label, minlength=len(data.classes)).tolist()
    method = CrossEntropy(network, counts=tuple(counts))
    nn.init.zeros_(method.classifier.weight)
    nn.init.zeros_(method.classifier.bias)
    groups = [
        {"params": list(network.parameters()), "weight_decay": 0.0},
        {"params": list(method.classifier.parameters()), "weight_decay": 0.0, "lr": 10 * tuning.lr},
    ]
    epochs = tuning.passes(len(data))
    if held is None:
        facts = trainer.train(method, data, groups)
        return method, facts | {"epoch": epochs, "tries": 0}
    every = max(1, epochs // TRIES)
    best = Best(method, nn.Sequential(network, method.classifier), trainer.run, held)
    facts = trainer.train(method, data, groups, best.probe, every, best)
    if best.state is not None:
        method.load_state_dict(best.state)
    return method, facts | {"epoch": min(epochs, best.place * every), "tries": best.tries}


@dataclass(slots=True)
class Best:
    """The best state of a method so far, by accuracy on held-out samples, and among equals by likelihood.

    network: from views to logits.
    """

    method: Method
    network: nn.Module
    run: Run
    held: Samples
    score: tuple[float, float] = (-1.0, 0.0)
    state: dict[str, Any] | None = None
    place: int = 0
    tries: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"score": list(self.score), "state": self.state, "place": self.place, "tries": self.tries}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.state = tuple(state["score"]), state["state"]
        self.place, self.tries = state["place"], state["tries"]

    def probe(self) -> dict[str, float]:
        """Try the method as it is now, and keep it if it is better."""
        logits = embed(self.network, self.run, self.held)
        accuracy = float((logits.argmax(1) == self.held.label).double().mean())
        loss = nll(logits, self.held.label)
        self.tries += 1
        if (accuracy, -loss) > self.score:
            self.score, self.state, self.place = (accuracy, -loss), copied(self.method.state_dict()), self.tries
        return {"held_out_accuracy": 100 * accuracy, "held_out_loss": loss}
