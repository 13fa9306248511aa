"""A method: an `nn.Module` built on an encoder, that reads like its paper.

The law of the house: `forward` reads state, `after_step` writes it. The running statistics of norm layers are the one
exception: they move exactly once a step; a second or recomputed pass runs under `frozen_statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nearfar.batch import Batch, cat, layout, size, split
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.precision import network, networks_alone
from nearfar.ranges import checked_constructor

Context = AbstractContextManager[None]


@dataclass(frozen=True, slots=True)
class Look:
    """All training samples, as a method may see them before an epoch.

    through: what a network makes of the plain view of each, in their order, on every rank: N x whatever; calling the
    look does the same.  label, attribute: N, int64, or MISSING; None where the caller knows none.
    """

    through: Callable[[Callable[[Any], Tensor]], Tensor]
    label: Tensor | None = None
    attribute: Tensor | None = None

    def __call__(self, network: Callable[[Any], Tensor]) -> Tensor:
        return self.through(network)


@dataclass(slots=True)
class Step:
    """What one forward pass gives: the loss to descend, numbers to show, and what `after_step` needs."""

    loss: Tensor
    log: dict[str, Tensor] = field(default_factory=dict)
    carry: Any = None


@dataclass(slots=True)
class Clock:
    """Where training stands. The loop sets it; methods read it.

    step, steps: optimization steps done, and to do in all.  epoch, epochs: likewise.
    seed: of the run; the draws of a step come from (seed, step).
    """

    step: int = 0
    steps: int = 1
    epoch: int = 0
    epochs: int = 1
    seed: int = 0

    @property
    def progress(self) -> float:
        """The share of training that is done, 0 to 1."""
        return self.step / self.steps

    def generator(self, purpose: int = 0) -> torch.Generator:
        """A CPU generator that is the same on every rank and depends on (seed, step, purpose) alone."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, purpose))


def derive_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers; near numbers give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Traced:
    """An encoder as a function of tensors alone, for formats that know nothing else.

    net: of the tensors, in that order.  behind: layers on what it gives, up to N x dim.  axes: by the name of each
    tensor, what its dimensions are called that may be of any size, such as {0: "batch"}.  tensors: of a view.
    views: of some sizes: at the first the file is made, and on the others the two are compared.
    """

    net: nn.Module
    axes: dict[str, dict[int, str]]
    tensors: Callable[[Any], tuple[Tensor, ...]]
    views: Callable[[torch.Generator], list[Any]]
    behind: tuple[nn.Module, ...] = ()


