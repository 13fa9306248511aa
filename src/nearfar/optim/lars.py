"""LARS and LARC: a learning rate for each tensor, in proportion to its length, for very large batches."""

# pyright: reportPrivateImportUsage=false
# (torch's own optimizers are built on its _foreach functions, which it does not list as public)

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.optim.uncompiled import Uncompiled


class LARS(Uncompiled):
    """Momentum with layer-wise adaptive rates (arXiv 1708.03888), for parameters w of gradient g:

        u = g + weight_decay w        r = trust |w| / |u|, or 1 where either length is 0
        rate_in_momentum:      v <- momentum v + lr r u      w <- w - v       (SimCLR)
        not rate_in_momentum:  v <- momentum v + r u         w <- w - lr v    (BYOL, Barlow Twins)

    The two differ whenever lr changes. LARC (as in apex, without its clip: SwAV) is the second form with
    r = trust |w| / (|g| + weight_decay |w|), and neither rate nor decay where |w| or |g| is 0: `larc=True`.

    params: groups as `parameter_groups` gives them; a group with adapt=False has r = 1.  A parameter whose gradient is
    None is left alone, with its momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        rate_in_momentum: bool,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        larc: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("trust", trust)):
            if value < 0:
                raise UserError(f"{name} must not be negative, got {value}")
        if not 0 <= momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {momentum}")
        defaults = {
            "lr": lr,
            "rate_in_momentum": rate_in_momentum,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "larc": larc,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._move(group, params, [p.grad for p in params])
        return loss

    def _move(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        buffers: list[Tensor] = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            buffers.append(state["momentum"])
        update = torch._foreach_add(grads, params, alpha=decay)
        if group["adapt"]:
            w = torch.stack(torch._foreach_norm(params))  # P, one length a tensor; nothing here waits for the device
            g = torch.stack(torch._foreach_norm(grads if group["larc"] else update))  # P
            length = g + decay * w if group["larc"] else g
            # With w = 0 there is no decay either; with g = 0 decay is all that is left, and LARC leaves it out.
            still = (g > 0).to(w.dtype) if group["larc"] else torch.ones_like(w)
            rate = torch.where((w > 0) & (g > 0), group["trust"] * w / length, still)
            torch._foreach_mul_(update, list(rate.unbind()))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, update, alpha=lr if group["rate_in_momentum"] else 1.0)
        torch._foreach_add_(params, buffers, alpha=-1.0 if group["rate_in_momentum"] else -lr)
