"""What a checkpoint holds, saved and restored on all ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nearfar import distributed
from nearfar.errors import UserError
from nearfar.method import Method
from nearfar.training.checkpoints import fits
from nearfar.training.options import Loop


class State:
    """All that a run needs to continue bit for bit, besides the step: method, optimizer, scaler, and the best score."""

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loop: Loop
    ) -> None:
        self.method, self.optimizer, self.scaler, self.loop = method, optimizer, scaler, loop
        self.best: float | None = None
        self.by_design = {name for name, value in self._buffers().items() if not value.isfinite().all()}

    def _buffers(self) -> dict[str, Tensor]:
        """The buffers that a checkpoint holds."""
        parameters = {name for name, _ in self.method.named_parameters(remove_duplicate=False)}
        return {name: value for name, value in _floats(self.method.state_dict()).items() if name not in parameters}

    def _insist_finite(self, step: int) -> None:
        """Raise Diverged, on every rank, where a parameter, a buffer or what the optimizer keeps is not finite.

        A buffer that was not so before training, such as a mask of -inf, is so by design.
        """
        kept = {f"{i}.{name}": v for i, state in enumerate(self.optimizer.state.values()) for name, v in state.items()}
        buffers = {name: value for name, value in self._buffers().items() if name not in self.by_design}
        found = ""
        # A sum of squares is finite only if all its terms are; in a parameter an overflow would be as bad.
        for what, values, power in (
            ("a parameter", dict(self.method.named_parameters()), 2.0),
            ("a buffer", buffers, math.inf),
            ("a number that the optimizer keeps", _floats(kept), math.inf),
        ):
            tensors = [value.detach() for value in values.values()]
            if not found and not torch.nn.utils.get_total_norm(tensors, power).isfinite():
                first = next((name for name, value in values.items() if not value.isfinite().all()), "all together")
                found = f"{what} is no longer finite at step {step} ({first})"
        somewhere = torch.tensor(float(bool(found)), device=next(self.method.parameters()).device)
        if distributed.highest(somewhere) > 0:
            if step == 0:
                raise UserError(f"{found}, before training: begin with other weights")
            raise self.loop.diverged(found or f"a number is no longer finite at step {step} on another process")

    def restore(self) -> int | None:
        """Load the newest checkpoint. The step to continue from, or None where nothing was saved.

        The journal forgets what came after it. Raises ValueError where the ranks read different checkpoints.
        """
        state, notes = self.loop.checkpoints.newest() if self.loop.checkpoints is not None else (None, [])
        for note in notes:
            self.loop.say(note)
        if state is not None and self.loop.checkpoints is not None:
            with fits(self.loop.checkpoints.folder):
                self.method.load_state_dict(state["method"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.scaler.load_state_dict(state["scaler"])
                self.best = state["best"]
                if self.loop.beside is not None and "beside" in state:  # scores may begin in the middle of a run
                    self.loop.beside.load_state_dict(state["beside"])
        step = -1 if state is None else state["step"]
        # All must have read before the first of them writes, or the others would read what it wrote.
        steps = distributed.gather(torch.tensor([step], device=next(self.method.parameters()).device)).tolist()
        if set(steps) != {step}:
            raise UserError(f"the processes found checkpoints of the steps {steps}: all need the same disk for --out")
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.cut(max(step, 0))
            if note := self.loop.journal.note():
                self.loop.say(note)
        return None if state is None else step

    def save(self, step: int, *, best: bool = False, epoch: int = 0) -> None:
        """Write a checkpoint on the first rank; with `best`, as the best so far too; with `epoch`, as one that stays.

        Raises Diverged on every rank, so that none waits for one that has given up, if a number is not finite.
        """
        self._insist_finite(step)
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.sync()
        if self.loop.checkpoints is not None and distributed.rank() == 0:
            state = {
                "step": step,
                "best": self.best,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            if self.loop.beside is not None:
                state["beside"] = self.loop.beside.state_dict()
            self.loop.checkpoints.save(step, state, best=best, epoch=epoch)
        distributed.barrier()


def _floats(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of real numbers, but those that hold none."""
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point() and v.numel()}
