"""What training, evaluation and reports ask of a kind of data. They know nothing else of what the samples are."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from nearfar import modalities, settings
from nearfar.batch import MISSING, to
from nearfar.data.cells import LabelCells, label_cells
from nearfar.data.labels import USUAL, LabelColumn, given_labels, insist_table, split_names
from nearfar.data.pairs import Asked, ScoredPairs
from nearfar.data.samples import Samples
from nearfar.data.source import Views
from nearfar.data.tiles import Cells, Tiles
from nearfar.errors import UserError, counted, printable
from nearfar.files import run_file
from nearfar.looking.features import laid_over
from nearfar.looking.parts import Parts
from nearfar.looking.similarity import as_places, similarity_map
from nearfar.machine import pick_device
from nearfar.method import Encoder
from nearfar.modalities import insist_samples
from nearfar.modalities.examination import (
    Advice,
    Copies,
    Examination,
    Meaning,
    common_examination,
    equal_samples,
    method_advice,
)
from nearfar.ops.explanation import at_rest
from nearfar.settings import Facts


class Kind:
    """A kind of data. A kind of one's own extends it: `open`, `encoder`, `encoder_from_spec`, `views` and `plain` must
    be given; all else has a plain form here.

    name: its folder, or the path by which the user named it.  noun: what the samples are called, in the plural.
    unlabeled: what to do where labels are needed and none are known.  read: the settings by which data are opened.
    raw_name: what a representation is compared with that no network has made.  pixels: whether views are tensors
    N x C x H x W, for methods that cut or mix them as such.  frames: whether they are clips N x T x C x H x W.  allows:
    what methods may do with views besides encoding them, see `nearfar.method.Method.changes`.  folds: of an evaluation,
    where no split is named and the labels allow.  Settings: what can be set, a dataclass that extends
    `nearfar.Settings`.  Facts: what a recipe may go by, a dataclass that extends `nearfar.settings.Facts`.
    """

    name: str = ""
    noun: ClassVar[str] = "samples"
    unlabeled: ClassVar[str] = "give --labels FILE, or --labels folders"
    raw_name: ClassVar[str] = "raw input"
    pixels: ClassVar[bool] = False
    frames: ClassVar[bool] = False
    allows: ClassVar[frozenset[str]] = frozenset({"mixed", "numbers"})
    folds: ClassVar[int] = 5
    read: ClassVar[frozenset[str]] = frozenset({"labels", "label_column", "keep_words", "split"})
    Settings: ClassVar[type[settings.Settings]] = settings.Settings
    Facts: ClassVar[type[Facts]] = Facts
    entry: ClassVar[Any] = None
    """What a kind of the library answers without torch, its file settings.py: see `nearfar.modalities.Entry`. One of
    the user's own answers by the methods here."""

    def recognizes(self, data: Any) -> bool:
        """Whether data are of this kind. It is asked before anything is opened."""
        return bool(self.entry) and self.entry.recognizes(data)

    def recipe_for(self, data: Any) -> str:
        """The recipes of papers that suit the data; "" where the kind has none, and settings are their defaults."""
        return self.entry.recipe_for(data) if self.entry else ""

    def measured_for(self, data: Any) -> str:
        """The recipes that were chosen by measurement for such data; "" where the kind has none."""
        return self.entry.measured_for(data) if self.entry else ""

    def recipe_facts(self, samples: Any, settings: Any, given: Mapping[str, Any]) -> Facts:
        """What a recipe may go by. samples: to train on.  given: what the user set, which a recipe need not find."""
        return self.Facts(**self.common_facts(samples, settings, given))

    def common_facts(self, samples: Any, settings: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that all kinds have."""
        return {
            "samples": len(samples),
            "epochs": given.get("epochs", 0),
            "batch": given.get("batch", 0),
            "device": pick_device(settings.device).type,
        }

    def cheaper(self, settings: Any, samples: Any) -> Advice | None:
        """A setting by which each step costs less, for who has little time; None where there is none to be advised."""

    def study_encoder(self) -> str:
        """The network on which methods are compared, where none is named; "" for that of each method's recipe."""
        return self.entry.study_encoder() if self.entry else ""

    def insist_encoder(self, name: str) -> None:
        """Raise ValueError where no encoder is called so."""
        if self.entry:
            self.entry.insist_encoder(name)

    def insist_settings(self, settings: Any) -> None:
        """Raise ValueError for an encoder, views or a size that cannot be, whatever the data: nothing is open yet."""

    def view_count(self, settings: Any) -> int | None:
        """How many views are made of a sample; None where only the data tell."""
        return None

    def columns(self, data: Any) -> list[str] | None:
        """What the data say of each sample, by name, such as label and split, before anything is read; None where only
        opening tells. Raises FileNotFoundError where there is nothing."""
        return None

    def insist_there(self, data: Any, labels: Any, column: LabelColumn, *, wanted: str = "") -> None:
        """Raise ValueError where data or labels are not there, or have no such column. Nothing is opened for it.

        labels: as `given_labels` takes them; "" or None for those that the data bring.
        wanted: what is said where none are known; "" where none need be.
        """
        if isinstance(data, str | os.PathLike):
            insist_samples(data)
        if isinstance(labels, str | os.PathLike) and str(labels) not in ("", "none", "folders"):
            insist_table(str(labels), column.name)
        columns = self.columns(data)
        none = isinstance(labels, str) and labels == "none"
        if not none and (columns is None or not (labels is None or (isinstance(labels, str) and not labels))):
            return
        there = None if none else column.find(columns or [], f"{str(data)!r}")
        if wanted and there is None:
            raise UserError(wanted)

    def open(self, data: Any, settings: Any) -> Samples:
        """The data of a run, with the labels that its settings name."""
        raise NotImplementedError

    def samples(self, data: Any, settings: Any, made: dict[str, Any] | None = None) -> Samples:
        """What `open` gives, with the labels that the settings name, whatever the kind, and if it was open before.

        made: of a run that goes on, whose data are opened in the form in which it saw them: see `open_as`.
        Raises ValueError where inputs are not finite.
        """
        column = LabelColumn.of(settings.label_column)
        self.insist_there(data, settings.labels, column)
        if made is None:
            opened = self.open(data, settings)
        else:
            opened = self.open_as(data, made, settings, labels=settings.named_labels, column=column)
        opened.insist_finite()
        return self.labeled(
            opened,
            data,
            labels=settings.labels,
            column=column,
            keep=settings.keep_words,
        )

    def labeled(
        self, samples: Samples, data: Any, *, labels: Any, column: LabelColumn, keep: Sequence[str] = ()
    ) -> Samples:
        """The samples with the labels that were asked for: none for "none"; other ones, where they were open before.

        data: what they were opened from.
        Raises ValueError where samples that are open cannot have the labels of that column.
        """
        words = split_names(samples.split, where="the split of the samples")
        samples = dataclasses.replace(samples, split=words, label_column=samples.label_column or column.name)
        if isinstance(labels, str) and labels == "none":
            return samples.without_labels()
        if not isinstance(data, Samples):
            return samples
        if labels is None or (isinstance(labels, str) and not labels):
            unlabeled = not data.label_column and bool((data.label == MISSING).all())
            if column.asked and (unlabeled or data.label_column not in ("", column.name)):
                had = f"with the labels of {data.label_column!r}" if data.label_column else "without labels"
                raise UserError(
                    f"the label column {column.name!r} was asked for, but the samples were opened {had}: name it "
                    "where they are opened"
                )
            return samples
        return self.relabeled(samples, labels, column.name, keep)

    def relabeled(self, samples: Samples, labels: Any, column: str, keep: Sequence[str] = ()) -> Samples:
        """The samples with other labels, given as `given_labels` takes them, and what comes with these."""
        wanted, noun = LabelColumn(column), self.noun.removesuffix("s")
        known = given_labels(labels, samples.names, column=wanted, noun=noun, keep=keep)
        known = known.beside(samples.group, samples.attribute, samples.split)
        return dataclasses.replace(
            samples,
            label=known.label,
            classes=known.classes,
            group=known.group,
            attribute=known.attribute,
            split=known.split,
            notes=[*samples.notes, *known.notes],
            label_column=column,
        )

    def open_as(
        self,
        data: Any,
        facts: dict[str, Any],
        settings: Any,
        *,
        labels: Any,
        column: LabelColumn,
        lenient: bool = False,
    ) -> Samples:
        """Data in the form in which the encoder of a run saw its training data.

        facts: what the run's config.yaml keeps, those of `facts` among them.  settings: of the run.
        labels: a file, the word folders, an array, or None for those that the data bring.
        lenient: leave out what cannot be read, however much it is.
        """
        named = labels is None or isinstance(labels, str | Path)
        asked = column.name if column.asked or column.name != USUAL else ""
        own = dataclasses.replace(settings, labels=str(labels or "") if named else "", label_column=asked)
        samples = self.open(data, own)
        return samples if named else self.relabeled(samples, labels, column.name, settings.keep_words)

    def from_columns(self, columns: Mapping[str, Sequence[Any]], split: Sequence[str], root: Path | None) -> Any:
        """Columns of a table that hold samples of this kind, as data that `open` takes: by default one, as a list.

        columns: by name.  split: of each row.  root: the folder that paths in them are relative to.
        """
        if len(columns) > 1:
            raise UserError(f"{self.noun} are in one column, and {len(columns)} are named: {', '.join(columns)}")
        return list(*columns.values())

    def entries(self, samples: Samples, data: Any) -> list[int]:
        """From which entry of what `from_columns` gave each sample was made: by default its name is the position."""
        return list(map(int, samples.names))

    def beside(self, path: Path) -> list[Any] | None:
        """What a file holds whose neighbors of the same stem hold the other sides of a sample, as entries of a column;
        None where it is no file of this kind."""
        return [str(path)] if self.is_sample(path) else None

    def several(self, settings: Any) -> bool:
        """Whether the encoder that the settings name is several networks, for methods that contrast what they see."""
        return False

    def mapped(self, settings: Any) -> bool:
        """Whether the encoder that the settings name has maps: see `Encoder.maps`."""
        return False

    def sequential(self, settings: Any) -> bool:
        """Whether the encoder that the settings name sees a sample as a sequence of steps: see `Encoder.steps`."""
        return False

    def writes(self, settings: Any) -> bool:
        """Whether the encoder that the settings name has a decoder, for methods from text to text."""
        return False

    def side(self, tower: str, config: dict[str, Any]) -> tuple[Kind, dict[str, Any], dict[str, Any]]:
        """Of a run of this kind the kind of a tower alone, its settings, and what config.yaml keeps of its samples.

        config: of the run.
        """
        spec = config["made"]["encoder"]["towers"][tower]
        return of(spec["kind"]), config["settings"], config["made"] | {"encoder": spec}

    def starts(self, settings: Any) -> dict[str, tuple[str, str]]:
        """The run whose encoder training begins with, and the network that this must be, by the name of a tower; "" is
        the whole encoder."""
        return {"": (settings.from_run, settings.encoder)} if settings.from_run else {}

    def given_weights(self, settings: Any) -> str:
        """Where the weights come from that the encoder, or a part of it, begins with; "" where all are random."""
        return settings.from_run

    def begins_trained(self, settings: Any, tower: str = "") -> bool:
        """Whether a network, "" or a tower by its name, begins with weights that are not random.

        Raises ValueError where there is no such tower.
        """
        if tower:
            raise UserError(f"there is no tower {tower!r}: the encoder is a single network; leave it out")
        return bool(self.given_weights(settings))

    def has_scores(self, data: Any, asked: Asked) -> bool:
        """Whether data are pairs with scores of how alike they are, which this kind can open. Nothing is opened."""
        return False

    def scored_pairs(self, data: Any, asked: Asked, facts: dict[str, Any], settings: Any) -> ScoredPairs:
        """Such pairs, in the form in which the encoder of a run saw its training data.  facts: as for `open_as`."""
        raise UserError(f"pairs of {self.noun} with scores cannot be read")

    def is_sample(self, path: str | Path) -> bool:
        """Whether a file holds one sample, or its pages, and not a set of them."""
        return False

    def said(self, words: str) -> Any:
        """Words as data that `open` takes; None where samples of this kind cannot be given in words."""
        return None

    def open_files(self, files: list[str], run: Any) -> Samples:
        """Several files to name, in the form in which the encoder of a run saw its training data."""
        raise UserError(f"{counted(len(files), 'files')} for a classifier of {self.noun}: give one file or folder")

    def given_folds(self, samples: Any) -> Tensor | None:
        """The fold of each sample in a cross-validation that the data bring, N int64, or MISSING; None without one."""

    def facts(self, samples: Any, settings: Any) -> dict[str, Any]:
        """What config.yaml keeps of the samples, `channels` (numbers of an input, where there are any) among others."""
        return {"channels": 0}

    def encoder(self, samples: Any, settings: Any, facts: dict[str, Any]) -> Encoder:
        """The encoder that the settings name, for these samples, with random weights."""
        raise NotImplementedError

    def encoder_from_spec(self, spec: dict[str, Any]) -> Encoder:
        """The encoder that `Encoder.spec` describes, with random weights."""
        raise NotImplementedError

    def inputs(self, samples: Any, facts: dict[str, Any]) -> dict[str, Any]:
        """What the spec of a user's own module keeps of the views that it takes, in plain JSON types."""
        return {}

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Any:
        """A view of n samples of noise, of the form that `inputs` describes."""
        raise NotImplementedError(f"{type(self).__name__} cannot make a view of noise: give it a method `example`")

    def views(self, samples: Any, settings: Any, facts: dict[str, Any]) -> Views:
        """The views that the settings name."""
        raise NotImplementedError

    def own_views(self, given: Any, samples: Any, settings: Any, facts: dict[str, Any]) -> Views:
        """Views that the user gave as an object, by the name `settings.views`. A kind that takes none has none.

        Raises ValueError where they are no views.
        """
        raise NotImplementedError

    def suited_views(self, samples: Any) -> tuple[str, list[str]]:
        """The name of the views that suit what the samples are, and why, in sentences; "" where that is not measured.

        Labels are not looked at.
        """
        return "", []

    def mild_views(self, settings: Any) -> str:
        """The name of the views of which fine-tuning takes the first."""
        return settings.views

    def insist_fitting(self, encoder: Any, views: Any) -> None:
        """Raise ValueError where the encoder cannot take one of the views."""

    def plain(self, encoder: Any) -> Views:
        """The one view without randomness, for evaluation."""
        raise NotImplementedError

    def raw(self, samples: Any, index: Tensor, encoder: Any) -> Tensor:
        """Rows that no network has made, N x D, with which a representation is compared."""
        return torch.empty(len(index), 0)

    def baselines(self, parts: Sequence[Any], encoder: Any) -> dict[str, Tensor]:
        """Rows that no network has made, by their name, with which a representation is compared: each N x D.

        parts: samples, one after the other.
        """
        blocks = [(samples, index) for samples in parts for index in torch.arange(len(samples)).split(512)]
        return {self.raw_name: torch.cat([self.raw(samples, index, encoder) for samples, index in blocks])}

    def whole_facts(self, encoder: Encoder, side: int) -> dict[str, Any]:
        """What `open_as` is to go by instead of what training did, so that samples can be seen whole.

        side: of the views, in pixels, where the network takes it; else its own.
        Raises ValueError for samples in which nothing has a place, and for encoders without maps.
        """
        raise UserError(f"{self.noun} are not measured by what is where in them: images are")

    def whole(self, samples: Any, encoder: Encoder) -> Whole:
        """Samples that were opened so, seen whole."""
        raise NotImplementedError

    def describe(self, facts: dict[str, Any]) -> str:
        """A word on what the encoder takes, such as "at 32 px"."""
        return ""

    def events(self, samples: Any) -> list[list[int]]:
        """Which samples are recordings of one event, moment by moment: positions, event by event; none by default."""
        return []

    def moments(self, samples: Any, i: int, encoder: Any) -> Any:
        """A view that holds each moment of such a recording, in their order."""
        raise NotImplementedError

    def off_the_shelf(self, network: str, weights: str, samples: Any) -> tuple[nn.Module, Views]:
        """A network with weights from a file, and the plain view that it takes. samples: None while none are open."""
        raise UserError(f"--weights {weights!r}: there are none off the shelf for {self.noun}")

    def sheet(self, samples: Any, views: Any, index: Tensor, draws: Any) -> Image.Image:
        """An image of some samples and their views."""
        return self.grid(samples, index, [""] * len(index))

    def meaning(self, samples: Any, several: dict[str, Any], seed: int) -> Meaning:
        """What is left of the meaning of labeled samples under the changes of several views, by the views' names.

        Raises ValueError where that is not known of the kind, or labels are too few.
        """
        raise UserError(f"which changes keep the meaning is measured of images, and these are {self.noun}")

    def grid(self, samples: Any, index: Tensor, captions: list[str]) -> Image.Image:
        """An image of some samples, with a caption on each: two lines at most."""
        names = [printable(samples.names[i]) for i in index.tolist()]
        lines = [f"{name}  {caption}" for name, caption in zip(names, captions, strict=True)]
        font = ImageFont.load_default(14)
        width = round(max((font.getlength(line) for part in lines for line in part.split("\n")), default=0))
        sheet = Image.new("RGB", (width + 40, 40 * len(lines) + 40), "white")
        for row, line in enumerate(lines):
            ImageDraw.Draw(sheet).text((20, 20 + 40 * row), line, fill=(40, 40, 40), font=font)
        return sheet

    def pictures(self, encoder: Encoder, view: Any) -> Tensor:
        """What a view of an encoder looks like, for pages that show what it makes of it: N x 3 x H x W, in [0, 1].

        Raises ValueError where it is not looked at.
        """
        raise UserError(f"views of {self.noun} are not looked at as pictures")

    def similar_parts(self, encoder: Encoder, view: Any, target: Tensor) -> list[Parts]:
        """Which parts of each sample of a view make it similar to a row of its own: N.  target: N x dim.

        Here maps over pictures: see `nearfar.looking.similarity.similarity_map`.
        Raises ValueError where that is not known of the encoder or the kind.
        """
        shown = self.pictures(encoder, view)
        with at_rest(encoder), torch.no_grad():
            channels, *places = encoder.maps(view)[-1].shape[1:]
        cam = similarity_map(encoder, encoder.looked_at(), view, target, channels=channels)
        return [Parts(picture=one) for one in laid_over(shown, as_places(cam, *places))]

    def picture(self, pixels: Tensor) -> Image.Image:
        """Of a kind of `pixels`: one sample, C x H x W, uint8, as an image that loses nothing."""
        raise UserError(f"{self.noun} are no images")

    def rows(self, rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
        """Of a kind of `pixels`: rows of samples, N x C x H x W, uint8, each under its caption, as an image."""
        raise UserError(f"{self.noun} are no images")

    def copies(self, samples: Any) -> Copies:
        """Which samples are copies, or nearly copies, of one another."""
        return equal_samples(samples)

    def tiles(self, samples: Any) -> Tiles:
        """What reports show of each sample: by default its name alone."""
        return Tiles(
            face=Cells(columns=[], numbers=0, cells=lambda i: [], hidden=0),
            names=samples.names,
            label=samples.label,
            classes=samples.classes,
            noun=self.noun.removesuffix("s"),
            plural=self.noun,
            copies="",
        )

    def cells(self, data: Any, settings: Any, samples: Samples) -> LabelCells:
        """What the table of labels that the settings name says of each sample, as it is written."""
        if settings.labels in ("", "none", "folders"):
            return LabelCells()
        return label_cells(settings.labels, samples.names, column=settings.label_column or USUAL, root=self.root(data))

    def root(self, data: Any) -> Path | None:
        """The folder that names of samples are relative to, where there is one."""
        return None

    def method_advice(self, samples: Samples) -> Advice:
        """The method that suits the samples, and why."""
        return method_advice(samples, self.noun)

    def examine(self, samples: Any, settings: Any) -> Examination:
        """What `nearfar doctor` says of the samples before training."""
        return common_examination(samples, self.copies(samples), self.noun)


def of(name: str) -> Kind:
    """The kind of that name, such as "image"; or the one in a file of the user's own, which is run.

    name: a folder in this room, the path of a .py file, or of a folder with a kind.py in it.
    """
    if not modalities.is_own(name):
        modalities.entry(name)  # or a ValueError that lists the names
        kind = _only(import_module(f"nearfar.modalities.{name}.kind"))
        kind.name = name
        return kind
    path = Path(name)
    return _own(name, (path / "kind.py" if path.is_dir() else path).resolve())


@cache
def _own(name: str, path: Path) -> Kind:
    kind = _only(run_file(path, "--kind"))
    kind.name = name
    return kind


def _only(module: Any) -> Kind:
    """An instance of the one public class of a module that extends Kind."""
    kinds = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Kind) and value.__module__ == module.__name__
    ]
    if len(kinds) != 1:
        raise UserError(f"{module.__file__!r} must hold one class that extends nearfar.Kind, and holds {len(kinds)}")
    return kinds[0]()


class Whole(Protocol):
    """Samples seen whole, as squares in which everything has a place, from the upper left."""

    @property
    def side(self) -> int:
        """Of the squares, in pixels."""
        ...

    def __len__(self) -> int: ...

    def extent(self, i: int, /) -> tuple[int, int]:
        """Rows and columns of its square that sample i takes."""
        ...

    def size(self, i: int, /) -> tuple[int, int]:
        """Width and height of sample i as it is stored, in pixels."""
        ...

    def view(self, index: Tensor, /) -> Tensor:
        """Some of the squares: n x C x side x side, in [0, 1]."""
        ...


@torch.no_grad()
def plain_view(plain: Views, samples: Any, index: Tensor, device: torch.device) -> Any:
    """The plain view of some samples."""
    (view,) = plain(*(to(part, device) for part in samples.fetch(index)))
    return view
