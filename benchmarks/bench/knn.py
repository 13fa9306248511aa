"""Weighted votes of the nearest neighbors in a bank."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.bench import memory, plain
from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar.evaluation.knn import knn_scores, neighbors

K, TEMPERATURE, CLASSES = 200, 0.1, 100
LIGHTLY, PLAIN = "lightly", "plain"
GIB = 2**30


def contenders(n: int, queries: int, d: int) -> dict[str, Contender]:
    """Predicted classes of some queries, by a bank of n rows."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(CLASSES, d, generator=generator)
    label = torch.randint(CLASSES, (n + queries,), generator=generator)
    rows = F.normalize(middle[label] + 3 * torch.randn(n + queries, d, generator=generator), dim=1)
    bank, query = rows[:n], rows[n:]
    truth, label = label[n:], label[:n]
    k = min(K, n)

    def accuracy(predicted: list[torch.Tensor]) -> float:
        return 100 * float((torch.cat(predicted) == truth).double().mean())

    def written() -> Run:
        return lambda: accuracy([plain.knn(q, bank, label, CLASSES, k, TEMPERATURE) for q in query.split(512)])

    def lightly() -> Run:
        from lightly.utils.benchmarking import knn_predict

        turned = bank.T.contiguous()
        return lambda: accuracy(
            [knn_predict(q, turned, label, CLASSES, k, TEMPERATURE)[:, 0] for q in query.split(512)]
        )

    def ours() -> Run:
        return lambda: accuracy(
            [knn_scores(bank, label, query, k=k, temperature=TEMPERATURE, classes=CLASSES).argmax(1)]
        )

    return {PLAIN: written, LIGHTLY: lightly, OURS: ours}


def measure(setting: Setting) -> Found:
    """Time by a bank of 50,000 rows; on all threads, also the memory of a process with a bank of a million."""
    found = Found()
    n, queries = (1000, 200) if setting.quick else (50_000, 10_000)
    row = compare(
        f"kNN, k={K}, values are accuracies in %",
        {"Bank": n, "Queries": queries, "D": 128},
        contenders(n, queries, 128),
        clock=clock_for(setting.threads),
        seconds=0.5 if setting.quick else 30,
        rate=(queries, "queries/s"),
    )
    found.add(row, "kNN")
    if setting.threads > 1:
        n = 10_000 if setting.quick else 1_000_000
        peak = memory.ask("benchmarks.bench.knn", [n])
        if isinstance(peak, str):
            raise RuntimeError(f"kNN with a bank of {n}: {peak}")
        found.number(f"GiB of the whole process, kNN by a bank of {n:,} x 128", peak)
    return found


def _whole(n: int) -> float:
    bank = torch.randn(n, 128)
    neighbors(torch.randn(min(n, 2000), 128), bank, min(K, n))
    return memory.peak() / GIB


if __name__ == "__main__":
    import sys

    memory.answer(lambda: _whole(int(sys.argv[1])))
