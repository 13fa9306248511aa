"""What can be set about a training run besides the method's own arguments. Free of torch, so that `--help` is quick.

Each kind of data extends `Settings` by its own, in `modalities/KIND/settings.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, Self

from nearfar.errors import UserError
from nearfar.ranges import (
    AtLeastTwo,
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    ShareBelowOne,
    UnitInterval,
)

SamplerName = Literal["method", "shuffled", "balanced", "aware", "pk"]
Which = Literal["last", "best", "auto"] | PositiveInt
"""Of the checkpoints of a run: the newest, the best by the kNN probe, the one that scores without labels choose, or
that of an epoch."""
OptimizerName = Literal["sgd", "lars", "lars_outside", "larc", "adam", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    """How to train."""

    epochs: PositiveInt = 100
    """Passes over the training samples."""
    batch: AtLeastTwo = 256
    """Samples in a step, on all processes together; never more than there are samples."""
    micro_batch: NonNegativeInt = 0
    """Samples that pass the encoder at a time, where the batch is larger; the loss sees all. 0 finds what fits."""
    encoder: str = ""
    """The network that learns."""
    views: str = ""
    """What random views are made of each sample; `nearfar views DATA` shows them. FILE.py:FUNCTION for your own."""
    view_count: NonNegativeInt = 0
    """Views of each sample; 0 is as many as `views` makes."""
    optimizer: OptimizerName = "sgd"
    """lars has the learning rate in the momentum (SimCLR), lars_outside does not (BYOL, Barlow Twins). adam adds the
    decay to the gradient, adamw takes it off the weights."""
    lr: NonNegativeFloat = 0.06
    """Peak learning rate for a batch of 256; it grows in proportion to the batch."""
    lr_1d: NonNegativeFloat = 0.0
    """The same for biases and norm layers; 0 takes that of the weights."""
    sgd_momentum: ShareBelowOne = 0.9
    """Of SGD and LARS."""
    beta1: ShareBelowOne = 0.9
    """Of Adam and AdamW: what a step keeps of their running mean of the gradient."""
    weight_decay: NonNegativeFloat = 5e-4
    """Decay of the weights."""
    decay_1d: bool = False
    """Decay biases and norm layers too, and let LARS adapt them."""
    warmup: NonNegativeFloat = 10.0
    """Epochs over which the learning rate rises, at most a tenth of all."""
    floor: UnitInterval = 0.0
    """What is left of the learning rate at the end, 0 to 1, after a cosine."""
    layer_decay: PositiveFloat = 1.0
    """By how much each layer of the encoder learns more slowly than the one behind it, for weights that are given; what
    stands behind the encoder has the full rate. 1: all learn alike."""
    frozen: ShareBelowOne = 0.0
    """Share of the steps, from the first on, in which the encoder stands still and only what is behind it learns."""
    start_pull: NonNegativeFloat = 0.0
    """How strongly the encoder is pulled to the weights it begins with, instead of to 0 by its decay (L2-SP); 0 does
    not. 0.01 is weak, 1 strong."""
    clip: NonNegativeFloat = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Arithmetic of the networks; losses and statistics stay in float32."""
    compile: bool = False
    """Compile the encoder (worth it on a GPU)."""
    device: str = "auto"
    """auto takes a GPU on which torch can compute, if there is one; else cpu, cuda, cuda:1."""
    seed: Seed = 0
    """All that is random follows from it."""
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, if you like split (train, val or test) and group; or the word
    folders, or none."""
    label_column: str = ""
    """The column of that file, or of DATA, which holds the labels; by default label, where there is one."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA, null, None, nan or ? that are values all the same: otherwise they say that one is missing."""
    sampler: SamplerName = "method"
    """How the samples of a step are drawn: as the method wants it; shuffled; balanced (every class as likely);
    aware (round after round over the classes); pk (classes with --per-class samples each)."""
    per_class: NonNegativeInt = 0
    """Samples of each class in a step, for pk; 0 as the method wants it."""
    from_run: str = ""
    """A run whose encoder training begins with, instead of random weights."""
    groups: Literal["exclude", "ignore"] = "exclude"
    """exclude: samples of one group (duplicates, frames, patients) are never each other's negatives. ignore: they are
    treated as any others."""
    split: Literal["train", "all"] = "train"
    """Train on the rows of that split where the data name one, or on all rows. Read are train, training; val, valid,
    validation, dev, development; test, testing; in any case. Empty is train."""
    probe_every: Literal["auto"] | NonNegativeInt = "auto"
    """Epochs between two kNN probes, where there are labels; 0 takes none, and holds no labels back for them. auto
    takes some, closer at first, that cost a thirtieth of training at most."""
    stop_if_worse: bool = False
    """End the run after a probe that is seen to be below that before training, from a third of the steps on."""
    save_every: PositiveInt = 1
    """Epochs between two checkpoints."""
    keep: PositiveInt = 2
    """The newest checkpoints that stay, to resume from."""
    keep_every: NonNegativeInt = 0
    """Epochs between checkpoints that stay beside the newest, to choose from later: `nearfar checkpoints RUN` shows
    them with scores that need no labels. 0 keeps none."""
    timeout: PositiveFloat = 30.0
    """Minutes that one of several processes may keep the others waiting before the job ends."""

    @property
    def named_labels(self) -> str | None:
        """The labels that are to be read besides the data; None where those that the data bring are meant, or none."""
        return None if self.labels in ("", "none") else self.labels

    def taken_over(self, given: Collection[str]) -> Self:
        """The settings with those that follow from weights they name. given: what the user has set, which stays."""
        return self

    def with_views(self, views: str, count: int) -> Self:
        """The settings with other views, of which none of the changes is left."""
        return replace(self, views=views, view_count=count)

    def check(self) -> None:
        super().check()
        if self.micro_batch == 1:
            raise UserError("--micro-batch 1: 2 or more samples at a time are needed, or 0 to find what fits")
        if self.keep_every > self.epochs:
            raise UserError(
                f"--keep-every {self.keep_every} would keep no checkpoint of --epochs {self.epochs}: give "
                f"{self.epochs} or less, or 0"
            )


