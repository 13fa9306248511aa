"""Forward and backward of the losses, against plain code, other libraries, and the matrix products alone."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench import memory, plain
from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, DoesNotFit, Run, clock_for, compare
from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.losses.assignment import swapped_assignment
from nearfar.losses.conditional import conditional_contrastive
from nearfar.losses.pairwise import clip, dcl, info_nce, nt_xent
from nearfar.losses.redundancy import barlow
from nearfar.losses.supervised import supcon
from nearfar.memory.queue import Queue

TEMPERATURE = 0.1
LAMBDA = 0.005
EPSILON = 0.05
FLOOR = "three matrix products"
PLAIN, COMPILED = "plain", "plain, compiled"
LIGHTLY = "lightly"
PML = "pytorch-metric-learning"
PML_MATRIX = "pytorch-metric-learning SupCon"
SUMMED = "solo-learn's formula"
PAIRS = "cosines of all pairs"
OPEN_CLIP = "open_clip"


def unit(n: int, d: int, *, learns: bool = True) -> Tensor:
    """N rows of unit length."""
    return F.normalize(torch.randn(n, d), dim=1).requires_grad_(learns)


def step(loss: Callable[[], Tensor], *inputs: Tensor) -> Run:
    """Forward, and backward to the inputs."""

    def run() -> float:
        value = loss()
        torch.autograd.grad(value, inputs)
        return float(value.detach())

    return run


def _room(n_bytes: float) -> None:
    if not memory.guarded and n_bytes > 0.4 * memory.available():
        raise DoesNotFit(f"not timed: needs about {n_bytes / 2**30:.0f} GiB")


def _matrices(number: float, rows: int, columns: int) -> None:
    """Leave out what would hold that many matrices of float32 at once. The numbers were measured."""
    _room(4.0 * number * rows * columns)


def _products(z: Tensor) -> Run:
    """Only the matrix products of a loss and its gradients, no symmetry used, in bands of a reused buffer."""
    rows = z.detach()
    band = min(len(rows), 2**26 // len(rows))
    buffer = torch.empty(band, len(rows))
    gradient = torch.empty_like(rows)

    def run() -> None:
        for part in rows.split(band):
            block = torch.mm(part, rows.T, out=buffer[: len(part)])
            torch.mm(block, rows, out=gradient[: len(part)])
            gradient.addmm_(block.T, part)

    return run


def nt_xent_case(n: int, d: int) -> dict[str, Contender]:
    z1, z2 = unit(n, d), unit(n, d)

    def written() -> Run:
        _matrices(3, 2 * n, 2 * n)
        return step(lambda: plain.nt_xent(z1, z2, TEMPERATURE), z1, z2)

    def compiled() -> Run:
        _matrices(3, 2 * n, 2 * n)
        loss = torch.compile(plain.nt_xent)
        return step(lambda: loss(z1, z2, TEMPERATURE), z1, z2)

    def lightly() -> Run:
        from lightly.loss import NTXentLoss

        _matrices(4.2, 2 * n, 2 * n)
        loss = NTXentLoss(TEMPERATURE)
        return step(lambda: loss(z1, z2), z1, z2)

    def pml() -> Run:
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

        _room(4 * 4 * (2.0 * n) ** 3)  # every pair of a positive and a negative
        loss = SelfSupervisedLoss(NTXentLoss(TEMPERATURE))
        return step(lambda: loss(z1, z2), z1, z2)

    def pml_matrix() -> Run:
        from pytorch_metric_learning.losses import SelfSupervisedLoss, SupConLoss

        _matrices(11.5, 2 * n, 2 * n)
        loss = SelfSupervisedLoss(SupConLoss(TEMPERATURE))  # the same value, by matrices
        return step(lambda: loss(z1, z2), z1, z2)

    return {
        PLAIN: written,
        COMPILED: compiled,
        LIGHTLY: lightly,
        PML: pml,
        PML_MATRIX: pml_matrix,
        FLOOR: lambda: _products(torch.cat([z1, z2])),
        OURS: lambda: step(lambda: nt_xent(z1, z2, temperature=TEMPERATURE), z1, z2),
    }


def supcon_case(n: int, d: int) -> dict[str, Contender]:
    z1, z2, label = unit(n, d), unit(n, d), torch.randint(100, (n,))

    def written(loss: Callable[..., Tensor], matrices: float) -> Contender:
        def make() -> Run:
            _matrices(matrices, 2 * n, 2 * n)
            return step(lambda: loss(z1, z2, label, TEMPERATURE), z1, z2)

        return make

    def pml() -> Run:
        from pytorch_metric_learning.losses import SupConLoss

        _matrices(11.5, 2 * n, 2 * n)
        loss = SupConLoss(TEMPERATURE)
        return step(lambda: loss(torch.cat([z1, z2]), label.repeat(2)), z1, z2)

    return {
        PLAIN: written(plain.supcon, 6),
        COMPILED: lambda: written(torch.compile(plain.supcon), 6)(),
        SUMMED: written(plain.supcon_summed, 6),
        PML_MATRIX: pml,
        FLOOR: lambda: _products(torch.cat([z1, z2])),
        OURS: lambda: step(lambda: supcon([z1, z2], label, temperature=TEMPERATURE), z1, z2),
    }


def dcl_case(n: int, d: int) -> dict[str, Contender]:
    z1, z2 = unit(n, d), unit(n, d)

    def written() -> Run:
        _matrices(4, 2 * n, 2 * n)
        return step(lambda: plain.dcl(z1, z2, TEMPERATURE), z1, z2)

    def lightly() -> Run:
        from lightly.loss import DCLLoss

        _matrices(5, 2 * n, 2 * n)
        loss = DCLLoss(TEMPERATURE)
        return step(lambda: loss(z1, z2), z1, z2)

    return {
        PLAIN: written,
        LIGHTLY: lightly,
        FLOOR: lambda: _products(torch.cat([z1, z2])),
        OURS: lambda: step(lambda: dcl(z1, z2, temperature=TEMPERATURE), z1, z2),
    }


def two_c_case(n: int, d: int) -> dict[str, Contender]:
    z, proxy, label = (
        torch.randn(n, d, requires_grad=True),
        torch.randn(n, d, requires_grad=True),
        torch.randint(10, (n,)),
    )

    def pairs() -> Run:
        _room(4.0 * 3 * n * n * d)
        return step(lambda: plain.conditional_contrastive(z, proxy, label, 1.0, pairs=True), z, proxy)

    def ours() -> Tensor:
        return conditional_contrastive(F.normalize(z), F.normalize(proxy), label, temperature=1.0)

    return {
        PLAIN: lambda: step(lambda: plain.conditional_contrastive(z, proxy, label, 1.0, pairs=False), z, proxy),
        PAIRS: pairs,
        OURS: lambda: step(ours, z, proxy),
    }


def moco_case(n: int, d: int, queue: int) -> dict[str, Contender]:
    q, k, start = unit(n, d), unit(n, d, learns=False), unit(queue, d, learns=False)

    def written() -> Run:
        _matrices(3, n, queue)
        return step(lambda: plain.info_nce(q, k, start, TEMPERATURE), q)

    def lightly() -> Run:
        from lightly.loss import NTXentLoss

        _matrices(4, n, queue)
        loss = NTXentLoss(TEMPERATURE, memory_bank_size=(queue, d))
        loss.memory_bank.bank.copy_(start)  # its own, so that the first value can be compared
        return step(lambda: loss(q, k), q)

    def ours() -> Run:
        keys = Queue(queue, d)
        keys.keys.copy_(start)

        def loss() -> Tensor:
            value = info_nce(q, k, keys.keys, temperature=TEMPERATURE)
            keys.enqueue(k)  # as lightly does
            return value

        return step(loss, q)

    return {PLAIN: written, LIGHTLY: lightly, OURS: ours}


def barlow_case(n: int, d: int) -> dict[str, Contender]:
    z1, z2 = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)

    def written() -> Run:
        _matrices(4, d, d)
        return step(lambda: plain.barlow(z1, z2, LAMBDA), z1, z2)

    def lightly() -> Run:
        from lightly.loss import BarlowTwinsLoss

        _matrices(5, d, d)
        loss = BarlowTwinsLoss(LAMBDA)
        return step(lambda: loss(z1, z2), z1, z2)

    return {
        PLAIN: written,
        LIGHTLY: lightly,
        OURS: lambda: step(lambda: barlow(z1, z2, lam=LAMBDA), z1, z2),
    }


def clip_case(n: int, d: int) -> dict[str, Contender]:
    q, k = unit(n, d), unit(n, d)

    def open_clip() -> Run:
        from open_clip.loss import ClipLoss  # pyright: ignore[reportMissingImports]

        loss = ClipLoss()
        return step(lambda: loss(q, k, torch.tensor(1 / TEMPERATURE)), q, k)

    return {
        PLAIN: lambda: step(lambda: plain.clip(q, k, TEMPERATURE), q, k),
        OPEN_CLIP: open_clip,
        OURS: lambda: step(lambda: clip(q, k, temperature=TEMPERATURE), q, k),
    }


def swav_case(n: int, k: int) -> dict[str, Contender]:
    """From the scores of two crops, both with codes; the products before them are the network's."""
    weight = unit(k, 128, learns=False)  # of k prototypes
    s1, s2 = ((unit(n, 128, learns=False) @ weight.T).requires_grad_() for _ in range(2))

    def lightly() -> Run:
        from lightly.loss import SwaVLoss

        loss = SwaVLoss(TEMPERATURE, sinkhorn_epsilon=EPSILON)
        return step(lambda: loss([s1, s2], []), s1, s2)

    def ours() -> Tensor:
        codes = [sinkhorn(s.detach(), epsilon=EPSILON) for s in (s1, s2)]
        return swapped_assignment([s1, s2], codes, temperature=TEMPERATURE)

    return {
        PLAIN: lambda: step(lambda: plain.swav(s1, s2, EPSILON, TEMPERATURE), s1, s2),
        LIGHTLY: lightly,
        OURS: lambda: step(ours, s1, s2),
    }


