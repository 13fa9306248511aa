"""Views of recordings: waves of one length, cut at random places and changed, N x L, in [-1, 1] or about.

Only what a view hears is read, from its place in the recording. All changes are made to the wave, so that any encoder
sees them, and by uniform numbers that are drawn for the global batch: the views of a sample depend on its row of them
alone, never on the device or on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nearfar.errors import Lost, UserError
from nearfar.modalities.audio.mel import hertz_to_mel, mel_to_hertz
from nearfar.modalities.audio.samples import AudioSamples, Recordings

MASKS = 2
"""Of time and of frequency, each."""

NUMBERS = (
    *("place", "speed", "gain", "noisy", "ratio", "noise", "share", "partner", "partner_place"),
    *(f"{of}_{what}{k}" for of in ("time", "band") for k in range(MASKS) for what in ("width", "place")),
)
"""What is drawn for each view of a sample."""


@dataclass(frozen=True, slots=True)
class View:
    """How one view is made; as it comes it is the middle of a recording, with silence at both ends of a short one.

    crop: cut at a random place; a short recording lies at a random place within the view.
    shift: how far the view may reach beyond the ends of a recording, as a share of its own length.
    speed: as a factor, from and to: pitch changes with it.  gain: in dB, from and to.
    noise: probability of white noise, at so many dB below the recording, from and to: `ratio`.
    mix: share of the power that is another recording's, at most (arXiv 2010.08887, 2103.06695).
    time, band: width of each of `MASKS` masks, at most, as a share of the view's length and of the mel scale: what is
        masked is silent (SpecAugment, arXiv 1904.08779).
    """

    crop: bool = False
    shift: float = 0.0
    speed: tuple[float, float] = (1.0, 1.0)
    gain: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    ratio: tuple[float, float] = (5.0, 30.0)
    mix: float = 0.0
    time: float = 0.0
    band: float = 0.0

    def check(self) -> None:
        """Raise ValueError for a share or a probability that is none, and for ranges upside down."""
        shares = {name: getattr(self, name) for name in ("shift", "noise", "mix", "time", "band")}
        if odd := [f"{name}={value}" for name, value in shares.items() if not 0 <= value <= 1]:
            raise UserError(f"a view of recordings has {odd[0]}; wanted: from 0 to 1")
        ranges = {name: getattr(self, name) for name in ("speed", "gain", "ratio")}
        if odd := [f"{name}={value}" for name, value in ranges.items() if value[0] > value[1]]:
            raise UserError(f"a view of recordings has {odd[0]}; wanted: from the lower to the higher")
        if self.speed[0] <= 0:
            raise UserError(f"a view of recordings has speed={self.speed}; wanted: more than 0")


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance behind the views of N samples: uniform numbers, N x V x len(NUMBERS)."""

    numbers: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws(self.numbers[rows])

    def view(self, v: int) -> dict[str, Tensor]:
        """The numbers of view v by their names: N each."""
        return dict(zip(NUMBERS, self.numbers[:, v].unbind(1), strict=True))


@cache
def _noise() -> Tensor:
    """White noise, from which views take a part at a random place: the same on every device and rank."""
    return torch.randn(1 << 19, generator=torch.Generator().manual_seed(0))