GIVEN = "given:"
"""What the name of views begins with that were given in Python, as an object."""


def check_views(given: str, names: Sequence[str]) -> None:
    """Raise ValueError where views have none of these names, and are no function of the user's own."""
    if given not in names and ".py:" not in given and not given.startswith(GIVEN):
        raise UserError(f"--views {given!r} is none of {', '.join(names)}, nor FILE.py:FUNCTION{meant(given, names)}")


SYNONYMS = {
    **dict.fromkeys(("batch_size", "bs", "batchsize", "batches"), "batch"),
    **dict.fromkeys(("learning_rate", "rate", "base_lr"), "lr"),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
    **dict.fromkeys(("arch", "backbone", "model", "network", "net"), "encoder"),
    **dict.fromkeys(("image_size", "img_size", "input_size", "crop_size", "resolution"), "size"),
    **dict.fromkeys(("temp", "tau"), "temperature"),
    **dict.fromkeys(("optim", "opt"), "optimizer"),
    **dict.fromkeys(("augment", "augmentation", "augmentations", "transform", "transforms"), "views"),
    **dict.fromkeys(("n_views", "num_views", "number_of_views"), "view_count"),
    **dict.fromkeys(("output", "output_dir", "out_dir", "outdir", "save_dir", "dir"), "out"),
    **dict.fromkeys(("label", "labels_file", "targets", "annotations"), "labels"),
    **dict.fromkeys(("target", "target_column", "label_col", "class_column"), "label_column"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("warmup_epochs", "warm_up"), "warmup"),
    **dict.fromkeys(("gradient_clip", "grad_clip", "clip_grad", "max_grad_norm"), "clip"),
    **dict.fromkeys(("gpu", "cuda"), "device"),
    **dict.fromkeys(("init", "checkpoint", "resume_from"), "from_run"),
    **dict.fromkeys(("pretrained", "pretrained_weights", "init_weights"), "weights"),
    **dict.fromkeys(("overwrite", "f"), "force"),
    **dict.fromkeys(("num_samples", "n"), "count"),
    **dict.fromkeys(("shots", "k_shot", "n_shots", "num_shots", "labels_per_class"), "per_class"),
    **dict.fromkeys(("max_length", "max_seq_length", "max_len"), "length"),
    **dict.fromkeys(("text_col", "sentence_column"), "text_column"),
    "momentum": "sgd_momentum",
    "amp": "precision",
    "continue": "resume",
}
"""What other programs call a setting, and what it is called here."""


def meant(given: str, names: Collection[str]) -> str:
    """A question on which of some names may be meant by one that is none of them; "" where none is near."""
    near = [SYNONYMS[given]] if SYNONYMS.get(given) in names else get_close_matches(given, names, 2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a recipe may go by, known once the samples are open; by default typical ones. A kind of data may extend it.

    samples: to train on.  epochs, batch: those that the user asked for; 0 for none.  device: on which is trained.
    own_encoder: whether that is a module of the user's own.
    """

    samples: int = 5000
    epochs: int = 0
    batch: int = 0
    device: str = "cpu"
    own_encoder: bool = False

    def batch_of(self, most: int, least: int = 16) -> int:
        """The batch that was asked for, else a power of 2 of which eight or more make an epoch, from least to most."""
        return self.batch or min(most, max(least, 2 ** int(math.log2(max(self.samples / 8, 2.0)))))

    def per_epoch(self, batch: int) -> int:
        """Steps in an epoch."""
        return max(1, self.samples // min(batch, max(self.samples, 1)))

    def epochs_of(self, steps: int, batch: int, *, fewest: int, most: int) -> int:
        """The epochs that were asked for, else those in which so many steps are made, from fewest to most."""
        return self.epochs or min(most, max(fewest, round(steps / self.per_epoch(batch))))

    def momentum(self, steps: int, *, highest: float) -> float:
        """Of a slow copy in a run of so many steps: it follows within a twentieth of them."""
        return round(min(highest, max(0.9, 1 - 20 / steps)), 4)

    def queue(self, most: int = 1024) -> int:
        """The length of a queue: a quarter of the samples at most, so that few of its keys are of the anchors' own."""
        return min(most, 2 ** max(4, int(math.log2(max(self.samples, 4) / 4))))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings and method arguments that belong together. Flags are laid over both.

    reasons: why, by the name of a setting or argument, for those that a user may wonder about.
    """

    settings: Settings
    method: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
