"""Near and far: the two halves of every contrastive loss, exact, in memory linear in the number of rows.

For anchor i and candidates j, with logits s_ij = q_i . k_j,

    loss_i = far_i - near_i        near_i = sum_j P_ij s_ij        far_i = log sum_j W_ij exp(s_ij)

`near` needs no pairs: a gather when there is one positive, class sums when there are many. `far` is the log-sum-exp of
attention, and like attention it never holds the N x M matrix:

1. Forward walks over blocks of logits, in one buffer that stays in the cache, and adds up exp(s_ij) row by row. While
   |s_ij| <= max|q| max|k| is small no running maximum is needed; else an exact one is kept. Only far_i is saved.
2. Backward computes the blocks again. With g the gradient that arrives and E_ij = W_ij exp(s_ij),
   r_i = g_i exp(-far_i), the gradients are  dq_i = r_i sum_j E_ij k_j  and  dk_j = sum_i E_ij r_i q_i.
3. Where q is k, and the rules do not tell (i, j) from (j, i), E is symmetric: only blocks on and above the diagonal
   are computed, each serves its rows and its columns, and  dq_i = sum_j E_ij (r_i + r_j) q_j.  Half the work.
4. Where only q learns (a queue), forward takes sum_j E_ij k_j along, and backward computes nothing again.

The temperature is folded into q by the caller, who then has its gradient for nothing; where q is k, pass
z * temperature**-0.5. What a row leaves out is masked inside the block, never subtracted afterward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Ids = tuple[Tensor, Tensor]
Rule = Callable[[Tensor, Tensor], Tensor]

SAFE = {torch.float32: 40.0, torch.float64: 300.0}
"""Logits within this bound need no maximum: sums of 2**60 of their exponentials neither overflow nor vanish."""


def far(
    q: Tensor,
    k: Tensor,
    *,
    skip: Tensor | None = None,
    exclude_same: Ids | None = None,
    only_same: Ids | None = None,
    bias: Tensor | None = None,
    rule: Rule | None = None,
) -> Tensor:
    """How hard the candidates push: log sum_j exp(q_i . k_j + bias_j) over the columns j that count for row i. N.

    q: N x D, k: M x D. Half precision is computed in float32, also under autocast; the gradient comes back in the type
        of the input.
    skip: N or N x m, int64, columns that row i leaves out (itself, its partner); -1 is none.
    exclude_same: ids of the rows (N) and of the columns (M), int64; pairs of equal ids are left out. Negative ids are
        missing and equal to nothing.
    only_same: ids likewise; only pairs of equal ids count. Negative ids are ids like all others.
    bias: M, added to every logit of a column: the log of its weight.
    rule: keep(i, j) -> bool, on index tensors of shape n x 1 and 1 x m. The general form, and the slow one.

    A row without candidates gives -inf and passes no gradient. The function can be differentiated once.
    """
    if q.dim() != 2 or k.dim() != 2 or q.shape[1] != k.shape[1]:
        raise ValueError(f"far wants rows of equal length, N x D and M x D, not {tuple(q.shape)} and {tuple(k.shape)}")
    if torch.compiler.is_compiling():
        # Decorating would import the compiler with the library, which takes seconds.
        return torch.compiler.disable(_far)(q, k, skip, exclude_same, only_same, bias, rule)  # pyright: ignore[reportCallIssue]
    return _far(q, k, skip, exclude_same, only_same, bias, rule)


def far_both(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """`far(q, k)` and `far(k, q)`: how hard all columns push each row, and all rows each column, by the same products.

    q: N x D, k: M x D, of one type. Gives N and M. Logits that need a maximum are computed twice.
    """
    one, other = _single(q, k)
    if torch.compiler.is_compiling() or _watches or not _bounded(one, other, None):
        return far(q, k), far(k, q)
    with torch.autocast(q.device.type, enabled=False):
        return _FarBoth.apply(one, other)  # pyright: ignore[reportReturnType]


def products(q: Tensor, k: Tensor) -> Tensor:
    """q_i . k_j of each pair, for the few losses that need them one by one, exact as `far` is: N x M.

    q: N x D; k: M x D, or N x M x D where each row has candidates of its own; or N x S x D and N x M x D, where S rows
    share their candidates, for N x S x M. Half precision is computed in float32, also under autocast, which would lower
    the product.
    """
    q, k = _single(q, k)
    with torch.autocast(q.device.type, enabled=False):
        if q.dim() == 3:
            return q @ k.mT
        return q @ k.T if k.dim() == 2 else torch.einsum("nd,nmd->nm", q, k)


def near(q: Tensor, k: Tensor, positive: Tensor) -> Tensor:
    """How hard the one positive pulls: q_i . k_positive(i). N.

    q: N x D, k: M x D, positive: N, int64, a column for each row.
    """
    for watch in _watches:
        watch.pull(k, len(q), lambda n: positive[:n, None] == torch.arange(len(k), device=k.device))
    q, k = _single(q, k)
    return (q * k.index_select(0, positive)).sum(1)


def near_mean(q: Tensor, k: Tensor, ids: Ids, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How hard many positives pull: the mean of q_i . k_j over the columns j with the id of row i; and their number.

    q: N x D, k: M x D, ids: of the rows (N) and of the columns (M), int64, negative ids being ids like all others.
    own: N, int64, the column that is row i itself, which is not its own positive.
    Gives N and N. The cost is that of one sum per id, O((N + M) D). A row without positives has value and number 0.
    """
    for watch in _watches:
        watch.pull(k, len(q), lambda n: ids[0][:n, None] == ids[1])
    q, k = _single(q, k)
    names, code = torch.unique(torch.cat(ids), return_inverse=True)
    rows, columns = code.split([len(q), len(k)])
    pull = k.new_zeros(len(names), k.shape[1]).index_add(0, columns, k).index_select(0, rows)  # N x D
    count = torch.bincount(columns, minlength=len(names))[rows]  # N
    if own is not None:
        pull, count = pull - k.index_select(0, own), count - 1
    return (q * pull).sum(1) / count.clamp(min=1), count


