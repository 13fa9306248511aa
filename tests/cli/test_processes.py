"""Runs as processes of their own: killed, told to stop, and two at once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.forked import LIMIT, Forked
from benchmarks.kill import MOMENTS, Runs, child_environment

from nearfar.cli import main
from nearfar.training.checkpoints import Checkpoints, read
from nearfar.training.journal import Journal
from tests.tiny import FLAGS, contents


class ForkedRuns(Runs):
    def start(self, name: str, *, resume: bool = False) -> Forked:  # type: ignore[override]
        return Forked(self.command(name, resume=resume)[1:], self.folder / f"{name}.log")


def stop(runs: Runs, name: str, number: signal.Signals) -> tuple[int, str, int]:
    """Resume a run and send it a signal once it has saved something new: status, what it said, newest step."""
    checkpoints = Checkpoints(runs.folder / name / "checkpoints")
    before = set(checkpoints.all())
    log = runs.folder / f"{name}.log"
    start = log.stat().st_size
    process, began = runs.start(name, resume=True), time.monotonic()
    while process.poll() is None and not set(checkpoints.all()) - before - {checkpoints.path(0)}:
        assert time.monotonic() - began < LIMIT, log.read_text()
        time.sleep(0.002)
    process.send_signal(number)
    status = process.wait(LIMIT)
    return status, log.read_bytes()[start:].decode(), int(checkpoints.all()[-1].stem.split("-")[1])


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are of POSIX")
def test_killed_and_stopped_again_and_again_a_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    runs = ForkedRuns(tmp_path, samples=192, epochs=6, threads=torch.get_num_threads())
    assert main(runs.command("whole")[1:]) == 0
    # With so long a "typical" run, the first kill falls between the config and the first checkpoint.
    killed = [runs.kill("run", moment, random.Random(0), 10 * LIMIT) for moment in (MOMENTS[2], MOMENTS[1])]
    assert killed[0].step in (None, 0)
    assert not killed[1].ended
    for number in (signal.SIGTERM, signal.SIGINT):
        status, said, step = stop(runs, "run", number)
        assert status == 130, said
        assert "Traceback" not in said
        assert "Stopped and saved. Go on with: nearfar train simclr" in said
        assert 0 < step < runs.steps
    assert main(runs.command("run", resume=True)[1:]) == 0
    assert runs.equal("run", "whole")
    assert not list((tmp_path / "run").rglob(".*"))
    lines = [Journal(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "run")]
    assert [line["step"] for line in lines[1]] == sorted(line["step"] for line in lines[1])
    probes = [[line["knn"] for line in found if "knn" in line] for found in lines]
    assert probes[0] == probes[1]


def test_two_processes_have_the_losses_of_one(data: Path, tmp_path: Path) -> None:
    flags = ["train", "simclr", str(data), *FLAGS, "--out"]
    assert main([*flags, str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nearfar"]
    environment = child_environment(tmp_path) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *flags, str(tmp_path / "two")], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SimCLR on 48 samples") == 1, "only the first process speaks"
    assert set(contents(tmp_path / "two")) == set(contents(tmp_path / "one"))
    one, two = (Journal(tmp_path / name / "metrics.jsonl").read() for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for a, b in zip(one, two, strict=True):
        assert b.get("loss") == pytest.approx(a["loss"], rel=1e-4) if "loss" in a else b["knn"] == a["knn"]
    last = [read(tmp_path / name / "checkpoints" / "step-000000006.pt")["method"] for name in ("one", "two")]
    for key, value in last[0].items():
        assert last[1][key].sub(value).abs().max() < 1e-3, key
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["finished"]
