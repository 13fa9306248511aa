"""`nearfar evaluate`: how well labels, places, pairs can be told from what a run has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from nearfar.cli.demo import print_table
from nearfar.cli.flags import CheckpointArg, OnDevice, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import DataArg, OfRun, RunArg, TrustArg, opened
from nearfar.errors import UserError
from nearfar.ranges import NonNegativeInt, PositiveInt, Seed
from nearfar.suite.names import chosen

if TYPE_CHECKING:
    from nearfar.run import Run

SuiteArg = Annotated[
    tuple[str, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[PART ...]",
        instance_from_str=lambda words: tuple(words) or ("all",),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    ),
]
"""Names of parts; the flag alone means all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(OfRun, OnDevice):
    """How well labels can be told from the representation: kNN, a linear probe and few labels per class, each beside
    raw pixels and the untrained encoder; or, of pairs, how well each side finds the other; or, of calm, how well it
    writes and tells true sentences from shuffled ones. A split named test is tested if the labels name one, else folds
    are: those that the data bring, or seeded ones, five, of graphs ten, or as many as the labels allow."""

    run: RunArg
    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, with optional split and group; or the word folders. A split
    is train, training; val, valid, validation, dev, development; test, testing; in any case. Empty is train."""
    label_column: str = ""
    """The column that holds the labels; that of training if none is named."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are labels all the same."""
    test: str = ""
    """Other data to test on, while DATA are learned from."""
    test_labels: str = ""
    """Their labels, if they bring none."""
    checkpoint: CheckpointArg = "last"
    svm: bool = False
    """A support vector machine with a radial kernel as well, the protocol of papers on graphs; it takes minutes where
    there are thousands of labels."""
    retrieval: bool = False
    """Recall@1 and @5 as well, the protocol of papers on videos: how often the training samples nearest to a test
    sample, by cosine, hold one of its class. With --boxes: how often objects find those of their class."""
    seed: Seed = 0
    """Of folds and draws."""
    pair_columns: tuple[str, ...] = ()
    """Of a table of pairs with scores of how alike they are: the columns of the two sides, by default sentence1 and
    sentence2. Such a table is measured by the correlation of similarity and score."""
    score_column: str = ""
    """The column of the scores, by default score."""
    part_column: str = ""
    """The column of the subset of each pair, over which correlations are averaged as well."""
    tower: str = ""
    """Of an encoder with several towers, the one to evaluate, on data of its kind; without it, and without --labels,
    pairs are measured by how well each side finds the other."""
    attentive: bool = False
    """For an encoder with maps: a probe that looks for what it needs among their tokens, by attention, beside neighbors
    and the linear probe on the representation; it takes a minute or two."""
    align: bool = False
    """Of recordings of one event, such as videos of several cameras: how well the nearest moments of one are those of
    another. No label is used."""
    future: bool = False
    """Of a run of dpc: how often what comes next in a clip is found by what was predicted, among all that some clips
    show. No label is used."""
    masks: str = ""
    """Of images: a folder of masks, of the paths or stems of the images, or the column of DATA that names the mask of
    each. How well the class of each pixel is told from the encoder's maps: mIoU and Dice."""
    instances: bool = False
    """With --masks: numbers above 0 are those of single objects, which are one class."""
    ignore: NonNegativeInt | None = None
    """With --masks: the number of pixels that count for nothing, such as 255."""
    boxes: str = ""
    """Of images: a .csv of path, xmin, ymin, xmax, ymax and label, a folder of VOC's .xml files, or a COCO .json file.
    How well objects are found by a light head on the encoder's maps: AP50 and AP."""
    box_origin: Literal[0, 1] = 0
    """With --boxes, of a .csv: 1 where pixels are counted from 1 and xmax and ymax are inside the box, as in VOC."""
    annotated_only: bool = False
    """With --boxes: leave out images without boxes, which are background otherwise."""
    steps: PositiveInt = 300
    """With --boxes, or with --masks --finetune: steps of training."""
    seeds: PositiveInt = 3
    """With --boxes: how often the head is trained anew."""
    finetune: bool = False
    """With --masks or --boxes: a copy of the encoder is trained with the head."""
    correspondences: bool = False
    """Of images: how often a place is found again in another crop of the same image, by the encoder's maps. No label is
    used."""
    size: PositiveInt = 256
    """With --masks, --boxes or --correspondences: the longer side of an image as the encoder sees it, in pixels."""
    prompts: str = ""
    """With --tower: a table of prompts for the other tower, and of the label that each stands for; samples are named
    by the nearest, and no label is learned from."""
    suite: SuiteArg = ()
    """Everything that can be measured, or the parts that are named: knn, linear, kshot, finetune, clusters, retrieval,
    cameras, groups, longtail, corruptions, attacks, calibration, ood, geometry, cka. What is measured is kept, so that
    a killed suite goes on. Parts that do not apply are listed with the reason."""
    ood: str = ""
    """With --suite: other data, whose samples are to be told from those of DATA."""
    beside: tuple[str, ...] = ()
    """With --suite: other runs, with whose encoders the run's is compared (CKA)."""
    force: Annotated[bool, tyro.conf.arg(help="With --suite: measure anew what was measured before.")] = False
    trust: TrustArg = False

    def check(self) -> None:
        super().check()
        chosen(self.suite)
        given = {f.name for f in dataclasses.fields(Evaluate) if f.default != getattr(self, f.name)}
        if not self.suite:
            if stray := [name for name in ("ood", "beside", "force") if name in given]:
                raise UserError(f"--{stray[0]} goes with --suite")
            return
        shared = {*(f.name for f in dataclasses.fields(OfRun)), *(f.name for f in dataclasses.fields(OnDevice))}
        own = ("run", "data", "labels", "label_column", "keep_words", "checkpoint", "seed", "tower", "trust")
        if other := sorted(given - shared - {*own, "suite", "ood", "beside", "force"}):
            name = other[0].replace("_", "-")
            more = ": name what is tested in a column split" if name.startswith("test") else ": give one"
            raise UserError(f"--suite and --{name} are measured apart{more}")


