"""From what was learned to a directory: opened before, written after, and gone again if nothing comes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import Samples
from nearfar.errors import AlreadyThere, UserError
from nearfar.export.encoder import export_encoder
from nearfar.fewlabels import store
from nearfar.fewlabels.classifier import Classifier, embed
from nearfar.fewlabels.rows import Rows
from nearfar.fewlabels.settings import DistillSettings, FinetuneSettings, Tuning, given
from nearfar.fewlabels.table import measure
from nearfar.fewlabels.temperature import Calibration
from nearfar.fewlabels.tuned import Trainer, Watch
from nearfar.files import clear_leftovers, code_digests, origin, read_json, replace, replace_json
from nearfar.machine import session
from nearfar.method import Encoder
from nearfar.modalities.encoder import kinds_of
from nearfar.owner import contents, owned
from nearfar.run import Run
from nearfar.training.alike import weights_digest
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.claim import insist_same
from nearfar.training.directory import (
    GIVEN,
    REMEDIES,
    UNTRAINED,
    read_environment,
    read_samples,
    unchanged,
    write_config,
)
from nearfar.training.journal import Journal

Say = Callable[[str], None]
ASKED = "unfinished.json"
"""What was asked for, in the directory of a classifier that is not finished."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a classifier is being made.

    folder: a new directory.
    run: whose encoder it comes from.
    samples: labeled or not.
    facts: of the settings and the data, fit for JSON.
    began: seconds of the clock `time.perf_counter`.
    """

    folder: Path
    run: Run
    samples: Samples
    facts: dict[str, Any]
    say: Say
    began: float

    def trainer(self, tuning: Tuning, watch: Watch) -> Trainer:
        """What trains a network here, from the newest checkpoint if there is one."""
        return Trainer(
            run=self.run,
            tuning=tuning,
            journal=Journal(self.folder / "metrics.jsonl"),
            checkpoints=Checkpoints(self.folder / "checkpoints"),
            watch=watch,
            say=self.say,
        )


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A classifier that is not written yet.

    encoder, layers: the network; the last layer names the classes.
    rows: labels and classes; rows.test is what it is measured on.
    known: positions of the labeled samples that it rests on.
    held: those of them that were not learned from.
    trained_on: what moved the encoder after it left the run; None where nothing did.
    how: a word on that for the name of the method, such as "fine-tuned".
    """

    encoder: Encoder
    layers: list[nn.Module]
    rows: Rows
    known: Tensor
    held: Tensor
    calibration: Calibration
    facts: dict[str, Any]
    trained_on: Samples | None = None
    how: str = ""


@contextmanager
def workplace(
    command: str,
    run: Run,
    network: Callable[[], nn.Module],
    data: Any,
    settings: FinetuneSettings | DistillSettings,
    folder: Path,
    say: Say,
    *,
    resume: bool,
) -> Iterator[Workplace]:
    """Open the data, in a new directory that is gone again if an error comes before anything was saved there.

    network: gives the one whose weights the classifier comes from.
    resume: go on in `folder` with what was begun there.
    Raises ValueError for a run of a user's own module, which a classifier's directory cannot build again, and where
    what is resumed was begun with other settings, samples or weights.
    """
    began = time.perf_counter()
    labels, fields = given(settings), dataclasses.fields(settings)
    with new_directory(folder, resume=resume):
        if run.network is not None:
            raise UserError(
                f"{str(run.path)!r} has an encoder of your own, {type(run.network).__name__}: a classifier must be "
                "able to build its network from its directory. Make it one of your kind's encoders (see Encoder in "
                "nearfar.method), or train a classifier on run.embed(data)."
            )
        for name in run.config["files"]:  # or an error, before anything is trained
            if (run.path / name).is_file() or name == "samples.parquet":
                unchanged(run.path, name, run.config)
        samples = run.open(data, labels=labels, label_column=settings.label_column, keep_words=settings.keep_words)
        for note in samples.notes:
            say(note)
        _insist_begun(
            folder,
            {"command": command}
            | {field.name: getattr(settings, field.name) for field in fields if field.name != "labels"},
            {
                f"the samples in {origin(data)!r}, or their labels,": fingerprint(digests(samples), samples),
                f"the weights of {str(run.path)!r}": weights_digest(network()),
            },
        )
        facts = {"data": origin(data), "labels": "" if labels is None else origin(labels)}
        yield Workplace(folder=folder, run=run, samples=samples, facts=facts, say=say, began=began)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / ASKED).unlink()


