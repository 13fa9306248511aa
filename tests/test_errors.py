from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nearfar.errors import UserError, counted, out_of_memory


def _cuda() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")


def _cudnn() -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def _fork() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _library() -> None:
    raise ImportError("libx.so: failed to map segment from shared object")


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**52), lambda: np.empty(2**52), lambda: bytearray(2**62)])
def test_memory_that_the_host_lacks_is_told_with_what_to_lower(ask: Callable[[], object]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        ask()
    text = out_of_memory(raised.value) or ""
    assert all(word in text for word in ("out of memory", "--batch", "--micro-batch", "--size", "ulimit"))
    assert str(raised.value).split("\n")[0] in text
    assert "GPU" not in text


@pytest.mark.parametrize(("ask", "gpu"), [(_cuda, True), (_cudnn, True), (_fork, False), (_library, False)])
def test_so_is_what_a_gpu_or_the_system_lacks(ask: Callable[[], None], *, gpu: bool) -> None:
    with pytest.raises((RuntimeError, OSError, ImportError)) as raised:
        ask()
    text = out_of_memory(raised.value) or ""
    assert ("on the GPU" in text) == gpu
    assert "--batch" in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        UserError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("memory"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert out_of_memory(error) is None


def test_want_of_memory_that_was_taken_for_a_wrong_size_is_told() -> None:
    error = UserError("the network cannot take images of 32 px: choose another size")
    assert out_of_memory(error) is None
    error.__cause__ = MemoryError()
    assert "--batch" in (out_of_memory(error) or "")


def test_nor_is_it_hidden_by_what_failed_after_it() -> None:
    error = RuntimeError("unexpected pos 919488 vs 919384")
    error.__context__ = MemoryError()
    assert "--batch" in (out_of_memory(error) or "")
    error.__suppress_context__ = True
    assert out_of_memory(error) is None


def test_one_is_said_as_one() -> None:
    nouns = ["images", "classes", "copies", "batches", "processes"]
    assert [counted(1, noun) for noun in nouns] == ["1 image", "1 class", "1 copy", "1 batch", "1 process"]
    assert [counted(n, "rows") for n in (0, 2, 1000)] == ["0 rows", "2 rows", "1,000 rows"]
