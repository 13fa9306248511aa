from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge

from nearfar.batch import MISSING
from nearfar.evaluation import linear as module
from nearfar.evaluation.held import holdouts, standardize
from nearfar.evaluation.linear import (
    RIDGE_STRENGTHS,
    STRENGTHS,
    Products,
    linear,
    linear_fit,
    linear_scores,
    logistic,
    ridge,
)


def clouds(rows, dim, classes, seed=0, noise=2.0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % classes
    mix = torch.randn(dim, dim, generator=g)
    return (torch.randn(classes, dim, generator=g)[y] + noise * torch.randn(rows, dim, generator=g)) @ mix, y


@pytest.mark.parametrize(("rows", "dim", "classes"), [(400, 12, 3), (60, 90, 4), (200, 5, 2)])
def test_logistic_agrees_with_scikit_learn(rows, dim, classes):
    x, y = clouds(rows, dim, classes)
    x, _ = standardize(x, x)
    strengths = [1.0, 0.1, 0.01]
    for strength, (weight, bias) in zip(strengths, logistic(x, y, classes, strengths, tolerance=1e-6), strict=True):
        other = LogisticRegression(C=1 / (rows * strength), tol=1e-8, max_iter=5000)
        expected = torch.from_numpy(other.fit(x.double().numpy(), y.numpy()).predict_proba(x.double().numpy())).float()
        if classes == 2:  # scikit-learn penalizes one weight for two classes: half of ours, squared, twice
            other = LogisticRegression(C=2 / (rows * strength), tol=1e-8, max_iter=5000)
            expected = torch.from_numpy(
                other.fit(x.double().numpy(), y.numpy()).predict_proba(x.double().numpy())
            ).float()
        torch.testing.assert_close((x @ weight + bias).softmax(1), expected, atol=2e-4, rtol=0)


def test_a_weak_strength_asked_for_alone_is_led_to_by_larger_ones():
    # Few rows in many directions, of which some hardly vary, are told apart long before the optimum.
    x, y = clouds(1060, 100, 10)
    basis = torch.linalg.svd(torch.randn(100, 100, generator=torch.Generator().manual_seed(1)))[2]
    x = x @ basis.T * torch.logspace(0, -1, 100)
    learn, test = standardize(x[:60], x[60:], "one")
    weight, bias = next(logistic(learn, y[:60], 10, [1e-6]))
    torch.testing.assert_close(weight, list(logistic(learn, y[:60], 10, sorted(STRENGTHS, reverse=True)))[-1][0])
    other = LogisticRegression(C=1 / (60 * 1e-6), max_iter=20_000).fit(learn.numpy(), y[:60].numpy())
    expected = other.score(test.numpy(), y[60:].numpy())
    assert ((test @ weight + bias).argmax(1) == y[60:]).float().mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("rows", "dim"), [(300, 10), (40, 60)])
