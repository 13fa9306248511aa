"""The mel scale, and the layer that makes log-mel spectrograms of it."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.audio.networks import LogMel


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale: linear up to 1000 Hz, which is 15 mel, then 27 mel for each factor of 6.4."""
    return torch.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * (hertz.clamp(min=1000) / 1000).log() / 1.8562979904)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse."""
    return torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel.clamp(min=15) - 15) * 1.8562979904 / 27).exp())


def mel_filters(rate: int, window: int, bands: int) -> Tensor:
    """Triangles of equal area, evenly spaced on Slaney's scale from 0 to rate / 2: bands x (window // 2 + 1).

    librosa's default. Raises ValueError where a band is so narrow that no frequency of the transform falls into it.
    """
    top = hertz_to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    edge = mel_to_hertz(torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top)  # bands + 2
    hertz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    low, middle, high = edge[:-2, None], edge[1:-1, None], edge[2:, None]
    rise, fall = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    filters = torch.minimum(rise, fall).clamp(min=0) * 2 / (high - low)
    if empty := int((filters.sum(1) == 0).sum()):
        raise UserError(
            f"{empty} of {bands} mel bands are narrower than the {rate / window:.0f} Hz that a window of "
            f"{window / rate:g} s tells apart: give fewer --bands or a longer --window"
        )
    return filters.float()


def log_mel(rate: int, window: int, hop: int, bands: int, mean: float = 0.0, std: float = 1.0) -> LogMel:
    """The layer, with its filters. window, hop: in samples. Raises as `mel_filters`."""
    layer = LogMel(window, hop, bands, mean, std)
    layer.filters.copy_(mel_filters(rate, window, bands))
    return layer
