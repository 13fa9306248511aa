"""What is in a set of recordings."""

from __future__ import annotations

import math
from collections import Counter

import torch

from nearfar.batch import MISSING
from nearfar.data.labels import some
from nearfar.errors import counted
from nearfar.modalities.audio.samples import AudioSamples, view_seconds
from nearfar.modalities.audio.settings import Settings
from nearfar.modalities.examination import (
    Advice,
    Copies,
    Examination,
    common_warnings,
    equal_samples,
    labeled,
    parts,
)

SILENT = 1e-3
"""The largest number of a recording of which nothing can be heard: -60 dB."""

CLIPPED = 1e-3
"""Share of numbers at full scale from which a recording sounds clipped."""

COARSE = ("PCM_S8", "PCM_U8", "ULAW", "ALAW", "uint8", "int8")
"""Forms of 8 bits a number, whose own noise is heard."""

LONG = 10
"""Times the length of a view from which most of a recording is never heard together."""


def examine(samples: AudioSamples, settings: Settings) -> Examination:
    """Look at every recording: at what was found when it was looked through."""
    found = copies(samples)
    seconds = samples.seconds
    low, middle, high = seconds.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    each = [samples.recording(i) for i in range(len(samples))]
    view = settings.seconds or view_seconds(samples)
    facts = [
        ("recordings", f"{len(samples):,}" + parts(samples) + f", {_clock(float(seconds.sum()))} in all"),
        ("length", f"{middle:.2f} s in the middle, {low:.2f} to {high:.2f} for nine in ten"),
        ("heard", f"{view:g} s at a time, at {samples.rate:,} samples a second"),
        ("rates", _counts(Counter(f"{one.rate:,} Hz" for one in each))),
        ("channels", _counts(Counter(str(one.channels) for one in each))),
        ("form", _counts(Counter(one.form for one in each))),
        ("copies", f"{found.exact:,} the same, {found.near:,} the same in another format"),
        ("labeled", labeled(samples)),
    ]
    sound = "no broken files, no silence, no clipping, no copies, no uneven classes"
    examination = Examination(samples=samples, copies=found, noun="recordings", facts=facts, sound=sound)
    said = examination.warnings
    if samples.skipped:
        first = ", ".join(f"{name!r} ({why})" for name, why in samples.skipped[:3])
        more = ", ..." if len(samples.skipped) > 3 else ""
        said.append(
            f"{counted(len(samples.skipped), 'files')} cannot be read: {first}{more}. Training leaves them out."
        )
        share = len(samples.skipped) / (len(samples) + len(samples.skipped))
        if share > Settings().max_bad:
            reason = f"{share:.1%} of the files cannot be read"
            examination.flags.append(Advice("max_bad", math.ceil(100 * share) / 100, reason))
    for names, words in (
        (
            _named(samples, [one.peak < SILENT for one in each]),
            "silent: views of them are all alike, and as negatives "
            "they would be pushed apart from each other. Leave them out",
        ),
        (
            _named(samples, [one.full >= CLIPPED for one in each]),
            "clipped: what is above full scale is lost, and sounds harsh. Record them more softly, if that can be had",
        ),
        (
            _named(samples, [one.form in COARSE for one in each]),
            "of 8 bits a number, and hiss: where that goes with a class, it gives the class away",
        ),
    ):
        if names:
            said.append(
                f"{counted(len(names), 'recordings')} {'is' if len(names) == 1 else 'are'} {words} "
                f"({some(list(map(repr, names)))})."
            )
    said.extend(common_warnings(samples, found, examination.noun))
    if middle > LONG * view and not settings.cut:
        examination.flags.append(
            Advice("cut", round(2 * view, 2), f"recordings of {middle:.0f} s are {len(samples):,} samples uncut")
        )
    return examination


def copies(samples: AudioSamples) -> Copies:
    """Which recordings are the same, and which the same in another format: equal in length, loudness and peak."""
    same = equal_samples(samples).same
    keys = []
    for i, (a, b) in enumerate(zip(samples.first.tolist(), samples.last.tolist(), strict=True)):
        one = samples.recording(i)
        whole = (a, b) == (0, one.frames) and one.peak > SILENT
        keys.append((one.frames, one.rate, f"{one.power:.5e}", f"{one.peak:.4e}") if whole else (i,))
    count = Counter(keys)
    numbers = {key: k for k, key in enumerate(key for key in count if count[key] > 1)}
    alike = torch.tensor([numbers.get(key, MISSING) for key in keys], dtype=torch.int64)
    return Copies(torch.where(alike == MISSING, torch.where(same == MISSING, same, same + len(keys)), alike), same)


def _named(samples: AudioSamples, which: list[bool]) -> list[str]:
    return [name for name, odd in zip(samples.names, which, strict=True) if odd]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" if len(counts) > 1 else name for name, count in counts.most_common(4))


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