def evaluate(argv: list[str]) -> int:
    """Evaluate a run and print the table."""
    asked = parsed(Evaluate, "evaluate", argv)
    from nearfar import across
    from nearfar.attentive import attentive
    from nearfar.data.pairs import Asked
    from nearfar.writing import learned_to_write, writing

    _insist_apart(asked)
    run = opened(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust).reading(asked.given())
    run.on(asked.device, asked.batch)
    if asked.suite:
        return _suite(run, asked)
    if table := _of_places(run, asked):
        return _tell(run, table)
    if asked.prompts:
        own = {"labels": asked.labels or None, "label_column": asked.label_column}
        return _tell(run, across.zero_shot(run, asked.data, asked.prompts, **own, seed=asked.seed, say=print))
    if run.sides and not (asked.labels or asked.label_column):
        if flag := next((name for name in ("attentive", "align", "future", "svm", "test") if getattr(asked, name)), ""):
            raise UserError(f"--{flag} is of one side of pairs, by --tower {' or '.join(run.sides)}, or of --labels")
        return _tell(run, across.retrieval(run, asked.data, seed=asked.seed, say=print))
    if asked.attentive:
        if asked.test:
            raise UserError(
                f"--attentive measures splits of DATA, and not --test {asked.test!r}: name one in the labels"
            )
        own = {"labels": asked.labels or None, "label_column": asked.label_column, "keep_words": asked.keep_words}
        return _tell(run, attentive(run, asked.data, **own, seed=asked.seed, say=print))
    if asked.align:
        return _tell(run, across.align(run, asked.data, seed=asked.seed, say=print))
    if asked.future:
        return _tell(run, across.future(run, asked.data, seed=asked.seed, say=print))
    pairs = {name: getattr(asked, name) for name in ("pair_columns", "score_column", "part_column")}
    if run.kind.has_scores(asked.data, Asked(*pairs.values())):
        table = across.evaluate_pairs(run, asked.data, **pairs, seed=asked.seed, say=print)
        return _tell(run, table)
    if named := [name for name, value in pairs.items() if value]:
        flag = named[0].replace("_", "-")
        raise UserError(f"--{flag}: {asked.data!r} holds no pairs of {run.kind.noun} with scores that can be read")
    if learned_to_write(run) and not (asked.labels or asked.label_column or asked.test):
        return _tell(run, writing(run, asked.data, seed=asked.seed, say=print))
    table = run.evaluate(
        asked.data,
        labels=asked.labels or None,
        label_column=asked.label_column,
        test=asked.test or None,
        test_labels=asked.test_labels or None,
        keep_words=asked.keep_words,
        svm=asked.svm,
        retrieval=asked.retrieval,
        seed=asked.seed,
        say=print,
    )
    return _tell(run, table)