@contextmanager
def new_directory(folder: Path, *, resume: bool = False) -> Iterator[None]:
    """Within: a directory of ours, which is gone again if an error comes before it is a run's or has a checkpoint.

    resume: it may be that of a classifier that was begun.
    Raises FileExistsError where it is there already and holds anything else.
    """
    with owned(folder):
        there = contents(folder)
        if there and not resume:
            raise AlreadyThere(
                f"{str(folder)!r} is there already and is never overwritten: go on with --resume, or name another --out"
            )
        if there and not (folder / ASKED).is_file():
            raise AlreadyThere(
                f"{str(folder)!r} cannot be resumed: it holds {there[0].name!r}, and nothing of a classifier that was "
                "begun; name another --out"
            )
        clear_leftovers(folder)
        try:
            yield
        except BaseException:
            if not (folder / "config.yaml").is_file() and not Checkpoints(folder / "checkpoints").all():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def finished(folder: Path, run: Run, say: Say) -> Classifier | None:
    """The classifier of a directory that nothing is missing of, which then stays as it is; None where there is none."""
    if not store.is_classifier(folder) or not (folder / "config.yaml").is_file() or (folder / ASKED).exists():
        return None
    say(f"The classifier in {str(folder)!r} is finished: there is nothing to go on with, and it stays as it is.")
    return Classifier(folder, trust=run.trust)


def _insist_begun(folder: Path, asked: dict[str, Any], digest: dict[str, str]) -> None:
    """Write down what is asked for, or raise ValueError where it is not what was begun here."""
    if not (folder / ASKED).is_file():
        replace_json(folder / ASKED, {"asked": asked, "digests": list(digest.values())}, indent=1)
        return
    saved = read_json(folder / ASKED, "give the command again with another --out")
    insist_same(saved["asked"], json.loads(json.dumps(asked)), folder, free=("device",))
    for (name, now), before in zip(digest.items(), saved["digests"], strict=True):
        if now != before:
            raise UserError(
                f"{name} are not those that {str(folder)!r} was begun with: give the same, or name another --out"
            )


def publish(place: Workplace, draft: Draft) -> Classifier:
    """Write a classifier and all that makes its directory a run's, then measure it on the test split, if there is one.

    Where nothing moved the encoder after it left the run, what is told of its training is what the run tells.
    """
    run, folder, samples, rows = place.run, place.folder, place.samples, draft.rows
    facts: dict[str, Any] = place.facts | draft.facts | draft.calibration.facts()
    export_encoder(draft.encoder, folder)
    known = samples.subset(draft.known)
    network = nn.Sequential(draft.encoder, *draft.layers[:-1]).eval().to(run.device)
    features = embed(network, run, known)
    network.cpu()
    evidence = store.Evidence(
        names=known.names,
        digests=digests(known),
        label=rows.label[draft.known],
        held=torch.isin(draft.known, draft.held),
        features=features,
    )
    stored = store.Stored(
        layers=nn.Sequential(*draft.layers),
        classes=rows.classes,
        temperature=draft.calibration.temperature,
        evidence=evidence,
        facts=facts,
    )
    store.write(folder, stored)
    journal = ("metrics.jsonl", "skipped.csv") if draft.trained_on is None else ()
    for name in ("views.png", UNTRAINED, GIVEN, *journal):
        if (run.path / name).is_file():
            source = unchanged(run.path, name, run.config) if name in REMEDIES else run.path / name
            shutil.copyfile(source, folder / name)
    seen = read_samples(run.path, run.config).select(["name", "digest"])
    if draft.trained_on is not None:
        columns = {"name": draft.trained_on.names, "digest": digests(draft.trained_on)}
        seen = pa.concat_tables([seen, pa.table(columns, schema=seen.schema)])
    replace(folder / "samples.parquet", lambda temporary: pq.write_table(seen, temporary))
    environment = (read_environment(run.path) if (run.path / "environment.json").exists() else {}) | {
        **session(),
        "seconds": round(time.perf_counter() - place.began, 1),
        "finished": True,
        "notes": [*draft.encoder.notes, *facts.get("notes", [])],
    }
    replace_json(folder / "environment.json", environment, indent=1)
    write_config(folder, _config(run, draft, facts))
    classifier = Classifier(folder, trust=run.trust)
    if len(rows.test):
        table = measure(classifier, rows.of(samples, rows.test), [*rows.classes, *rows.others])
        classifier.run.write("finetune", table)
        place.say(table["note"])
    else:
        place.say("Not measured: the labels name no row of the split test.")
    return classifier


def _config(run: Run, draft: Draft, facts: dict[str, Any]) -> dict[str, Any]:
    """The run's config with the new encoder, and the new training if there was one."""
    spec = draft.encoder.spec
    config = run.config | {"encoder": spec["name"], "classifier": facts}
    config["code"] = run.config["code"] | code_digests(kinds_of(spec))
    config["made"] = run.config["made"] | {"encoder": spec}
    config["settings"] = run.config["settings"] | {"encoder": spec["name"]}
    if draft.trained_on is not None:
        config |= {"method": f"{run.config['method']}, {draft.how}", "samples": len(draft.trained_on)}
        config |= {"epochs": facts["epochs"], "batch": facts["batch"]}
    return config
