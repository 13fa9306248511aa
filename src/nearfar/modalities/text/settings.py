"""What can be set about training on sentences, and which data are sentences. Free of torch."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from nearfar import settings
from nearfar.errors import NotFound, NotInstalled, UserError
from nearfar.modalities.recognize import holds_sentences, is_columns, lists_files
from nearfar.ranges import AtLeastTwo, Range, ShareBelowOne, UnitInterval

VIEWS = ("dropout", "deletion", "reorder", "mask", "crop", "concepts")
"""The names that `nearfar.modalities.text.views.views` knows."""

Pooler = Literal["cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last"]


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "bert"
    """bert (4 layers of 256), bert-LAYERSxWIDTH such as bert-2x128, with random weights; t5 or t5-LAYERSxWIDTH, which
    has a decoder besides; or a folder that transformers or sentence-transformers wrote, which brings weights and
    tokenizer. Nothing is downloaded."""
    views: str = "dropout"
    """What random views are made of each sentence, besides the encoder's dropout: dropout (none: the same sentence
    twice), deletion, reorder, mask, crop, concepts (of CALM), or FILE.py:FUNCTION. `nearfar views DATA` shows them."""
    strength: UnitInterval = 0.0
    """How much of a sentence an edited view changes: the share of words that are deleted, reordered, masked or cut off;
    0 takes the usual one."""
    text_column: str = ""
    """The column of a table that holds the sentences; by default the one called text or sentence."""
    positive_column: str = ""
    """The column with another sentence of the same meaning: the two are the views of a sample."""
    negative_column: str = ""
    """The column with a sentence that is near but means something else: a third view, for methods that take one;
    several are joined by +, such as wrong1+wrong2."""
    concept_column: str = ""
    """For --views concepts: the column with the concepts of each sentence, words with blanks between or a list of
    words; by default the tagger finds them."""
    tagger: str = "rules"
    """For --views concepts: what finds nouns and verbs. rules (of English), spacy:MODEL for a model of spaCy that is
    installed or lies in a folder, or FILE.py:FUNCTION, which makes `Word`s of a text."""
    tokenizer: str = ""
    """A folder with the tokenizer.json to use; by default one is learned from the training sentences, or is that of the
    encoder's folder, or of --from-run."""
    vocabulary: Annotated[int, Range(ge=100)] = 8000
    """Pieces of words that a tokenizer which is learned knows, at most."""
    length: AtLeastTwo = 32
    """Tokens of a sentence that the encoder sees, those at its ends included; the rest is cut off."""
    pooler: Pooler = "avg"
    """What represents a sentence: the first token (cls_before_pooler; cls has a layer behind it that stays), or the
    mean over the tokens of the last layer (avg), of the last two, or of the first and the last."""
    encoder_dropout: ShareBelowOne = 0.1
    """Of a network with random weights, in training."""

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, VIEWS)
        if self.negative_column and not self.positive_column:
            raise UserError(f"--negative-column {self.negative_column!r} takes a --positive-column as well")
        if self.concept_column and (self.positive_column or (self.views in VIEWS and self.views != "concepts")):
            beside = f"--positive-column {self.positive_column!r}" if self.positive_column else f"--views {self.views}"
            raise UserError(f"--concept-column {self.concept_column!r} is for --views concepts, and not with {beside}")
        if self.tokenizer and self.from_run:
            raise UserError(f"--tokenizer {self.tokenizer!r}: the run of --from-run brings its own; leave it out")
        named = [name.casefold() for name in self.columns if name]
        if len(set(named)) < len(named):
            raise UserError(f"two of the columns of sentences are {named[-1]!r}: each must be another one")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of sentences: that of the anchors, "" where none is named, and those that pair with it; or that
        of their concepts."""
        negative = (name.strip() for name in self.negative_column.split("+"))
        return (self.text_column, *filter(None, (self.positive_column, *negative, self.concept_column)))


def insist_installed() -> None:
    """Raise ModuleNotFoundError where a package is missing that sentences take."""
    if missing := [name for name in ("tokenizers", "transformers") if find_spec(name) is None]:
        raise NotInstalled(
            f"sentences take {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'nearfar[text]'"
        )


def sizes(name: str) -> tuple[int, int] | None:
    """Layers and width of a network of ours, from its name; None for any other name."""
    found = re.fullmatch(r"(?:bert|t5)(?:-0*([1-9][0-9]*)x0*([1-9][0-9]*))?", name)
    return (int(found[1] or 4), int(found[2] or 256)) if found else None


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so, FileNotFoundError where a folder lacks files."""
    insist_installed()
    if known := sizes(name):
        if known[1] % 2:
            raise UserError(f"--encoder {name!r}: the width must be even, and a multiple of 64 above 64")
        if known[1] > 64 and known[1] % 64:
            raise UserError(f"--encoder {name!r}: the width must be a multiple of 64, as each head takes 64 of it")
        return
    if not Path(name).is_dir():
        raise UserError(
            f'no encoder of sentences is called "{name}", and there is no such folder: bert (4 layers of 256), '
            "bert-LAYERSxWIDTH such as bert-2x128, t5 or t5-LAYERSxWIDTH, or a folder that transformers or "
            "sentence-transformers wrote. Nothing is downloaded: of a published network, name the folder that holds it"
        )
    home = transformer_folder(Path(name))
    for file, of in (("config.json", "the network's description"), ("model.safetensors", "its weights")):
        if not any(home.glob(file if file == "config.json" else "model*.safetensors*")):
            raise NotFound(f"--encoder {name!r} has no {file} ({of}): give a folder that save_pretrained wrote")
    insist_tokenizer(home)


def writes(name: str) -> bool:
    """Whether the network of that name, or in that folder, is one of encoder and decoder."""
    if sizes(name):
        return name.startswith("t5")
    config = transformer_folder(Path(name)) / "config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("is_encoder_decoder"))


def transformer_folder(folder: Path) -> Path:
    """Where, in a folder of transformers or of sentence-transformers, the network and its tokenizer lie."""
    nested = folder / "0_Transformer"
    return nested if not (folder / "config.json").is_file() and nested.is_dir() else folder


def insist_tokenizer(folder: str | os.PathLike[str]) -> Path:
    """The tokenizer.json of a folder. Raises FileNotFoundError where there is none."""
    insist_installed()
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise NotFound(
            f"{str(folder)!r} has no tokenizer.json: write it with save_pretrained of a fast tokenizer, or name a "
            "folder that has one by --tokenizer"
        )
    return path


def recognizes(data: Any) -> bool:
    """Whether data are sentences, open or not, or a table that may have a column of them: see `holds_sentences`."""
    if isinstance(data, str | os.PathLike) and str(data).lower().endswith(".csv") and Path(data).is_file():
        return not lists_files(Path(data))  # of one column too, which others take for a list of images
    return hasattr(data, "texts") or holds_sentences(data) or is_columns(data)


@dataclass(frozen=True, kw_only=True)
class Facts(settings.Facts):
    """What a recipe for sentences may go by.

    columns: of sentences, those of pairs or triplets among them.  fresh: whether the network has random weights.
    """

    columns: int = 1
    fresh: bool = True


def study_encoder() -> str:
    """The network on which methods are compared, where none is named: one that is quick on a CPU."""
    return "bert-2x128"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "sentences"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement: there are none yet."""
    return ""
