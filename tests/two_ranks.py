"""Gloo processes that live as long as the test session, to hold several ranks to one."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.forked import FORKING

RANKS = 2
PATIENCE = float(os.environ.get("NEARFAR_PATIENCE", "120"))
"""Seconds that a call may take; a rank left alone in a collective gives up sooner. A busy machine needs more."""


class Pool:
    """Runs module-level functions on all ranks. Starts with the first call; starts again after one that failed."""

    def __init__(self, ranks: int = RANKS) -> None:
        self.ranks = ranks
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """`fn(*args)` on all ranks: the list of results, rank by rank. Arguments and results are pickled."""
        if not self._workers:
            self._start()
        task = pickle.dumps((sys.path, fn, args))
        for _, pipe in self._workers:
            pipe.send_bytes(task)
        answers = [self._answer(pipe) for _, pipe in self._workers]
        failures = [f"rank {rank}:\n{text}" for rank, (fine, text) in enumerate(answers) if not fine]
        if failures:
            self.close()
            raise RuntimeError(f"{fn.__qualname__} failed\n" + "\n".join(failures))
        return [result for _, result in answers]

    def close(self) -> None:
        """End all processes."""
        for process, pipe in self._workers:
            pipe.close()
            process.kill()
            process.join()
        self._workers = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        store = str(Path(self._folder.name) / "store")
        for rank in range(self.ranks):
            ours, theirs = FORKING.Pipe()
            process = FORKING.Process(target=_serve, args=(theirs, rank, self.ranks, store), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    @staticmethod
    def _answer(pipe: Connection) -> tuple[bool, Any]:
        try:
            if pipe.poll(PATIENCE):
                return pickle.loads(pipe.recv_bytes())
        except EOFError:
            return False, "the process died"
        return False, f"no answer in {PATIENCE:.0f} s"


def _serve(pipe: Connection, rank: int, ranks: int, store: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    # Not by address: a free port can be taken between the look and the use.
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timedelta(seconds=PATIENCE / 4)
    )
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:
            return
        try:
            sys.path[:], fn, args = pickle.loads(task)
            answer = pickle.dumps((True, fn(*args)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc()))
        pipe.send_bytes(answer)