def test_ridge_agrees_with_scikit_learn(rows, dim):
    x, y = clouds(rows, dim, 3)
    x, _ = standardize(x, x)
    target = torch.nn.functional.one_hot(y).double()
    for strength, (weight, bias) in zip([1.0, 1e-2], ridge(x, y, 3, [1.0, 1e-2]), strict=True):
        expected = Ridge(alpha=strength * rows).fit(x.double().numpy(), target.numpy()).predict(x.double().numpy())
        torch.testing.assert_close((x @ weight + bias).double(), torch.from_numpy(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", [logistic, ridge])
def test_tiny_gaussians(solver):
    x, y = clouds(800, 64, 8, noise=0.6)
    out = linear(x[:400], y[:400], x[400:], y[400:], solver=solver)
    assert out["accuracy"] >= 95
    assert out["low"] < out["accuracy"] < out["high"] or out["accuracy"] == 100
    protocol = out["protocol"]
    assert protocol["strength"] in protocol["grid"]
    assert protocol["held_out_parts"] == 5
    assert protocol["solver"] == solver.__name__
    assert out == linear(x[:400], y[:400], x[400:], y[400:], solver=solver)


def test_the_test_set_does_not_choose():
    x, y = clouds(300, 8, 3)
    first = linear(x[:200], y[:200], x[200:], y[200:])["protocol"]
    second = linear(x[:200], y[:200], x[200:], (y[200:] + 1) % 3)["protocol"]
    assert first["strength"] == second["strength"]
    assert first["held_out_accuracy"] == second["held_out_accuracy"]


def test_edge_of_the_grid_is_noted():
    x, y = clouds(200, 5, 3)
    out = linear(x, y, x, y, strengths=[1e3, 1e4])
    assert "edge of the grid" in out["protocol"]["notes"][0]


def test_groups_stay_together():
    y = torch.arange(120) % 3
    group = torch.arange(120) // 6
    group[:6] = MISSING
    for out in holdouts(y, group, 0):
        assert not set(group[out].tolist()) & set(group[~out].tolist()) - {MISSING}
    masks = torch.stack(holdouts(y, None, 0))
    assert torch.equal(masks.sum(0), torch.ones(120, dtype=torch.int64))
    for out in masks:
        assert torch.bincount(y[out]).tolist() == [8, 8, 8]
    big = torch.arange(6000) % 3
    assert [int(m.sum()) for m in holdouts(big, None, 0)] == [1200]


def test_far_and_constant_features_do_no_harm():
    x, y = clouds(200, 5, 3)
    moved = torch.cat([1e4 + 100 * x, torch.full((200, 1), 7.0)], 1)
    plain = linear_scores(x[:100], y[:100], x[100:])[0]
    torch.testing.assert_close(linear_scores(moved[:100], y[:100], moved[100:])[0], plain, atol=0.05, rtol=0.05)


def test_separable_classes_stay_finite():
    x, y = torch.eye(4).repeat(10, 1) * 100, torch.arange(4).repeat(10)
    out = linear(x, y, x, y)
    assert out["accuracy"] == 100
    assert linear_scores(x, y, x)[0].isfinite().all()


def test_one_label_each_takes_the_middle_of_the_grid():
    x, y = torch.eye(3), torch.arange(3)
    out = linear(x, y, x, y)
    assert out["accuracy"] == 100
    assert "too few labels" in out["protocol"]["notes"][0]


def test_class_numbers_need_not_be_dense_and_absent_classes_are_wrong():
    x, y = clouds(100, 4, 2, noise=0.1)
    label = torch.where(y == 0, 3, 9)
    truth = label.clone()
    truth[:10] = 5
    out = linear(x, label, x, truth)
    assert out["accuracy"] == pytest.approx(90)
    assert "10 test samples are of classes without a training sample" in " ".join(out["protocol"]["notes"])


def test_missing_labels_and_errors():
    x, y = clouds(100, 4, 2)
    y[::3] = MISSING
    assert linear(x, y, x, y)["protocol"]["train"] == int((y != MISSING).sum())
    with pytest.raises(ValueError, match="every training label is class 1; a linear classifier needs two"):
        linear(x, torch.ones(100, dtype=torch.int64), x, y)
    with pytest.raises(ValueError, match="none of the 100 test samples has a label"):
        linear(x, y, x, torch.full((100,), MISSING))
    with pytest.raises(ValueError, match=r"shape \(100, 4\) and its labels \(99,\)"):
        linear(x, y[:99], x, y)


def test_a_fit_folds_into_weights_for_features_as_they_are():
    x, y = clouds(90, 6, 3)
    label = torch.tensor([1, 4, 5])[y]
    fit = linear_fit(x[:60], label[:60])
    weight, bias = fit.folded()
    scores = fit.scores(x[60:])
    torch.testing.assert_close(x[60:] @ weight + bias, scores[:, [1, 4, 5]], atol=1e-4, rtol=1e-4)
    assert fit.present.tolist() == [1, 4, 5]
    assert scores[:, [0, 2, 3]].eq(-torch.inf).all()
    torch.testing.assert_close(linear_scores(x[:60], label[:60], x[60:])[0], scores)


def test_one_scale_for_all_features():
    x, y = clouds(60, 6, 3)
    x = x * torch.tensor([1.0, 1, 1, 1, 1, 1e-3])
    fit = linear_fit(x[:40], y[:40], scales=("one",), strengths=[0.1])
    centered = x[:40] - x[:40].mean(0)
    torch.testing.assert_close(fit.scale, (1 / centered.square().mean().sqrt()).expand(6))
    weight, bias = next(logistic(centered * fit.scale, y[:40], 3, [0.1]))
    torch.testing.assert_close(fit.scores(x[40:]), (x[40:] - x[:40].mean(0)) * fit.scale @ weight + bias)
    assert fit.folded()[0][-1].abs().max() < linear_fit(x[:40], y[:40], strengths=[0.1]).folded()[0][-1].abs().max()
    assert "one deviation" in str(fit.config["features"])
    constant = linear_fit(torch.ones(6, 2), torch.arange(6) % 2, scales=("one",), strengths=[0.1])
    assert constant.scores(torch.ones(1, 2)).isfinite().all()


@pytest.mark.parametrize(("rows", "dim"), [(5000, 8), (90, 12), (40, 60)])
def test_ridge_is_that_of_an_eigendecomposition(rows, dim):
    x, y = clouds(rows, dim, 3)
    x, _ = standardize(x, x)
    values, vectors = torch.linalg.eigh(x.double().T @ x.double() / rows)
    target = torch.nn.functional.one_hot(y).double()
    rotated = vectors.T @ (x.double().T @ (target - target.mean(0)) / rows)
    strengths = sorted(RIDGE_STRENGTHS, reverse=True)
    for strength, (weight, bias) in zip(strengths, ridge(x, y, 3, strengths), strict=True):
        expected = vectors @ (rotated / (values[:, None].clamp(min=0) + strength))
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
        torch.testing.assert_close(bias, torch.bincount(y) / rows)


def test_the_scale_is_chosen_with_the_strength():
    x, y = clouds(300, 8, 3)
    x = x * torch.tensor([1, 1, 1, 1, 1e-3, 1e-3, 1e-3, 1e-3])
    both = linear_fit(x, y, solver=ridge, scales=("one", "each"))
    alone = {scale: linear_fit(x, y, solver=ridge, scales=(scale,)) for scale in ("one", "each")}
    best = max(alone.values(), key=lambda fit: max(fit.config["held_out_accuracy"]))
    assert best is alone["each"]
    assert both.config == best.config
    assert torch.equal(both.weight, best.weight)


def test_what_is_told_by_weak_columns_alone_is_found_below_strengths_that_tell_nothing():
    # Strong penalties see the one loud column, which says nothing, and name the commonest class or err more.
    g = torch.Generator().manual_seed(0)
    y = torch.cat([torch.arange(560) % 8, torch.zeros(16, dtype=torch.long)])
    x = 0.02 * torch.nn.functional.one_hot(y, 8) + 0.01 * torch.randn(len(y), 8, generator=g)
    x = torch.cat([x, 100 * torch.randn(len(y), 1, generator=g)], 1)
    for solver in (ridge, logistic):
        fit = linear_fit(x, y, solver=solver, strengths=[10.0**e for e in range(-10, 4)], scales=("one",))
        assert (fit.scores(x).argmax(1) == y).float().mean() > 0.5


@pytest.mark.parametrize(("rows", "dim"), [(90, 12), (40, 60)])
def test_products_without_some_rows_are_those_of_the_rest(rows, dim):
    x, _ = clouds(rows, dim, 3)
    x, _ = standardize(x, x)
    out = torch.arange(rows) % 5 == 2
    rest = Products.of(x).without(x, out)
    centered = x[~out].double() - x[~out].double().mean(0)
    assert rest.wide == (rows < dim)
    torch.testing.assert_close(
        rest.matrix, centered @ centered.T if rest.wide else centered.T @ centered, atol=1e-4, rtol=0
    )


def test_scipys_threads_are_limited_and_torchs_are_not(monkeypatch):
    seen = []

    def spy(*args, **kwargs):
        seen.append((torch.get_num_threads(), [one.num_threads for one in module._blas().lib_controllers]))
        return minimize(*args, **kwargs)

    monkeypatch.setattr("scipy.optimize.minimize", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with module._blas().limit(limits=2):
            next(logistic(*clouds(60, 4, 3), 3, [1.0]))
    finally:
        torch.set_num_threads(before)
    assert seen == [(2, [1] * len(module._blas().lib_controllers))]
    assert module._blas().lib_controllers
