from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.nn.biggan import Attention, Generator


def generator(size: int, *, classes: int = 3, channels: int = 3) -> Any:
    torch.manual_seed(0)
    return Generator(classes=classes, channels=channels, size=size, width=2, latent=12, class_dim=4)


@pytest.mark.parametrize(("size", "base", "blocks"), [(8, 4, 1), (28, 7, 2), (32, 4, 3), (64, 4, 4), (96, 6, 4)])
def test_images_have_the_size_and_noise_reaches_every_block(size: int, base: int, blocks: int) -> None:
    net = generator(size, channels=1)
    z, label = torch.randn(4, 12), torch.tensor([0, 1, 2, 0])
    images = net(z, label)
    assert images.shape == (4, 1, size, size)
    assert images.detach().aminmax()[0] >= 0
    assert images.detach().aminmax()[1] <= 1
    assert (net.base, len(net.blocks)) == (base, blocks)
    assert sum(isinstance(part, Attention) for part in net.modules()) == (blocks > 1)
    images.square().sum().backward()
    for block in net.blocks:
        for scale in block.scales:
            weight = scale.parametrizations.weight.original.grad
            assert weight[:, : net.part].any()
            assert weight[:, net.part :].any(), "of the class"


@pytest.mark.parametrize("size", [4, 7, 30, 50])
def test_a_size_that_no_block_doubles_to_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"{size} px .* --size 32 or 64"):
        generator(size)


def test_shares_of_classes_stand_for_classes_and_measured_norms_make_an_image_alone() -> None:
    net = generator(16)
    net.measure(torch.Generator().manual_seed(0), images=60, batch=20)
    same = torch.Generator().manual_seed(0)
    z, label = map(torch.cat, zip(*(net.draw(20, same) for _ in range(3)), strict=True))
    net.train()
    with torch.no_grad():
        x = net.start(z.split(net.part, 1)[0]).view(60, net.first, net.base, net.base)
    net.eval()
    first = net.blocks[0].norms[0]
    torch.testing.assert_close(first.running_mean, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        every = net(z[:6], label[:6])
        torch.testing.assert_close(net(z[2:3], label[2:3]), every[2:3])
        torch.testing.assert_close(net(z[:6], torch.nn.functional.one_hot(label[:6], 3).float()), every)
        assert not torch.allclose(net(z[:6], (label[:6] + 1) % 3), every)


def test_attention_adds_nothing_at_first_and_then_what_is_alike() -> None:
    torch.manual_seed(0)
    attention, x = Attention(8), torch.randn(2, 8, 6, 6)
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.gamma.fill_(0.5)
        q, k, v = (part(x) for part in (attention.query, attention.key, attention.value))
        k, v = (torch.nn.functional.max_pool2d(part, 2).flatten(2) for part in (k, v))  # N x dim x 9
        weight = torch.einsum("ndq,ndk->nqk", q.flatten(2), k).softmax(2)
        found = torch.einsum("nqk,ndk->ndq", weight, v).unflatten(2, (6, 6))
        torch.testing.assert_close(attention(x), x + 0.5 * attention.out(found))
