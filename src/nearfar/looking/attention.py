"""Where the heads of a vision transformer look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.ops.explanation import at_rest


@torch.no_grad()
def attention(encoder: nn.Module, view: Tensor) -> list[Tensor]:
    """What the tokens attend to in each block, softmax(q k / sqrt d): N x heads x T x T, rows that sum to 1.

    view: N x C x H x W. Fused kernels do not give it, so blocks compute it step by step while this runs; what the
    encoder gives stays the same up to rounding.
    Raises ValueError where there is no attention between all tokens of an image, as timm's transformers have it.
    """
    layers = [part for part in encoder.modules() if _attends(part)]
    seen: list[Tensor] = []
    with at_rest(encoder), _step_by_step(layers, seen):
        encoder(view)
    if not seen or any(a.dim() != 4 or len(a) != len(view) or a.shape[2] != a.shape[3] for a in seen):
        windows = ": its blocks attend within windows" if seen else ""
        raise UserError(
            f"its network has no attention between all places of an image{windows}; a vision transformer has it "
            "(--encoder vit_tiny_patch16_224)"
        )
    return seen


def rollout(blocks: Sequence[Tensor]) -> Tensor:
    """Attention followed through all blocks: N x T x T, rows that sum to 1.

    The product, over the blocks, of (A + I) / 2, where A is the mean over heads and I stands for the residual
    connection (Abnar and Zuidema 2020, arXiv 2005.00928).  blocks: N x heads x T x T each, the first block first.
    """
    through = torch.eye(blocks[0].shape[-1], device=blocks[0].device).expand(len(blocks[0]), -1, -1)
    for block in blocks:
        mixed = (block.float().mean(1) + torch.eye(block.shape[-1], device=block.device)) / 2
        through = mixed / mixed.sum(2, keepdim=True) @ through
    return through


def to_places(a: Tensor, height: int, width: int) -> Tensor:
    """How much attention each place of an image gets: N x ... x T x T -> N x ... x height x width.

    The first tokens, those that are no place, stand for the whole image: what the very first attends to is taken. Where
    there is none, the mean of what all places attend to.
    """
    first = a.shape[-1] - height * width
    if first < 0:
        raise UserError(f"{a.shape[-1]} tokens are fewer than the {height} x {width} places of a map")
    row = a[..., 0, :] if first else a.mean(-2)
    return row[..., first:].unflatten(-1, (height, width))


def last_places(encoder: Encoder, view: Tensor) -> tuple[Tensor, Tensor]:
    """What each head of the last block attends to, N x heads x H x W, and what is left of the image after all blocks,
    by `rollout`: N x H x W."""
    blocks = attention(encoder, view)
    with at_rest(encoder), torch.no_grad():
        height, width = encoder.maps(view)[-1].shape[2:]
    return to_places(blocks[-1], height, width), to_places(rollout(blocks), height, width)


def _attends(part: nn.Module) -> bool:
    return isinstance(getattr(part, "fused_attn", None), bool) and isinstance(
        getattr(part, "attn_drop", None), nn.Module
    )


@contextmanager
def _step_by_step(layers: Sequence[nn.Module], seen: list[Tensor]) -> Iterator[None]:
    """Within: attention is not fused, and what each layer attends to goes into `seen`; afterward all is as before."""
    fused = [bool(layer.fused_attn) for layer in layers]
    hooks = []
    try:
        for layer in layers:
            layer.fused_attn = False  # pyright: ignore[reportArgumentType] (a plain attribute)
            drop = layer.get_submodule("attn_drop")  # is given the softmax
            hooks.append(drop.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach())))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, before in zip(layers, fused, strict=True):
            layer.fused_attn = before  # pyright: ignore[reportArgumentType]
