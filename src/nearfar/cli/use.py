"""`nearfar embed`, `checkpoints`, `report`, `look` and `export`: what one does with a run."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nearfar.cli.flags import CheckpointArg, ForceArg, OnDevice, parsed
from nearfar.cli.printing import print
from nearfar.errors import UserError, counted
from nearfar.files import insist_free
from nearfar.looking import Look
from nearfar.owner import owned
from nearfar.ranges import Checked, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from nearfar.settings import Which

if TYPE_CHECKING:
    import numpy as np

    from nearfar.data.samples import Samples
    from nearfar.run import Run

RunArg = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="A run directory.")]
DataArg = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="DATA",
        help="A folder of images or videos, a .tar, .parquet or .npz file, a list (.txt, .csv), a table, sentences, "
        "graphs.",
    ),
]

TrustArg = Annotated[
    bool,
    tyro.conf.arg(
        help="Run the files of code that the run names, such as a kind of data of one's own; they must be those that "
        "it was trained with. Without it nothing that a run holds or names is run."
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading(Checked):
    """How images and sentences are read, for commands without a run."""

    text_column: str = ""
    """The column of a table that holds sentences; where it is named, DATA are sentences."""
    dataset: str = ""
    """Of a file or folder that holds several sets, as of graphs, the one to take."""
    pair: str = ""
    """The sides of pairs, such as image=path,text=caption; where it is named, DATA are pairs."""
    sides: tuple[str, ...] = ()
    """What is set of a side of pairs, such as image.size=32."""

    white: NonNegativeFloat | Literal["measured"] = 0.0
    """Of images: the number that is white, where it has more than 8 bits or is a float; 0 as training decides."""
    frames: Literal["auto", "all", "first"] = "auto"
    """Of files of several pictures: all, the first, or auto: all pages of a TIFF, the first frame of others."""
    max_pixels: NonNegativeInt = 0
    """Pixels that an image may have; 0 takes Pillow's limit, 89,478,485."""

    def given(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {f.name: value for f in dataclasses.fields(Reading) if (value := getattr(self, f.name)) != f.default}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfRun(Checked):
    """How data are read by a run."""

    max_pixels: NonNegativeInt = 0
    """Pixels that an image may have; 0 takes the limit of training."""
    text_column: str = ""
    """The column of a table that holds sentences; that of training if none is named."""
    dataset: str = ""
    """Of a file or folder that holds several sets, as of graphs, the one to take; that of training if none is named."""
    pair: str = ""
    """The sides of pairs, such as image=path,text=caption; those of training if none are named."""

    def given(self) -> dict[str, Any]:
        """What `Run.reading` takes."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(OfRun)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed(OfRun, OnDevice):
    """One vector for every sample: a .npz file of features (N x dim, float32), names, labels and class names, by
    --patches the map behind each as well; or a directory of Parquet shards, for `nearfar search`, `duplicates`,
    `outliers` and `curate`. A killed one goes on where it was; ranks that torchrun starts share the shards."""

    run: RunArg
    data: DataArg
    out: str = ""
    """Where they go: a file .npz, or else a directory for shards; RUN/embeddings.npz by default."""
    precision: Literal["float16", "float32"] = "float32"
    """Of the vectors in shards: float16 takes half of the room, and a cosine changes by less than 0.001."""
    shard: PositiveInt = 50_000
    """Samples in a shard."""
    force: ForceArg = False
    patches: bool = False
    """The last map of each image as well, which tells what is where: `maps`, N x H x W x C, float32, a vector for each
    cell, as a detector or a segmenter takes them."""
    half: bool = False
    """Maps as float16: half the file."""
    labels: str = ""
    """Labels to put beside the features, as in training."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are labels all the same."""
    checkpoint: CheckpointArg = "last"
    tower: str = ""
    """Of an encoder with several towers, the one to use, by its name."""
    trust: TrustArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints(OfRun):
    """The checkpoints that were kept (`nearfar train --keep-every EPOCHS`) with scores that take no labels, which were
    measured during training; and the one that --checkpoint auto takes, and why. With DATA that have labels, the kNN
    accuracy of each too."""

    run: RunArg
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help="Labeled data.")] = ""
    labels: str = ""
    """Their labels, as in training."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    tower: str = ""
    """With DATA, of an encoder with several towers, the one to measure, by its name."""
    seed: Seed = 0
    """Of folds and draws."""
    trust: TrustArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(OfRun, OnDevice):
    """One self-contained HTML page about a run, or about two side by side. With --data, that of one run also gets a map
    of embeddings, nearest neighbors, copies and outliers."""

    run: RunArg
    beside: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Another run.")] = ""
    data: str = ""
    """A folder of images, a .tar, .parquet or .npz file, or a list of paths, to draw the map of."""
    labels: str = ""
    """Their labels, as in training."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    trust: TrustArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookAt(OfRun, OnDevice):
    """What a run has learned, to be looked at: one self-contained HTML page. What is not possible says why."""

    run: RunArg
    data: DataArg
    kind: tuple[Look, ...] = ()
    """What to look at, one or several; all by default. kernels: filters of the first layer. features: maps as colors.
    attention: of the heads of a vision transformer. similarity: the parts that make a sample similar to another.
    neighbors, retrieval: what is found, right and wrong. positives: views of a sample that lie apart. negatives: other
    samples that lie near, with their share of the gradient. clusters: what a prototype or cluster holds."""
    out: str = ""
    """Where the page goes; RUN/look.html by default, and then the report shows it too."""
    force: ForceArg = False
    labels: str = ""
    """Labels of the data, as in training."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    checkpoint: CheckpointArg = "last"
    tower: str = ""
    """Of an encoder with several towers, the one to look at, by its name."""
    seed: Seed = 0
    """Of the samples that are shown."""
    trust: TrustArg = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Checked):
    """Weights that load without nearfar: encoder.safetensors, encoder.json, and encoder.py, which loads them and is
    itself run and compared before success is reported. Where the run's own such files are damaged, they are written
    again from its newest checkpoint."""

    run: RunArg
    out: str = ""
    """The folder; RUN/export by default, which is written anew."""
    force: ForceArg = False
    onnx: bool = False
    """An ONNX file too, for any batch size, compared with onnxruntime (pip install 'nearfar[export]')."""
    checkpoint: CheckpointArg = "last"
    tower: str = ""
    """Of an encoder with several towers, the one to export, by its name."""
    trust: TrustArg = False


def opened(path: str, checkpoint: Which, *, tower: str = "", trust: bool = False) -> Run:
    """The run with the checkpoint that was asked for; says which one `auto` is."""
    from nearfar.run import load

    run = load(path, checkpoint, tower=tower, trust=trust)
    if checkpoint == "auto":
        which = f"epoch {run.checkpoint}" if isinstance(run.checkpoint, int) else "last"
        print(f"--checkpoint auto is {which}: `nearfar checkpoints` shows why.")
    return run


def embed(argv: list[str]) -> int:
    """Write the embeddings of some data."""
    asked = parsed(Embed, "embed", argv)
    path = Path(asked.out) if asked.out else Path(asked.run) / "embeddings.npz"
    from nearfar.cli.embeddings import embed_sharded, is_sharded

    if asked.half and not asked.patches:
        raise UserError("--half is of the maps that --patches writes: give both, or neither")
    if is_sharded(asked.out):
        return embed_sharded(asked)
    for name in ("precision", "shard"):
        if getattr(asked, name) != getattr(Embed, name):
            raise UserError(f"--{name} is of shards, and a file is written here: name a directory by --out")
    insist_free(path, force=asked.force)
    run = opened(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust).on(asked.device, asked.batch)
    with nullcontext() if asked.out else owned(run.path):
        return _embed(run, asked, path)


def _embed(run: Run, asked: Embed, path: Path) -> int:
    import numpy as np

    from nearfar.files import replace

    width, *sides = run.map_shape() if asked.patches else (0,)
    images = run.reading(asked.given()).open(
        asked.data, labels=asked.labels or None, label_column=asked.label_column, keep_words=asked.keep_words
    )
    for note in images.notes:
        print(note)
    kind = np.dtype(np.float16 if asked.half else np.float32)
    if asked.patches:
        size = math.prod((len(images), *sides, width, kind.itemsize)) / 2**20
        cells = " x ".join(map(str, (*sides, width)))
        print(f"Maps of {counted(len(images), 'samples')} x {cells} numbers of {kind}: {size:,.1f} MiB.")
    features = run.rows(images).numpy()
    arrays = {"features": features, "names": images.names, "label": images.label}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays, classes=np.array(images.classes, str))
        if asked.patches:
            _append_maps(temporary, run, images, (*sides, width), kind)

    replace(path, write)
    held = [*arrays, "classes", *(["maps"] if asked.patches else [])]
    print(f"{counted(len(features), 'samples')} x {features.shape[1]} numbers ({', '.join(held)}): {path}")
    if images.skipped:
        files = counted(len(images.skipped), "files")
        print(f"{files} could not be read: no row, such as of {images.skipped[0][0]!r}")
    return 0


def _append_maps(path: Path, run: Run, samples: Samples, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """Put `maps` into a .npz file, some at a time, as all may be more than memory holds."""
    import numpy as np

    header = {"descr": kind.str, "fortran_order": False, "shape": (len(samples), *shape)}
    with zipfile.ZipFile(path, "a") as archive, archive.open("maps.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for maps in run.each_map(samples):
            if kind.itemsize == 2 and maps.abs().max() > np.finfo(kind).max:
                raise UserError("maps hold numbers beyond 65,504, the largest of float16: leave out --half")
            file.write(maps.movedim(1, -1).contiguous().numpy().astype(kind).tobytes())


def checkpoints(argv: list[str]) -> int:
    """Show the checkpoints of a run."""
    asked = parsed(Checkpoints, "checkpoints", argv)
    if (asked.labels or asked.label_column) and not asked.data:
        raise UserError("--labels and --label-column are of DATA, and none are given")
    from nearfar import choosing
    from nearfar.cli.demo import print_table
    from nearfar.run import load

    run = load(asked.run, tower=asked.tower, trust=asked.trust).reading(asked.given())
    given = {"labels": asked.labels or None, "label_column": asked.label_column, "seed": asked.seed}
    table = choosing.checkpoints(run, asked.data or None, **given, say=print)
    print_table(table)
    print(table["note"])
    return 0


def report(argv: list[str]) -> int:
    """Write the page of a run."""
    asked = parsed(Report, "report", argv)
    if asked.beside and asked.data:
        raise UserError("--data is drawn for one run, and two are named: give one run, or leave --data out")
    own = {f.name for f in dataclasses.fields(Report) if getattr(asked, f.name) != f.default}
    if not asked.data and (idle := sorted(own - {"run", "beside", "trust"})):
        name = idle[0]
        raise UserError(f"--{name.replace('_', '-')} {getattr(asked, name)!r} is of --data, and none are given")
    if asked.beside:
        from nearfar.report.beside import beside

        print(f"Report: {beside(asked.run, asked.beside, print)}")
        return 0
    from nearfar import looks
    from nearfar.run import load

    run = load(asked.run, trust=asked.trust).reading(asked.given())
    if asked.data:
        run.on(asked.device, asked.batch)
        looks.show(run, asked.data, labels=asked.labels or None, label_column=asked.label_column, say=print)
    print(f"Report: {run.report(print)}")
    return 0


def look(argv: list[str]) -> int:
    """Write a page of what a run has learned."""
    asked = parsed(LookAt, "look", argv)
    if asked.out:
        insist_free(Path(asked.out), force=asked.force)
    from nearfar import looks

    run = opened(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust).reading(asked.given())
    run.on(asked.device, asked.batch)
    own = {"labels": asked.labels or None, "label_column": asked.label_column}
    with nullcontext() if asked.out else owned(run.path):
        content = looks.look(run, asked.data, asked.kind, **own, seed=asked.seed, say=print)
        if not asked.out:
            run.write("look", content)
        page = looks.page(run, content, Path(asked.out or run.path / "look.html"))
    for section in content["sections"]:
        if section["missing"]:
            print(f"{section['kind']} is not possible here: {section['missing']}.")
    made = [section["kind"] for section in content["sections"] if not section["missing"]]
    print(f"Shown: {', '.join(made) or 'nothing'} ({page.stat().st_size / 2**20:.1f} MiB)\nPage: {page}")
    return 0


def export(argv: list[str]) -> int:
    """Export a run's encoder."""
    asked = parsed(Export, "export", argv)
    names = ("encoder.safetensors", "encoder.json", "encoder.py", *(["encoder.onnx"] if asked.onnx else []))
    for name in names if asked.out else ():
        insist_free(Path(asked.out) / name, force=asked.force)
    if asked.onnx:
        from nearfar.export.onnx import insist_onnx

        insist_onnx()
    run = opened(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust)
    done = run.export(asked.out or None, print)
    print(f"Exported and checked: {done.entries} tensors, {done.parameters:,} parameters, {done.dim} numbers a sample.")
    if done.difference is not None:
        print(f"Largest difference between the encoder and what was loaded again, relative: {done.difference:.1e}")
    for file in done.files:
        print(f"  {file}")
    if asked.onnx:
        from nearfar.export.onnx import export_onnx

        path, difference, shapes = export_onnx(run.encoder, done.folder)
        print(f"  {path} (onnxruntime differs by {difference:.1e}, on inputs of {' and '.join(shapes)})")
    if (done.folder / "modules.json") in done.files:
        print("sentence-transformers loads this folder as it is, and so does transformers.")
        return 0
    if not done.loader:
        print("There is no encoder.py: this encoder is not one network of torch or timm that a few lines could build.")
        return 0
    if done.plain:
        print("The weights load strictly into timm's own network. Loading it takes no nearfar:")
    else:
        print("Loading it takes no nearfar:")
    print("\n".join(f"    {line}" for line in done.loader.strip().splitlines()))
    return 0