def _single(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    # Products of half-precision numbers are taken, and added up, in single precision.
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.float32)
    rows = q.to(dtype)
    return rows, rows if q is k else k.to(dtype)


def _far(
    q: Tensor,
    k: Tensor,
    skip: Tensor | None,
    exclude_same: Ids | None,
    only_same: Ids | None,
    bias: Tensor | None,
    rule: Rule | None,
) -> Tensor:
    mirrored, given = q is k and bias is None and rule is None and _mirrored(skip, exclude_same, only_same), k
    q, k = _single(q, k)
    rules = _Rules(
        skip=skip if skip is None or skip.dim() == 2 else skip[:, None],
        exclude_same=None if exclude_same is None else _excluded(exclude_same),
        only_same=None if only_same is None else _narrow(only_same),
        keep=rule,
    )
    bias = None if bias is None else bias.to(q.dtype)
    if only_same is None:  # else these are the positives
        for watch in _watches:
            watch.push(given, q, k, bias, rules)
    learning = [x is not None and x.requires_grad and torch.is_grad_enabled() for x in (q, k, bias)]
    carry = learning == [True, False, False]
    with torch.autocast(q.device.type, enabled=False):
        return _Far.apply(q, k, bias, rules, mirrored, carry)  # pyright: ignore[reportReturnType]


