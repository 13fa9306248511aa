"""What is about to be trained, in sentences with the numbers that people ask for."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nearfar import distributed
from nearfar.errors import counted
from nearfar.method import Method
from nearfar.nn.micro_batch import sees_batch
from nearfar.settings import Settings
from nearfar.training.build import Built
from nearfar.training.optimization import learns_behind
from nearfar.training.plan import Plan


def explain(plan: Plan, built: Built, device: torch.device) -> Iterator[str]:
    """The sentences: what is trained on what, which samples are kept apart, how they are drawn, micro-batches."""
    settings, method, facts = plan.settings, built.method, built.facts
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    weights = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    yield (
        f"{type(method).__name__} on {facts['samples']:,} samples: {counted(settings.epochs, 'epochs')} of "
        f"{counted(facts['steps'] // settings.epochs, 'steps')}, {facts['batch']} samples and "
        f"{counted(facts['views'], 'views')} a step, "
        f"{settings.encoder} {built.kind.describe(facts)} ({weights} weights in all) on "
        f"{device}."
    )
    heat = f"temperature {plan.arguments['temperature']:g}, " if "temperature" in plan.arguments else ""
    seen = f"views {settings.views}, " if settings.views else ""
    yield (
        f"By the recipe {plan.recipe or 'of the kind'} and the flags: {heat}{seen}"
        f"{settings.optimizer} with a learning rate of {facts['lr']:.3g} (--lr {settings.lr:g}, for a batch of "
        f"256) and a weight decay of {settings.weight_decay:g}."
    )
    own = "random weights" if plan.network is None else "weights of its own"
    yield from _kept(settings, "given weights" if facts["given"] else own, learns_behind(method))
    if facts["groups"] and settings.groups == "exclude":
        yield f"{counted(facts['groups'], 'groups')}: samples of one are not each other's negatives (--groups ignore)."
    yield from _drawn(settings, method)
    if method.micro_batch and sees_batch(method.encoder):
        rows = method.micro_batch * distributed.world()
        yield (
            f"Micro-batches of {method.micro_batch:,}: the loss contrasts the whole batch, and its gradient is the "
            f"whole batch's, but batch norm sees {rows:,} views at a time. An encoder without batch norm (a ViT, a "
            "ConvNeXt) is trained as if all passed at once."
        )


def _kept(settings: Settings, weights: str, behind: bool) -> Iterator[str]:
    """How much the encoder keeps of what it begins with, where that is said.  weights: what these are, in words."""
    parts = {
        f"it stands still in the first {settings.frozen:.0%} of the steps (--frozen)": settings.frozen > 0 and behind,
        "nothing behind it learns, so that it is not held still at first (--frozen)": settings.frozen > 0
        and not behind,
        f"each layer learns {settings.layer_decay:g} times as fast as the one behind it (--layer-decay)": (
            settings.layer_decay != 1
        ),
        f"it is pulled to where it began (--start-pull {settings.start_pull:g})": settings.start_pull > 0,
    }
    said = [part for part, there in parts.items() if there]
    if weights == "given weights" or said:
        yield f"The encoder begins with {weights}{': ' if said else ''}{', '.join(said)}."


def _drawn(settings: Settings, method: Method) -> Iterator[str]:
    """How samples are drawn, where it is not each once an epoch."""
    match method.sampler if settings.sampler == "method" else settings.sampler:
        case "balanced":
            yield "Samples are drawn so that every class is as likely (--sampler shuffled draws each once)."
        case "aware":
            yield "Samples are drawn class after class, in rounds (--sampler shuffled draws each once)."
        case "pk":
            several = settings.per_class or method.per_class
            yield (
                f"Samples are drawn by class, {several} of each in a step where there are so many (--per-class; "
                "--sampler shuffled draws each once)."
            )
