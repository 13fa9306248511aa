"""Graphs as a kind of data: opened, and turned into views, as the settings of a run say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import Samples
from nearfar.data.tiles import Thumbnails, Tiles
from nearfar.files import load_function
from nearfar.looking.parts import Parts
from nearfar.looking.similarity import times_input
from nearfar.modalities import kind
from nearfar.modalities.examination import Advice, Copies, Examination
from nearfar.modalities.graph import counts, doctor, settings, sources
from nearfar.modalities.graph import views as graph_views
from nearfar.modalities.graph.encoder import GraphEncoder, example, from_spec
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.inputs import Inputs
from nearfar.modalities.graph.samples import GraphSamples, open_graphs
from nearfar.modalities.graph.settings import Facts, Settings
from nearfar.modalities.graph.sheet import graph_sheet, pictures, scored_pictures
from nearfar.modalities.graph.views import Draws, Views

THUMBNAIL = 96  # pixels


class GraphKind(kind.Kind):
    """Graphs: files of the TU collection, arrays, lists of PyTorch Geometric or networkx."""

    noun = "graphs"
    allows = frozenset()
    unlabeled = "give --labels FILE, a table of index and label"
    raw_name = "WL counts"
    read = kind.Kind.read | {"dataset", "inputs", "both_ways"}
    folds = 10
    Settings = Settings
    Facts = Facts
    entry = settings

    def insist_settings(self, settings: Settings) -> None:
        if ".py" in settings.views:
            load_function(settings.views, "--views")

    def view_count(self, settings: Settings) -> int | None:
        return None if ".py" in settings.views else settings.view_count or 2

    def open(self, data: Any, settings: Settings) -> GraphSamples:
        return open_graphs(
            data,
            dataset=settings.dataset,
            form=settings.inputs,
            both_ways=settings.both_ways,
            labels=settings.named_labels,
            label_column=settings.label_column,
            keep=settings.keep_words,
            every=settings.split == "all",
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
    ) -> GraphSamples:
        named = isinstance(data, str | os.PathLike) and len(settings_parts(data)) > 1
        return open_graphs(
            data,
            dataset=settings.dataset if named else "",
            both_ways=settings.both_ways,
            labels=labels,
            label_column=column,
            keep=settings.keep_words,
            inputs=Inputs.from_spec(facts["encoder"]["inputs"]),
        )

    def given_folds(self, samples: GraphSamples) -> Tensor | None:
        return samples.fold if bool((samples.fold != MISSING).any()) else None

    def facts(self, samples: GraphSamples, settings: Settings) -> dict[str, Any]:
        """How much an encoder is told of a node; a method that asks for channels gets that."""
        told = samples.inputs
        return {"channels": told.width, "edge_channels": told.edge_width}

    def encoder(self, samples: GraphSamples, settings: Settings, facts: dict[str, Any]) -> GraphEncoder:
        return GraphEncoder(settings.encoder, samples.inputs)

    def encoder_from_spec(self, spec: dict[str, Any]) -> GraphEncoder:
        return from_spec(spec)

    def inputs(self, samples: GraphSamples, facts: dict[str, Any]) -> dict[str, Any]:
        return {"inputs": samples.inputs.spec()}

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Graphs:
        return example(spec, n, generator)

    def views(self, samples: GraphSamples, settings: Settings, facts: dict[str, Any]) -> Views:
        """The views that the settings name. A function of the user's own gets the inputs and gives `Views`."""
        if ".py" in settings.views:
            return load_function(settings.views, "--views")(samples.inputs)
        return graph_views.views(
            settings.views,
            strength=settings.strength,
            subgraph=settings.subgraph,
            official=settings.official,
            changed=settings.changed,
            count=settings.view_count,
        )

    def plain(self, encoder: Any) -> Views:
        """Graphs as they are."""
        return graph_views.PLAIN

    def baselines(self, parts: Sequence[GraphSamples], encoder: Any) -> dict[str, Tensor]:
        """What nodes and their neighborhoods are, counted."""
        views = [samples.fetch(torch.arange(len(samples)))[0] for samples in parts]
        return counts.counted(views[0].cat(views[1:]))

    def describe(self, facts: dict[str, Any]) -> str:
        edges = f" and {facts['edge_channels']} of each edge" if facts["edge_channels"] else ""
        return f"of {facts['channels']} numbers of each node{edges}"

    def sheet(self, samples: GraphSamples, views: Views, index: Tensor, draws: Draws) -> Image:
        """Some graphs, and beside each its views."""
        return graph_sheet(samples, views, index, draws)

    def grid(self, samples: GraphSamples, index: Tensor, captions: list[str]) -> Image:
        """Some graphs, each with its caption."""
        return graph_sheet(samples, None, index, None, captions)

    def pictures(self, encoder: Any, view: Graphs) -> Tensor:
        """Drawings, all nodes alike."""
        return scored_pictures(view, torch.zeros(len(view.x)))

    def similar_parts(self, encoder: Any, view: Graphs, target: Tensor) -> list[Parts]:
        """Drawings, each node in a color that says how much it counts."""
        score = times_input(encoder, encoder.looked_at(), view, target).sum(1).clamp(min=0)  # nodes
        return [Parts(picture=one) for one in scored_pictures(view, score)]

    def tiles(self, samples: GraphSamples) -> Tiles:
        def pixels(index: Tensor) -> Tensor:
            made = [np.asarray(picture) for picture in pictures(samples, index, THUMBNAIL)]
            return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)

        return Tiles(
            face=Thumbnails(pixels=pixels),
            names=[f"graph {name}" for name in samples.names],
            label=samples.label,
            classes=samples.classes,
            noun="graph",
            plural="graphs",
            copies="Graphs count as copies where they are alike but for the order of their nodes, as far as is told.",
        )

    def copies(self, samples: GraphSamples) -> Copies:
        return doctor.copies(samples)

    def method_advice(self, samples: Samples) -> Advice:
        """GraphCL, where labels do not say otherwise."""
        advice = super().method_advice(samples)
        return (
            advice if advice.value == "supcon" else Advice("method", "graphcl", "few labels or none: it is for graphs")
        )

    def examine(self, samples: GraphSamples, settings: Settings) -> Examination:
        return doctor.examine(samples, settings.strength)

    def columns(self, data: Any) -> list[str] | None:
        # Which of several sets is asked for is not known here.
        if not isinstance(data, str | os.PathLike) or len(settings_parts(data)) != 1:
            return None
        return sources.names(data)


def settings_parts(data: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """The sets of graphs in a file or folder."""
    from pathlib import Path

    return settings.arrays(Path(data)) or settings.parts(Path(data))