class Encoder(nn.Module):
    """What a method is built on: a module that turns a view of N samples into N x dim.

    dim: the width of the representation.
    spec: in plain JSON types, what builds it again with random weights; "kind" says who knows how.
    notes: sentences for the user.
    A method asks for `dim` and calls it. The rest is for runs, exports, and methods that look into the network.
    """

    dim: int
    spec: dict[str, Any]
    notes: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.notes = {}, []

    def example(self, n: int, generator: torch.Generator | None = None) -> Any:
        """A view of `n` samples of noise, to try it on. Raises NotImplementedError where nobody knows one."""
        raise NotImplementedError(f"{type(self).__name__} has no example of what it takes")

    def maps(self, view: Any) -> list[Tensor]:
        """What the network makes of a view before it is pooled, at a few depths, the largest first: each N x C x H x W,
        of clips N x C x T x H x W. Of the last the representation is made. Raises ValueError where it has none.
        """
        maps = []
        for stage in self._mapping()[:-1]:
            view = stage(view)
            maps.append(view)
        return maps

    @property
    def map_dim(self) -> int:
        """The width of its last map, C. Raises ValueError where it has none."""
        return self._mapping()[-2].dim

    def with_map(self, view: Any) -> tuple[Tensor, Tensor]:
        """The representation, N x dim, and the last map, N x C x H x W, of one pass: what calling it gives, and what
        `maps` gives last.

        Raises ValueError where it has no maps.
        """
        *lower, top = self._mapping()
        for stage in lower:
            view = stage(view)
        return top(view), view

    def _mapping(self) -> list[Stage]:
        try:
            return self.stages()
        except UserError:
            raise UserError(
                f"{self._name} has no maps, which tell what is where: conv4, melconv and the networks of timm have them"
            ) from None

    def looked_at(self) -> nn.Module:
        """The layer at which one asks which parts of a view counted for the representation: what it gives is of these
        parts, such as maps, N x C x H x W, or tokens, N x T x C. It is called once in a forward pass.

        Raises ValueError where there is none.
        """
        raise UserError(f"{self._name} has no layer that tells which parts of a sample counted")

    def stages(self) -> list[Stage]:
        """The encoder in parts, for methods that train them apart: one after the other they are the encoder.

        The first takes a view; all but the last give maps, N x their dim x H x W, and the last makes N x dim of them.
        The modules are the encoder's own, and are looked up anew at each call. Raises ValueError where there are none.
        """
        raise UserError(f"{self._name} cannot be had in stages: use conv4, or a ResNet of timm")

    def streams(self) -> list[Stage]:
        """The networks of which the encoder is made, for methods that contrast what they see: each takes a view.

        What they give, side by side, is what the encoder gives. Raises ValueError where there is one network.
        """
        raise UserError(
            f"{self._name} is one network, and several are wanted: pairs of kinds have them (--pair "
            "image=path,text=caption), or for images an encoder such as ycbcr:resnet18"
        )

    @property
    def sequential(self) -> bool:
        """Whether it sees a sample as a sequence of steps: see `steps`."""
        return False

    def steps(self) -> tuple[Stage, Stage]:
        """The network in front of its last pooling, for methods that predict later steps of a sequence from earlier
        ones: what it makes of each step alone, a view -> N x T x dim; and of all steps up to each, N x T x the dim of
        the former -> N x T x dim.

        The modules are the encoder's own, and are looked up anew at each call. Raises ValueError where there are none.
        """
        raise UserError(f"{self._name} sees no sequence of steps; for recordings melgru and wavegru do")

    def restorer(self) -> nn.Module:
        """A head that hides parts of a view and restores them by the encoder, as masked language modeling does: called
        with the encoder, a view, a generator that all ranks share and the micro-batch, it gives this rank's share of
        the loss.

        Raises ValueError where views have no parts that could be hidden.
        """
        raise UserError(f"{self._name} restores nothing that is hidden: masked language modeling is for sentences")

    def writer(self) -> Any:
        """What writes texts, a `nearfar.nn.writer.Writer`, for methods from text to text: it shares the encoder's
        weights, and is looked up anew at each call. Raises ValueError where there is no decoder."""
        raise UserError(f"{self._name} writes nothing: give an encoder with a decoder, for sentences --encoder t5")

    def captioner(self, reads: int, *, width: int = 128, layers: int = 2) -> nn.Module:
        """A decoder, such as `nearfar.nn.captioner.Captioner`, that writes a view word by word, of rows that it reads.

        reads: their width.  width, layers: of the decoder.
        Raises ValueError where views are no words.
        """
        raise UserError(f"{self._name} sees no words, and what is to be written are sentences")

    def depths(self) -> list[list[nn.Parameter]]:
        """Its parameters by depth, from the input on. Raises ValueError where that is not known."""
        raise UserError(
            f"the layers of {self._name} are in no known order, so that none can learn more slowly than another: leave "
            "--layer-decay at 1"
        )

    @property
    def _name(self) -> str:
        return str(self.spec.get("name", type(self).__name__))

    def network(self) -> nn.Module:
        """The module whose weights are exported; by default all of it."""
        return self

    def source(self) -> tuple[list[str], bool] | None:
        """The lines of Python that build `network()` as `net`, without this library, and whether it is a network of
        timm unchanged. None where it cannot be built without its own code: then weights alone are exported."""
        return None

    def encode_lines(self) -> list[str]:
        """The lines of Python that define `encode` by `net`: from the inputs of N samples to N x dim."""
        return ["", "", "def encode(x):", "    return net(x)"]

    def traced(self) -> Traced:
        """It as a function of tensors alone. Raises ValueError where its views are more than one tensor."""

        def one(view: Any) -> tuple[Tensor]:
            if not isinstance(view, Tensor):
                raise UserError(
                    f"ONNX export is for encoders that take one tensor, and {self._name} takes a "
                    f"{type(view).__name__}: export without --onnx, or one of its towers (--tower NAME)"
                )
            return (view,)

        return Traced(self, {"input": {0: "batch"}}, one, lambda draw: [self.example(n, draw) for n in (3, 1, 5)])

    def publish(self, folder: Path, behind: nn.Linear | None = None) -> list[Path]:
        """Write, to a folder that is there, what other libraries load besides what every export holds: the files.

        behind: a layer behind the encoder, which belongs to it.  They are compared with the encoder first.
        """
        return []

    def preparation(self) -> dict[str, Any]:
        """What a sample must be made before it is encoded, in plain JSON types."""
        return {}


