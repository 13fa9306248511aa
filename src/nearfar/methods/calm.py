from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch, cat, select
from nearfar.distributed import local, world
from nearfar.losses.classification import per_token
from nearfar.method import Encoder, Method, Step
from nearfar.ranges import PositiveInt

CONCEPTS = "generate a sentence with the following concepts: {}"
ORDER = "correct the order of the following sentence: {}"
CHOICE = "Which sentence is correct?: options: 1: {} 2: {}"
CORRECTION = "correct the following sentence : {}"
PROMPTS = (CONCEPTS, ORDER, CHOICE, CORRECTION)


class CALM(Method):
    """Writes sentences from their concepts, repairs and recognizes those whose concepts were shuffled.

    An encoder with a decoder learns three tasks from text to text, all by the same weights: to write a sentence of its
    concepts, which are its nouns and verbs; to put them back in order; and to tell the true sentence from the shuffled
    one by writing it again. With p the decoder's probabilities,

        loss = mean over the tasks of -log p(sentence | prompt of the task), per token

    In the joint stage the model first repairs the shuffled sentence, and what it writes is the distractor of the
    choice: the loss is that of the repair plus that of the choice. Nothing is learned through what was written.
    Use it for sentences, to learn how concepts go together, before fine-tuning a model that writes: first --stage span
    where its weights are random, then the mix, then the joint stage, each --from-run the one before. Sentences with
    fewer than two nouns and two verbs teach nothing. The states of the encoder, pooled, are the representation.
    Note: The paper has beam search with 5 beams for distractors, at a price; of the choice this is the form that it
    uses, the second of three. Both options have blanks between all words and signs, so that signs tell nothing.

    Args:
        stage: mix has the three tasks, joint lets the model write its own distractors, span is the span corruption of
            T5, which comes first.
        beams: Of the search by which distractors are written.

    Zhou et al. 2021, "Pre-training Text-to-Text Transformers for Concept-centric Common Sense", arXiv 2011.07956.
    """

    title = "CALM: Pre-training Text-to-Text Transformers for Concept-centric Common Sense (Zhou et al. 2021)"
    family = "predicting instead"
    needs_writer = True
    fewest_views = 4
    most_views = 4

    def __init__(
        self, encoder: Encoder, *, stage: Literal["mix", "joint", "span"] = "mix", beams: PositiveInt = 1
    ) -> None:
        super().__init__(encoder)
        encoder.writer()  # or a ValueError
        self.restorer = encoder.restorer() if stage == "span" else None
        self.stage, self.beams = stage, beams

    def forward(self, batch: Batch) -> Step:
        sentence, *_ = batch.views
        if self.restorer is not None:
            losses = {"span": self.restorer(self.encoder, sentence, self.clock.generator(), self.micro_batch)}
        else:
            losses = self.joint(*batch.views) if self.stage == "joint" else self.mix(*batch.views)
        if self.representations is not None:  # last, as it draws dropout
            with torch.no_grad():
                self.embed(sentence)
        loss = torch.stack(list(losses.values()))
        return Step(
            loss.sum() if self.stage == "joint" else loss.mean(), {name: x.detach() for name, x in losses.items()}
        )

    def mix(self, sentence: Any, words: Any, shuffled: Any, concepts: Any) -> dict[str, Tensor]:
        writer, differ = self.encoder.writer(), differing(words, shuffled)
        return {
            "concepts": self.tell(writer.filled(CONCEPTS, concepts), sentence, writer.bare(concepts).length > 0),
            "order": self.tell(writer.filled(ORDER, shuffled), sentence, differ),
            "choice": self.tell(self.choice(words, shuffled), words, differ),
        }

    def joint(self, sentence: Any, words: Any, shuffled: Any, concepts: Any) -> dict[str, Tensor]:
        writer, differ = self.encoder.writer(), differing(words, shuffled)
        repair = writer.filled(CORRECTION, shuffled)
        return {
            "repair": self.tell(repair, sentence, differ),
            "choice": self.tell(self.choice(words, writer.write(repair, self.beams)), words, differ),
        }

    def choice(self, true: Any, other: Any) -> Any:
        """The prompt of two options, in an order that is drawn for each."""
        n, both = len(true.length), cat([true, other])
        drawn = local(torch.rand(world() * n, generator=self.clock.generator(1))) < 0.5
        first = torch.arange(n).add(n * drawn).to(true.length.device)
        return self.encoder.writer().filled(CHOICE, select(both, first), select(both, (first + n) % (2 * n)))

    def tell(self, source: Any, target: Any, keep: Tensor) -> Tensor:
        """Minus the log-probability of targets per token."""
        lost = self.embed({"source": source, "target": target}, self.encoder.writer())  # pyright: ignore[reportArgumentType]
        return per_token(lost[:, 0], target.length, keep)


def differing(one: Any, other: Any) -> Tensor:
    """Which texts of two views differ: N, bool."""
    both = cat([one, other])
    (a, b), (x, y) = (part.chunk(2) for part in (both.length, both.ids * both.mask))
    return (a != b) | (x != y).any(1)
