"""A linear classifier on cached features: multinomial logistic regression, or ridge regression to one-hot targets.

With features standardized on the training rows, both minimize over W (D x C) and an unpenalized bias

    logistic: mean cross-entropy + strength / 2 |W|^2          ridge: mean |XW + b - Y|^2 / 2 + strength / 2 |W|^2

(scikit-learn's C is 1 / (rows x strength)). Ridge is solved from the products of columns or, where these outnumber the
rows, from those of rows. The logistic loss starts from the eigendecomposition of the covariance, V diag(s) V': s bounds
the curvature, so L-BFGS over W = V diag(s / 4 + strength)^-1/2 U is well conditioned and needs some ten to thirty
passes, and each strength starts from the solution of the next larger one. Without that, weak strengths would stop far
from where they lead: few rows can be told apart at once, and the directions in which they hardly differ would decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.evaluation.held import MANY, Scale, holdouts, standardized
from nearfar.evaluation.protocol import Result, labeled, result, scored

STRENGTHS = tuple(10.0**e for e in (-6, -5, -4, -3, -2, -1, 0))
RIDGE_STRENGTHS = tuple(10.0**e for e in range(-6, 4))
"""Of thousands of columns that go together, as pixels do, the best is far above 1."""


TOLERANCE = 5e-4
"""Of a fit: the largest entry of the gradient where it stops, in coordinates in which the curvature is about 1."""

Solver = Callable[[Tensor, Tensor, int, Sequence[float]], Iterator[tuple[Tensor, Tensor]]]
"""(standardized features N x D, classes N, C, falling strengths) -> for each strength, weight D x C and bias C."""


def logistic(
    x: Tensor, y: Tensor, classes: int, strengths: Sequence[float], *, tolerance: float = TOLERANCE
) -> Iterator[tuple[Tensor, Tensor]]:
    """Multinomial logistic regression for each strength in turn: weight D x C and bias C, float32.

    x: N x D, centered.  y: N, 0 to C - 1.  strengths: falling, each starts from the last, and the first from larger
    ones by tens, which are not given: from 1 on, and of more than MANY rows, which are harder to tell apart, from
    0.01 on.
    tolerance: as TOLERANCE.
    """
    from scipy.optimize import minimize  # the probe of training, which needs none of this, need not wait for it

    vectors, variance = _spectrum(x)  # D x R, R
    columns = x.T.contiguous()  # D x N: the thin products and the softmax run two to ten times faster this way round
    row = torch.arange(len(y), device=y.device)
    coefficient = x.new_zeros(len(variance), classes, dtype=torch.float64)  # of W in the basis of the eigenvectors
    share = torch.bincount(y, minlength=classes).double() / len(y)
    bias, curvature = share.clamp(min=0.1 / len(y)).log(), float((share * (1 - share)).mean())
    lead = max(0, math.ceil(-math.log10(strengths[0]) - 1e-9) - 2 * (len(y) > MANY))
    for place, strength in enumerate([*(strengths[0] * 10.0**k for k in range(lead, 0, -1)), *strengths]):
        scale = (curvature * variance + strength).rsqrt()[:, None]  # R x 1

        def objective(flat: np.ndarray, scale: Tensor = scale, strength: float = strength) -> tuple[float, np.ndarray]:
            nonlocal curvature
            point = torch.from_numpy(flat).to(x.device).view(-1, classes)  # (R + 1) x C, the bias last
            c = scale * point[:-1]  # R x C
            weight = (vectors @ c).T.float()  # C x D
            log_p = torch.addmm(point[-1].float()[:, None], weight, columns).log_softmax(0)  # C x N
            loss = -log_p[y, row].double().mean() + strength / 2 * c.square().sum()
            p = log_p.clamp_(min=-60).exp_()  # smaller ones would be subnormal, and slow the products down fiftyfold
            curvature = float(p.mean() - p.square().mean())
            p[y, row] -= 1
            p /= len(y)
            slope = scale * (vectors.T @ (columns @ p.T).double() + strength * c)
            slope = torch.cat([slope, p.sum(1, dtype=torch.float64)[None]])
            return float(loss), slope.flatten().cpu().numpy()

        start = torch.cat([coefficient / scale, bias[None]]).flatten().cpu().numpy()
        options = {"maxiter": 100, "gtol": tolerance, "ftol": 1e-10}

        with _blas().limit(limits=1):  # SciPy's own: of vectors so short its threads only wait for each other
            found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        solution = torch.from_numpy(found.x)
        solution = solution.to(x.device).view(-1, classes)
        coefficient, bias = scale * solution[:-1], solution[-1]
        if place >= lead:
            yield (vectors @ coefficient).float(), bias.float()


@dataclass(frozen=True, slots=True)
class Products:
    """The products of columns of centered features x, x'x, or where these outnumber the rows (`wide`), of rows, xx'."""

    matrix: Tensor  # D x D or N x N, float64
    wide: bool

    @classmethod
    def of(cls, x: Tensor) -> Products:
        """x: N x D."""
        wide = x.shape[0] < x.shape[1]
        return cls(_product(x.T, x.T) if wide else _product(x, x), wide)

    def without(self, x: Tensor, out: Tensor) -> Products:
        """Those of the rows that are not in the mask `out`, centered anew; x: all rows, as in `of`."""
        if self.wide:
            matrix = self.matrix[~out][:, ~out]
            return Products(matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean(), wide=True)
        rest, gone = int((~out).sum()), x[out]
        mean = x[~out].mean(0).double()
        return Products(self.matrix - _product(gone, gone) - rest * torch.outer(mean, mean), wide=False)


@cache
def _blas() -> Any:
    """The libraries that SciPy and NumPy multiply by. Torch brings its own, which keeps its threads."""
    from threadpoolctl import ThreadpoolController

    ours = ThreadpoolController().select(user_api="blas")
    torchs = str(Path(torch.__file__).parent)
    return ours.select(filepath=[one.filepath for one in ours.lib_controllers if not one.filepath.startswith(torchs)])


def ridge(
    x: Tensor, y: Tensor, classes: int, strengths: Sequence[float], *, products: Products | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Least squares to one-hot targets for each strength in turn: weight D x C and bias C. Arguments as `logistic`.

    products: of x, where they are known.
    """
    n = len(x)
    target = torch.zeros(n, classes, device=x.device, dtype=torch.float64).scatter_(1, y[:, None], 1)
    bias = target.mean(0)
    target -= bias
    # A Cholesky factor for each strength takes a fraction of the time of eigenvectors for all.
    products = products or Products.of(x)
    right = target if products.wide else _product(x, target)  # N x C, or D x C
    for strength in strengths:
        moved = products.matrix.clone()
        moved.diagonal().add_(n * strength)
        solution = torch.cholesky_solve(right, torch.linalg.cholesky(moved))
        yield (_product(x, solution) if products.wide else solution).float(), bias.float()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a'b in float64, some thousand rows at a time: N x D, N x C -> D x C."""
    total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
    for some, others in zip(a.split(4096), b.split(4096), strict=True):
        total.addmm_(some.double().T, others.double())
    return total


