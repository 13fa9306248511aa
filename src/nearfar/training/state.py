"""What a checkpoint holds, saved and restored on all ranks."""

from __future__ import annotations

import torch

from nearfar import distributed
from nearfar.errors import UserError
from nearfar.method import Method
from nearfar.training.options import Loop


class State:
    """All that a run needs to continue bit for bit, besides the step: method, optimizer, scaler, and the best score."""

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loop: Loop
    ) -> None:
        self.method, self.optimizer, self.scaler, self.loop = method, optimizer, scaler, loop
        self.best: float | None = None

    def restore(self) -> int | None:
        """Load the newest checkpoint. The step to continue from, or None where nothing was saved.

        The journal forgets what came after it. Raises ValueError where the ranks read different checkpoints.
        """
        state, notes = self.loop.checkpoints.newest() if self.loop.checkpoints is not None else (None, [])
        for note in notes:
            self.loop.say(note)
        if state is not None:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.best = state["best"]
            if self.loop.beside is not None:
                self.loop.beside.load_state_dict(state["beside"])
        step = -1 if state is None else state["step"]
        # All must have read before the first of them writes, or the others would read what it wrote.
        steps = distributed.gather(torch.tensor([step], device=next(self.method.parameters()).device)).tolist()
        if set(steps) != {step}:
            raise UserError(f"the processes found checkpoints of the steps {steps}: all need the same disk for --out")
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.cut(max(step, 0))
        return None if state is None else step

    def save(self, step: int, *, best: bool = False) -> None:
        """Write a checkpoint on the first rank; with `best`, as the best so far too.

        Raises Diverged on every rank, so that none waits for one that has given up, if a parameter is not finite.
        """
        # A sum of squares is finite only if all its terms are; an overflow would be as bad.
        if not torch.nn.utils.get_total_norm([p.detach() for p in self.method.parameters()]).isfinite():
            raise self.loop.diverged(f"a parameter is no longer finite at step {step}")
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
            self.loop.checkpoints.save(step, state, best=best)
        distributed.barrier()