class Views:
    """Turn recordings into V views, N x L each.

    length: L, at `rate` samples a second.  others: the samples that may be mixed in, from the training rows; needed
    where a view mixes.
    """

    def __init__(self, views: Sequence[View], length: int, rate: int, others: AudioSamples | None = None) -> None:
        self.views, self.length, self.rate, self.others = tuple(views), length, rate, others
        for view in self.views:
            view.check()
            if view.mix and others is None:
                raise UserError("a view that mixes recordings is to be given those that it may mix in")

    def __len__(self) -> int:
        return len(self.views)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """The numbers behind the views of `n` samples. The first rows do not depend on `n`."""
        return Draws(torch.rand(n, len(self), len(NUMBERS), generator=generator))

    def read(self, recordings: Recordings, draws: Draws | None = None) -> tuple[Tensor]:
        """What the views are made of, from disk: N x V x 2 x L, each beside what may be mixed into it, or x 1 x L.

        A view of another speed is read longer or shorter, and brought to its length. Raises Lost.
        """
        n = len(recordings.index)
        if draws is None:
            draws = Draws(torch.full((n, len(self), len(NUMBERS)), 0.5))
        parts = [self._crops(recordings, view, draws.view(v)) for v, view in enumerate(self.views)]
        if not any(view.mix for view in self.views):
            return (torch.stack(parts, 1)[:, :, None],)
        mixed = [self._partners(recordings, view, draws.view(v)) for v, view in enumerate(self.views)]
        return (torch.stack([torch.stack(parts, 1), torch.stack(mixed, 1)], 2),)

    @torch.no_grad()
    def __call__(self, given: Recordings | Tensor, draws: Draws | None = None) -> list[Tensor]:
        """given: recordings, or what `read` made of them with the same draws.  draws: not needed if nothing is random.

        Raises ValueError where draws are for another number of samples or views.
        """
        n = len(given) if isinstance(given, Tensor) else len(given.index)
        if draws is not None and draws.numbers.shape[:2] != (n, len(self)):
            raise UserError(
                f"{n} recordings and {len(self)} views need draws for {n} x {len(self)}, got "
                f"{tuple(draws.numbers.shape[:2])}: draw for the global batch and cut with `draws.rows`"
            )
        waves = given if isinstance(given, Tensor) else self.read(given, draws)[0].to(given.device)
        if draws is None:
            return list(waves[:, :, 0].unbind(1))
        return [self._changed(view, waves[:, v], draws.view(v)) for v, view in enumerate(self.views)]

    def _crops(self, recordings: Recordings, view: View, drawn: dict[str, Tensor]) -> Tensor:
        """The part of each recording that a view hears, at its speed: N x L."""
        samples, index = recordings.samples, recordings.index
        low, high = view.speed
        speed = low * (high / low) ** drawn["speed"].double()
        count = (
            (self.length * speed).round().long().clamp(min=2) if low != high else torch.full_like(index, self.length)
        )
        room = samples.lengths[index] - count  # below 0 where a recording is shorter than the view
        reach = (view.shift * count).long()
        first, last = room.clamp(max=0) - reach, room.clamp(min=0) + reach
        start = first + (drawn["place"] * (last - first + 1)).long() if view.crop else room // 2
        crops = samples.crops(index.tolist(), start.tolist(), count.tolist())
        return torch.stack([_stretched(crop, self.length) for crop in crops])

    def _partners(self, recordings: Recordings, view: View, drawn: dict[str, Tensor]) -> Tensor:
        """What may be mixed in: a crop of another recording for each, or silence where that can be read no more."""
        assert self.others is not None
        which = (drawn["partner"] * len(self.others)).long().clamp(max=len(self.others) - 1)
        other = {"place": drawn["partner_place"], "speed": drawn["speed"]}
        asked = Recordings(self.others, which)
        try:
            return self._crops(asked, View(crop=True), other)
        except Lost as lost:
            parts = torch.zeros(len(which), self.length)
            good = torch.tensor([k for k in range(len(which)) if k not in lost.at], dtype=torch.int64)
            if len(good):
                own = {name: numbers[good] for name, numbers in other.items()}
                parts[good] = self._crops(asked.select(good), View(crop=True), own)
            return parts

    def _changed(self, view: View, waves: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """waves: N x 1 or 2 x L."""
        drawn = {name: numbers.to(waves.device)[:, None] for name, numbers in drawn.items()}  # N x 1
        x = waves[:, 0]
        if view.mix:
            x = mixed(x, waves[:, 1], view.mix * drawn["share"])
        if view.noise:
            tape = _noise().to(x.device)
            start = (drawn["noise"] * (len(tape) - self.length)).long()
            noise = tape[start + torch.arange(self.length, device=x.device)]
            x = torch.where(drawn["noisy"] < view.noise, with_noise(x, noise, _between(view.ratio, drawn["ratio"])), x)
        if view.gain != (0.0, 0.0):
            x = x * 10 ** (_between(view.gain, drawn["gain"]) / 20)
        for k in range(MASKS if view.band else 0):
            x = band_masked(x, self.rate, view.band * drawn[f"band_width{k}"], drawn[f"band_place{k}"])
        for k in range(MASKS if view.time else 0):
            x = time_masked(x, view.time * drawn[f"time_width{k}"], drawn[f"time_place{k}"])
        return x


def _between(ends: tuple[float, float], drawn: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * drawn


def _stretched(wave: Tensor, length: int) -> Tensor:
    """A wave brought to another length, linearly."""
    if len(wave) == length:
        return wave
    place = torch.linspace(0, len(wave) - 1, length, dtype=torch.float64)
    left = place.long().clamp(max=len(wave) - 2)
    share = (place - left).float()
    return wave[left] * (1 - share) + wave[left + 1] * share


def _power(wave: Tensor) -> Tensor:
    """The mean square of each: N x L -> N x 1."""
    return wave.square().mean(1, keepdim=True)


def mixed(wave: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Waves with others mixed in, N x L, brought to their power, of which each then has its share: N x 1.

    So the power of two that have nothing in common stays, and a share of 0 changes nothing. What is silent is not
    mixed.
    """
    own, theirs = _power(wave), _power(other)
    scale = (own / theirs.clamp(min=1e-12)).sqrt()
    both = (own > 0) & (theirs > 1e-12)
    return torch.where(both, (1 - share).sqrt() * wave + share.sqrt() * scale * other, wave)


def with_noise(wave: Tensor, noise: Tensor, decibel: Tensor) -> Tensor:
    """Waves with noise, N x L, whose power is so many decibel, N x 1, below theirs."""
    return wave + noise * (_power(wave) / _power(noise).clamp(min=1e-12) / 10 ** (decibel / 10)).sqrt()


def time_masked(wave: Tensor, width: Tensor, place: Tensor) -> Tensor:
    """Waves, N x L, that are silent for a share `width` of their length; where, is told by `place`: N x 1, 0 to 1."""
    at = (torch.arange(wave.shape[1], device=wave.device) + 0.5) / wave.shape[1]
    start = place * (1 - width)
    return wave.masked_fill((at >= start) & (at < start + width), 0)


def band_masked(wave: Tensor, rate: int, width: Tensor, place: Tensor) -> Tensor:
    """Waves, N x L, without the frequencies of a share `width` of the mel scale; where, is told by `place`."""
    top = float(hertz_to_mel(torch.tensor(rate / 2.0)))
    start = place * (1 - width)
    low, high = mel_to_hertz(start * top), mel_to_hertz((start + width) * top)
    size = _quick(wave.shape[1])
    hertz = torch.arange(size // 2 + 1, device=wave.device) * (rate / size)
    spectrum = torch.fft.rfft(wave, size).masked_fill((hertz >= low) & (hertz < high), 0)
    return torch.fft.irfft(spectrum, size)[:, : wave.shape[1]]


@cache
def _quick(length: int) -> int:
    """The next length whose Fourier transform is quick: a product of 2, 3 and 5."""
    exponents = range(math.ceil(math.log2(length)) + 1)
    sizes = (2**a * 3**b * 5**c for a in exponents for b in exponents[:3] for c in exponents[:2])
    return min(size for size in sizes if size >= length)


SPEECH = View(crop=True, shift=0.1, speed=(0.85, 1.18), gain=(-6, 6), noise=0.5, ratio=(5, 30), time=0.15, band=0.25)
NAMED: dict[str, View] = {
    "sound": View(crop=True, shift=0.1, gain=(-6, 6), noise=0.3, ratio=(10, 30)),
    "mixed": View(crop=True, shift=0.1, gain=(-6, 6), noise=0.3, ratio=(5, 30), mix=0.3, time=0.15, band=0.2),
    "speech": SPEECH,
    "masks": View(crop=True, time=0.2, band=0.3),
    "crop": View(crop=True),
}
"""Views by the names that `Settings.views` knows."""


def views(name: str, length: int, rate: int, others: AudioSamples, count: int = 0) -> Views:
    """`count` views of that name, 2 where that is 0."""
    return Views([NAMED[name]] * (count or 2), length, rate, others)


def plain(length: int, rate: int) -> Views:
    """The middle of each recording, with silence at both ends of a short one."""
    return Views([View()], length, rate)
