"""Which places of a sample make it similar to another one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.ops.explanation import at_rest


def similarity_map(encoder: nn.Module, layer: nn.Module, view: Any, target: Tensor, *, channels: int = 0) -> Tensor:
    """Grad-CAM of a similarity, without any label: how much each place of a layer's maps adds to it: N x H x W, 0 or
    more.

        cam = max(0, sum_c A_c mean_uv(d y / d A_c,uv)),    y = cos(encoder(view), target)

    layer: a part of the encoder that gives maps A, N x C x H x W, or of clips N x C x T x H x W, or N x T x C of
    tokens, of which N x T comes out. Where y does not depend on it, the map is 0.  target: N x dim.
    channels: C, where it is known: a layer that gives N x H x W x C is then understood.
    Selvaraju et al. 2016, arXiv 1610.02391, with a similarity in the place of a logit.
    """
    a, slope = _at(encoder, layer, view, target)
    if a.dim() == 4 and a.shape[1] != channels == a.shape[3]:
        a, slope = a.movedim(3, 1), slope.movedim(3, 1)
    tokens = a.dim() == 3
    places = (1,) if tokens else tuple(range(2, a.dim()))
    return (slope.mean(places, keepdim=True) * a).sum(2 if tokens else 1).clamp(min=0)


def as_places(cam: Tensor, height: int, width: int) -> Tensor:
    """The map of a layer of tokens as one of places, without the first tokens, which are none: N x T -> N x height x
    width. A map, N x H x W, stays as it is."""
    if cam.dim() == 3:
        return cam
    if (first := cam.shape[1] - height * width) < 0:
        raise UserError(f"its layer gives {cam.shape[1]} tokens, fewer than the {height} x {width} places of its maps")
    return cam[:, first:].unflatten(1, (height, width))


def times_input(encoder: nn.Module, layer: nn.Module | None, view: Any, target: Tensor) -> Tensor:
    """Gradient times input of a similarity, at what a layer gives, or at the view itself where it is one tensor: of the
    same form as that, such as N x T x dim.

        s = A * d y / d A,    y = cos(encoder(view), target)

    target: N x dim. Above 0 is what makes the two similar, below 0 what makes them less so.
    Shrikumar et al. 2016, arXiv 1605.01713.
    """
    a, slope = _at(encoder, layer, view, target)
    return slope * a


def _at(encoder: nn.Module, layer: nn.Module | None, view: Any, target: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gives, and the gradient of the cosine in it. No parameter gets one; hook and modes are undone."""
    given: list[Tensor] = []
    if layer is None:
        view = view.detach().requires_grad_()
        given.append(view)

    def keep(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        given.append(out if out.requires_grad else out.detach().requires_grad_())
        return given[-1].clone()  # which a layer behind it may change in place

    hook = None if layer is None else layer.register_forward_hook(keep)
    try:
        with at_rest(encoder), torch.enable_grad():
            y = F.cosine_similarity(encoder(view), target.detach(), dim=1).sum()
            slope = None
            if y.requires_grad and given:
                (slope,) = torch.autograd.grad(y, given[-1], allow_unused=True)
    finally:
        if hook is not None:
            hook.remove()
    a = given[-1].detach()
    return a, torch.zeros_like(a) if slope is None else slope
