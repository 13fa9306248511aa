"""Attention of transformers, and roll-out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nearfar.errors import UserError
from nearfar.looking.attention import attention, last_places, rollout, to_places
from nearfar.modalities.image.encoder import ImageEncoder, image_encoder


@pytest.fixture(scope="module")
def vit() -> ImageEncoder:
    torch.manual_seed(0)
    return image_encoder("test_vit", size=32)


def blocks_of(vit: ImageEncoder) -> list[Any]:
    """Its blocks, as timm has them."""
    return list(vit.net.get_submodule("blocks").children())


def state(net: nn.Module) -> list[tuple[bool, int, int, object]]:
    """What may not change: modes, hooks, and whether attention is fused."""
    return [
        (part.training, len(part._forward_hooks), len(part._forward_pre_hooks), getattr(part, "fused_attn", None))
        for part in net.modules()
    ]


def test_rows_sum_to_one_and_are_those_that_the_block_uses(vit: ImageEncoder) -> None:
    x, before = torch.rand(2, 3, 32, 32), state(vit)
    expected = vit.eval()(x)
    vit.train()
    before = state(vit)
    blocks = attention(vit, x)
    assert state(vit) == before
    torch.testing.assert_close(vit.eval()(x), expected)
    heads = blocks_of(vit)[0].attn.num_heads
    assert len(blocks) == len(blocks_of(vit))
    assert all(a.shape == (2, heads, 5, 5) for a in blocks)  # a class token and 2 x 2 places
    for a in blocks:
        torch.testing.assert_close(a.sum(-1), torch.ones(2, heads, 5))
    # What the last block gives, from its own values and this attention.
    attn, given = blocks_of(vit)[-1].attn, []
    hook = attn.register_forward_hook(lambda _, inputs, out: given.append((inputs[0], out)))
    vit(x)
    hook.remove()
    tokens, out = given[0]
    v = attn.qkv(tokens).unflatten(2, (3, heads, -1))[:, :, 2].transpose(1, 2)  # N x heads x T x d
    torch.testing.assert_close(attn.proj(attn.norm((blocks[-1] @ v).transpose(1, 2).flatten(2))), out)


def test_all_is_as_before_where_the_network_raises(vit: ImageEncoder) -> None:
    vit.train()
    before = state(vit)
    with pytest.raises(UserError, match="takes images"):
        attention(vit, torch.rand(2, 1, 32, 32))

    def stop(*_: object) -> None:
        raise RuntimeError("in the midst")

    hook = blocks_of(vit)[-1].mlp.register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="in the midst"):
        attention(vit, torch.rand(2, 3, 32, 32))
    hook.remove()
    assert state(vit) == before


def test_roll_out_is_the_product_of_the_slow_loop() -> None:
    blocks = [torch.rand(2, 3, 4, 4).softmax(-1) for _ in range(3)]
    through = rollout(blocks)
    torch.testing.assert_close(through.sum(-1), torch.ones(2, 4))
    for n in range(2):
        slow = torch.eye(4)
        for block in blocks:
            slow = (0.5 * block[n].mean(0) + 0.5 * torch.eye(4)) @ slow
        torch.testing.assert_close(through[n], slow)
    alone = [torch.eye(4).expand(1, 2, 4, 4)] * 2
    torch.testing.assert_close(rollout(alone)[0], torch.eye(4))


def test_places_are_those_behind_the_first_tokens() -> None:
    a = torch.arange(25.0).view(1, 5, 5)
    torch.testing.assert_close(to_places(a, 2, 2), torch.tensor([[[1.0, 2], [3, 4]]]))  # of the class token
    torch.testing.assert_close(to_places(a[:, 1:, 1:], 2, 2)[0], a[0, 1:, 1:].mean(0).view(2, 2))
    with pytest.raises(UserError, match="fewer"):
        to_places(a, 3, 3)


def test_heads_and_roll_out_of_an_encoder(vit: ImageEncoder) -> None:
    heads, through = last_places(vit, torch.rand(2, 3, 32, 32))
    assert heads.shape[2:] == through.shape[1:] == (2, 2)
    with pytest.raises(UserError, match="no attention between all places"):
        attention(image_encoder("conv4", size=16), torch.rand(2, 3, 16, 16))
