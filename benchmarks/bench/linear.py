"""A linear classifier on cached features: convex, with its strength chosen, against a hundred epochs of SGD."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar.evaluation.linear import linear

LOADER, SLICED = "SGD, DataLoader", "SGD, slices of a tensor"
BATCH, RATE = 256, 0.1


def features(n: int, d: int, classes: int) -> tuple[Tensor, Tensor]:
    """N x D and N: classes that overlap, in features whose scales fall off as those of trained networks do."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, d + 1).float().rsqrt()
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    y = torch.randint(classes, (n,), generator=generator)
    middle = 0.11 * torch.randn(classes, d, generator=generator)
    return (middle[y] + torch.randn(n, d, generator=generator)) * scale @ turn, y


def sgd(x: Tensor, y: Tensor, classes: int, epochs: int, *, loader: bool) -> nn.Linear:
    """The usual probe: momentum 0.9, a cosine from 0.1, batches of 256, no weight decay."""
    model = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    data = torch.utils.data.TensorDataset(x, y)
    batches = torch.utils.data.DataLoader(data, BATCH, shuffle=True)
    for _ in range(epochs):
        sliced = ((x[rows], y[rows]) for rows in torch.randperm(len(x)).split(BATCH))
        for inputs, labels in batches if loader else sliced:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        schedule.step()
    return model


def contenders(n: int, d: int, classes: int, epochs: int) -> dict[str, Contender]:
    """Accuracy on rows that were not trained on, in per cent."""
    x, y = features(n + n // 5, d, classes)
    test, truth, x, y = x[n:], y[n:], x[:n], y[:n]

    def by_sgd(*, loader: bool) -> Run:
        def run() -> float:
            mean, deviation = x.mean(0), x.std(0)
            model = sgd((x - mean) / deviation, y, classes, epochs, loader=loader)
            with torch.no_grad():
                predicted = model((test - mean) / deviation).argmax(1)
            return 100 * float((predicted == truth).double().mean())

        return run

    return {
        LOADER: lambda: by_sgd(loader=True),
        SLICED: lambda: by_sgd(loader=False),
        OURS: lambda: lambda: float(linear(x, y, test, truth)["accuracy"]),
    }


def measure(setting: Setting) -> Found:
    """Time and accuracy with 10 and with 100 classes."""
    found = Found()
    torch.manual_seed(0)
    d, epochs = (16, 2) if setting.quick else (512, 100)
    for make in contenders(500, 16, 10, 1).values():
        make()()  # the full ones take minutes, so that this is all their warming up
    for classes, n in ((10, 500), (100, 500)) if setting.quick else ((10, 50_000), (100, 20_000)):
        row = compare(
            f"linear probe, {classes} classes, values are accuracies in %",
            {"N": n, "D": d},
            contenders(n, d, classes, epochs),
            clock=clock_for(setting.threads),
            seconds=0,
            least=1 if setting.quick else 2,
            warm=False,
        )
        found.add(row, f"linear {classes}")
        found.number(
            f"linear {classes}: accuracy above SGD, points", row.value[OURS] - max(row.value[LOADER], row.value[SLICED])
        )
    return found
