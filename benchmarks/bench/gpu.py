"""On a GPU: a loss of very many rows, and an epoch of SimCLR. Without one nothing is measured, and that is said."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench import plain
from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, compare
from benchmarks.bench.views import small_images
from nearfar import optim
from nearfar.batch import Batch
from nearfar.losses.pairwise import nt_xent
from nearfar.methods.simclr import SimCLR
from nearfar.modalities.image import named
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import open_images
from nearfar.training.loop import fit
from nearfar.training.options import Loop

FLOOR = "three matrix products"
TEMPERATURE = 0.1


def measure(setting: Setting) -> Found:
    """NT-Xent with half-precision inputs, and an epoch of SimCLR; on the CPU, and tiny, where it is a quick run."""
    found = Found()
    if not torch.cuda.is_available() and not setting.quick:
        print("No GPU: not measured. Where there is one: python -m benchmarks.bench gpu", flush=True)
        return found
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    with device:  # the plain code, written for a CPU, makes its masks on the default device
        _loss(found, device, 256 if setting.quick else 65536, 0.2 if setting.quick else 20)
    _epoch(found, device, quick=setting.quick)
    return found


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _loss(found: Found, device: torch.device, rows: int, seconds: float) -> None:
    z1, z2 = (F.normalize(torch.randn(rows // 2, 128), dim=1).bfloat16().requires_grad_() for _ in range(2))

    def step(loss: Contender) -> Contender:
        def make() -> Run:
            call = loss()

            def run() -> float:
                value = call()
                assert isinstance(value, Tensor)
                torch.autograd.grad(value, [z1, z2])
                return float(value.detach())

            return run

        return make

    def products() -> Run:
        z = torch.cat([z1, z2]).detach()
        gradient = torch.empty_like(z)

        def run() -> None:
            for part in z.split(8192):
                block = part @ z.T
                torch.mm(block, z, out=gradient[: len(part)])
                gradient.addmm_(block.T, part)

        return run

    contenders: dict[str, Contender] = {
        OURS: step(lambda: lambda: nt_xent(z1, z2, temperature=TEMPERATURE)),
        FLOOR: products,
        "plain": step(lambda: lambda: plain.nt_xent(z1, z2, TEMPERATURE)),
    }
    if device.type == "cuda":
        compiled = torch.compile(plain.nt_xent)
        contenders["plain, compiled"] = step(lambda: lambda: compiled(z1, z2, TEMPERATURE))
        run = contenders[OURS]()
        run()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        peak = (torch.cuda.max_memory_allocated(device) - before) / 2**30
        found.number("GiB beyond the inputs, NT-Xent of 65536 rows", peak)
    row = compare(
        "NT-Xent, bf16 inputs",
        {"Rows": rows, "D": 128},
        contenders,
        clock=lambda: _clock(device),
        seconds=seconds,
    )
    found.add(row, "NT-Xent 65536 rows")


def _epoch(found: Found, device: torch.device, *, quick: bool) -> None:
    """An epoch as `nearfar train` does it, and its networks alone on views that are given."""
    n, batch, name = (64, 16, "conv4") if quick else (50_000, 512, "resnet18")
    pixels, source = small_images(n)
    encoder = image_encoder(name, size=32)
    if device.type == "cuda":
        encoder.compile()
    method = SimCLR(encoder, temperature=0.5).to(device).train()
    optimizer = optim.sgd(optim.parameter_groups(method, 5e-4), 0.06)
    data = open_images(pixels.permute(0, 2, 3, 1).numpy()).to(device)
    given = Batch(list(torch.rand(2, batch, 3, 32, 32, device=device)), *[torch.arange(batch, device=device)] * 2)

    def ours() -> Run:
        loop = Loop(
            epochs=1,
            batch=batch,
            schedule=lambda step, steps: 1.0,
            precision="float32" if quick else "bf16",
            say=lambda text: None,
        )
        return lambda: fit(method, data, named.simclr(32), optimizer, loop)

    def networks() -> Run:
        def run() -> None:
            for _ in range(n // batch):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=not quick):
                    loss = method(given).loss
                loss.backward()
                optimizer.step()

        return run

    row = compare(
        f"an epoch of SimCLR, {name}, 32 px ({source})",
        {"N": n, "Batch": batch},
        {OURS: ours, "its networks alone": networks},
        clock=lambda: _clock(device),
        seconds=1 if quick else 60,
        rate=(2 * n, "views/s"),
    )
    found.add(row, "epoch")
    found.number("seconds, an epoch of SimCLR, ResNet-18", row.seconds[OURS].median)
    share = row.seconds["its networks alone"].median / row.seconds[OURS].median
    found.number("share of the networks in a step, %", 100 * share)
