"""How alike two representations of the same samples are, whatever their width and however they are turned."""

from __future__ import annotations

from torch import Tensor

from nearfar.errors import UserError
from nearfar.evaluation.protocol import finite


def cka(a: Tensor, b: Tensor) -> float:
    """Linear centered kernel alignment, 0 (nothing in common) to 1 (the same but for rotation and scale).

        |b'a|^2 / (|a'a| |b'b|),    a and b with their means taken away, | | the Frobenius norm

    a: N x D, b: N x E, row i of both of the same sample.  Kornblith et al. 2019, arXiv 1905.00414.
    Raises ValueError where the rows of one do not differ.
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise UserError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted N x D and N x E, of the same samples")
    a, b = finite(a, "first").double(), finite(b, "second").double()
    a, b = a - a.mean(0), b - b.mean(0)
    # Of few rows the kernels of rows are the smaller ones; both ways give the same number.
    if len(a) < max(a.shape[1], b.shape[1]):
        k, l = a @ a.T, b @ b.T
        shared, own = (k * l).sum(), (k.norm(), l.norm())
    else:
        shared, own = (b.T @ a).square().sum(), ((a.T @ a).norm(), (b.T @ b).norm())
    if not own[0] or not own[1]:
        raise UserError("all rows of a representation are the same; there is nothing to compare")
    return float(shared / own[0] / own[1])
