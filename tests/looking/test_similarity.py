"""What makes samples similar."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.looking.similarity import as_places, similarity_map, times_input
from nearfar.modalities.image.encoder import image_encoder
from tests.looking.test_attention import state


class Pooled(nn.Module):
    """Maps, of which the mean is the representation; and a layer whose maps nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.idle(x)
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_behind_it_may_work_in_place(frozen: bool) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    x, target = torch.randn(3, 1, 3, 3), torch.randn(3, 4)
    cam = similarity_map(nn.Sequential(*parts), parts[0], x, target)
    parts[1] = nn.ReLU(inplace=True)
    net = nn.Sequential(*parts).requires_grad_(not frozen)
    torch.testing.assert_close(similarity_map(net, parts[0], x, target), cam)


def test_the_map_is_that_of_the_formula() -> None:
    net, x, target = Pooled(), torch.rand(3, 1, 3, 3), torch.randn(3, 2)
    a = net.conv(x).detach().requires_grad_()
    y = nn.functional.cosine_similarity(a.mean((2, 3)), target).sum()
    weight = torch.autograd.grad(y, a)[0].mean((2, 3))
    slow = torch.zeros(3, 3, 3)
    for n in range(3):
        for c in range(2):
            slow[n] += weight[n, c] * a[n, c].detach()
    cam = similarity_map(net, net.conv, x, target)
    torch.testing.assert_close(cam, slow.clamp(min=0))
    assert (cam >= 0).all()
    assert similarity_map(net, net.idle, x, target).eq(0).all()
    assert all(p.grad is None for p in net.parameters())

    class Last(Pooled):  # its layer gives N x H x W x C
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.turn(net.conv(x).movedim(1, 3)).mean((1, 2))

        turn = nn.Identity()

    last = Last()
    torch.testing.assert_close(similarity_map(last, last.turn, x, target, channels=2), cam)


@pytest.mark.parametrize("name", ["conv4", "test_vit", "test_resnet", "test_convnext"])
def test_each_network_has_a_layer_to_look_at(name: str) -> None:
    torch.manual_seed(0)
    encoder, x = image_encoder(name, size=32).train(), torch.rand(2, 3, 32, 32)
    before = state(encoder)
    target = torch.randn(2, encoder.dim)
    height, width = encoder.eval().maps(x)[-1].shape[2:]
    cam = as_places(similarity_map(encoder.train(), encoder.looked_at(), x, target), height, width)
    assert cam.shape == (2, height, width)
    assert (cam >= 0).all()
    both = similarity_map(encoder, encoder.looked_at(), x, -target)
    assert cam.sum() + both.sum() > 0  # it is not 0 for both of them
    assert state(encoder) == before


def test_hooks_are_gone_where_the_network_raises() -> None:
    encoder = image_encoder("conv4", size=16)
    before = state(encoder)
    with pytest.raises(ValueError, match="takes images"):
        similarity_map(encoder, encoder.looked_at(), torch.rand(2, 1, 16, 16), torch.randn(2, 512))
    assert state(encoder) == before


def test_gradient_times_input_of_a_linear_network() -> None:
    net, x = nn.Linear(4, 3, bias=False), torch.randn(2, 4)
    target = torch.randn(2, 3)
    score = times_input(net, None, x, target)
    # The cosine is the same for all lengths of a row, so what counts for it and against it are equal.
    torch.testing.assert_close(score.sum(1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(times_input(net, net, x, target).sum(1), torch.zeros(2), atol=1e-6, rtol=0)
    assert score.abs().max() > 0
