"""Processes that meet, die, stall or are stopped: on one directory, or as ranks of one job."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from tests.tiny import contents

from benchmarks.faults import Faults, command
from benchmarks.forked import Forked, Job
from nearfar import distributed
from nearfar.cli import main
from nearfar.cli.console import Console
from nearfar.modalities.image.drawings import drawings
from nearfar.owner import owned
from nearfar.training.batches import Batches
from nearfar.training.claim import step_reached
from nearfar.training.journal import Journal

SAMPLES = 48
FLAGS = ("--encoder", "conv4", "--epochs", "2", "--batch", "16", "--views", "drawing")
VARYING = ("environment.json", "metrics.jsonl", "report.html")
"""Files that hold the time that something took."""


def two_on_one_directory(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Two `train` in one directory, new or resumed, a moment apart: one trains, one is refused"""
    data = _data(folder)
    for i in range(min(many, 6)):
        out, resume = folder / f"run{i}", ["--resume"] * (i % 2)
        words = ["train", "simclr", data, *FLAGS, "--out", out, *resume]
        first = Forked(words, folder / f"first{i}.log")
        time.sleep(random.uniform(0, 1))
        second = Forked(words, folder / f"second{i}.log")
        ended, said = [first.wait(), second.wait()], first.said() + second.said()
        steps = [line["step"] for line in Journal(out / "metrics.jsonl").read()]
        late = "already" in said or "is finished" in said  # the first had ended when the second came
        refused = sorted(ended) == [0, 2] and (f"process {first.pid} (" in said or f"process {second.pid} (" in said)
        well = (refused or late) and steps == [3, 3, 6, 6] and not (out / ".lock").exists() and "Traceback" not in said
        faults.tell(well, f"{' '.join(resume)}: {ended}, steps {steps}: {said[-300:]}")


