"""Sentences as a kind of data: opened, and turned into views, as the settings of a run say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from nearfar.data import csv, tables
from nearfar.data.labels import LabelColumn, some
from nearfar.data.pairs import COLUMNS, Asked, ScoredPairs, read_scores
from nearfar.data.samples import LEARNED
from nearfar.data.tiles import Excerpts, Tiles
from nearfar.errors import UserError, counted
from nearfar.files import load_function, read_json
from nearfar.looking.parts import Parts, worded
from nearfar.looking.similarity import times_input
from nearfar.methods.calm import PROMPTS
from nearfar.modalities import kind
from nearfar.modalities.examination import Copies, Examination
from nearfar.modalities.text import doctor, settings, words
from nearfar.modalities.text import views as text_views
from nearfar.modalities.text.concepts import eligible
from nearfar.modalities.text.encoder import TextEncoder, example, fresh, from_folder, from_spec
from nearfar.modalities.text.samples import TextSamples, has_lines, open_texts
from nearfar.modalities.text.settings import Facts, Settings, sizes, transformer_folder, writes
from nearfar.modalities.text.sheet import sentence_sheet
from nearfar.modalities.text.tagger import tagger
from nearfar.modalities.text.tokenizer import Tokenizer, Tokens
from nearfar.modalities.text.views import Draws, Views

SPANS = 16
"""Tokens that stand for hidden spans, in a tokenizer that is learned for a network with a decoder."""

TRIED = 1000
"""Sentences in which concepts are looked for before training begins."""

RARE = 100
"""Sentences for each time that such a tokenizer sees the prompts, so that their words are whole tokens."""


class TextKind(kind.Kind):
    """Sentences: lines of a file, a column of a table, a list; or pairs and triplets of them."""

    noun = "sentences"
    allows = frozenset({"mixed"})
    unlabeled = "name their column by --label-column, or give --labels FILE, a table of index and label"
    read = kind.Kind.read | {
        "concept_column",
        *("text_column", "positive_column", "negative_column", "tokenizer", "vocabulary", "encoder", "length"),
    }
    Settings = Settings
    Facts = Facts
    entry = settings

    def recipe_facts(self, samples: TextSamples, settings: Settings, given: Mapping[str, Any]) -> Any:
        fresh = sizes(settings.encoder) is not None and not settings.from_run
        return Facts(columns=samples.sides, fresh=fresh, **self.common_facts(samples, settings, given))

    def insist_settings(self, settings: Settings) -> None:
        self.insist_encoder(settings.encoder)
        if settings.tokenizer:
            Tokenizer.from_folder(settings.tokenizer)
        if ".py" in settings.views:
            load_function(settings.views, "--views")
        if settings.views == "concepts":
            tagger(settings.tagger)

    def view_count(self, settings: Settings) -> int | None:
        if ".py" in settings.views:
            return None
        if settings.views == "concepts":
            return settings.view_count or 4
        return settings.view_count or max(2, len(settings.columns))

    def writes(self, settings: Settings) -> bool:
        return writes(settings.encoder)

    def columns(self, data: Any) -> list[str] | None:
        if isinstance(data, str | os.PathLike):
            path = Path(data)
            return tables.header(path) if path.name.lower().endswith(tables.ENDINGS) else []
        return list(map(str, data)) if isinstance(data, Mapping) else None

    def open(self, data: Any, settings: Settings) -> TextSamples:
        return open_texts(
            data,
            columns=settings.columns,
            labels=settings.named_labels,
            label_column=settings.label_column,
            keep=settings.keep_words,
            concepts=settings.concept_column,
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
    ) -> TextSamples:
        """Where the run learned from a column, or from pairs, lines and sentences without partners are read as well."""
        columns = settings.columns if self._has(data, settings.columns) else settings.columns[:1]
        concepts = settings.concept_column if len(columns) > 1 else ""
        opened = open_texts(
            data,
            columns=("",) if has_lines(data) else columns,
            labels=labels,
            label_column=column,
            keep=settings.keep_words,
            concepts=concepts,
        )
        return replace(opened, tokenizer=Tokenizer.from_spec(facts["encoder"]["tokenizer"]))

    def said(self, words: str) -> list[str]:
        return [words]

    def beside(self, path: Path) -> list[str] | None:
        """The lines of a .txt file: each is a sentence on the same."""
        return csv.read_text(path).splitlines() if path.suffix.lower() == ".txt" else None

    def has_scores(self, data: Any, asked: Asked) -> bool:
        return asked.named or asked.there(self.columns(data) or [])

    def scored_pairs(self, data: Any, asked: Asked, facts: dict[str, Any], settings: Settings) -> ScoredPairs:
        which, score, part, notes = read_scores(data, asked)
        opened = open_texts(data, columns=asked.columns or COLUMNS)
        if lost := sorted(set(which) - set(map(int, opened.names))):
            notes.append(f"{counted(len(lost), 'pairs')} have an empty sentence and are left out ({some(lost)}).")
        place = {int(name): i for i, name in enumerate(opened.names)}
        kept = [k for k, row in enumerate(which) if row in place]
        rows = [place[which[k]] for k in kept]
        opened = replace(opened.subset(rows), tokenizer=Tokenizer.from_spec(facts["encoder"]["tokenizer"]))
        first, second = (replace(opened, texts=[(row[side],) for row in opened.texts], digest=None) for side in (0, 1))
        return ScoredPairs(first=first, second=second, score=score[kept], part=[part[k] for k in kept], notes=notes)

    def _has(self, data: Any, columns: tuple[str, ...]) -> bool:
        there = [name.casefold() for name in self.columns(data) or []]
        return all(name.casefold() in there for name in columns if name)

    def given_weights(self, settings: Settings) -> str:
        return settings.from_run or ("" if sizes(settings.encoder) else settings.encoder)

    def tokenizer(self, samples: TextSamples, settings: Settings) -> Tokenizer:
        """That of the run the samples were opened for, or whose weights the encoder begins with; else that of a folder,
        or one learned from those that may be learned from, which is then kept with them."""
        if samples.tokenizer is None:
            remedy, known = "write it again by nearfar export", {}
            if settings.from_run:
                known = read_json(Path(settings.from_run) / "encoder.json", remedy)["encoder"]
            if "tokenizer" in known:  # by another one tokens would have other numbers than its weights know
                samples.tokenizer = Tokenizer.from_spec(known["tokenizer"])
            elif settings.tokenizer or not sizes(settings.encoder):
                folder = settings.tokenizer or transformer_folder(Path(settings.encoder))
                samples.tokenizer = Tokenizer.from_folder(folder)
            else:
                learned = samples.of_split(*LEARNED).nonzero()[:, 0].tolist() or range(len(samples))
                texts = [text for i in learned for text in samples.texts[i]]
                samples.tokenizer = (
                    Tokenizer.learn([*texts, *PROMPTS * (1 + len(texts) // RARE)], settings.vocabulary, sentinels=SPANS)
                    if self.writes(settings)
                    else Tokenizer.learn(texts, settings.vocabulary)
                )
        return samples.tokenizer

    def facts(self, samples: TextSamples, settings: Settings) -> dict[str, Any]:
        """What describes the input in words; a method that asks for channels gets 0."""
        tokenizer = self.tokenizer(samples, settings)
        return {"channels": 0, "tokens": tokenizer.size, "length": settings.length, "columns": samples.sides}

    def encoder(self, samples: TextSamples, settings: Settings, facts: dict[str, Any]) -> TextEncoder:
        name, tokenizer = settings.encoder, self.tokenizer(samples, settings)
        if sizes(name):
            return fresh(
                name, tokenizer, pooler=settings.pooler, length=settings.length, dropout=settings.encoder_dropout
            )
        return from_folder(name, tokenizer, pooler=settings.pooler, length=settings.length)

    def encoder_from_spec(self, spec: dict[str, Any]) -> TextEncoder:
        return from_spec(spec)

    def inputs(self, samples: TextSamples, facts: dict[str, Any]) -> dict[str, Any]:
        assert samples.tokenizer is not None
        return {"tokenizer": samples.tokenizer.spec(), "length": facts["length"]}

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Any:
        return example(spec, n, generator)

    def views(self, samples: TextSamples, settings: Settings, facts: dict[str, Any]) -> Views:
        """The views that the settings name. A function of the user's own gets tokenizer and length, gives `Views`."""
        tokenizer = self.tokenizer(samples, settings)
        if settings.views == "concepts":
            words = tagger(settings.tagger)
            if not any(eligible(words(row[0])) for row in samples.texts[:TRIED]):
                raise UserError(
                    f"of the first {counted(min(TRIED, len(samples)), 'sentences')} none has two nouns or two verbs "
                    f"that could change places, as --tagger {settings.tagger} finds them: name another --tagger"
                )
        if ".py" in settings.views:
            return load_function(settings.views, "--views")(tokenizer, settings.length)
        return text_views.views(
            settings.views,
            tokenizer,
            length=settings.length,
            strength=settings.strength,
            count=settings.view_count,
            columns=samples.sides,
            tagger=settings.tagger,
        )

    def insist_fitting(self, encoder: Any, views: Any) -> None:
        """Views that edit nothing differ by the encoder's dropout alone."""
        idle = isinstance(views, Views) and views.columns == 1 and not views.random
        rates = [module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)]
        if idle and len(views) > 1 and not any(rates):
            raise UserError(
                "--views dropout: the encoder has no dropout, so that both views of a sentence are the same: give "
                "--encoder-dropout 0.1, or other --views"
            )

    def plain(self, encoder: Any) -> Views:
        """Sentences as they are."""
        return text_views.plain(Tokenizer.from_spec(encoder.spec["tokenizer"]), encoder.spec["length"])

    def baselines(self, parts: Sequence[TextSamples], encoder: Any) -> dict[str, Tensor]:
        """What the words of a sentence tell, counted: a bag of them, and TF-IDF."""
        return words.counted([samples.texts[i][0] for samples in parts for i in range(len(samples))])

    def describe(self, facts: dict[str, Any]) -> str:
        return f"of {facts['length']} tokens at most, of {facts['tokens']:,} that are known"

    def sheet(self, samples: TextSamples, views: Views, index: Tensor, draws: Draws) -> Image:
        """Some sentences, and below each its views, with what was changed in color."""
        return sentence_sheet(samples, views, index, draws)

    def grid(self, samples: TextSamples, index: Tensor, captions: list[str]) -> Image:
        """Some sentences, each with its caption."""
        return sentence_sheet(samples, None, index, None, captions)

    def similar_parts(self, encoder: Any, view: Tokens, target: Tensor) -> list[Parts]:
        """Each token with its part."""
        parts = []
        for k, pieces in enumerate(encoder.tokenizer.pieces(view)):  # one by one, as others of their length would move
            one = Tokens(view.ids[k : k + 1], view.length[k : k + 1])
            score = times_input(encoder, encoder.looked_at(), one, target[k : k + 1]).sum(2)[0]
            parts.append(worded(pieces, score[: len(pieces)]))
        return parts

    def tiles(self, samples: TextSamples) -> Tiles:
        return Tiles(
            face=Excerpts(text=lambda i: " | ".join(samples.texts[i])),
            names=[f"sentence {name}" for name in samples.names],
            label=samples.label,
            classes=samples.classes,
            noun="sentence",
            plural="sentences",
            copies="Sentences count as copies where they say the same but for case, punctuation and white space.",
        )

    def copies(self, samples: TextSamples) -> Copies:
        return doctor.copies(samples)

    def examine(self, samples: TextSamples, settings: Settings) -> Examination:
        return doctor.examine(samples, self.tokenizer(samples, settings), settings.length)
