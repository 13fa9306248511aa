"""Networks of recordings, of torch alone: an export carries their text (see `AudioEncoder.source`)."""

import torch
from torch import Tensor, nn


class LogMel(nn.Module):
    """Waves -> log-mel spectrograms, standardized: N x L -> N x bands x (1 + L // hop).

    log(power + 1e-6) of a Hann window, with zeros beyond both ends, minus `mean`, divided by `std`. Of waves in
    [-1, 1] the floor lies some 60 dB below speech.  window, hop: in samples.
    """

    hann: Tensor
    filters: Tensor

    def __init__(self, window: int, hop: int, bands: int, mean: float, std: float) -> None:
        super().__init__()
        self.window, self.hop, self.mean, self.std = window, hop, mean, std
        self.register_buffer("hann", torch.hann_window(window))
        self.register_buffer("filters", torch.zeros(bands, window // 2 + 1))

    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):  # powers have no place in 16 bits
            return (self.log(wave.float()) - self.mean) / self.std

    def log(self, wave: Tensor) -> Tensor:
        """Before it is standardized."""
        spectrum = torch.stft(
            wave, self.window, self.hop, window=self.hann, center=True, pad_mode="constant", return_complex=True
        )  # N x F x T
        return (self.filters @ torch.view_as_real(spectrum).square().sum(-1) + 1e-6).log()


class Image(nn.Module):
    """A spectrogram as an image of one channel, through a network of images: N x bands x T -> N x dim."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, mel: Tensor) -> Tensor:
        return self.net(mel[:, None])


class MelConv(nn.Module):
    """Four blocks of 3x3 convolution, max-pool, norm and ReLU: N x bands x T -> N x T/8 x dim.

    Each norm is over all of one recording, the first of the spectrogram itself, so that how loud it is matters little;
    norms over a batch cost half of what an untrained network says of speech. Of silence none makes rounding errors
    large. Pooling comes before norm and ReLU, and the first blocks are narrow: quick on a CPU.  width: channels of the
    last.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers, before = [nn.GroupNorm(1, 1, eps=0.1, affine=False)], 1
        for after, pool in ((width // 4, (2, 2)), (width // 2, (2, 2)), (width, (2, 2)), (width, (2, 1))):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(pool, ceil_mode=True)]
            layers += [nn.GroupNorm(1, after, eps=0.1), nn.ReLU()]
            before = after
        self.layers, self.width = nn.Sequential(*layers), width
        for conv in layers[1::4]:  # so that norms begin near the deviation of what they see, and few steps are enough
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, mel: Tensor) -> Tensor:
        return self.layers(mel[:, None]).flatten(1, 2).mT


class Steps(nn.Module):
    """1-D convolutions, each with a norm over the channels of its step and ReLU: N x C x L -> N x T x width.

    Nothing but what a kernel covers reaches a step: no norm looks at other steps, which are to be predicted.
    kernels: (size, stride) of each.
    """

    def __init__(self, channels: int, width: int, kernels: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        sizes = zip((channels, *[width] * (len(kernels) - 1)), kernels, strict=True)
        self.convs = nn.ModuleList(nn.Conv1d(c, width, k, stride=s, padding=(k - s + 1) // 2) for c, (k, s) in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in kernels)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x).mT).relu().mT
        return x.mT


class Wave(nn.Module):
    """Waves, divided by their usual size, as one channel: N x L -> N x 1 x L."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, wave: Tensor) -> Tensor:
        return wave[:, None] / self.std


class Context(nn.Module):
    """What a GRU makes of all steps up to each: N x T x width -> N x T x dim."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, dim, batch_first=True)

    def forward(self, steps: Tensor) -> Tensor:
        return self.gru(steps)[0]


class MeanMax(nn.Module):
    """The mean over all steps, and the largest, side by side: N x T x dim -> N x 2 dim."""

    def forward(self, steps: Tensor) -> Tensor:
        return torch.cat([steps.mean(1), steps.amax(1)], 1)