class Stage(Encoder):
    """A part of an encoder: layers one after the other. dim: the width of what they give."""

    def __init__(self, *layers: nn.Module, dim: int) -> None:
        super().__init__()
        self.layers, self.dim = nn.Sequential(*layers), dim

    def forward(self, x: Any) -> Tensor:
        return self.layers(x)


class WithCells(Encoder):
    """An encoder that gives behind its row the cells of its last map, row by row of the map: N x (dim + M C).

    width: C, the numbers of a cell. Raises ValueError where the encoder has no maps.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.dim, self.width = encoder, encoder.dim, encoder.map_dim

    def forward(self, view: Any) -> Tensor:
        row, maps = self.encoder.with_map(view)
        return torch.cat([row, maps.flatten(2).mT.flatten(1)], 1)


class Method(nn.Module):
    """The base of all methods: an encoder, a clock, and the three moments at which a method acts."""

    needs_labels: ClassVar[bool] = False
    """Whether training without a single label would be another method."""
    without_labels: ClassVar[tuple[str, Any]] = "", None
    """An argument and its value with which it does without, if there is one."""
    needs_pixels: ClassVar[bool] = False
    """Whether it takes the views apart as images."""
    needs_frames: ClassVar[bool] = False
    """Whether it takes the views apart as frames of clips, N x T x C x H x W."""
    needs_maps: ClassVar[bool] = False
    """Whether it takes the last map of the encoder: see `Encoder.with_map`."""
    needs_places: ClassVar[bool] = False
    """Whether it must be told where in the sample each view lies: `Batch.places`."""
    takes_steps: ClassVar[bool] = False
    """Whether instead of pixels it takes the steps of a sequence, where the encoder sees one: see `Encoder.steps`."""
    needs_streams: ClassVar[bool] = False
    """Whether it contrasts what several networks of the encoder see: see `Encoder.streams`."""
    takes_turns: ClassVar[bool] = False
    """Whether it has several players, of which a step moves one: see `moving`."""
    generates: ClassVar[bool] = False
    """Whether its module `slow`, a `nearfar.nn.biggan.Generator`, learns to make images."""
    needs_words: ClassVar[bool] = False
    """Whether one of these must see sentences, or what else can be written word by word: see `Encoder.captioner`."""
    needs_writer: ClassVar[bool] = False
    """Whether it learns from text to text: see `Encoder.writer`."""
    locks: ClassVar[str] = ""
    """The argument that names a tower whose weights stay as they are; one with random weights is refused."""
    needs_color: ClassVar[bool] = False
    """Whether images of another number of channels than 3 give it nothing to learn; it refuses them."""
    changes: Literal["", "mixed", "numbers", "images"] = ""
    """What it does with views besides encoding them, if all are fit: mix samples, change numbers, cut images out."""
    fewest_views: int = 1
    """Views of each sample that a step takes, at least."""
    most_views: int = 0
    """The same, at most; 0 for any number."""
    one_size: ClassVar[bool] = False
    """Whether all views must have one size, so that large and small crops are refused."""
    title: ClassVar[str] = ""
    """Full name, authors and year, as people search for it: "SimCLR: A Simple Framework ... (Chen et al. 2020)"."""
    family: ClassVar[str] = "others"
    """Under which heading lists show the method."""
    classifies: ClassVar[bool] = False
    """Whether it has a classifier of its own, by default the module `classifier`: `classify(view)` gives its logits."""
    sampler: str = "shuffled"
    """How the samples of a step are drawn, where the user leaves it to the method: see `nearfar.data.samplers`."""
    per_class: int = 4
    """Samples of each class in a step, where they are drawn by class."""
    margin: float | None = None
    """Of a method with a margin: the loss where all samples are represented alike. One that stays there is told."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Every method's arguments are checked by the ranges that their types declare (see `nearfar.ranges`)."""
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = checked_constructor(cls.__init__)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.clock = Clock()
        self.micro_batch = 0
        self.representations: list[Tensor] | None = None

    @classmethod
    def learns_from_labels(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether it `needs_labels`, with these arguments of its constructor."""
        name, value = cls.without_labels
        return cls.needs_labels and not (name and arguments.get(name) == value)

    def __call__(self, batch: Batch) -> Step:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `forward` gives. Of autocast around it only networks know: `embed`, and what `nn.heads` makes."""
        with networks_alone(batch.index.device):
            return super().__call__(batch)

    @network
    def embed(self, view: Any, encoder: Encoder | None = None) -> Tensor:
        """The representation of a view: N x encoder.dim. Every method goes through here.

        encoder: another than `self.encoder`, such as its slow copy.
        Where `micro_batch` is set and N is larger, so many samples at a time (or a little fewer, in equal parts) pass
        through the network, and once more in the backward pass, which keeps nothing but the views: memory for one
        part, and the gradient of the whole, as the loss sees all rows. Batch norm sees a part at a time.
        Where `representations` is a list, the loop wants to look at what comes out.
        """
        out = self._in_parts(view, self.encoder if encoder is None else encoder)
        if self.representations is not None and encoder is None:
            self.representations.append(out.detach())
        return out

    def embed_cells(self, view: Any, encoder: Encoder | None = None) -> tuple[Tensor, Tensor]:
        """The representation of a view, N x encoder.dim, and the cells of the map that it is made of, row by row of the
        map, N x M x encoder.map_dim, of one pass.

        encoder: another than `self.encoder`.
        """
        whole = WithCells(self.encoder if encoder is None else encoder)
        out = self.embed(view, whole)
        row, cells = out[:, : whole.dim], out[:, whole.dim :].unflatten(1, (-1, whole.width))
        if self.representations is not None and encoder is None:
            self.representations.append(row.detach())
        return row, cells

    def _in_parts(self, view: Any, encoder: Encoder) -> Tensor:
        if not 0 < self.micro_batch < size(view):
            return encoder(view)
        parts = split(view, -(-size(view) // self.micro_batch))
        turn, out = self.clock.step % len(parts), []
        for number, part in enumerate(parts):
            with nullcontext() if number == turn else frozen_statistics(encoder):
                out.append(_recomputed(encoder, part) if torch.is_grad_enabled() else encoder(part))
        return torch.cat(out)

    def embed_all(self, views: Sequence[Any], encoder: Encoder | None = None) -> list[Tensor]:
        """The representation of each view: V of N x encoder.dim.

        encoder: another than `self.encoder`.
        Neighboring views of one layout pass together, and batch norm sees them together; others pass by `each`.
        """
        joined = [cat(list(views)) for _, views in groupby(views, key=layout)]
        h = torch.cat(self.each(partial(self.embed, encoder=encoder), joined))  # VN x encoder.dim
        return list(h.split([size(view) for view in views]))

    def project_all(
        self, views: Sequence[Any], encoder: Encoder | None = None, projector: nn.Module | None = None
    ) -> list[Tensor]:
        """The embedding of each view, unit rows: V of N x dim. The projector sees all views together.

        encoder, projector: others than `self.encoder` and the module `projector`.
        """
        projector = self.get_submodule("projector") if projector is None else projector
        z = normalize(projector(torch.cat(self.embed_all(views, encoder))))  # VN x dim
        return list(z.split([size(view) for view in views]))

    def each(self, network: Callable[[Any], Tensor], views: list[Any]) -> list[Tensor]:
        """`network` of each view, every one normalized by its own batch statistics.

        Running statistics move in one of the passes, that of a different view each step, so that in time they see all.
        """
        turn = self.clock.step % len(views)
        out = []
        for number, view in enumerate(views):
            with nullcontext() if number == turn else frozen_statistics(self):
                out.append(network(view))
        return out

    def embed_streams(self, views: Sequence[Any], streams: Sequence[Stage] | None = None) -> list[Tensor]:
        """What each network of an encoder that has several makes of a view, the next one for each in turn: N x its dim.

        streams: these in the place of the encoder's own; what they give behind their dim is not looked at.
        Of one that stands for several streams running statistics move in one of its passes, another one each step.
        """
        streams, known = self.encoder.streams() if streams is None else streams, []
        keys = [[id(p) for p in stream.parameters()] for stream in streams]
        for a, stream in enumerate(streams):
            turn = self.clock.step % keys.count(keys[a]) == keys[:a].count(keys[a])
            with nullcontext() if turn else frozen_statistics(stream):
                known.append(self.embed(views[a % len(views)], stream))
        if self.representations is not None:
            rows = [row[:, : stream.dim] for row, stream in zip(known, streams, strict=True)]
            self.representations.append(torch.cat(rows, 1).detach())
        return known

    def before_epoch(self, look: Look) -> None:
        """Write state from all training samples (an E-step, a clustering), before the first step of an epoch.

        In eval mode and without gradient. look(network): what `network` makes of every sample's plain view: N x dim;
        look.label: what is known of them.
        """

    def identities(self) -> Tensor | None:
        """What stands for the label where samples are drawn by class, from a buffer: N, or None for the label itself.

        It is asked for when an epoch begins, after `before_epoch`.
        """
        return None

    def classify(self, view: Any) -> Tensor:
        """The logits of a method that `classifies`, by default those of its module `classifier`: N x classes."""
        if not self.classifies:
            raise NotImplementedError(f"{type(self).__name__} has no classifier")
        return self.get_submodule("classifier")(self.embed(view))

    def forward(self, batch: Batch) -> Step:
        raise NotImplementedError

    def moving(self) -> Sequence[nn.Module] | None:
        """Of a method that `takes_turns`, who moves in the step at `clock.step`: parts of it, or None for all.

        The loop holds all else still: no gradient reaches the parameters of other parts, so that the optimizer leaves
        them alone, and their norm layers keep their running statistics.
        """
        return None

    def before_step(self) -> None:
        """Change gradients, between the backward pass and the optimizer."""

    def after_step(self, step: Step) -> None:
        """Write state (EMA, queue, memory), after the optimizer has moved."""

    def pushes_at(self) -> float | None:
        """The temperature of the softmax over other samples by which an anchor is pushed away from them; None where
        none pushes, or not by one temperature. By default that of the method."""
        temperature = getattr(self, "temperature", None)
        return float(temperature) if isinstance(temperature, int | float) else None

    def chance(self, batch: Batch) -> Tensor | float | None:
        """The loss of an encoder that gives the same for every sample: this rank's share, of the batch as it is, with
        its views, labels and groups. None where that is no number to compare with.

        Then all similarities are equal: memories, centroids and prototypes count as filled with what the encoder gives,
        and classifiers give all classes the same logit. Best asked of the loss itself, with `equal_rows`. Nothing is
        written, and no gradient wanted.
        """
        return None


def equal_rows(batch: Batch, dim: int = 0) -> Tensor:
    """The same embedding for each sample, for `Method.chance`: N x 1, of unit length, where rows meet rows alone.

    dim: the width of a memory that they meet; then N x dim zeros, whose products with all that it holds are equal.
    """
    shape = len(batch), dim or 1
    return torch.full(shape, 0.0 if dim else 1.0, device=batch.index.device)


@torch.no_grad()
def start_epoch(method: Method, look: Look) -> None:
    """Let a method look at all samples, as it promises to be called."""
    method.eval()
    method.before_epoch(look)
    method.train()


def _recomputed(encoder: Encoder, part: Any) -> Tensor:
    # A second pass must keep for backward what the first kept, and that depends on whether statistics moved.
    again = _statistics_aside if _tracking(encoder) else frozen_statistics
    twice = partial(_contexts, partial(again, encoder))
    return checkpoint(encoder, part, use_reentrant=False, context_fn=twice)  # pyright: ignore[reportReturnType]


def _contexts(again: Callable[[], Context]) -> tuple[Context, Context]:
    return nullcontext(), again()


def _tracking(module: nn.Module) -> list[nn.Module]:
    return [norm for norm in module.modules() if getattr(norm, "track_running_stats", False)]


@contextmanager
def _statistics_aside(module: nn.Module) -> Iterator[None]:
    """Within: running statistics move as ever; afterward they are what they were before."""
    norms = _tracking(module)
    before = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)


@contextmanager
def frozen_statistics(module: nn.Module, but: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Within: norm layers use the batch as ever, but their running statistics do not move.

    but: parts of the module in which they do.
    """
    kept = {part for whole in but for part in whole.modules()}
    moved = [norm for norm in _tracking(module) if norm not in kept]
    for norm in moved:
        norm.__dict__["track_running_stats"] = False
    try:
        yield
    finally:
        for norm in moved:
            norm.__dict__["track_running_stats"] = True


@contextmanager
def in_turn(method: Method, still: nn.Module | None = None) -> Iterator[None]:
    """Within: all that is not of the method's `moving` stands still, its parameters as if they were not trained.

    still: a part that stands still in any case.
    """
    moving = method.moving()
    if moving is None and still is None:
        yield
        return
    moving = [method] if moving is None else list(moving)
    kept = set() if still is None else set(still.parameters())
    own = {p for part in moving for p in part.parameters()} - kept
    held = [p for p in method.parameters() if p.requires_grad and p not in own]
    for p in held:
        p.requires_grad_(False)
    try:
        with frozen_statistics(method, moving), nullcontext() if still is None else frozen_statistics(still):
            yield
    finally:
        for p in held:
            p.requires_grad_(True)