CASES: dict[str, Callable[..., dict[str, Contender]]] = {
    "NT-Xent": nt_xent_case,
    "SupCon": supcon_case,
    "DCL": dcl_case,
    "2C": two_c_case,
    "MoCo": moco_case,
    "Barlow Twins": barlow_case,
    "CLIP": clip_case,
    "SwAV": swav_case,
}


def times(setting: Setting) -> Found:
    """Seconds of forward and backward."""
    found = Found()
    clock = clock_for(setting.threads)

    def measure(name: str, **size: int) -> None:
        torch.manual_seed(0)
        contenders = CASES[name](**{k.lower(): v for k, v in size.items()})
        if not setting.compiled:
            contenders.pop(COMPILED, None)
        row = compare(name, size, contenders, clock=clock, seconds=0.5 if setting.quick else 20)
        value = row.value.get(PLAIN, row.value[OURS])
        for who, other in row.value.items():
            if who not in (SUMMED, FLOOR) and abs(other - value) > 1e-3 * abs(value):
                row.notes.append(f"{who} computes another value, {other:.5g} for {value:.5g}")
                print("    " + row.notes[-1], flush=True)
        found.add(row, name + " " + " ".join(f"{k}{v}" for k, v in size.items()))

    for d in (128, 512):
        for n in (64, 128) if setting.quick else (256, 1024, 4096, 8192, 16384):
            if not (n == 16384 and d == 512):
                measure("NT-Xent", N=n, D=d)
    n = 128 if setting.quick else 4096
    measure("SupCon", N=n, D=128)
    measure("DCL", N=n, D=128)
    measure("2C", N=n // 4, D=128)
    measure("MoCo", N=n // 4, D=128, Queue=16 * n)
    measure("Barlow Twins", N=n // 16, D=2 * n)
    measure("CLIP", N=n, D=128)
    measure("SwAV", N=n, K=3000)
    return found


def peaks(setting: Setting) -> Found:
    """MiB that forward and backward need beyond their inputs, each in a fresh process; and how that grows with N."""
    found = Found()
    n = 512 if setting.quick else 4096
    sizes = [n] if setting.quick else [n // 4, n, 4 * n]
    plan: list[tuple[str, dict[str, int], tuple[str, ...]]] = [
        *(("NT-Xent", {"N": m, "D": 128}, (PLAIN, LIGHTLY, PML_MATRIX)) for m in sizes),
        ("SupCon", {"N": n, "D": 128}, (PLAIN, SUMMED, PML_MATRIX)),
        ("DCL", {"N": n, "D": 128}, (PLAIN, LIGHTLY)),
        ("MoCo", {"N": n // 4, "D": 128, "Queue": 16 * n}, (PLAIN, LIGHTLY)),
        ("Barlow Twins", {"N": n // 16, "D": 2 * n}, (PLAIN, LIGHTLY)),
    ]
    ours = {}
    for name, size, others in plan[:1] if setting.quick else plan:
        peak = {who: memory.ask("benchmarks.bench.losses", [name, who, *size.values()]) for who in (*others, OURS)}
        key = name + " " + " ".join(f"{k}{v}" for k, v in size.items())
        found.peak(name, size, peak, key)
        if name == "NT-Xent":
            ours[size["N"]] = peak[OURS]
    for m in (2 * n,) if setting.quick else (2 * n, 8 * n):
        ours[m] = memory.ask("benchmarks.bench.losses", ["NT-Xent", OURS, m, 128])
        found.peak("NT-Xent", {"N": m, "D": 128}, {OURS: ours[m]}, f"NT-Xent N{m} D128")
    known = {m: value for m, value in sorted(ours.items()) if isinstance(value, float) and value > 0}
    if len(known) > 1:
        found.number("exponent of NT-Xent's extra memory in N", memory.exponent(list(known), list(known.values())))
    return found


def _peak(name: str, who: str, *size: int) -> float:
    torch.manual_seed(0)

    def prepare(*size: int) -> Run:
        return CASES[name](*size)[who]()

    small = [min(s, 256) for s in size]
    return memory.extra(lambda: prepare(*size), lambda: prepare(*small)())


if __name__ == "__main__":
    memory.answer(lambda: _peak(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