def _mirrored(skip: Tensor | None, exclude_same: Ids | None, only_same: Ids | None) -> bool:
    """Whether the rules treat (i, j) as they treat (j, i)."""
    if any(ids is not None and ids[0] is not ids[1] and not torch.equal(*ids) for ids in (exclude_same, only_same)):
        return False
    if skip is None:
        return True
    itself = torch.arange(len(skip), device=skip.device)
    if skip.dim() == 1 and torch.equal(skip, itself):
        return True
    skip = skip.view(len(skip), -1)  # N x m
    returned = skip.index_select(0, skip.clamp(min=0).view(-1)).view(*skip.shape, -1)  # N x m x m
    return bool(((returned == itself[:, None, None]).any(2) | (skip < 0)).all())


@dataclass(slots=True)
class Watch:
    """What pushes a few rows of each call of `far`, and what pulls them."""

    pushes: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)  # k as it was given, N, logits n x M
    pulls: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)  # likewise, N, whether positive n x M

    @staticmethod
    def few(count: int, columns: int) -> int:
        """The rows that are looked at: 8 MiB of logits at most, but a few in any case."""
        return min(count, max(8, min(128, 2**21 // max(columns, 1))))

    @torch.no_grad()
    def push(self, given: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, rules: _Rules) -> None:
        if not len(q) or not len(k):
            return
        rows, columns = slice(0, self.few(len(q), len(k))), slice(0, len(k))
        logits = products(q[rows], k)  # n x M
        if bias is not None:
            logits += bias
        rules.hide(logits, rows, columns, rules.skipped(rows))
        self.pushes.append((given, len(q), logits))

    @torch.no_grad()
    def pull(self, k: Tensor, count: int, positive: Callable[[int], Tensor]) -> None:
        self.pulls.append((k, count, positive(self.few(count, len(k)))))

    def negatives(self) -> float | None:
        """By how many negatives a row is pushed, in effect: the exponential of the entropy of their weights.

        A negative counts in full where all push alike, and for nothing where others push far harder. None where no row
        has a negative. Columns that `near` was asked for are no negatives.
        """
        numbers = []
        for k, count, logits in self.pushes:
            for other, rows, positive in self.pulls:
                if (other.data_ptr(), other.shape, rows) == (k.data_ptr(), k.shape, count):
                    logits = logits.masked_fill(positive, float("-inf"))
            log_p = logits[logits.amax(1) > float("-inf")].log_softmax(1)
            numbers.append((-(log_p.exp() * log_p).nansum(1)).exp())
        every = torch.cat(numbers) if numbers else torch.empty(0)
        return float(every.mean()) if len(every) else None


_watches: list[Watch] = []


@contextmanager
def watched() -> Iterator[Watch]:
    """Look at the calls of `far`, `near` and `near_mean` until this is left. It changes nothing of what they give."""
    watch = Watch()
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def _narrow(ids: Ids) -> Ids:
    """The same equalities in int32, which compare twice as fast."""
    both = torch.cat(ids)
    if len(both) and both.abs().max() >= 2**31:
        both = torch.unique(both, return_inverse=True)[1]
    rows, columns = both.int().split([len(ids[0]), len(ids[1])])
    return rows, columns


def _excluded(ids: Ids) -> Ids:
    # Missing rows and missing columns get different numbers, so that they equal nothing.
    rows, columns = ids
    return _narrow((rows.clamp(min=-1), torch.where(columns < 0, -2, columns)))


@dataclass(slots=True)
class _Rules:
    """Which pairs do not count."""

    skip: Tensor | None  # N x m
    exclude_same: Ids | None
    only_same: Ids | None
    keep: Rule | None

    def skipped(self, rows: slice) -> list[tuple[Tensor, int, int]]:
        """The columns that these rows skip, one tensor of n for each of m, and the span each covers."""
        if self.skip is None:
            return []
        skip = self.skip[rows]
        return list(zip(skip.unbind(1), skip.amin(0).tolist(), skip.amax(0).tolist(), strict=True))

    def hide(self, block: Tensor, rows: slice, columns: slice, skipped: list[tuple[Tensor, int, int]]) -> None:
        """Set the logits of pairs that do not count to -inf."""
        hidden = float("-inf")
        for column, low, high in skipped:
            if low < columns.stop and high >= columns.start:
                # Rows whose column lies elsewhere write back what they read.
                inside = (column >= columns.start) & (column < columns.stop)
                at = (column - columns.start).clamp(0, block.shape[1] - 1)[:, None]  # n x 1
                block.scatter_(1, at, block.gather(1, at).masked_fill_(inside[:, None], hidden))
        if self.exclude_same is not None:
            block.masked_fill_(self.exclude_same[0][rows, None] == self.exclude_same[1][columns], hidden)
        if self.only_same is not None:
            block.masked_fill_(self.only_same[0][rows, None] != self.only_same[1][columns], hidden)
        if self.keep is not None:
            i = torch.arange(rows.start, rows.stop, device=block.device)[:, None]
            j = torch.arange(columns.start, columns.stop, device=block.device)[None]
            block.masked_fill_(~self.keep(i, j), hidden)


FREE = _Rules(skip=None, exclude_same=None, only_same=None, keep=None)
"""All pairs count."""


def _side(device: torch.device) -> int:
    """Rows, and columns, of a block: 1 MiB of float32 in the cache of a core, and enough work to fill a GPU."""
    return 512 if device.type == "cpu" else 4096


def _logits(
    q: Tensor, k: Tensor, bias: Tensor | None, rules: _Rules, mirrored: bool
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and logits of each block in turn, all in one buffer; if mirrored, from the diagonal on."""
    side = _side(q.device)
    buffer = q.new_empty(min(side, len(q)) * min(side, len(k)))
    for top in range(0, len(q), side):
        rows = slice(top, min(top + side, len(q)))
        skipped = rules.skipped(rows)
        for left in range(top if mirrored else 0, len(k), side):
            columns = slice(left, min(left + side, len(k)))
            shape = rows.stop - rows.start, columns.stop - columns.start
            block = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(q[rows], k[columns].T, out=block)
            if bias is not None:
                block += bias[columns]
            rules.hide(block, rows, columns, skipped)
            yield rows, columns, block


def _bounded(q: Tensor, k: Tensor, bias: Tensor | None) -> bool:
    """Whether every logit that counts is surely small enough to be exponentiated as it is."""
    if not len(q) or not len(k):
        return True
    bound = torch.linalg.vector_norm(q, dim=1).max() * torch.linalg.vector_norm(k, dim=1).max()
    if bias is not None:
        bound = bound + torch.where(bias == float("-inf"), 0, bias).abs().max()
    return bool(bound <= SAFE[q.dtype])


class _Far(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, bias: Tensor | None, rules: _Rules, mirrored: bool, carry: bool
    ) -> Tensor:
        bounded = _bounded(q, k, bias)
        mirrored = mirrored and bounded
        ctx.only = None
        sums = q.new_zeros(len(q))  # N
        highest = None if bounded else torch.full_like(sums, float("-inf"))
        mean = torch.zeros_like(q) if carry else None  # N x D
        for rows, columns, block in _logits(q, k, bias, rules, mirrored):
            if highest is not None:
                now = torch.maximum(highest[rows], block.amax(1))
                shift = now.masked_fill(now == float("-inf"), 0)
                fade = (highest[rows] - shift).exp_()
                sums[rows] *= fade
                if mean is not None:
                    mean[rows] *= fade[:, None]
                highest[rows] = now
                block -= shift[:, None]
            block.exp_()
            sums[rows].add_(block.sum(1))
            if mirrored and rows != columns:
                sums[columns].add_(block.sum(0))
            if mean is not None:
                mean[rows].addmm_(block, k[columns])
            if bounded and block.shape == (len(q), len(k)):
                ctx.only = block  # no more memory than the buffer, and backward need not compute it again
        out = sums.log() if highest is None else sums.log() + highest
        if mean is not None:
            ctx.save_for_backward(mean.div_(sums.masked_fill_(sums == 0, 1)[:, None]))
        else:
            ctx.save_for_backward(q, k, bias, out)
        ctx.rules, ctx.bounded, ctx.mirrored, ctx.carry = rules, bounded, mirrored, carry
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        g, saved = grads[0], ctx.saved_tensors  # N
        if ctx.carry:
            dq, dk, dbias = g[:, None] * saved[0], None, None
        elif ctx.mirrored:
            dq, dk, dbias = _mirrored_gradient(ctx, g, saved[0], saved[3]), None, None
        else:
            dq, dk, dbias = _gradients(ctx, g, *saved)
        return dq, dk, dbias, None, None, None


class _FarBoth(torch.autograd.Function):
    """Each block of E serves its rows and its columns:  dq_i = sum_j E_ij (r_i + c_j) k_j,  dk_j likewise."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        sums = q.new_zeros(len(q)), k.new_zeros(len(k))
        for rows, columns, block in _logits(q, k, None, FREE, False):
            block.exp_()
            sums[0][rows].add_(block.sum(1))
            sums[1][columns].add_(block.sum(0))
        out = sums[0].log_(), sums[1].log_()
        ctx.save_for_backward(q, k, *out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, *out = ctx.saved_tensors
        r, c = ((g * (-o).exp()).masked_fill_(o == float("-inf"), 0) for g, o in zip(grads, out, strict=True))
        dq, dk, weights = torch.zeros_like(q), torch.zeros_like(k), None
        for rows, columns, block in _logits(q, k, None, FREE, False):
            if weights is None:
                weights = torch.empty_like(block).view(-1)  # the first block is the largest
            both = torch.add(r[rows, None], c[None, columns], out=weights[: block.numel()].view_as(block))
            both.mul_(block.exp_())
            dq[rows].addmm_(both, k[columns])
            dk[columns].addmm_(both.T, q[rows])
        return dq, dk


def _exponentials(
    ctx: Any, q: Tensor, k: Tensor, bias: Tensor | None, shift: Tensor
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and E of each block, for backward; divided by exp(shift) where logits are not bounded."""
    if ctx.only is not None:
        yield slice(0, len(q)), slice(0, len(k)), ctx.only
        return
    for rows, columns, block in _logits(q, k, bias, ctx.rules, ctx.mirrored):
        if not ctx.bounded:
            block -= shift[rows, None]
        yield rows, columns, block.exp_()


def _gradients(
    ctx: Any, g: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, out: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    empty = out == float("-inf")
    shift = out.masked_fill(empty, 0)
    r = (g * (-shift).exp() if ctx.bounded else g).masked_fill(empty, 0)  # N
    rq = r[:, None] * q
    dq, dk, dbias = (
        torch.zeros_like(x) if need and x is not None else None
        for x, need in zip((q, k, bias), ctx.needs_input_grad, strict=False)
    )
    for rows, columns, block in _exponentials(ctx, q, k, bias, shift):
        if dq is not None:
            dq[rows].addmm_(block, k[columns])
        if dk is not None:
            dk[columns].addmm_(block.T, rq[rows])
        if dbias is not None:
            dbias[columns].addmv_(block.T, r[rows])
    return None if dq is None else dq.mul_(r[:, None]), dk, dbias


def _mirrored_gradient(ctx: Any, g: Tensor, q: Tensor, out: Tensor) -> Tensor:
    r = (g * (-out).exp()).masked_fill_(out == float("-inf"), 0)  # N
    dq, weights = torch.zeros_like(q), None
    for rows, columns, block in _exponentials(ctx, q, q, None, out):
        if weights is None:
            weights = torch.empty_like(block).view(-1)  # the first block is the largest
        both = torch.add(r[rows, None], r[None, columns], out=weights[: block.numel()].view_as(block)).mul_(block)
        dq[rows].addmm_(both, q[columns])
        if rows != columns:
            dq[columns].addmm_(both.T, q[rows])
    return dq
