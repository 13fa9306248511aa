"""Several kinds side by side as one: each side is opened, seen and encoded as its own kind has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nearfar.data.labels import LabelColumn
from nearfar.data.samples import Samples
from nearfar.data.tiles import Tiles
from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.modalities import kind
from nearfar.modalities.encoder import from_spec
from nearfar.modalities.examination import Advice
from nearfar.modalities.pair import settings
from nearfar.modalities.pair.samples import PairSamples, columns, open_pairs
from nearfar.modalities.pair.settings import Settings, Side, sides
from nearfar.modalities.pair.views import Draws, PairViews
from nearfar.nn.towers import Joint, Towers


class PairKind(kind.Kind):
    """Pairs, such as an image and its caption: columns of a table, files of one stem, arrays side by side."""

    noun = "pairs"
    allows = frozenset({"mixed"})
    unlabeled = "name their column by --label-column, or give --labels FILE, a table of index and label"
    read = kind.Kind.read | {"pair", "sides", "encoder", "shared"}
    Settings = Settings
    entry = settings

    def insist_settings(self, settings: Settings) -> None:
        own = settings.each()
        for side in sides(settings.pair):
            of = kind.of(side.kind)
            of.insist_encoder(own[side.name].encoder)
            of.insist_settings(own[side.name])
        if settings.shared and any(one != next(iter(own.values())) for one in own.values()):
            raise UserError("--shared: one network takes all sides, and --encoder, --views or --sides set them apart")

    def view_count(self, settings: Settings) -> int | None:
        return settings.view_count

    def several(self, settings: Settings) -> bool:
        return True

    def columns(self, data: Any) -> list[str] | None:
        return columns(data)

    def open(self, data: Any, settings: Settings) -> PairSamples:
        own = settings.each()
        return open_pairs(
            data,
            sides(settings.pair),
            lambda side, held: kind.of(side.kind).open(held, own[side.name]),
            shared=settings.shared,
            labels=settings.named_labels,
            label_column=settings.label_column,
            keep=settings.keep_words,
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
    ) -> PairSamples:
        own, towers = settings.each(), facts["encoder"]["towers"]

        def open_side(side: Side, held: Any) -> Any:
            seen = facts["sides"][side.name] | {"encoder": _spec(towers, side.name)}
            return kind.of(side.kind).open_as(
                held, seen, own[side.name], labels=None, column=LabelColumn(), lenient=lenient
            )

        return open_pairs(
            data,
            sides(settings.pair),
            open_side,
            shared=settings.shared,
            labels=labels,
            label_column=column,
            keep=settings.keep_words,
        )

    def side(self, tower: str, config: dict[str, Any]) -> tuple[kind.Kind, dict[str, Any], dict[str, Any]]:
        lists = {name: tuple(value) for name, value in config["settings"].items() if isinstance(value, list)}
        own = Settings(**config["settings"] | lists).each()[tower]
        spec = _spec(config["made"]["encoder"]["towers"], tower)
        made = config["made"] | config["made"]["sides"][tower] | {"encoder": spec}
        return kind.of(spec["kind"]), dataclasses.asdict(own), made

    def starts(self, settings: Settings) -> dict[str, tuple[str, str]]:
        own = settings.each().items()
        return super().starts(settings) | {name: (one.from_run, one.encoder) for name, one in own if one.from_run}

    def begins_trained(self, settings: Settings, tower: str = "") -> bool:
        own = {side.name: kind.of(side.kind) for side in sides(settings.pair)}
        if tower not in own:
            raise UserError(f"there is no side {tower!r}: the sides are {', '.join(own)}")
        return "" in self.starts(settings) or own[tower].begins_trained(settings.each()[tower])

    def facts(self, samples: PairSamples, settings: Settings) -> dict[str, Any]:
        """What each side keeps, by its name; a method that asks for channels gets 0."""
        return {"channels": 0, "sides": {name: of.facts(*held) for name, (of, *held) in _parts(samples, settings)}}

    def encoder(self, samples: PairSamples, settings: Settings, facts: dict[str, Any]) -> Towers:
        """A network for each side, or one for all, and behind it a layer into the space that they share."""
        towers: dict[str, Encoder | str] = {}
        for name, (of, held, own) in _parts(samples, settings):
            if settings.shared and towers:
                towers[name] = next(iter(towers))
                continue
            encoder = of.encoder(held, own, facts["sides"][name])
            towers[name] = Joint(encoder, settings.space) if settings.space else encoder
        return Towers(towers)

    def encoder_from_spec(self, spec: dict[str, Any]) -> Encoder:
        return from_spec(spec)

    def views(self, samples: PairSamples, settings: Settings, facts: dict[str, Any]) -> PairViews:
        """Those of each side. Raises ValueError where the sides make different numbers of them."""
        made = {name: of.views(held, own, facts["sides"][name]) for name, (of, held, own) in _parts(samples, settings)}
        if len(set(map(len, made.values()))) > 1:
            counts = ", ".join(f"{name} {len(views)}" for name, views in made.items())
            raise UserError(f"the sides of a pair must make as many views each, not {counts}")
        first: dict[Any, str] = {}
        twins = {}
        for side in sides(settings.pair):
            other = first.setdefault((side.kind, side.columns), side.name)
            if other != side.name and side.columns:
                twins[side.name] = other
        return PairViews(made, twins)

    def insist_fitting(self, encoder: Any, views: Any) -> None:
        for name, own in views.sides.items():
            kind.of(encoder.tower(name).spec["kind"]).insist_fitting(encoder.tower(name), own)

    def plain(self, encoder: Any) -> PairViews:
        """The plain view of each side; of several entries the first."""
        return PairViews(
            {name: kind.of(encoder.tower(name).spec["kind"]).plain(encoder.tower(name)) for name in encoder.of}
        )

    def baselines(self, parts: Sequence[PairSamples], encoder: Any) -> dict[str, Tensor]:
        """Those of each side."""
        made = {}
        for name in encoder.of:
            own = [samples.first(name) for samples in parts]
            rows = kind.of(encoder.tower(name).spec["kind"]).baselines(own, encoder.tower(name))
            made |= {f"{name}: {title}": values for title, values in rows.items()}
        return made

    def describe(self, facts: dict[str, Any]) -> str:
        return ""

    def sheet(self, samples: PairSamples, views: PairViews, index: Tensor, draws: Draws) -> Image.Image:
        """The sheet of each side, one below the other."""
        turns = views.turns(samples.fetch(index), draws)
        parts = []
        for k, (name, side) in enumerate(samples.sides.items()):
            rows = torch.tensor([samples.rows[i][k][t] for i, t in zip(index.tolist(), turns[k].tolist(), strict=True)])
            parts.append(samples.kind(name).sheet(side, views.sides[name], rows, draws.sides[k]))
        return _stacked(parts)

    def grid(self, samples: PairSamples, index: Tensor, captions: list[str]) -> Image.Image:
        """The grid of each side, one below the other; captions stand at the first."""
        parts = []
        for k, (name, side) in enumerate(samples.sides.items()):
            rows = torch.tensor([samples.rows[i][k][0] for i in index.tolist()])
            parts.append(samples.kind(name).grid(side, rows, captions if k == 0 else [""] * len(captions)))
        return _stacked(parts)

    def method_advice(self, samples: Samples) -> Advice:
        return Advice("method", "clip", "each side is what the other one says of it")

    def pictures(self, encoder: Any, view: Any) -> Tensor:
        raise UserError("a pair has several sides: name the one to look at by --tower")

    def tiles(self, samples: PairSamples) -> Tiles:
        """The face of the first side that is looked at, or else of the first; the others are told in words."""
        tiles = {name: samples.kind(name).tiles(samples.first(name)) for name in samples.sides}
        shown = next((name for name, one in tiles.items() if not one.face.words(0)), next(iter(tiles)))

        def told(i: int) -> str:
            return " | ".join(one.face.words(i) or one.names[i] for name, one in tiles.items() if name != shown)

        return dataclasses.replace(
            tiles[shown],
            names=[told(i) for i in range(len(samples))],
            label=samples.label,
            classes=samples.classes,
            noun="pair",
            plural="pairs",
            copies="Pairs count as copies where all that they hold is the same.",
        )


def _spec(towers: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The spec of a tower, which may be that of another one."""
    own = towers[name]
    return towers[own] if isinstance(own, str) else own


def _parts(samples: PairSamples, settings: Settings) -> list[tuple[str, tuple[kind.Kind, Any, Any]]]:
    """Of each side, by its name, its kind, its samples and its settings."""
    own = settings.each()
    return [
        (side.name, (kind.of(side.kind), samples.sides[side.name], own[side.name])) for side in sides(settings.pair)
    ]


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet
