"""A run directory, opened: the encoder that came out of it, and what one does with it."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar import methods
from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.labels import LabelColumn, meet, present
from nearfar.data.samples import Samples
from nearfar.errors import Damaged, NotFound, UserError, counted
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.evaluation.parts import learned_and_tested, of_other_data, together
from nearfar.export.encoder import ExportReport, check_export, export_encoder, load_encoder, understood
from nearfar.files import digest, insist_trusted, name_text, origin, replace_json
from nearfar.machine import own_device
from nearfar.method import Encoder, Method
from nearfar.modalities import kind as kinds
from nearfar.modalities.encoder import from_spec, is_own, kinds_of
from nearfar.nn.towers import Towers, pick_tower
from nearfar.owner import owned, tidy, writes
from nearfar.ranges import Seed, checked
from nearfar.report.choice import choice
from nearfar.report.measured import results_table
from nearfar.report.page import report
from nearfar.report.record import read
from nearfar.report.verdict import Answer, answers, spoken, unhelped
from nearfar.settings import Which
from nearfar.training import checkpoints, saved
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing
from nearfar.training.claim import is_finished, step_reached
from nearfar.training.directory import GIVEN, UNTRAINED, read_config, read_samples, unchanged
from nearfar.training.journal import Journal


class Run:
    """An encoder and the directory it came from.

    path: the directory.  config: how it was trained, from config.yaml.
    checkpoint: "last"; "best" by the kNN probe; an epoch whose checkpoint was kept; or "auto", the one that scores
    without labels choose, which becomes its epoch, or "last" where they choose none.
    tower: of an encoder with several, the one to use; "" for all of it.
    network: the user's own module that was trained, where the encoder is not one of ours; it is copied.
    trust: whether files of code that the config names may be run, if they are those that it was trained with.
    """

    @checked
    def __init__(
        self,
        path: str | Path,
        checkpoint: Which = "last",
        tower: str = "",
        network: nn.Module | None = None,
        trust: bool = False,
    ) -> None:
        self.path, self.tower, self.network, self.trust = Path(path), tower, network, trust
        self.device, self.batch = torch.device("cpu"), 256
        config = self.path / "config.yaml"
        if not config.is_file():
            raise NotFound(f"{str(path)!r} is not a run directory: it has no config.yaml")
        tidy(self.path)
        self.config: dict[str, Any] = read_config(self.path)
        settings: dict[str, Any] = self.config["settings"]
        for name in (self.config["kind"], *kinds_of(self.config["made"]["encoder"])):
            self.insist_trusted(name)
        self.kind, self.made = kinds.of(self.config["kind"]), self.config["made"]
        if tower:
            self._tower_spec()
            self.kind, settings, self.made = self.kind.side(tower, self.config)
        if unknown := sorted(
            map(str, settings.keys() - {field.name for field in dataclasses.fields(self.kind.Settings)})
        ):
            raise UserError(
                f"{str(config)!r} has settings that this version does not know: {', '.join(unknown)}. Another version "
                "made the run, or the file was edited; the encoder's own files load without it"
            )
        lists: dict[str, Any] = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
        self.settings: Any = self.kind.Settings(**settings | lists)
        self.checkpoint: Which = self._meant(checkpoint)

    def _meant(self, which: Which) -> Which:
        """The checkpoint without "auto". Raises FileNotFoundError for that of an epoch that was not kept."""
        if which == "auto":
            found = choice(Journal(self.path / "metrics.jsonl").read(), saved.by_epoch(self.path, self.config))
            return "last" if found is None else found.epoch
        if isinstance(which, int):
            saved.insist_kept(self.path, self.config, which)
        return which

    def __repr__(self) -> str:
        made, done = self.config["made"], step_reached(self.path)
        if "classifier" in self.config:
            state = "a classifier"
        elif is_finished(self.path):
            state = f"{counted(made['steps'], 'steps')}, finished"
        else:
            state = f"{done:,} of {counted(made['steps'], 'steps')}, stopped"
        return f"<Run {str(self.path)!r}: {self.config['method']} on {self.config['data']}, {state}>"

    def insist_trusted(self, name: str) -> None:
        """Raise ValueError where a name in the config stands for code of the user's own that must not be run."""
        insist_trusted(name, self.config["code"], self.path / "config.yaml", trust=self.trust)

    def on(self, device: str = "auto", batch: int = 256) -> Run:
        """This run, whose encoder from now on computes on a device, so many samples at a time.

        device: as for training: auto is a GPU where there is one.  Raises ValueError where it cannot be used.
        """
        self.device, self.batch = own_device(device), batch
        if "encoder" in self.__dict__:
            self.encoder.to(self.device)
        return self

    @cached_property
    def encoder(self) -> Encoder:
        """The trained encoder, ready to embed: in eval mode, on the CPU unless `on` says otherwise."""
        return self._trained().to(self.device)

    def _trained(self) -> Encoder:
        if self.checkpoint == "last" and (self.path / "encoder.safetensors").exists():
            return load_encoder(self.path, self.tower, copy.deepcopy(self.network), trust=self.trust)
        return pick_tower(self._saved_encoder(), self.tower)

    def _saved_encoder(self) -> Encoder:
        """The whole encoder of the checkpoint."""
        encoder, prefix = self._blank_encoder(), "encoder."
        state = self.state()
        with checkpoints.fits(self.path / "checkpoints"):
            encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        return encoder.eval()

    def _blank_encoder(self) -> Encoder:
        """The whole encoder, whatever its weights. Raises ValueError for a user's own without its module."""
        with understood(self.path / "config.yaml"):
            return from_spec(self.config["made"]["encoder"], copy.deepcopy(self.network))

    def _tower_spec(self) -> dict[str, Any]:
        towers = self.config["made"]["encoder"].get("towers", {})
        if self.tower not in towers:
            named = f"its towers are {', '.join(towers)}" if towers else "its encoder has no towers: leave it out"
            raise UserError(f"{str(self.path)!r} has no tower {self.tower!r}; {named}")
        return towers[self.tower]

    @cached_property
    def method(self) -> Method:
        """The trained method, heads and memories with it: on the CPU, in eval mode."""
        made, given = self.config["made"], self.config["arguments"]
        self.insist_trusted(self.config["method"])
        kind, encoder, state = methods.load(self.config["method"]), self._blank_encoder(), self.state()
        with checkpoints.fits(self.path / "checkpoints"):
            method = methods.build(
                kind,
                encoder,
                {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()},
                samples=made["samples"],
                classes=len(made["classes"]),
                counts=tuple(made["counts"]),
                channels=made.get("channels"),
                size=made.get("size", 0),
            )
            method.load_state_dict(state)
        return method.eval()

    @property
    def seen_how(self) -> str:
        """In what way its samples were in training: " with their labels", " without their labels", or "" where labels
        were there, and whether training used those of a sample is not written down.
        """
        made = self.config["made"]
        if made["needs_labels"]:
            return " with their labels"
        return "" if made["classes"] or "classifier" in self.config else " without their labels"

    def state(self) -> dict[str, Tensor]:
        """What the checkpoint holds of the method."""
        return saved.state(self.path, self.config, self.checkpoint)

    def untrained(self) -> Encoder:
        """The encoder with the random weights that it had before training, or would have had without given ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return self._kept_encoder(UNTRAINED)

    def given(self) -> Encoder | None:
        """The encoder with the weights that training began with; None where these were random."""
        return self._kept_encoder(GIVEN) if GIVEN in self.config["files"] else None

    def beginnings(self) -> dict[str, Encoder]:
        """What the trained encoder is compared with, by the names of rows: untrained, and as it was given."""
        given = self.given()
        return {"untrained encoder": self.untrained()} | ({} if given is None else {"given weights": given})

    def _kept_encoder(self, name: str) -> Encoder:
        """The encoder, with the weights in a file of the run where there is one."""
        encoder = self._blank_encoder()
        if name in self.config["files"]:
            with checkpoints.fits(self.path / name):
                encoder.load_state_dict(load_file(unchanged(self.path, name, self.config)))
        return pick_tower(encoder, self.tower).eval().to(self.device)

    def open(
        self,
        data: Any,
        *,
        labels: Any = None,
        label_column: str = "",
        keep_words: Sequence[str] = (),
        lenient: bool = False,
    ) -> Samples:
        """Data in the form in which this encoder saw its training data. label_column: "" is that of training.

        labels: a file, the word folders, an array; none leaves out those that the data bring.
        keep_words: words that are labels, though they usually say that nothing is known; those of training are too.
        lenient: leave out what cannot be read, however much it is.
        """
        keep = (*self.settings.keep_words, *keep_words)
        column = LabelColumn.of(label_column, self.settings.label_column)
        self.insist_there(data, labels, label_column)
        none = isinstance(labels, str) and labels == "none"
        opened = self.kind.open_as(
            data,
            self.made,
            dataclasses.replace(self.settings, keep_words=keep),
            labels=None if none else labels,
            column=dataclasses.replace(column, asked=column.asked and not none),
            lenient=lenient,
        )
        opened.insist_finite()
        return self.kind.labeled(opened, data, labels=labels, column=column, keep=keep)

    def measured(self, data: Any, say: Callable[[str], None]) -> Samples:
        """Samples to measure without labels: those of the split test where one is named, else all; says which."""
        samples = self.open(data, labels="none")
        for note in samples.notes:
            say(note)
        tested = samples.of_split("test")
        if bool(tested.all()) or not bool(tested.any()):
            return samples
        say(f"{int(tested.sum()):,} of {len(samples):,} {self.kind.noun} are of the split test: these are measured.")
        return samples.subset(tested.nonzero()[:, 0])

    def open_new(self, data: Any) -> Samples:
        """Samples to name, in the form in which the encoder saw its training data. What cannot be read is left out.

        data: what `open` takes, or one file or several, where the kind of data has them.
        """
        files = [data] if isinstance(data, str | Path) and self.kind.is_sample(data) else data
        if isinstance(files, list | tuple) and files and all(isinstance(file, str | Path) for file in files):
            return self.kind.open_files([str(file) for file in files], self)
        return self.open(data, lenient=True)

    def insist_there(self, data: Any, labels: Any, label_column: str, wanted: str = "") -> None:
        """Raise ValueError, before anything is decoded, where data, labels or the encoder are not there.

        wanted: what is said where no labels are known; "" where none need be.
        """
        column = LabelColumn.of(label_column, self.settings.label_column)
        self.kind.insist_there(data, labels, column, wanted=wanted)
        _ = self.encoder

    def reading(self, changed: dict[str, Any]) -> Run:
        """This run, which from now on opens data by other settings than in training; a value that is 0 changes nothing.

        Raises ValueError for a setting that its kind of data does not have.
        """
        given = {name: value for name, value in changed.items() if value}
        if strange := [name for name in given if not hasattr(self.settings, name)]:
            raise UserError(f"--{strange[0].replace('_', '-')} is not for data of the kind {self.kind.name}")
        self.settings = dataclasses.replace(self.settings, **given)
        self.settings.check()
        return self

    def embed(self, data: Any) -> Tensor:
        """The representation of every sample, in order: N x dim, float32.

        What cannot be read, and sentences that are empty, have no row, which is warned of: `open(data).names` says what
        the rows are of.
        """
        return self.rows(self._rows_of(data))

    def maps(self, data: Any, depth: int = -1) -> Tensor:
        """What the encoder makes of every sample before it is pooled, in order: N x C x H x W, float32.

        depth: which of the maps of `Encoder.maps`, by default the last, of which the representation is made.
        What has no row in `embed` has no map. `each_map` gives some at a time, where all are more than memory holds.
        Raises ValueError, before data are opened, where the encoder has no maps, or none at that depth.
        """
        shape = self.map_shape(depth)
        samples, at = self._rows_of(data), 0
        made = torch.empty(len(samples), *shape)
        for some in self.each_map(samples, depth):
            made[at : at + len(some)] = some
            at += len(some)
        return made

    def each_map(self, samples: Samples, depth: int = -1) -> Iterator[Tensor]:
        """The maps of opened samples, some at a time, in order: n x C x H x W, float32."""
        return probing.each_map(self.encoder, self.kind.plain(self.encoder), samples, depth, min(64, self.batch))

    def map_shape(self, depth: int = -1) -> tuple[int, ...]:
        """The shape of a sample's map: C x H x W. Raises ValueError where the encoder has none at that depth."""
        return probing.map_shape(self.encoder, depth)

    def _rows_of(self, data: Any) -> Samples:
        """The samples of data, with a warning where some have no row."""
        samples = self.open(data)
        if samples.skipped and not isinstance(data, Samples):
            name, why = samples.skipped[0]
            warnings.warn(
                f"{counted(len(samples.skipped), 'samples')} of {len(samples) + len(samples.skipped):,} have no row: "
                f"{name!r}, for one ({why}). run.open(data).names says what the rows are of",
                stacklevel=3,
            )
        return samples

    def rows(self, samples: Samples) -> Tensor:
        """The representation of samples that are open: N x dim, float32, on the CPU."""
        return probing.embed(self.encoder, self.kind.plain(self.encoder), samples, self.batch)

    def seen(self, samples: Samples) -> Tensor:
        """Which samples were in the training of this encoder, known by their contents: N, bool."""
        whole = read_samples(self.path, self.config)["digest"].to_pylist()
        known = {*whole, *(part for one in whole for part in one.split("+"))}
        return torch.tensor([one in known for one in digests(samples)])

    @writes
    @checked
    def evaluate(
        self,
        data: Any,
        *,
        labels: Any = None,
        label_column: str = "",
        test: Any = None,
        test_labels: Any = None,
        keep_words: Sequence[str] = (),
        svm: bool = False,
        retrieval: bool = False,
        seed: Seed = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """How well labels can be told from the representation, against raw pixels, and the untrained encoder and given
        weights as they were.

        test: other data, with labels of their own or from `test_labels`, that are tested while `data` are learned from.
        Without them, a split named test in the labels is tested and the rest learned from; else the folds that the data
        bring; else seeded stratified folds, as many as `Kind.folds` says, or as the labels allow.
        keep_words: as in `open`.  svm: have a support vector machine as well, which takes minutes on thousands of rows.
        retrieval: have recall@1 and @5 as well: of the training samples nearest to a test sample, one is of its class.
        Raises ValueError where no class is common to what is learned from and what is tested.
        Writes results/evaluate-DATA-DIGEST.json and returns what it holds: other samples, labels or another checkpoint
        have a file of their own, and the same the same.
        """
        no_labels = f"evaluating takes labels, and none are known: {self.kind.unlabeled}"
        self.insist_there(data, labels, label_column, no_labels)
        if test is not None:
            self.insist_there(test, test_labels, label_column, "--test takes labels, and none are known: --test-labels")
        parts = [self.open(data, labels=labels, label_column=label_column, keep_words=keep_words)]
        if test is not None:
            parts.append(self.open(test, labels=test_labels, label_column=label_column, keep_words=keep_words))
        for note in [note for samples in parts for note in samples.notes]:
            say(note)
        label, classes, group = together(parts)
        splits, tested = self.splits(parts[0], seed, say) if test is None else of_other_data(parts, label)
        said = meet(
            present(label[torch.cat([learned for learned, _ in splits]).unique()], classes),
            present(label[tested], classes),
            ours=f"the {self.kind.noun} that are learned from",
            theirs=f"the {self.kind.noun} that are tested",
        )
        if lost := sum(int((~torch.isin(label[test], label[learned])).sum()) for learned, test in splits):
            of = f"{lost:,} of {len(tested):,} tested {self.kind.noun} are of classes that none learned from has"
            if lost == len(tested):
                raise UserError(f"{of}: each class lies in one group. Label two groups or more of a class")
            said.append(f"{of}, and count as wrong.")
        for note in said:
            say(note)
        known = torch.cat([self.seen(samples) for samples in parts])
        seen = known[tested]
        plain = self.kind.plain(self.encoder)
        trained = torch.cat([self.rows(samples) for samples in parts])
        before = {
            name: torch.cat([probing.passed(encoder, plain, samples, self.batch) for samples in parts])
            for name, encoder in self.beginnings().items()
        }
        evaluations = {
            name: evaluate(
                features,
                label,
                splits,
                group=group if bool((group != MISSING).any()) else None,
                seen_in_training=bool(seen.any()),
                solver=ridge,
                strengths=RIDGE_STRENGTHS,
                shots=(1, 5),
                svm=svm,
                retrieval=retrieval,
                seed=seed,
            )
            for name, features in (
                *self.kind.baselines(parts, self.encoder).items(),
                *before.items(),
                ("trained encoder", trained),
            )
        }
        table = results_table(
            evaluations,
            classes,
            int(seen.sum()),
            len(seen),
            len(splits),
            self.seen_how,
            group[tested] if bool((group != MISSING).any()) else None,
        )
        table["protocol"] |= {"checkpoint": self.checkpoint, "data": origin(data), "labels": origin(labels)}
        if test is not None:
            table["protocol"] |= {"test": origin(test), "test_labels": origin(test_labels)}
        table["data"] = named(data) if test is None else f"{named(test)}, learned from {named(data)}"
        self._place(table, known)
        contents = [fingerprint(digests(samples), samples) for samples in parts]
        which = digest(*map(str.encode, [*contents, str(self.checkpoint), self.tower]))[:8]
        table["title"] += f": {table['data']}" + self._of_checkpoint()
        table["name"] = (
            f"evaluate-{re.sub(r'[^A-Za-z0-9_.]+', '-', named(data if test is None else test))[:60]}-{which}"
        )
        self.write(table["name"], table)
        return table

    def _place(self, table: dict[str, Any], known: Tensor) -> None:
        """Note when a table was made, whether of the run's own data, and whether training saw labels.

        known: which samples were in training: N.
        """
        table["seen"]["with labels"] = self.config["made"]["needs_labels"]
        # Of the labels of few images of many that were trained on, as of many images of which few were.
        table["own"] = bool(2 * known.sum() >= min(len(known), self.config["made"]["samples"]))
        table["written"] = datetime.now(UTC).isoformat()

    @property
    def sides(self) -> list[str]:
        """The names of the towers that share a space, where what one gives can be looked for by what another gives."""
        encoder = self.encoder
        if not isinstance(encoder, Towers) or len({encoder.tower(name).dim for name in encoder.of}) > 1:
            return []
        return list(encoder.of)

    def kept(
        self, table: dict[str, Any], name: str, data: Any, contents: Sequence[str], known: Tensor
    ) -> dict[str, Any]:
        """A table with what it was measured on, written under a name of its own.  contents: of the samples.  known:
        which of them were in training: N."""
        self._place(table, known)
        table["seen"] |= {"with labels": self.config["made"]["needs_labels"]}
        table["protocol"] |= {"checkpoint": self.checkpoint, "data": origin(data)}
        table["data"] = named(data)
        which = digest(*map(str.encode, [*contents, str(self.checkpoint), self.tower]))[:8]
        table["title"] += f": {table['data']}" + self._of_checkpoint()
        table["name"] = f"{name}-{re.sub(r'[^A-Za-z0-9_.]+', '-', table['data'])[:60]}-{which}"
        self.write(table["name"], table)
        return table

    def _of_checkpoint(self) -> str:
        """What a title says of the checkpoint, where it is not the last."""
        if isinstance(self.checkpoint, int):
            return f", the checkpoint of epoch {self.checkpoint}"
        return ", the best checkpoint" if self.checkpoint == "best" else ""

    def splits(
        self, samples: Samples, seed: int, say: Callable[[str], None] = lambda text: None
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """What is learned from and what is tested, as `nearfar.evaluation.parts` has it."""
        kind = self.kind
        return learned_and_tested(samples, kind.given_folds(samples), kind.folds, seed, say, kind.noun, kind.unlabeled)

    @writes
    def write(self, name: str, content: dict[str, Any]) -> Path:
        """Put results/NAME.json into the run directory."""
        (self.path / "results").mkdir(exist_ok=True)
        return replace_json(self.path / "results" / f"{name}.json", content)

    def report(self, say: Callable[[str], None] = lambda text: None) -> Path:
        """Write report.html, from what the run directory holds.  say: told of each file that cannot be read."""
        return report(self.path, say)

    def answers(self) -> list[Answer]:
        """Is it working, will it help me, which checkpoint: the findings of the report, with their numbers."""
        return answers(read(self.path))

    def export(self, folder: str | Path | None = None, say: Callable[[str], None] = lambda text: None) -> ExportReport:
        """Write the encoder for use without nearfar, reload it and compare (see `nearfar.export.encoder`).

        The run's own encoder files, where one of them is damaged or missing, are first written again from the newest
        checkpoint. Raises ValueError where its weights are not finite, or make one row of all that they are given.
        """
        try:
            check_export(self.path)
        except (Damaged, NotFound) as error:
            if not checkpoints.Checkpoints(self.path / "checkpoints").all():  # as of a classifier
                raise
            say(f"{str(error).partition(': ')[0]}: the encoder's files in {str(self.path)!r} are written again.")
            newest = Run(self.path, network=self.network, trust=self.trust)
            with owned(self.path):
                export_encoder(newest._saved_encoder(), self.path)
        probing.insist_alive(self.encoder, str(self.path))
        with owned(Path(folder) if folder else self.path):
            done = export_encoder(self.encoder, folder or self.path / "export")
            return dataclasses.replace(done, files=(*done.files, *self.encoder.publish(done.folder)))


def named(data: Any) -> str:
    """What data are called: the last part of a path, or their type."""
    return name_text(Path(data).resolve().name) if isinstance(data, str | os.PathLike) else type(data).__name__


def load(
    path: str | Path,
    checkpoint: Which = "last",
    *,
    tower: str = "",
    encoder: nn.Module | None = None,
    trust: bool = False,
) -> Run:
    """Open a run directory. Raises FileNotFoundError if it is not one, ValueError where a file of it is damaged.

    tower: of an encoder with several, the one to use.  encoder: the module that was trained, where it is your own.
    trust: whether files of code that the run names (a method's, a kind's, views) may be run. They must be those that it
    was trained with; without it nothing that a run directory holds or names is run.
    """
    return Run(path, checkpoint, tower, encoder, trust)


@checked
def fit(
    data: Any,
    method: str = "simclr",
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    kind: str = "",
    resume: bool = False,
    say: Callable[[str], None] = print,
    callback: Callable[[int, dict[str, Any]], object] | None = None,
    log: str | Sequence[str] = (),
    **flags: Any,
) -> Run:
    """Train an encoder on `data` and return its run.

    data: what a kind of data opens: for images see `nearfar.open_images`, for tables a file, a frame or a mapping.
    method: a name (`nearfar.methods.names()`) or the path of a .py file.  out: the run directory, new unless `resume`.
    recipe: where defaults come from.  kind: of the data, recognized by default, or the path of your own.
    callback: called with (step, numbers) whenever numbers are written to `metrics.jsonl`, by the main process alone;
    what it raises ends training, and `resume` goes on.
    log: programs that are told the same numbers: tensorboard, wandb, mlflow, trackio, with commas between several.
    flags: any field of the kind's `Settings`, any argument of the method.
    encoder, among the flags: a name, or a module of your own that takes views, with its width as `.dim`: a copy of it
    is trained, and `Run.encoder` holds that.
    Raises TypeError for a flag that is neither.
    """
    plan = plans.make(method, data, recipe, flags, kind=kind)
    path = Path(out) if out is not None else plans.free_directory(method, data)
    if training.train(plan, path, resume=resume, say=say, callback=callback, log=log):
        record = read(path)
        for sentence in [*spoken(record), *filter(None, [unhelped(record)])]:
            say(sentence)
    run = Run(path, trust=True)  # the files of code are those that were given here
    return Run(path, network=plan.network, trust=True) if is_own(run.config["made"]["encoder"]) else run