def _suite(run: Run, asked: Evaluate) -> int:
    from nearfar.cli.suite import print_suite
    from nearfar.suite.suite import suite

    table = suite(
        run,
        asked.data,
        parts=asked.suite,
        labels=asked.labels or None,
        label_column=asked.label_column,
        keep_words=asked.keep_words,
        ood=asked.ood or None,
        beside=asked.beside,
        force=asked.force,
        seed=asked.seed,
        say=print,
    )
    return _tell(run, table, print_suite)


MEASURES: dict[str, tuple[str, ...]] = {
    "prompts": ("labels", "label_column"),
    "attentive": ("labels", "label_column", "keep_words", "test"),
    "align": (),
    "future": (),
}
"""What `nearfar evaluate` measures in the place of labels from the representation, by flag, with the flags it takes."""


def _insist_apart(asked: Evaluate) -> None:
    """Raise ValueError where a flag would be dropped, as another measure is asked for that does not take it."""
    flags = ("labels", "label_column", "keep_words", "test", "test_labels", "svm", "retrieval")
    flags += ("pair_columns", "score_column", "part_column")
    one = next((name for name in MEASURES if getattr(asked, name)), "")
    others = [
        name for name in (*MEASURES, *flags) if name not in (one, *MEASURES.get(one, ())) and getattr(asked, name)
    ]
    if one and others:
        which = f"--{one} and --{others[0].replace('_', '-')}"
        raise UserError(f"{which} are measured apart: give one")


def _of_places(run: Run, asked: Evaluate) -> dict[str, Any] | None:
    """The table of what is where in images, if that is asked for. Raises ValueError where flags do not go together."""
    flags = {
        "masks": ("instances", "ignore", "finetune", "size", "steps"),
        "boxes": ("box_origin", "annotated_only", "finetune", "size", "steps", "seeds"),
        "correspondences": ("size",),
    }
    named = [name for name in flags if getattr(asked, name)]
    others = (
        *("prompts", "align", "future", "attentive", "svm", "retrieval", "labels", "label_column", "test"),
        *("test_labels", "keep_words", "pair_columns", "score_column", "part_column"),
    )
    given = {f.name for f in dataclasses.fields(Evaluate) if f.default != getattr(asked, f.name)}
    own = {name for several in flags.values() for name in several}
    if named == ["boxes"] and asked.retrieval:
        flags = {"boxes": ("box_origin", "size")}
        others = tuple(name for name in others if name != "retrieval")
    if len(named) > 1 or (named and given & set(others)):
        which = [*named, *(name for name in others if name in given)][:2]
        raise UserError(f"{' and '.join(f'--{name}' for name in which)} are measured apart: give one".replace("_", "-"))
    strange = sorted(name for name in given & own if not any(name in flags[one] for one in named))
    if strange:
        takers = " or ".join(f"--{one}" for one, several in flags.items() if strange[0] in several) or "--boxes alone"
        raise UserError(f"--{strange[0].replace('_', '-')} goes with {takers}")
    if not named:
        return None
    (one,) = named
    values = {name: getattr(asked, name) for name in (*flags[one], "seed")}
    if one == "masks":
        from nearfar.dense.segmentation import segment

        return segment(run, asked.data, asked.masks, **values, say=print)
    if one == "boxes" and asked.retrieval:
        from nearfar.dense.instances import find

        return find(run, asked.data, asked.boxes, **values, say=print)
    if one == "boxes":
        from nearfar.dense.detection import detect

        return detect(run, asked.data, asked.boxes, **values, say=print)
    from nearfar.dense.correspondence import correspond

    return correspond(run, asked.data, **values, say=print)


def _tell(run: Run, table: dict[str, Any], show: Callable[[dict[str, Any]], None] = print_table) -> int:
    """Print a table and what follows from it."""
    from nearfar.report.record import read
    from nearfar.report.verdict import spoken

    show(table)
    print(f"\n{table['note']}\n")
    print("\n".join(spoken(read(run.path))))
    print(f"\nResult:  {run.path / 'results' / table['name']}.json\nReport:  {run.report(print)}")
    return 0
