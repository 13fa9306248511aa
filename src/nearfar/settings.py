"""What can be set about a training run besides the method's own arguments. Free of torch, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

ViewsName = Literal[
    "simclr",
    "moco_v1",
    "moco_v2",
    "byol",
    "barlow",
    "swav",
    "supcon",
    "drawing",
    "sce",
    "cmc",
    "looc",
    "looc_drawing",
    "relicv2",
    "excon",
    "excon_drawing",
    "scarf",
    "corrupted",
    "blanked",
    "mixed",
]
SamplerName = Literal["method", "shuffled", "balanced", "aware", "pk"]
OptimizerName = Literal["sgd", "lars", "lars_outside", "larc", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train."""

    epochs: int = 100
    """Passes over the training samples."""
    batch: int = 256
    """Samples in a step, on all processes together; never more than there are samples."""
    micro_batch: int = 0
    """Samples that pass the encoder at a time, where the batch is larger; the loss sees all. 0 finds what fits."""
    kind: Literal["image", "table"] = "image"
    """What the samples are; recipes know it."""
    encoder: str = "resnet18"
    """For images conv4, or the name of any timm model; for tables mlp, mlp-512x3 or maxout. ycbcr:NAME, or
    0,1+2:NAME with numbers of channels, is such a network for each part of an image's channels, as CMC wants."""
    views: ViewsName = "simclr"
    """What random views are made of each sample; `nearfar views DATA` shows them. The last four are for tables."""
    size: int = 0
    """Side of the views in pixels; 0 takes the images' own up to 64, else 128."""
    view_count: int = 0
    """Views of each sample; 0 is as many as `views` makes."""
    crops: tuple[int, int] = (2, 0)
    """Large and small views of each sample, for views swav and relicv2 only."""
    corruption: float = 0.6
    """Share of a row's columns that take the values of other rows, for views scarf and corrupted."""
    drop: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of a table whose whole numbers are codes."""
    optimizer: OptimizerName = "sgd"
    """lars has the learning rate in the momentum (SimCLR), lars_outside does not (BYOL, Barlow Twins)."""
    lr: float = 0.06
    """Peak learning rate for a batch of 256; it grows in proportion to the batch."""
    lr_1d: float = 0.0
    """The same for biases and norm layers; 0 takes that of the weights."""
    sgd_momentum: float = 0.9
    """Of SGD and LARS."""
    weight_decay: float = 5e-4
    """Decay of the weights."""
    decay_1d: bool = False
    """Decay biases and norm layers too, and let LARS adapt them."""
    warmup: float = 10.0
    """Epochs over which the learning rate rises, at most a tenth of all."""
    floor: float = 0.0
    """What is left of the learning rate at the end, 0 to 1, after a cosine."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Arithmetic of the networks; losses and statistics stay in float32."""
    compile: bool = False
    """Compile the encoder (worth it on a GPU)."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """All that is random follows from it."""
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, if you like split and group; or the word folders, or none."""
    label_column: str = "label"
    """The column of that file which holds the labels."""
    sampler: SamplerName = "method"
    """How the samples of a step are drawn: as the method wants it; shuffled; balanced (every class as likely);
    aware (round after round over the classes); pk (classes with --per-class samples each)."""
    per_class: int = 0
    """Samples of each class in a step, for pk; 0 as the method wants it."""
    from_run: str = ""
    """A run whose encoder training begins with, instead of random weights."""
    groups: Literal["apart", "ignore"] = "apart"
    """Samples of one group (duplicates, frames, patients): never each other's negatives, or as any others."""
    split: Literal["train", "all"] = "train"
    """Train on the rows of that split where the data name one, or on all rows."""
    max_bad: float = 0.05
    """Share of image files that may fail to decode."""
    white: float = 0.0
    """The value that is white in images of 16 bits, such as 4095 for 12 bits in use; 0 takes 65535."""
    probe_every: int = 1
    """Epochs between two kNN probes, where there are labels; 0 takes none, and holds no labels back for them."""
    save_every: int = 1
    """Epochs between two checkpoints."""
    keep: int = 2
    """Checkpoints that stay."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings and method arguments that belong together. Flags are laid over both."""

    settings: Settings
    method: dict[str, Any] = field(default_factory=dict)