def writers_in_a_run_that_is_trained(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Commands that write into a directory in which another process is at work: refused, with its number"""
    data, run, other = _data(folder), folder / "run", folder / "other"
    for out in (run, other):
        assert command(["train", "simclr", data, *FLAGS, "--out", out]).status == 0
    kinds = [["evaluate", run, data], ["report", run], ["report", run, other], ["export", run], ["embed", run, data]]
    kinds += [["finetune", other, data, "--out", run], ["train", "simclr", data, *FLAGS, "--out", run, "--resume"]]
    before = contents(run, ())
    with _at_work(run):
        for _ in range(many):
            words = random.choice(kinds)
            said = command(words)
            whole = {name: value for name, value in contents(run, ()).items() if name != ".lock"} == before
            well = said.refused and f"process {os.getpid()} (" in said.text and whole
            faults.tell(well, f"{words[0]}: {said.status} {said.text[-300:]}")


def killed_writers(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """kill -9 while a directory is written into: the next command takes over, and removes what was left"""
    data, run = _data(folder), folder / "run"
    assert command(["train", "simclr", data, *FLAGS, "--out", run]).status == 0
    before = contents(run, VARYING)
    for i in range(many):
        Forked([], folder / "log", instead=partial(_die_writing, run, random.randrange(1 << 30))).wait()
        there = len(list(run.rglob(".*")))
        words = [
            ["report", run],
            ["embed", run, data, "--out", folder / f"{i}.npz"],
            ["export", run, "--out", folder / "x"],
        ]
        said = command(random.choice(words))
        whole = contents(run, VARYING) == before and not list(run.rglob(".*"))
        faults.tell(said.status == 0 and there > 0 and whole, f"{there} left: {said.status} {said.text[-300:]}")


def ranks_that_differ(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Ranks with other data, labels, flags or another directory: all end before the first step, one says why"""
    data, other, out = _data(folder), folder / "other.npz", folder / "run"
    with np.load(data) as held:
        images, labels = held["images"].copy(), held["labels"].copy()
    base = ["train", "simclr"]
    for i in range(min(many, 8)):
        what = ("pixel", "count", "label", "--lr", "--resume", "--out", "nothing there", "--seed")[i % 8]
        at = random.randrange(SAMPLES)
        pixels, names = images.copy(), labels.copy()
        pixels[at, 5, 5] ^= 1 if what == "pixel" else 0
        names[at] = (names[at] + 1) % 10 if what == "label" else names[at]
        rows = slice(None, -1) if what == "count" else slice(None)
        np.savez(other, images=pixels[rows], labels=names[rows])
        second = [*base, folder / "no.npz" if what == "nothing there" else other, *FLAGS]
        second += {"--lr": ["--lr", "0.3"], "--resume": ["--resume"], "--seed": ["--seed", "5"]}.get(what, [])
        outs = ["--out", out], ["--out", folder / "elsewhere" if what == "--out" else out]
        job = Job([[*base, data, *FLAGS, *outs[0]], [*second, *outs[1]]], folder / f"job{i}")
        ended, said = job.wait(), job.said()
        part = {"pixel": f"sample {at}", "label": f"sample {at}", "count": "47", "nothing there": "no.npz"}.get(
            what, what
        )
        well = ended == [2, 2] and said.count("nearfar: rank") == 1 and part in said and "Traceback" not in said
        faults.tell(well and not (out / "checkpoints").exists(), f"{what}: {ended} {said[-400:]}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(folder / "elsewhere", ignore_errors=True)


def ranks_that_die_or_stall(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """One of three ranks is killed, stands still or fails at a random step: all end, one names it; --resume goes on"""
    data = _data(folder)
    flags = ["--encoder", "conv4", "--epochs", "4", "--batch", "15", "--views", "drawing", "--timeout", "0.1"]
    for i in range(min(many, 6)):
        how, late, out = ("killed", "stalls", "fails")[i % 3], random.randrange(3), folder / f"run{i}"
        words = ["train", "simclr", data, *flags, "--out", out]
        calls = [partial(_ends, words, how if rank == late else "", random.randrange(1, 9)) for rank in range(3)]
        job = Job([[]] * 3, folder / f"job{i}", calls)
        ended, said = job.wait(), job.said()
        named = f"rank {late} of 3" in said and said.count("nearfar: rank") == (how != "fails")
        others = all(status == 2 for rank, status in enumerate(ended) if rank != late)
        traced = said.count("Traceback (most recent call last)") <= (how == "fails")
        going_on = command([*words, "--resume"])
        well = (named or how == "fails") and others and traced and going_on.status == 0
        faults.tell(well, f"{how} {late}: {ended} {said[-400:]} then {going_on.status} {going_on.text[-200:]}")


def stopped_classifiers(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """finetune and distill stopped or killed at random moments, then --resume: the bits of those that nobody stopped"""
    data, run = _data(folder), folder / "run"
    assert command(["train", "simclr", data, *FLAGS, "--out", run]).status == 0
    flags = [data, "--epochs", "6", "--batch", "16", "--out"]
    words = {"finetune": ["finetune", run, "--train", "full", *flags]}
    assert command([*words["finetune"], folder / "finetune"]).status == 0
    words["distill"] = ["distill", folder / "finetune", *flags]
    assert command([*words["distill"], folder / "distill"]).status == 0
    for i in range(min(many, 20)):
        name, out = random.choice(list(words)), folder / f"cut{i}"
        if i % 2:
            process = Forked([*words[name], out], folder / "log")
            time.sleep(random.uniform(0, 2))
            process.kill()
            process.wait()
            finished = (out / "config.yaml").exists() and not (out / "unfinished.json").exists()
            said = command([*words[name], out, "--resume"])
            well = said.status == 0 and ("is finished" in said.text) == finished
            same = contents(out, VARYING) == contents(folder / name, VARYING)
            faults.tell(well and same, f"{name} killed: {said.text[-300:]}")
            continue
        watch, Console.watch = (
            Console.watch,
            _Stop(random.randint(1, 6), random.choice([signal.SIGINT, signal.SIGTERM])),
        )  # pyright: ignore[reportAttributeAccessIssue]
        try:
            first = command([*words[name], out])
        finally:
            Console.watch = watch  # pyright: ignore[reportAttributeAccessIssue]
        stopped = (first.status, "--resume" in first.text) in ((130, True), (0, False))  # 0: it was in the last step
        reached = step_reached(out)
        said = command([*words[name], out, "--resume"])
        same = contents(out, VARYING) == contents(folder / name, VARYING)
        faults.tell(stopped and said.status == 0 and same, f"{name} at step {reached}: {first} {said.text[-300:]}")


def resumed_with_other_settings(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """A stopped run resumed with another setting: refused by name where it is another run, else said and done"""
    data, run = _data(folder), folder / "run"
    words = ["train", "simclr", data, *FLAGS, "--out", run]
    watch, Console.watch = Console.watch, _Stop(1, signal.SIGTERM)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        assert command(words).status == 130
    finally:
        Console.watch = watch  # pyright: ignore[reportAttributeAccessIssue]
    refused = "--lr 0.3,--temperature 0.9,--batch 12,--seed 5,--precision bf16,--weight-decay 0.1,--clip 1,--dim 8"
    refused += ",--warmup 1,--floor 0.5,--probe-every 0,--split all,--groups ignore,--sampler balanced,--optimizer sgd"
    allowed = "--keep 3,--device cpu,--timeout 5,--save-every 2,--probe-every 2,--epochs 3"
    cases = [(case, False) for case in refused.split(",")] + [(case, True) for case in allowed.split(",")]
    for i in range(min(many, 40)):
        case, may = cases[i] if i < len(cases) else random.choice(cases)
        copy = Path(shutil.copytree(run, folder / "copy"))
        before = contents(copy, ())
        said = command([*words[:-1], copy, *case.split(), "--resume"])
        name = case.split()[0][2:].replace("-", "_")
        if may:
            well = said.status == 0 and f"{name} was " in said.text
        else:
            well = said.refused and f"{name} was " in said.text and contents(copy, ()) == before
        faults.tell(well, f"{case}: {said.status} {said.text[-300:]}")
        shutil.rmtree(copy)


class _Stop:
    """In the place of the console's `watch`: a signal after so many calls."""

    def __init__(self, calls: int, number: signal.Signals) -> None:
        self.left, self.number = calls, number

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def _data(folder: Path) -> Path:
    """Some drawings and their labels."""
    chosen = drawings("train").subset(range(SAMPLES))
    pixels = chosen.pixels(torch.arange(SAMPLES))[:, 0].numpy()  # N x 32 x 32
    np.savez(folder / "drawings.npz", images=pixels, labels=chosen.label.numpy())
    return folder / "drawings.npz"


@contextmanager
def _at_work(folder: Path) -> Iterator[None]:
    """Within: another thread owns the directory, as another process would."""
    ready, over = threading.Event(), threading.Event()

    def own() -> None:
        with owned(folder):
            ready.set()
            over.wait()

    thread = threading.Thread(target=own)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _die_writing(folder: Path, seed: int) -> int:
    """Own a directory, write some temporary files into it, and be killed."""
    random = Random(seed)
    with owned(folder):
        for part in random.sample(["", "checkpoints", "results", "export"], random.randrange(5)):
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f".file.{os.getpid()}.tmp").write_bytes(random.randbytes(random.randrange(1000)))
            if random.random() < 0.5:
                (folder / part / f".export.{seed}.{os.getpid()}.tmp").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _ends(words: list[object], how: str, at: int) -> int:
    """A rank that ends in some way when it is to take its batch of step `at`."""
    distributed.SILENT, distributed.GRACE = 2.0, 2.0
    take: Callable[[Batches, int], object] = Batches.__call__

    def taken(self: Batches, step: int) -> object:
        if step == at:
            match how:
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "stalls":
                    threading.Event().wait()
                case "fails":
                    raise KeyError("odd")
        return take(self, step)

    Batches.__call__ = taken  # pyright: ignore[reportAttributeAccessIssue]
    return main([str(word) for word in words])
