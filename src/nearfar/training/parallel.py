"""DDP that starts at once."""

from __future__ import annotations

import inspect
import sys
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch.nn.parallel import DistributedDataParallel

from nearfar.method import Method


class _Uncompiled(DistributedDataParallel):
    """torch's DDP, less the mark on its forward pass that imports torch's compiler when it is first used."""

    _inside_ddp_forward = contextmanager(inspect.unwrap(DistributedDataParallel._inside_ddp_forward))


def parallel(method: Method, *, still: bool = False) -> DistributedDataParallel:
    """The method in DDP, without importing torch's compiler: more than a second of each process.

    DDP asks the compiler's configuration whether gradients are to be summed in compiled code. Where the compiler is not
    loaded nobody has configured it, so the answer is its default, given in its place. A torch that asks for more gets
    the compiler itself.
    still: whether a part of it stands still in some of the steps.
    """
    flags = {"broadcast_buffers": False, "find_unused_parameters": still or getattr(method, "takes_turns", False)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.15 renames the argument to one that 2.11 lacks
        if "torch._dynamo" not in sys.modules:
            answers = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
            torch._dynamo = answers  # pyright: ignore[reportAttributeAccessIssue]
            try:
                return _Uncompiled(method, **flags)
            except AttributeError:
                pass
            finally:
                del torch._dynamo
        return DistributedDataParallel(method, **flags)
