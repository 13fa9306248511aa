"""From data and a method's name to a finished run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from nearfar import distributed, methods, optim
from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED, Samples, digests, fingerprint
from nearfar.data.splits import holdout
from nearfar.export.encoder import export_encoder, load_encoder
from nearfar.files import clear_leftovers, is_leftover, replace, replace_csv, replace_text
from nearfar.machine import free_memory, pick_device, session
from nearfar.method import Encoder, Look, Method, derive_seed
from nearfar.modalities import kind as kinds
from nearfar.modalities.encoder import is_own, own_encoder
from nearfar.nn.micro_batch import activation_bytes, fitting, sees_batch
from nearfar.nn.norms import synchronize_norms
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.journal import Journal
from nearfar.training.loop import fit
from nearfar.training.options import Loop, Viewer
from nearfar.training.plan import Plan
from nearfar.training.probe import look, probe

UNTRAINED = "untrained.safetensors"
"""The weights that a user's own encoder began with, which no seed draws again."""

BEFORE_CONFIG = ("environment.json", "samples.parquet", "skipped.csv", "views.png", UNTRAINED)
"""What a run writes before its config.yaml: a directory with nothing else is of a run that was killed early."""

PROBE_BANK, PROBE_QUERIES = 5000, 1000  # a probe is a look, not an evaluation: it must not cost an epoch


def train(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
    watch: Callable[[int, int, dict[str, float]], None] = lambda step, steps, numbers: None,
) -> bool:
    """Carry out a plan in the directory `out`. True when it came to its end, False when it was told to stop.

    Raises FileExistsError if `out` is there and `resume` is not asked for; ValueError if it is, with another plan.
    """
    device = pick_device(plan.settings.device)
    with distributed.processes(device):
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
            torch.cuda.set_device(device)
        tell = say if distributed.rank() == 0 else lambda text: None
        try:
            return _Job(plan, out, device, tell, watch).run(resume)
        except BaseException:
            with contextlib.suppress(OSError):  # a directory that came to nothing; rmdir spares one that holds anything
                out.rmdir()
            raise


