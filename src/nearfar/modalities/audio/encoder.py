"""Encoders of recordings: convolutions or networks of timm on log-mel, and GRUs over its frames or over the wave."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder, Stage
from nearfar.modalities import timm_nets
from nearfar.modalities.audio import networks
from nearfar.modalities.audio.mel import log_mel
from nearfar.modalities.audio.settings import insist_encoder, own_network
from nearfar.nn.apply import Apply

FRAMES = ((4, 2), (1, 1))
"""Kernels over frames of log-mel, and their strides."""

PAPER = ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2))
"""Those over the wave, 160 samples a step in all (arXiv 1807.03748)."""

SPEC = ("kind", "name", "rate", "length", "bands", "window", "hop", "mean", "std")


class AudioEncoder(Encoder):
    """Waves of one length -> N x dim. Of our own networks any length will do.

    spec: name, and rate (samples a second) and length (samples) of the waves; bands, window and hop (samples) of the
    spectrogram; mean and std of its logarithm, or of the waves where there is none.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.spec = spec
        self.net = nn.Sequential(*_layers(spec))
        self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (quicker on a CPU)
        self.dim = _width(self.net, spec)

    def forward(self, wave: Tensor) -> Tensor:
        if wave.dim() != 2:
            raise UserError(f"the encoder takes waves N x L, got {' x '.join(map(str, wave.shape))}: mix channels down")
        return self.net(wave)

    @property
    def sequential(self) -> bool:
        return isinstance(self.net[-2], networks.Context)

    def steps(self) -> tuple[Stage, Stage]:
        """Of melgru and wavegru; other networks raise ValueError."""
        if not self.sequential:
            return super().steps()
        front, local, context, _ = self.net
        assert isinstance(context, networks.Context)
        return Stage(front, local, dim=context.gru.input_size), Stage(context, dim=context.gru.hidden_size)

    def stages(self) -> list[Stage]:
        """Of melconv its four blocks, N x C x bands x frames, and the pooling; other networks raise ValueError."""
        front, body, *rest = self.net
        if not isinstance(body, networks.MelConv):
            return super().stages()
        norm, *layers = body.layers
        blocks = [layers[at : at + 4] for at in range(0, len(layers), 4)]
        widths = [cast(nn.Conv2d, block[0]).out_channels for block in blocks]
        blocks[0] = [front, Apply(lambda mel: mel[:, None]), norm, *blocks[0]]
        blocks.append([Apply(lambda x: x.flatten(1, 2).mT), *rest])
        return [Stage(*block, dim=width) for block, width in zip(blocks, [*widths, self.dim], strict=True)]

    def maps(self, view: Tensor) -> list[Tensor]:
        """Of melconv and of networks of timm, over bands and frames of the spectrogram: N x C x bands x frames.

        Others raise ValueError.
        """
        net = self._image
        return super().maps(view) if net is None else timm_nets.maps(net, self.net[0](view)[:, None])

    @property
    def map_dim(self) -> int:
        return super().map_dim if self._image is None else timm_nets.map_dim(self._image)

    def with_map(self, view: Tensor) -> tuple[Tensor, Tensor]:
        net = self._image
        return super().with_map(view) if net is None else timm_nets.with_map(net, self.net[0](view)[:, None])

    @property
    def _image(self) -> nn.Module | None:
        """The network of images, where one sees the spectrogram."""
        body = self.net[1]
        return body.net if isinstance(body, networks.Image) else None

    def looked_at(self) -> nn.Module:
        """The spectrogram, N x bands x T; a network of waves has none and raises ValueError."""
        return self.net[0] if isinstance(self.net[0], networks.LogMel) else super().looked_at()

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise: n x length."""
        return example(self.spec, n, generator)

    def network(self) -> nn.Module:
        return self.net

    def source(self) -> tuple[list[str], bool]:
        spec, used = self.spec, {type(module) for module in self.net.modules()}
        text = [
            line
            for _, one in inspect.getmembers(networks, inspect.isclass)
            if one in used and one.__module__ == networks.__name__
            for line in ["", "", *inspect.getsource(one).rstrip().split("\n")]
        ]
        calls = ", ".join(_call(layer, spec) for layer in self.net)
        return ["from torch import Tensor, nn", *text, "", "", f"net = nn.Sequential({calls})"], False

    def encode_lines(self) -> list[str]:
        spec = self.spec
        return [
            "",
            "",
            "def encode(x):",
            f'    """Waves, N x {spec["length"]} at {spec["rate"]} samples a second, in [-1, 1] -> N x {self.dim}."""',
            "    return net(x)",
        ]

    def preparation(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "layout": "N x L, one channel: the mean of all",
            "range": [-1, 1],
            "rate": spec["rate"],
            "length": spec["length"],
            "cut": "the middle of a longer recording; a shorter one in the middle, zeros at both ends",
        }


def _layers(spec: dict[str, Any]) -> list[nn.Module]:
    name = spec["name"]
    mel = [spec[key] for key in ("rate", "window", "hop", "bands", "mean", "std")]
    if own := own_network(name):
        kind, width = own
        if kind == "melconv":
            return [log_mel(*mel), networks.MelConv(width), networks.MeanMax()]
        on_mel = kind == "melgru"
        front = log_mel(*mel) if on_mel else networks.Wave(spec["std"])
        local = networks.Steps(spec["bands"] if on_mel else 1, width, FRAMES if on_mel else PAPER)
        return [front, local, networks.Context(width, min(width, 256)), networks.MeanMax()]
    insist_encoder(name)
    return [log_mel(*mel), networks.Image(_timm(name, spec))]


def _timm(name: str, spec: dict[str, Any]) -> nn.Module:
    import timm  # takes a second, so only when one of its networks is asked for

    try:
        return timm.create_model(name, **_timm_arguments(name, spec))
    except Exception as error:  # whatever a stranger's constructor makes of a size
        size = " x ".join(map(str, _shape(spec)))
        raise UserError(f"{name} cannot be built for spectrograms of {size} bands and frames: {error}") from error


def _timm_arguments(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    fixed = timm_nets.fixed_size(name) is not None
    return {"num_classes": 0, "in_chans": 1} | ({"img_size": _shape(spec)} if fixed else {})


def _shape(spec: dict[str, Any]) -> tuple[int, int]:
    """Bands and frames of a spectrogram."""
    return spec["bands"], 1 + spec["length"] // spec["hop"]


def _call(layer: nn.Module, spec: dict[str, Any]) -> str:
    """The line of Python that builds a layer of an encoder, with any weights."""
    name = type(layer).__name__
    if isinstance(layer, networks.LogMel):
        return f"LogMel({', '.join(str(spec[key]) for key in ('window', 'hop', 'bands', 'mean', 'std'))})"
    if isinstance(layer, networks.MelConv):
        return f"MelConv({layer.width})"
    if isinstance(layer, networks.Steps):
        kernels = FRAMES if layer.channels > 1 else PAPER
        return f"Steps({layer.channels}, {layer.width}, {kernels})"
    if isinstance(layer, networks.Context):
        return f"Context({layer.gru.input_size}, {layer.gru.hidden_size})"
    if isinstance(layer, networks.Image):
        own = ", ".join(f"{key}={value!r}" for key, value in _timm_arguments(spec["name"], spec).items())
        return f"Image(timm.create_model({spec['name']!r}, {own}))"
    return f"{name}({spec['std']})" if isinstance(layer, networks.Wave) else f"{name}()"


def _width(net: nn.Module, spec: dict[str, Any]) -> int:
    """How many numbers the network makes of a recording. Raises ValueError where it takes none of this length."""
    net.eval()
    try:
        with torch.no_grad():
            out = net(torch.zeros(1, spec["length"]))
    except Exception as error:  # whatever a stranger's network makes of a size
        seconds = spec["length"] / spec["rate"]
        raise UserError(
            f"{spec['name']} cannot take recordings of {seconds:g} s ({error}): choose more --seconds"
        ) from error
    finally:
        net.train()
    if not isinstance(out, Tensor) or out.dim() != 2:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{spec['name']} gives {shape} for one recording, wanted one vector; choose another network")
    return out.shape[1]


def from_spec(spec: dict[str, Any]) -> AudioEncoder:
    """The encoder that `AudioEncoder.spec` describes, with random weights."""
    if set(spec) != set(SPEC):
        raise UserError(f"the spec of an audio encoder has the keys {sorted(SPEC)}, got {sorted(spec)}")
    return AudioEncoder(spec)


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
    """Noise for an encoder with that spec: n x length."""
    return torch.randn(n, spec["length"], generator=generator) / 10
