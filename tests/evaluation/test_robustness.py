from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.evaluation.linear import linear_fit
from nearfar.evaluation.robustness import accuracy_under, corruption_error, fgsm, pgd
from nearfar.modalities.image.encoder import image_encoder
from nearfar.ops.attacks import Norm


def images(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT = torch.randn(48, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BIAS = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
LABEL = torch.tensor([0, 1, 2, 2, 1, 0])


def softmax_model(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHT + BIAS


def each_loss(x: Tensor) -> Tensor:
    return F.cross_entropy(softmax_model(x), LABEL, reduction="none")


def test_fgsm_of_a_linear_model_is_known() -> None:
    """The slope of its cross-entropy is W (p - onehot(y)), so that the first-order gain is epsilon |slope|_1."""
    x = 0.4 + 0.2 * images()
    p = softmax_model(x).softmax(1)
    slope = (p - F.one_hot(LABEL, 3)) @ WEIGHT.T  # N x 48
    found = fgsm(softmax_model, x, LABEL, epsilon=0.1)  # far from both bounds
    torch.testing.assert_close(found.flatten(1), x.flatten(1) + 0.1 * slope.sign())
    small = fgsm(softmax_model, x, LABEL, epsilon=1e-6)
    gain = (each_loss(small) - each_loss(x)) / 1e-6
    torch.testing.assert_close(gain, slope.abs().sum(1), rtol=1e-4, atol=1e-4)


def test_of_two_classes_the_loss_is_that_of_the_worst_point() -> None:
    """A linear model of two classes has its largest loss where every number goes against the margin."""
    weight = WEIGHT[:, :2]
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    x = 0.4 + 0.2 * images()

    def model(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight

    def margin(x: Tensor) -> Tensor:
        z = model(x)
        return (z[:, 0] - z[:, 1]) * (1 - 2 * label)

    across = weight[:, 0] - weight[:, 1]
    for attack, cost in ((partial(fgsm, epsilon=0.05), 0.05 * across.abs().sum()),
                         (partial(pgd, epsilon=0.05), 0.05 * across.abs().sum()),
                         (partial(pgd, epsilon=0.3, norm="l2"), 0.3 * across.norm())):  # fmt: skip
        found = attack(model, x, label)
        loss = F.cross_entropy(model(found), label, reduction="none")
        torch.testing.assert_close(loss, F.softplus(-(margin(x) - cost)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random", [False, True])
def test_what_is_found_lies_in_the_ball_and_among_images(norm: Norm, *, random: bool) -> None:
    x = images()
    generator = torch.Generator().manual_seed(0) if random else None
    found = pgd(softmax_model, x, LABEL, epsilon=0.2, steps=7, norm=norm, generator=generator)
    change = (found - x).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= 0.2 + 1e-12).all()
    assert 0 <= found.min() <= found.max() <= 1
    assert (each_loss(found) > each_loss(x)).all()


def test_no_radius_changes_nothing() -> None:
    x = images()
    assert torch.equal(fgsm(softmax_model, x, LABEL, epsilon=0.0), x)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(pgd(softmax_model, x, LABEL, epsilon=0.0, generator=generator), x)


def test_one_step_of_the_radius_is_fgsm() -> None:
    x = images()
    one = pgd(softmax_model, x, LABEL, epsilon=0.1, stride=0.1, steps=1)
    assert torch.equal(one, fgsm(softmax_model, x, LABEL, epsilon=0.1))


def test_no_image_feels_the_others_and_those_without_label_stay() -> None:
    x, label = images(), LABEL.clone()
    whole = pgd(softmax_model, x, label, epsilon=0.1)
    torch.testing.assert_close(pgd(softmax_model, x[2:4], label[2:4], epsilon=0.1), whole[2:4])
    label[3] = MISSING
    assert torch.equal(pgd(softmax_model, x, label, epsilon=0.1)[3], x[3])


def test_accuracy_counts_those_with_a_label() -> None:
    x, label = images(), softmax_model(images()).argmax(1)
    label[0] = (label[0] + 1) % 3
    assert accuracy_under(None, softmax_model, x, label) == pytest.approx(500 / 6)
    label[0] = MISSING
    assert accuracy_under(None, softmax_model, x, label, batch=2) == 100
    with pytest.raises(ValueError, match="none of the 6 images has a label"):
        accuracy_under(None, softmax_model, x, torch.full((6,), MISSING))


def test_an_encoder_with_a_classifier_falls_with_the_radius_and_keeps_no_gradient() -> None:
    torch.manual_seed(0)
    encoder = image_encoder("conv4", channels=3, size=16).eval()
    x = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    x[::2, 0] *= 0.5
    label = torch.arange(40) % 2
    with torch.no_grad():
        fit = linear_fit(encoder(x), label, strengths=(1e-3,))

    def model(x: Tensor) -> Tensor:
        return fit.scores(encoder(x))

    clean = accuracy_under(None, model, x, label)
    got = [accuracy_under(partial(fgsm, epsilon=epsilon), model, x, label) for epsilon in (0.0, 0.05, 0.2)]
    assert clean == got[0] > got[1] > got[2]
    strong = accuracy_under(partial(pgd, epsilon=0.05), model, x, label, batch=7)
    assert strong <= got[1]
    assert all(p.grad is None for p in encoder.parameters())


def test_corruption_error_is_relative_to_the_baseline() -> None:
    ours = {"noise": [10.0, 20.0], "blur": [5.0, 5.0]}
    theirs = {"noise": [20.0, 40.0], "blur": [10.0, 30.0]}
    assert corruption_error(ours, theirs) == pytest.approx(100 * (0.5 + 0.25) / 2)
    assert corruption_error(theirs, theirs) == 100
    with pytest.raises(ValueError, match="wanted the same"):
        corruption_error(ours, {"noise": [1.0, 1.0]})
