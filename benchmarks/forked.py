"""Commands as processes of their own, forked from one that has imported all: a start of its own takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

FORKING = multiprocessing.get_context("forkserver" if sys.platform != "win32" else None)
FORKING.set_forkserver_preload(["nearfar.run", "nearfar.cli.train", "torch._dynamo"])
LIMIT = 120
"""Seconds after which something hangs."""


class Forked:
    """`nearfar ARGV` as a process like those of subprocess; what it prints goes to the end of the file `log`.

    environment: variables of its own.  instead: what it calls in place of the command line; it gives the status.
    """

    def __init__(
        self,
        argv: Sequence[object],
        log: Path,
        environment: Mapping[str, str] | None = None,
        instead: Callable[[], int] | None = None,
    ) -> None:
        words, self.log = [str(word) for word in argv], log
        args = (words, str(log), torch.get_num_threads(), dict(environment or {}), instead)
        self.process = FORKING.Process(target=_run, args=args)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = LIMIT) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still there after {timeout} s:\n{self.said()}")
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Job:
    """Ranks that train together, as torchrun would start them. argvs, instead: of each rank."""

    def __init__(
        self, argvs: Sequence[Sequence[object]], folder: Path, instead: Sequence[Callable[[], int] | None] = ()
    ) -> None:
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

        # As torchrun's agent: so no port is chosen that another may have taken when it is used.
        self.store: Any = TCPStore(
            "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=LIMIT)
        )
        common = {
            "WORLD_SIZE": str(len(argvs)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        if sys.platform == "linux":
            common["GLOO_SOCKET_IFNAME"] = "lo"
        folder.mkdir(parents=True, exist_ok=True)
        calls = [*instead, *[None] * len(argvs)]
        self.ranks = [
            Forked(argv, folder / f"rank{i}.log", common | {"RANK": str(i), "LOCAL_RANK": str(i)}, calls[i])
            for i, argv in enumerate(argvs)
        ]

    def wait(self) -> list[int]:
        """The exit status of each rank."""
        try:
            return [rank.wait() for rank in self.ranks]
        finally:
            for rank in self.ranks:
                rank.kill()

    def said(self) -> str:
        """What all ranks printed."""
        return "".join(rank.said() for rank in self.ranks)


def _run(
    argv: list[str], log: str, threads: int, environment: dict[str, str], instead: Callable[[], int] | None
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    torch.set_num_threads(threads)
    from nearfar.cli import main

    sys.exit(instead() if instead is not None else main(argv))