def _spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors D x R and eigenvalues R of x'x / N, float64, without the directions in which x does not vary."""
    n, d = x.shape
    if n < d:  # the weights lie in the span of the rows
        values, left = torch.linalg.eigh((x @ x.T).double() / n)
        keep = values > values[-1] * 1e-7
        values, left = values[keep], left[:, keep]
        return x.T.double() @ left / (n * values).sqrt(), values
    values, vectors = torch.linalg.eigh((x.T @ x).double() / n)
    return vectors, values.clamp(min=0)


def linear(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    test_label: Tensor,
    *,
    group: Tensor | None = None,
    solver: Solver = logistic,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Result:
    """The test accuracy of a linear classifier, its strength chosen on a held-out part of the training rows.

    train: N x D and train_label: N.  test: M x D and test_label: M.  Rows without label take no part.
    group: N, training rows of one group are never on both sides of the choice (MISSING: a group of its own).
    solver: `logistic` or `ridge`.  strengths: the grid; of equals, the larger wins. The classifier is then fitted anew
    on all training rows.  The protocol holds the grid, its held-out accuracies, and the choice.
    Raises ValueError if the training labels hold one class only.
    """
    x, y, index = labeled(train, train_label, "training")
    z, truth, _ = labeled(test, test_label, "test")
    scores, config, notes = linear_scores(
        x,
        y,
        z,
        group=None if group is None else group.to(x.device)[index],
        solver=solver,
        strengths=strengths,
        seed=seed,
    )
    absent = ~torch.isin(truth, y.to(truth.device))
    if absent.any():
        notes.append(f"{int(absent.sum())} test samples are of classes without a training sample and count as wrong")
    config = {"solver": solver.__name__, **config, "train": len(x), "test": len(z), "seed": seed}
    return result("linear", scored(scores, truth.to(scores.device)), config, notes)


def linear_scores(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    *,
    group: Tensor | None = None,
    solver: Solver = logistic,
    strengths: Sequence[float] = STRENGTHS,
    scales: Sequence[Scale] = ("each",),
    seed: int = 0,
) -> tuple[Tensor, dict[str, object], list[str]]:
    """The class scores of the test rows, M x C, what was chosen, and notes on it. As `linear_fit`, all rows labeled."""
    fit = linear_fit(train, train_label, group=group, solver=solver, strengths=strengths, scales=scales, seed=seed)
    return fit.scores(test), fit.config, fit.notes


@dataclass(frozen=True, slots=True)
class LinearFit:
    """A linear classifier that was fitted, on features of which the mean was taken, and times scale: D each.

    present: K, the classes that had a training row.  weight: D x K.  bias: K.
    config: what was chosen.  notes: sentences on it.
    """

    present: Tensor
    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    config: dict[str, object]
    notes: list[str]

    def scores(self, features: Tensor) -> Tensor:
        """The class scores of rows M x D: M x C, -inf for a class without a training row."""
        scores = torch.full((len(features), int(self.present[-1]) + 1), -torch.inf, device=features.device)
        scores[:, self.present] = (features - self.mean) * self.scale @ self.weight + self.bias
        return scores

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight D x K and bias K that give the same scores from features as they are."""
        weight = self.scale[:, None] * self.weight
        return weight, self.bias - self.mean @ weight


def linear_fit(
    train: Tensor,
    train_label: Tensor,
    *,
    group: Tensor | None = None,
    solver: Solver = logistic,
    strengths: Sequence[float] = STRENGTHS,
    scales: Sequence[Scale] = ("each",),
    seed: int = 0,
) -> LinearFit:
    """The classifier of `linear`, whose strength is chosen on held-out training rows; all rows are labeled.

    scales: whether each feature is divided by its own deviation on the training rows, or all by one; of several the
    better is chosen along with the strength. Of few rows that of each is hardly known: a feature that does not vary in
    them counts for much in others.
    """
    present, y = train_label.unique(return_inverse=True)  # classes without a training row are left out of the fit
    if len(present) < 2:
        raise UserError(
            f"every training label is class {int(present[0])}; a linear classifier needs two classes or more"
        )
    notes: list[str] = []
    grid = sorted(strengths, reverse=True)
    held = holdouts(y, group, seed) if len(grid) * len(scales) > 1 else []
    scale: Scale = scales[0]
    accuracy: list[float] = []
    best = len(grid) // 2
    if held:
        walks = {one: _walk(standardized(train, one)[0], y, held, len(present), solver, grid) for one in scales}
        scale = max(scales, key=lambda one: max(walks[one][0]))
        accuracy, solver = walks[scale]
        best = accuracy.index(max(accuracy))
        if len(grid) > 1 and best in (0, len(grid) - 1):
            notes.append(f"the best strength, {grid[best]:g}, is at the edge of the grid; widen it to be sure")
    elif len(grid) > 1:
        notes.append(f"too few labels to choose a strength; {grid[best]:g}, the middle of the grid, was taken")
    x, mean, factor = standardized(train, scale)
    weight, bias = next(solver(x, y, len(present), [grid[best]]))
    config: dict[str, object] = {
        "features": "standardized on train" if scale == "each" else "centered on train, and divided by one deviation",
        "scale": scale,
        "strength": grid[best],
        "grid": grid,
        "held_out_accuracy": accuracy,
        "held_out_parts": len(held),
        "held_out": sum(int(out.sum()) for out in held),
    }
    return LinearFit(present, mean, factor, weight, bias, config, notes)


def _walk(
    x: Tensor, y: Tensor, held: list[Tensor], classes: int, solver: Solver, grid: Sequence[float]
) -> tuple[list[float], Solver]:
    """The accuracy on held-out rows, in per cent, for the strengths of the grid down to where it falls.

    x: standardized, all rows.  Gives besides the solver for all rows, which knows their products where it needs any.
    """
    products = Products.of(x) if solver is ridge else None
    # Of many rows, solutions this near to the optimum name held-out rows as well, after a quarter of the passes.
    rough = partial(logistic, tolerance=4 * TOLERANCE) if solver is logistic and len(y) > MANY else solver
    fits, accuracy = [_held_out(x, y, out, classes, rough, grid, products) for out in held], []
    # Two falls in a row end the walk: the weakest strengths take the longest and have never won after that. But not
    # while nothing is told: the strongest name the commonest class, and the next few may err more.
    share = float(torch.bincount(y).max()) / len(y)
    nothing = 100 * (share + 2 * math.sqrt(share * (1 - share) / len(y)))
    while len(accuracy) < len(grid) and not (max([0, *accuracy]) > nothing and max(accuracy[-2:]) < max(accuracy)):
        accuracy.append(sum(next(fit) for fit in fits) / len(fits))
    return accuracy, solver if products is None else partial(ridge, products=products)


def _held_out(
    x: Tensor, y: Tensor, out: Tensor, classes: int, solver: Solver, grid: Sequence[float], products: Products | None
) -> Iterator[float]:
    """The accuracy on the rows of the mask `out`, in per cent, for each strength in turn."""
    learn = x[~out]
    mean = learn.mean(0)
    learn, test = learn.sub_(mean), x[out] - mean
    if products is not None:
        solver = partial(ridge, products=products.without(x, out))
    for weight, bias in solver(learn, y[~out], classes, grid):
        yield 100 * float(((test @ weight + bias).argmax(1) == y[out]).double().mean())