class _Job:
    def __init__(
        self,
        plan: Plan,
        out: Path,
        device: torch.device,
        say: Callable[[str], None],
        watch: Callable[[int, int, dict[str, float]], None],
    ) -> None:
        self.plan, self.out, self.device, self.say, self.watch = plan, out, device, say, watch
        self.first = distributed.rank() == 0
        self.kind = kinds.of(plan.settings.kind)
        self.untrained: dict[str, Tensor] = {}

    def run(self, resume: bool) -> bool:
        settings = self.plan.settings
        began = time.perf_counter()
        saved = self.claim(resume)
        if saved is not None and json.loads((self.out / "environment.json").read_text(encoding="utf-8")).get(
            "finished"
        ):
            self.say(
                f"The run in {str(self.out)!r} is finished: there is nothing to go on with, and it stays as it is."
            )
            return True
        data = self.open()
        batch = self.batch_size(len(data))
        torch.manual_seed(settings.seed)
        own = self.kind.facts(data, settings)
        if self.plan.network is None:
            encoder = self.kind.make_encoder(data, settings, own)
        else:
            encoder = self.own_encoder(data, own, fresh=saved is None)
        if settings.from_run:
            _begin_with(settings.from_run, encoder)
        counts = torch.bincount(data.label[data.label != MISSING], minlength=len(data.classes)).tolist()
        method = methods.build(
            methods.load(self.plan.method),
            encoder,
            self.plan.arguments,
            samples=len(data),
            classes=len(data.classes),
            counts=tuple(counts),
            channels=own["channels"],
        )
        viewer = self.kind.make_views(data, settings, own)
        self.kind.insist_fitting(encoder, viewer)
        for note in encoder.notes:
            self.say(note)
        known = digests(data)
        facts = own | {
            "samples": len(data),
            "labeled": int((data.label != MISSING).sum()),
            "groups": len(torch.unique(data.group[data.group != MISSING])),
            "classes": len(data.classes),
            "counts": counts,
            "batch": batch,
            "steps": settings.epochs * (len(data) // batch),
            "lr": settings.lr * batch / 256,
            "views": len(viewer),
            "micro_batch": 0,
            "processes": distributed.world(),
            "fingerprint": fingerprint(known, data),
        }
        if saved is not None and saved["made"]["fingerprint"] != facts["fingerprint"]:
            raise ValueError(
                f"the samples in {str(self.plan.data)!r}, or their labels, are not those that {str(self.out)!r} was "
                "trained on: give the same data, or start a new run with another --out"
            )
        if saved is not None and saved["made"]["batch"] != batch:
            raise ValueError(
                f"{str(self.out)!r} was trained in batches of {saved['made']['batch']}, which {distributed.world()} "
                "process(es) would make another: start as many processes as before"
            )
        method = method.to(self.device)
        # What fits depends on the memory of the day, and batch norm on what fits: so a resumed run does as it did.
        facts["micro_batch"] = saved["made"]["micro_batch"] if saved is not None else self.micro_batch(encoder, facts)
        method.micro_batch = facts["micro_batch"]
        if saved is None and self.first:
            self.write_down(data, known, encoder, viewer, facts)
        distributed.barrier()

        if distributed.world() > 1:
            synchronize_norms(method, self.device)
        data, bank, queries = self.hold_out(data.to(self.device))
        if settings.groups == "ignore":
            data = dataclasses.replace(data, group=torch.full_like(data.group, MISSING))
        plain = self.kind.plain(encoder)
        loop = Loop(
            epochs=settings.epochs,
            batch=batch,
            schedule=self.schedule(len(data) // batch),
            seed=settings.seed,
            precision=settings.precision,
            clip=settings.clip or None,
            journal=Journal(self.out / "metrics.jsonl"),
            checkpoints=Checkpoints(self.out / "checkpoints", settings.keep),
            save_every=settings.save_every,
            sampler="" if settings.sampler == "method" else settings.sampler,
            per_class=settings.per_class,
            look=Look(lambda encode: look(encode, plain, data, self.device), data.label, data.attribute),
            probe=None if queries is None else lambda: probe(encoder, plain, bank, queries),
            probe_every=settings.probe_every,
            watch=self.watch,
            say=self.say,
        )
        self.explain(method, batch, facts)
        if settings.compile:
            encoder.compile()
        finished = fit(method, data, viewer, self.optimizer(method, batch), loop)
        if self.first:
            export_encoder(encoder.cpu().eval(), self.out)
            self.note_time(time.perf_counter() - began, finished)
        distributed.barrier()
        return finished

    def claim(self, resume: bool) -> dict[str, Any] | None:
        """Make the directory ours: the config of the run to go on with, or None for a new one."""
        config = self.out / "config.yaml"
        if resume and config.exists():
            saved = yaml.safe_load(config.read_text(encoding="utf-8"))
            _insist_same(saved, self.plan.saved(), self.out)
            if self.first:
                clear_leftovers(self.out)
            return saved
        there = [path for path in self.out.iterdir() if not is_leftover(path)] if self.out.exists() else []
        if there and not resume:
            raise FileExistsError(
                f"{str(self.out)!r} is there already and is never overwritten: go on with --resume, or name another "
                "--out"
            )
        foreign = sorted(path.name for path in there if path.name not in BEFORE_CONFIG)
        if foreign:
            raise FileExistsError(
                f"{str(self.out)!r} cannot be resumed: it has no config.yaml, and holds {foreign[0]!r}, which is not "
                "of a run that was cut short; name another --out"
            )
        if resume:
            self.say(f"Nothing to resume in {str(self.out)!r}: starting from the beginning.")
        distributed.barrier()  # before anything is written: the other processes may still be looking
        self.out.mkdir(parents=True, exist_ok=True)
        if self.first:
            clear_leftovers(self.out)
        return None

    def open(self) -> Samples:
        """The training samples."""
        settings = self.plan.settings
        everything = self.kind.open_samples(self.plan.data, settings)
        for note in everything.notes:
            self.say(note)
        splits = sorted(set(everything.split) - {""})
        data = everything
        if settings.split == "train" and splits not in ([], ["train"]):
            data = everything.subset(everything.of_split(*LEARNED).nonzero()[:, 0])
            self.say(f"Training on {len(data)} of {len(everything)} samples: those that are not in another split.")
        if len(data) < 2:
            raise ValueError(f"{len(data)} sample to train on in {str(self.plan.data)!r}: contrast needs at least 2")
        if methods.load(self.plan.method).needs_labels and not (data.label != MISSING).any():
            raise ValueError(
                f"{self.plan.method!r} learns from labels and none are known: give --labels FILE, or --labels folders"
            )
        if methods.load(self.plan.method).needs_pixels and settings.kind != "image":
            raise ValueError(f"{self.plan.method!r} is for images, and cannot be trained on {settings.kind}")
        return data

    def own_encoder(self, data: Samples, facts: dict[str, Any], fresh: bool) -> Encoder:
        """The user's own module as the encoder, with the weights that it had when the run began."""
        encoder = own_encoder(self.plan.network, self.plan.settings.kind, data, facts)
        if not fresh:
            encoder.load_state_dict(load_file(self.out / UNTRAINED))
        self.untrained = {key: value.cpu().contiguous().clone() for key, value in encoder.state_dict().items()}
        return encoder

    def batch_size(self, samples: int) -> int:
        """The global batch: what was asked for, or less where there are fewer samples, in equal parts for all ranks."""
        asked, ranks = self.plan.settings.batch, distributed.world()
        if asked < 2:
            raise ValueError(f"--batch {asked}: contrast needs at least 2 samples in a step")
        batch = min(asked, samples) // ranks * ranks
        if batch < max(2, ranks):
            raise ValueError(f"{samples} samples are too few for {ranks} processes")
        if batch != asked:
            self.say(f"The batch is {batch}, not {asked}: there are {samples} samples and {ranks} process(es).")
        return batch

    def micro_batch(self, encoder: Encoder, facts: dict[str, Any]) -> int:
        """Samples that pass the encoder at a time: as asked for, else what fits in memory; 0 for all of them."""
        rows = facts["views"] * facts["batch"] // distributed.world()
        if asked := self.plan.settings.micro_batch:
            return asked if asked < rows else 0
        view = encoder.example(min(rows, 4)).to(self.device)
        needed = activation_bytes(encoder.train(), view)
        found = fitting(needed, rows, free_memory(self.device)) or rows
        least = int(-distributed.highest(torch.tensor(-found, device=self.device)))
        if least == rows:
            return 0
        self.say(
            f"The activations of {rows:,} views would take {needed * rows / 2**30:.1f} GiB, more than there is: "
            f"the encoder takes {least:,} at a time."
        )
        return least

    def schedule(self, per_epoch: int) -> Callable[[int, int], float]:
        settings = self.plan.settings
        rise = round(min(settings.warmup, settings.epochs / 10) * per_epoch)
        return lambda step, steps: optim.warmup_cosine(step, steps=steps, warmup=rise, floor=settings.floor)

    def optimizer(self, method: Method, batch: int) -> torch.optim.Optimizer:
        settings = self.plan.settings
        scale = batch / 256
        groups = optim.parameter_groups(
            method,
            settings.weight_decay,
            exclude_1d=not settings.decay_1d,
            lr_1d=settings.lr_1d * scale or None,
        )
        lr, momentum = settings.lr * scale, settings.sgd_momentum
        match settings.optimizer:
            case "sgd":
                return optim.sgd(groups, lr, momentum=momentum)
            case "lars":
                return optim.lars(groups, lr, momentum=momentum, rate_in_momentum=True)
            case "lars_outside":
                return optim.lars(groups, lr, momentum=momentum, rate_in_momentum=False)
            case "larc":
                return optim.larc(groups, lr, momentum=momentum)
            case "adamw":
                return optim.adamw(groups, lr)

    def hold_out(self, data: Samples) -> tuple[Samples, Samples, Samples | None]:
        """The data for training, and a bank and queries for the probe, whose labels the method does not see."""
        if not self.plan.settings.probe_every or len(torch.unique(data.label[data.label != MISSING])) < 2:
            return data, data, None
        try:
            rest, held = holdout(data.label, data.group, share=0.1, seed=self.plan.settings.seed)
        except ValueError as error:
            self.say(f"No kNN probe, and so no best checkpoint: {error}")
            return data, data, None
        pick = torch.Generator().manual_seed(derive_seed(self.plan.settings.seed, 3))
        queries = data.subset(held[torch.randperm(len(held), generator=pick)[:PROBE_QUERIES]])
        bank = data.subset(rest[torch.randperm(len(rest), generator=pick)[:PROBE_BANK]])
        label = data.label.clone()
        label[held] = MISSING
        return dataclasses.replace(data, label=label), bank, queries

    def explain(self, method: Method, batch: int, facts: dict[str, Any]) -> None:
        """Say what is about to happen, with the numbers that people ask for."""
        settings = self.plan.settings
        weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
        chance = method.chance(batch)
        known = f"; a model that knows nothing has a loss of {chance:.3f}" if chance is not None else ""
        self.say(
            f"{type(method).__name__} on {facts['samples']:,} samples: {settings.epochs} epochs of "
            f"{facts['steps'] // settings.epochs} steps, {batch} samples and {facts['views']} views a step, "
            f"{settings.encoder} {self.kind.describe(facts)} ({weights / 1e6:.1f} M weights in all) on "
            f"{self.device}{known}."
        )
        if facts["groups"] and settings.groups == "apart":
            self.say(f"{facts['groups']:,} groups: samples of one are not each other's negatives (--groups ignore).")
        self.explain_sampler(method)
        if method.micro_batch and sees_batch(method.encoder):
            seen = method.micro_batch * distributed.world()
            self.say(
                f"Micro-batches of {method.micro_batch:,}: the loss contrasts the whole batch, and its gradient is the "
                f"whole batch's, but batch norm sees {seen:,} views at a time. An encoder without batch norm (a ViT, a "
                "ConvNeXt) is trained as if all passed at once."
            )

    def explain_sampler(self, method: Method) -> None:
        """Say how samples are drawn, where it is not each once an epoch."""
        settings = self.plan.settings
        sampler = method.sampler if settings.sampler == "method" else settings.sampler
        match sampler:
            case "balanced":
                self.say("Samples are drawn so that every class is as likely (--sampler shuffled draws each once).")
            case "aware":
                self.say("Samples are drawn class after class, in rounds (--sampler shuffled draws each once).")
            case "pk":
                several = settings.per_class or method.per_class
                self.say(
                    f"Samples are drawn by class, {several} of each in a step where there are so many (--per-class; "
                    "--sampler shuffled draws each once)."
                )

    def write_down(
        self, data: Samples, known: list[str], encoder: Encoder, viewer: Viewer, facts: dict[str, Any]
    ) -> None:
        settings = self.plan.settings
        environment = {
            **session(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "paper": methods.page(self.plan.method).paper,
            "notes": [*data.notes, *encoder.notes],
            "seconds": 0.0,
            "finished": False,
        }
        if data.skipped:
            replace_csv(self.out / "skipped.csv", [("name", "reason"), *data.skipped])
            self.say(f"{len(data.skipped)} files could not be read: see {self.out / 'skipped.csv'}")
        replace_text(self.out / "environment.json", json.dumps(environment, indent=1))
        table = pa.table({"name": data.names, "digest": known})
        replace(self.out / "samples.parquet", lambda temporary: pq.write_table(table, temporary))
        if self.untrained:
            replace(self.out / UNTRAINED, lambda temporary: temporary.write_bytes(save(self.untrained)))
        few = torch.linspace(0, len(data) - 1, min(8, len(data))).long()
        draws = viewer.draw(len(few), torch.Generator().manual_seed(settings.seed))
        sheet = self.kind.sheet(data, viewer, few, draws)
        replace(self.out / "views.png", lambda temporary: sheet.save(temporary, format="PNG"))
        # The config comes last: a directory with a config has everything that is written before training.
        config = self.plan.saved() | {
            "encoder": settings.encoder,
            "epochs": settings.epochs,
            "batch": facts["batch"],
            "samples": facts["samples"],
            "made": facts | {"encoder": encoder.spec, "classes": data.classes},
        }
        replace_text(self.out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def note_time(self, seconds: float, finished: bool) -> None:
        path = self.out / "environment.json"
        environment = json.loads(path.read_text(encoding="utf-8"))
        environment["seconds"] += seconds
        environment["finished"] = finished
        replace_text(path, json.dumps(environment, indent=1))


def _begin_with(start: str, encoder: Encoder) -> None:
    """Give an encoder the weights of another run's. Raises ValueError where they are of another network."""
    if not (Path(start) / "encoder.safetensors").is_file():
        raise FileNotFoundError(
            f"--from-run {start!r} holds no encoder.safetensors: name the directory of a finished run"
        )
    given = load_encoder(start, network=encoder.network() if is_own(encoder.spec) else None)
    try:
        encoder.load_state_dict(given.state_dict())
    except RuntimeError as error:
        names = [encoder.spec.get("name"), given.spec.get("name")]
        raise ValueError(
            f"--from-run {start!r} has the encoder {names[1]!r} for {given.spec.get('channels', 'other')} channels, "
            f"whose weights do not fit {names[0]!r} here: give the same --encoder, for the same kind of data"
        ) from error


def _insist_same(saved: dict[str, Any], asked: dict[str, Any], out: Path) -> None:
    pairs = [(name, saved[name], asked[name]) for name in ("method", "data", "recipe")]
    for part in ("settings", "arguments"):
        names = dict.fromkeys([*saved[part], *asked[part]])
        pairs += [(name, saved[part].get(name), asked[part].get(name)) for name in names]
    changed = [f"{name} was {before!r} and is {now!r}" for name, before, now in pairs if before != now]
    if changed:
        raise ValueError(
            f"{str(out)!r} cannot be resumed with other settings: {'; '.join(changed)}. "
            f"Give the same flags, or start a new run with another --out"
        )
