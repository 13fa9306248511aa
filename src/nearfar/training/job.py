"""From a plan to a finished run directory: claim the directory, build, write down, train, export."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.data.splits import holdout
from nearfar.export.encoder import export_encoder
from nearfar.machine import own_device
from nearfar.method import Look, derive_seed
from nearfar.nn.norms import synchronize_norms
from nearfar.owner import owned
from nearfar.settings import Settings
from nearfar.training.again import as_before
from nearfar.training.alike import insist_alike, insist_same_samples_everywhere
from nearfar.training.build import Built, batch_size, build, insist_ready, micro_batch, open_samples, settled
from nearfar.training.cadence import MOST, SHARE, cadence, multiplications, parts, scored
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.claim import claim, flat, insist_same, insist_same_samples, is_finished, sentences, step_reached
from nearfar.training.directory import damaged, write_skipped
from nearfar.training.explain import explain
from nearfar.training.journal import Journal
from nearfar.training.loggers import Callback, asked_for, telling
from nearfar.training.loop import fit
from nearfar.training.optimization import learns_behind, make_optimizer, make_schedule, pull
from nearfar.training.options import Loop
from nearfar.training.plan import Plan, as_saved
from nearfar.training.probe import look, probe
from nearfar.training.record import changed_surroundings, keep_up, note_time, write_again, write_down
from nearfar.training.scoring import Scorer

Say = Callable[[str], None]
Watch = Callable[[int, int, dict[str, float]], None]


def train(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    say: Say = print,
    watch: Watch = lambda step, steps, numbers: None,
    callback: Callback | None = None,
    log: str | Sequence[str] = (),
) -> bool:
    """Carry out a plan in the directory `out`. True when it came to its end, False when it was told to stop.

    callback: called on the first rank with (step, numbers) of each line of the journal, once it is written.
    log: programs that are told of the same lines, of `nearfar.training.loggers`.
    Raises NotInstalled, before all else, where the package of one is missing;
    FileExistsError if `out` is there and `resume` is not asked for; ValueError if it is, with another plan, or
    if another process is at work there.
    """
    programs = asked_for(log)
    try:
        device = own_device(plan.settings.device)
        with distributed.processes(device, plan.settings.timeout):
            first_says = say if distributed.rank() == 0 else lambda text: None
            with owned(out) if distributed.rank() == 0 else contextlib.nullcontext():
                insist_alike(plan, out, resume=resume)
                return _train(plan, out, device, resume, first_says, watch, callback, programs)
    except BaseException:
        with contextlib.suppress(OSError):  # a directory that came to nothing; rmdir spares one that holds anything
            out.rmdir()
        raise


def _train(
    plan: Plan,
    out: Path,
    device: torch.device,
    resume: bool,
    say: Say,
    watch: Watch,
    callback: Callback | None,
    programs: Sequence[str],
) -> bool:
    began, first = time.perf_counter(), distributed.rank() == 0
    saved = claim(plan, out, resume=resume, say=say)
    plan = plan if saved is None else as_saved(plan, saved)
    broken = [] if saved is None else damaged(out, saved)
    done = saved is not None and is_finished(out) and not broken
    done = done and saved is not None and plan.settings.epochs == saved["settings"]["epochs"]
    distributed.barrier()  # before the first process writes anything: the others may still be reading
    if done:
        say(f"The run in {str(out)!r} is finished: there is nothing to go on with, and it stays as it is.")
        return True

    insist_ready(plan)
    # Without the list of samples the data are opened as they were at first, and are the same or are refused.
    made = None if saved is None or "samples.parquet" in broken else saved["made"]
    samples, lost = open_samples(plan, say, made), {}
    if saved is not None and made is not None:
        samples, lost = as_before(samples, saved, out, str(plan.data), say)
    if saved is None:
        plan = settled(plan, samples)
    built = build(plan, samples, batch_size(plan.settings.batch, len(samples), say), out, say, made)
    built.lost = lost
    insist_same_samples_everywhere(samples, built.digests, built.facts["fingerprint"], built.method)
    built.method.to(device)
    built.facts["probe_samples"] = spaced(built, plan.settings)[1]
    built.facts["score_samples"] = scores_spaced(built, plan.settings)[1]
    if saved is None:
        built.facts["micro_batch"] = micro_batch(plan.settings.micro_batch, built, device, say)
        if first:
            write_down(plan, out, built, device, say)
    else:
        insist_same_samples(saved, built.facts, plan, out)
        if first:
            write_again(plan, out, built, device, saved, broken, say)
        distributed.barrier()  # before any of them reads what the first wrote
        _go_on_with_changes(plan, out, built, saved, device, say)
        # What fits depends on the memory of the day, and batch norm on what fits: so a resumed run does as it did.
        built.facts["micro_batch"] = saved["made"]["micro_batch"]
        for name in ("probe_samples", "score_samples"):
            built.facts[name] = saved["made"].get(name) or built.facts[name]
    built.method.micro_batch = built.facts["micro_batch"]
    distributed.barrier()

    try:
        if first:
            with telling(programs, callback, out, step_reached(out), say) as tell:
                finished = tell.finished = fit_built(plan, out, built, device, say, watch, tell)
        else:
            finished = fit_built(plan, out, built, device, say, watch)
    finally:
        if first and built.lost:
            write_skipped(out, [*samples.skipped, *built.lost.values()])
    if first:
        export_encoder(built.encoder.cpu().eval(), out)
        note_time(out, time.perf_counter() - began, finished=finished)
    distributed.barrier()
    return finished


def _go_on_with_changes(
    plan: Plan, out: Path, built: Built, saved: dict[str, Any], device: torch.device, say: Say
) -> None:
    """Say what is no longer as it was when the run began or went on last, and write it down."""
    asked = flat(plan.saved(), plan.settings)
    changes = insist_same(flat(saved, plan.settings), asked, out) | changed_surroundings(out, saved, built, device)
    for sentence in sentences(changes):
        say(sentence)
    step = step_reached(out)
    if "epochs" in changes and step:
        rates = []
        for epochs in changes["epochs"]:
            settings = dataclasses.replace(plan.settings, epochs=epochs)
            per_epoch = built.facts["steps"] // plan.settings.epochs
            rates.append(make_schedule(settings, per_epoch)(step, epochs * per_epoch))
        say(f"At step {step:,} the learning rate is {rates[1]:.1%} of its peak; it would have been {rates[0]:.1%}.")
        still = math.ceil(plan.settings.frozen * built.facts["steps"])
        if step < still and learns_behind(built.method):
            say(f"Up to step {still:,} the encoder stands still, as --frozen is a share of all steps.")
    if changes and distributed.rank() == 0:
        keep_up(plan, out, built, saved, changes, step)


def fit_built(
    plan: Plan,
    out: Path,
    built: Built,
    device: torch.device,
    say: Say,
    watch: Watch,
    tell: Callback | None = None,
) -> bool:
    """Train what was built, with a probe on held-out samples where labels allow one.

    tell: see `Loop`.
    """
    settings, encoder, batch = plan.settings, built.encoder, built.facts["batch"]
    if distributed.world() > 1:
        synchronize_norms(built.method, device)
    data, bank, queries = hold_out(built.samples.to(device), settings, say, built.lost, built.facts["probe_samples"])
    if settings.groups == "ignore":
        data = dataclasses.replace(data, group=torch.full_like(data.group, MISSING))
    plain = built.kind.plain(encoder)
    after, rows = scores_spaced(built, settings)
    rows = built.facts.get("score_samples", rows)
    scorer = Scorer(encoder, plain, built.views, data, built.lost, rows, settings.seed) if after else None
    loop = Loop(
        epochs=settings.epochs,
        batch=batch,
        schedule=make_schedule(settings, len(data) // batch),
        seed=settings.seed,
        precision=settings.precision,
        clip=settings.clip or None,
        frozen=settings.frozen if learns_behind(built.method) else 0.0,
        pull=pull(encoder, settings.start_pull) if settings.start_pull else None,
        journal=Journal(out / "metrics.jsonl"),
        checkpoints=Checkpoints(out / "checkpoints", settings.keep),
        save_every=settings.save_every,
        keep_every=settings.keep_every,
        lost=built.lost,
        sampler="" if settings.sampler == "method" else settings.sampler,
        per_class=settings.per_class,
        look=Look(lambda encode: look(encode, plain, data, device), data.label, data.attribute),
        probe=None if queries is None else lambda: probe(encoder, plain, bank, queries, settings.seed),
        probe_after=probe_epochs(built, settings),
        given=bool(built.facts["given"]),
        scores=scorer,
        scores_after=after,
        beside=scorer,
        stop_if_worse=settings.stop_if_worse,
        watch=watch,
        tell=tell,
        say=say,
    )
    for sentence in explain(plan, built, device):
        say(sentence)
    if settings.compile:
        encoder.compile()
    return fit(built.method, data, built.views, make_optimizer(built.method, settings, batch), loop)


def probe_epochs(built: Built, settings: Settings) -> Collection[int]:
    """The epochs after which the probe is taken: 0, before the first, as often as asked for, and after the last."""
    if settings.probe_every == "auto":
        return spaced(built, settings)[0]
    return {*range(0, settings.epochs, settings.probe_every or settings.epochs), settings.epochs}


def spaced(built: Built, settings: Settings) -> tuple[list[int], int]:
    """The epochs and the samples of probes that cost a small share of training."""
    return cadence(
        settings.epochs,
        samples=built.facts["samples"],
        labeled=built.facts["labeled"],
        classes=built.facts["classes"],
        views=built.facts["views"],
        work=(multiplications(built.encoder), built.encoder.dim),
        share=SHARE / 2 if settings.keep_every else SHARE,
    )


def scores_spaced(built: Built, settings: Settings) -> tuple[list[int], int]:
    """The epochs and the samples of scores without labels; none where no checkpoints are kept to choose from."""
    if not settings.keep_every:
        return [], 0
    return scored(
        settings.epochs,
        settings.keep_every,
        samples=built.facts["samples"],
        views=built.facts["views"],
        work=(multiplications(built.encoder), built.encoder.dim),
    )


def hold_out(
    data: Samples, settings: Settings, say: Say, lost: Collection[int] = (), most: int = MOST
) -> tuple[Samples, Samples, Samples | None]:
    """The data for training, and a bank and queries for the probe, whose labels the method does not see.

    lost: samples that are in neither of the two, as they can be read no more.  most: samples of both together.

    No queries, and all labels, where no probe is asked for or labels are too few.
    """
    if not settings.probe_every or len(torch.unique(data.label[data.label != MISSING])) < 2:
        return data, data, None
    try:
        rest, held = holdout(data.label, data.group, share=0.1, seed=settings.seed)
    except ValueError as error:
        say(f"No kNN probe, and so no best checkpoint: {error}")
        return data, data, None
    pick = torch.Generator().manual_seed(derive_seed(settings.seed, 3))
    count = min(len(held), parts(most)[0])
    queries, bank = (
        data.subset([row for row in rows[torch.randperm(len(rows), generator=pick)[:some]].tolist() if row not in lost])
        for rows, some in ((held, count), (rest, most - count))
    )
    label = data.label.clone()
    label[held] = MISSING
    return dataclasses.replace(data, label=label), bank, queries
