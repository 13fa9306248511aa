from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.losses.distillation import distillation


def both(n: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(2))  # pyright: ignore


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_the_value_by_slow_loops(temperature: float) -> None:
    student, teacher = both()
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p = [(x / temperature).exp() / (t / temperature).exp().sum() for x in t]
        q = [(x / temperature).exp() / (s / temperature).exp().sum() for x in s]
        total -= sum(float(a * b.log()) for a, b in zip(p, q, strict=True))
    found = distillation(student, teacher, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(total / len(student), dtype=torch.float64))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_least_where_both_agree_and_then_the_entropy_of_the_teacher(temperature: float, scaled: bool) -> None:
    _, teacher = both()
    p = (teacher / temperature).softmax(1)
    entropy = -(p * p.log()).sum(1).mean() * (temperature**2 if scaled else 1)
    same = (teacher + 7).requires_grad_()  # logits that differ by a constant say the same
    loss = distillation(same, teacher, temperature=temperature, scaled=scaled)
    torch.testing.assert_close(loss, entropy)
    loss.backward()
    torch.testing.assert_close(same.grad, torch.zeros_like(teacher), atol=1e-12, rtol=0)
    for seed in range(20):
        other = teacher + torch.randn(teacher.shape, generator=torch.Generator().manual_seed(seed)).double()
        assert distillation(other, teacher, temperature=temperature, scaled=scaled) > entropy


def test_the_gradient_of_the_student() -> None:
    student, teacher = both()
    student.requires_grad_()
    teacher.requires_grad_()
    for temperature, scaled, factor in ((2.0, True, 2.0), (2.0, False, 0.5), (1.0, True, 1.0)):
        student.grad = None
        distillation(student, teacher, temperature=temperature, scaled=scaled).backward()
        gap = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
        torch.testing.assert_close(student.grad, factor * gap / len(student))
    assert teacher.grad is None


def test_alpha_is_the_share_of_the_teacher() -> None:
    student, teacher = both(6)
    label = torch.tensor([0, 3, MISSING, 1, MISSING, 2])
    known = label != MISSING
    plain = F.cross_entropy(student[known], label[known])
    taught = distillation(student, teacher, temperature=2.0)
    for alpha in (0.0, 0.3, 1.0):
        found = distillation(student, teacher, temperature=2.0, label=label, alpha=alpha)
        torch.testing.assert_close(found, (1 - alpha) * plain + alpha * taught)
    no_labels = distillation(student, teacher, label=torch.full_like(label, MISSING), alpha=0.5)
    torch.testing.assert_close(no_labels, 0.5 * distillation(student, teacher))
