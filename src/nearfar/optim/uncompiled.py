"""Optimizers that start at once."""

from __future__ import annotations

import inspect

from torch.optim import Optimizer


class Uncompiled(Optimizer):
    """torch's optimizer, less the import of torch's compiler.

    Some methods of `Optimizer` are marked as not to be compiled, and the mark, at its first use, imports the compiler:
    several seconds, more than torch itself. The functions behind the marks are the same.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
