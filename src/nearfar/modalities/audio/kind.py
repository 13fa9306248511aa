"""Recordings as a kind of data: opened, and turned into views, as the settings of a run say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.data import tables
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.tiles import Sounds, Tiles
from nearfar.files import load_function, name_text
from nearfar.looking.features import laid_over
from nearfar.looking.parts import Parts
from nearfar.looking.similarity import times_input
from nearfar.modalities import kind
from nearfar.modalities.audio import doctor, settings
from nearfar.modalities.audio import views as audio_views
from nearfar.modalities.audio.encoder import AudioEncoder, example, from_spec
from nearfar.modalities.audio.mel import log_mel
from nearfar.modalities.audio.samples import AudioSamples, blocks, open_audio, view_seconds
from nearfar.modalities.audio.settings import Facts, Settings, own_network
from nearfar.modalities.audio.sheet import recording_grid, spectrograms, view_sheet
from nearfar.modalities.audio.sources import insist_path, listed_names
from nearfar.modalities.audio.views import Draws, Views, plain
from nearfar.modalities.examination import Copies, Examination
from nearfar.ops.explanation import to_one

MEASURED = 500
"""Recordings of which mean and deviation are measured."""

PLAYED_RATE, PLAYED_SECONDS = 8000, 2.0
"""Of what a page plays of a recording, at most: 43 kB of text each."""


class AudioKind(kind.Kind):
    """Recordings: folders, lists and tables of files, arrays, and pieces of these."""

    noun = "recordings"
    raw_name = "mel statistics"
    read = kind.Kind.read | {"rate", "array_rate", "seconds", "cut", "max_bad", "bands", "window", "hop"}
    Settings = Settings
    Facts = Facts
    entry = settings

    def recipe_facts(self, samples: AudioSamples, settings: Settings, given: Mapping[str, Any]) -> Facts:
        seconds = settings.seconds or view_seconds(samples)
        return Facts(seconds=seconds, rate=samples.rate, **self.common_facts(samples, settings, given))

    def insist_settings(self, settings: Settings) -> None:
        self.insist_encoder(settings.encoder)
        if ".py" in settings.views:
            load_function(settings.views, "--views")

    def sequential(self, settings: Settings) -> bool:
        own = own_network(settings.encoder)
        return own is not None and own[0].endswith("gru")

    def view_count(self, settings: Settings) -> int | None:
        return None if ".py" in settings.views else settings.view_count or 2

    def columns(self, data: Any) -> list[str] | None:
        """Of a table those of its header; of a .npz file its other arrays; of all other paths none."""
        if isinstance(data, str | os.PathLike):
            path = Path(data)
            insist_path(path)
            if path.name.lower().endswith(tables.ENDINGS):
                return tables.header(path)
            return None if path.name.lower().endswith(".npz") else []
        return list(map(str, data)) if isinstance(data, Mapping) else None

    def open(self, data: Any, settings: Settings) -> AudioSamples:
        return open_audio(
            data,
            labels=settings.named_labels,
            label_column=settings.label_column,
            keep=settings.keep_words,
            rate=settings.rate,
            array_rate=settings.array_rate,
            cut=settings.cut,
            max_bad=settings.max_bad,
        )

    def open_as(
        self,
        data: Any,
        facts: dict[str, Any],
        settings: Settings,
        *,
        labels: Any,
        column: LabelColumn,
        lenient: bool = False,
    ) -> AudioSamples:
        """At the rate of the run; recordings of any rate can be had so."""
        opened = open_audio(
            data,
            labels=labels,
            label_column=column,
            keep=settings.keep_words,
            rate=facts["rate"],
            array_rate=settings.array_rate,
            cut=settings.cut,
            max_bad=1.0 if lenient else settings.max_bad,
        )
        opened.rate = facts["rate"]  # of samples that were open before
        return opened

    def from_columns(self, columns: Mapping[str, Sequence[Any]], split: Sequence[str], root: Path | None) -> Any:
        """Paths, relative to the table's folder, or arrays."""
        items = super().from_columns(columns, split, root)
        paths = all(isinstance(item, str | os.PathLike) for item in items)
        return [str(Path(root or "", item)) for item in items] if paths else items

    def entries(self, samples: Samples, data: Any) -> list[int]:
        """A piece of a recording is of the entry that names the recording."""
        if not isinstance(data[0], str):
            return [int(name.partition("@")[0]) for name in samples.names]
        place = {name: i for i, name in enumerate(listed_names(data))}
        return [place[name if name in place else name.rpartition("@")[0]] for name in samples.names]

    def is_sample(self, path: str | Path) -> bool:
        return settings.is_recording(path)

    def open_files(self, files: list[str], run: Any) -> AudioSamples:
        """Recordings, named as the files are given; a piece of a file has its place behind the file's name."""
        given = dict(zip(listed_names(files), map(name_text, files), strict=True))
        samples = run.open(files, lenient=True)

        def as_given(name: str) -> str:
            file, mark, piece = (name, "", "") if name in given else name.rpartition("@")
            return given[file] + mark + piece

        return replace(
            samples,
            names=[as_given(name) for name in samples.names],
            skipped=[(as_given(name), why) for name, why in samples.skipped],
        )

    def facts(self, samples: AudioSamples, settings: Settings) -> dict[str, Any]:
        """One channel; samples a second, and samples of a view."""
        seconds = settings.seconds or view_seconds(samples)
        return {"channels": 1, "rate": samples.rate, "length": max(2, round(seconds * samples.rate))}

    def encoder(self, samples: AudioSamples, settings: Settings, facts: dict[str, Any]) -> AudioEncoder:
        """The network that the settings name, behind a spectrogram that is standardized as the data are."""
        spec = {
            "kind": "audio",
            "name": settings.encoder,
            "rate": facts["rate"],
            "length": facts["length"],
            "bands": settings.bands,
            "window": max(8, round(settings.window * facts["rate"])),
            "hop": max(1, round(settings.hop * facts["rate"])),
        }
        mean, std = statistics(samples, spec, wave=(own_network(settings.encoder) or ("",))[0] == "wavegru")
        return AudioEncoder(spec | {"mean": mean, "std": std})

    def encoder_from_spec(self, spec: dict[str, Any]) -> AudioEncoder:
        return from_spec(spec)

    def inputs(self, samples: AudioSamples, facts: dict[str, Any]) -> dict[str, Any]:
        return {"rate": facts["rate"], "length": facts["length"]}

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
        return example(spec, n, generator)

    def views(self, samples: AudioSamples, settings: Settings, facts: dict[str, Any]) -> Views:
        """The views that the settings name; what is mixed in is of these samples.

        A function of the user's own gets the length, the rate and these samples, and returns `Views`.
        """
        if ".py" in settings.views:
            return load_function(settings.views, "--views")(facts["length"], facts["rate"], samples)
        return audio_views.views(settings.views, facts["length"], facts["rate"], samples, settings.view_count)

    def mild_views(self, settings: Settings) -> str:
        return "crop"

    def plain(self, encoder: Any) -> Views:
        """The middle of each recording."""
        return plain(encoder.spec["length"], encoder.spec["rate"])

    def baselines(self, parts: Sequence[AudioSamples], encoder: Any) -> dict[str, Tensor]:
        """Mean and deviation, over the time of each recording, of each band of log-mel: N x 80."""
        rate = encoder.spec["rate"]
        mel = log_mel(rate, max(8, round(0.04 * rate)), max(1, round(0.016 * rate)), 40 if rate >= 8000 else 16)

        def row(wave: Tensor) -> Tensor:
            bands = mel.log(wave[None])[0]  # bands x T
            return torch.cat([bands.mean(1), bands.std(1, correction=0)])

        longest = 60 * rate
        rows = [row(wave) for samples in parts for _, wave in blocks(samples, lambda length: longest)]
        return {self.raw_name: torch.stack(rows)}

    def describe(self, facts: dict[str, Any]) -> str:
        return f"of {facts['length'] / facts['rate']:g} s at {facts['rate']:,} Hz"

    def sheet(self, samples: AudioSamples, views: Views, index: Tensor, draws: Draws) -> Image:
        return view_sheet(samples, views, index, draws)

    def grid(self, samples: AudioSamples, index: Tensor, captions: list[str]) -> Image:
        return recording_grid(samples, index, captions, round(view_seconds(samples) * samples.rate))

    def pictures(self, encoder: Any, view: Tensor) -> Tensor:
        """The spectrogram that the encoder sees, in gray, low tones below."""
        with torch.no_grad():
            mel = encoder.looked_at()(view)  # N x bands x T
        return to_one(mel).flip(1)[:, None].expand(-1, 3, -1, -1)

    def similar_parts(self, encoder: Any, view: Tensor, target: Tensor) -> list[Parts]:
        """What of the spectrogram counts, as colors over it."""
        score = times_input(encoder, encoder.looked_at(), view, target).clamp(min=0)
        smooth = F.avg_pool2d(score[:, None], 3, 1, 1)[:, 0]  # single cells are noise
        return [Parts(picture=one) for one in laid_over(self.pictures(encoder, view), smooth.flip(1))]

    def tiles(self, samples: AudioSamples) -> Tiles:
        """A spectrogram of the middle of each, and its sound to be played."""
        length = round(view_seconds(samples) * samples.rate)
        soft = replace(samples, rate=min(PLAYED_RATE, samples.rate))

        def middle(samples: AudioSamples, index: Tensor, length: int) -> Tensor:
            return plain(length, samples.rate)(*samples.fetch(index))[0]

        played = round(min(PLAYED_SECONDS, view_seconds(samples)) * soft.rate)
        return Tiles(
            face=Sounds(
                pixels=lambda index: spectrograms(middle(samples, index, length), samples.rate, width=96),
                waves=lambda index: middle(soft, index, played),
                rate=soft.rate,
            ),
            names=samples.names,
            label=samples.label,
            classes=samples.classes,
            noun="recording",
            plural="recordings",
            copies="Recordings count as copies also in another format without loss.",
        )

    def copies(self, samples: AudioSamples) -> Copies:
        return doctor.copies(samples)

    def examine(self, samples: AudioSamples, settings: Settings) -> Examination:
        return doctor.examine(samples, settings)

    def root(self, data: Any) -> Path | None:
        if not isinstance(data, str | Path):
            return None
        return Path(data) if Path(data).is_dir() else Path(data).parent


def statistics(samples: AudioSamples, spec: Mapping[str, Any], *, wave: bool) -> tuple[float, float]:
    """Mean and deviation of log-mel, or of the waves, of some recordings, those trained on first."""
    learned = samples.of_split(*LEARNED).nonzero()[:, 0]
    rows = learned if len(learned) else torch.arange(len(samples))
    some = rows[torch.linspace(0, len(rows) - 1, min(MEASURED, len(rows))).long()]
    view = plain(spec["length"], spec["rate"])
    mel = None if wave else log_mel(spec["rate"], spec["window"], spec["hop"], spec["bands"])
    values = [view(*samples.fetch(part))[0] for part in some.split(64)]
    values = torch.cat([part if mel is None else mel.log(part) for part in values])
    std, mean = torch.std_mean(values.double())
    if wave:
        mean = mean * 0
    return round(float(mean), 4), max(round(float(std), 4), 1e-3)
