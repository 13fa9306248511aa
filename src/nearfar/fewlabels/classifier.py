"""A classifier: an encoder, what names the classes, how sure it may be, and the labeled samples it rests on.

It lives in a run directory, so that what one does with a run can be done with it too, in two files more:

classifier.safetensors   the layers behind the encoder, and the features of the labeled samples
classifier.json          class names, temperature, names of the labeled samples, how all was made, and a checksum
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.data.samples import Samples
from nearfar.evaluation.calibration import calibration_error
from nearfar.evaluation.evaluate import judged
from nearfar.evaluation.knn import neighbors
from nearfar.export.encoder import export_encoder
from nearfar.files import is_leftover, replace, replace_csv, replace_text
from nearfar.machine import session
from nearfar.method import Encoder
from nearfar.modalities.image.sources import SUFFIXES
from nearfar.run import Run
from nearfar.training import probe as probing

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The labeled samples that a classifier rests on: N of them.

    names, digests: by which they are known, the latter by their contents.  label: N, int64, numbers of classes.
    held: N, bool, those that were not learned from, but chose or calibrated.  features: N x D, what the classifier sees.
    """

    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    label: Tensor
    held: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a classifier says of N samples.

    label: N names of classes.  probability: N, of that class.  probabilities: N x C.
    near: for each sample the nearest labeled ones, as (name, label, cosine), nearest first.
    calibrated: whether the probabilities were fitted to labeled rows that the classifier had not learned from.
    """

    names: list[str]
    label: list[str]
    probability: Tensor
    probabilities: Tensor
    near: list[list[tuple[str, str, float]]]
    calibrated: bool

    def __len__(self) -> int:
        return len(self.names)

    def write(self, path: str | Path) -> Path:
        """As a CSV: path, label, probability, calibrated, and near_1, near_1_label, near_1_similarity, and so on."""
        most = max(map(len, self.near), default=0)
        heads = [f"near_{i}{part}" for i in range(1, most + 1) for part in ("", "_label", "_similarity")]

        def rows() -> Iterator[list[str]]:
            yield ["path", "label", "probability", "calibrated", *heads]
            told = "yes" if self.calibrated else "no"
            for name, label, p, near in zip(self.names, self.label, self.probability, self.near, strict=True):
                cells = [cell for other, own, s in near for cell in (other, own, f"{s:.3f}")]
                yield [name, label, f"{float(p):.4f}", told, *cells]

        return replace_csv(Path(path), rows())


class Classifier:
    """A classifier, read from the directory `path`.

    run: the directory as a run, whose encoder it is.  classes: their names.  temperature: what logits are divided by,
    None where there were too few labels to fit it.  evidence: the labeled samples.  facts: how it was made.
    Raises FileNotFoundError where there is none, ValueError where it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        held, tensors = _read(self.path)
        self.run = Run(self.path)
        self.classes: list[str] = held["classes"]
        self.temperature: float | None = held["temperature"]
        self.facts: dict[str, Any] = held["facts"]
        self.layers = _built(held["layers"])
        self.layers.load_state_dict({k.removeprefix("layers."): v for k, v in tensors.items() if "layers." in k})
        self.layers.eval()
        self.evidence = Evidence(
            names=held["names"],
            digests=held["digests"],
            label=tensors["evidence.label"],
            held=tensors["evidence.held"],
            features=tensors["evidence.features"],
        )

    @cached_property
    def network(self) -> nn.Sequential:
        """From views to what the last layer sees: on the CPU, in eval mode."""
        return nn.Sequential(self.run.encoder, *self.layers[:-1]).eval()

    def features(self, samples: Samples) -> Tensor:
        """What the last layer sees of every sample: N x D."""
        return embedded(self.network, self.run, samples)

    def open(self, data: Any) -> Samples:
        """Samples to name, in the form in which the encoder saw its training data. What cannot be read is left out.

        data: what `nearfar.Run.open` takes, the path of an image, or several in a list or tuple.
        """
        files = [data] if isinstance(data, str | Path) and Path(data).suffix.lower() in SUFFIXES else data
        if not isinstance(files, list | tuple) or not all(isinstance(file, str | Path) for file in files):
            return self._opened(data)
        if self.run.kind.name != "image":
            raise ValueError(f"{len(files)} files for a classifier of rows: give one table")
        given = {Path(file).absolute().as_posix(): str(file) for file in files}
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "files.txt"
            listed.write_text("\n".join(given) + "\n", encoding="utf-8")
            samples = self._opened(listed)

        def named(name: str) -> str:  # as given; a page of a file has a number behind it
            file, mark, page = (name, "", "") if name in given else name.rpartition("#")
            return given[file] + mark + page

        return dataclasses.replace(
            samples,
            names=[named(name) for name in samples.names],
            skipped=[(named(name), why) for name, why in samples.skipped],
        )

    def _opened(self, data: Any) -> Samples:
        run = self.run
        column = run.settings.label_column
        return run.kind.open_as(data, run.config["made"], run.settings, labels=None, label_column=column, lenient=True)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """The logits of rows of features: N x C."""
        return self.layers[-1](features)

    def predict(self, data: Any, *, near: int = 3) -> Predictions:
        """Label, probability and the nearest labeled samples, for every sample in order.

        data: what `open` takes, or samples.  near: how many labeled samples to name.
        """
        samples = data if isinstance(data, Samples) else self.open(data)
        features = self.features(samples)
        p = (self.logits(features) / (self.temperature or 1.0)).softmax(1)  # N x C
        answer = p.argmax(1)
        return Predictions(
            names=samples.names,
            label=[self.classes[c] for c in answer.tolist()],
            probability=p.gather(1, answer[:, None])[:, 0],
            probabilities=p,
            near=self._nearest(features, near),
            calibrated=self.temperature is not None,
        )

    def _nearest(self, features: Tensor, most: int) -> list[list[tuple[str, str, float]]]:
        known = self.evidence
        if not len(known) or most < 1 or not len(features):
            return [[] for _ in features]
        cosine, index = neighbors(features, known.features, min(most, len(known)))
        return [
            [(known.names[i], self.classes[int(known.label[i])], s) for i, s in zip(row, values, strict=True)]
            for row, values in zip(index.tolist(), cosine.tolist(), strict=True)
        ]


def embedded(network: nn.Module, run: Run, samples: Samples) -> Tensor:
    """What a network makes of the plain view of every sample: N x whatever; N x 0 where there is none."""
    # Some networks cannot be given no image at all.
    return probing.embed(network, run.kind.plain(run.encoder), samples) if len(samples) else torch.empty(0, 0)


def is_classifier(path: str | Path) -> bool:
    """Whether a directory holds one."""
    return (Path(path) / "classifier.json").is_file()


def _write(
    folder: Path,
    *,
    layers: Sequence[nn.Module],
    classes: list[str],
    temperature: float | None,
    evidence: Evidence,
    facts: dict[str, Any],
) -> None:
    """Put the two files of a classifier into a run directory.

    layers: what follows the encoder: linear layers, batch norms and ReLUs; the last is linear, D x C.
    """
    stack = nn.Sequential(*layers)
    tensors = {f"layers.{name}": value.detach().cpu().contiguous() for name, value in stack.state_dict().items()}
    parts = {"label": evidence.label, "held": evidence.held, "features": evidence.features}
    tensors |= {f"evidence.{name}": value.contiguous() for name, value in parts.items()}
    content = save(tensors, metadata={"format": "pt"})
    replace(folder / "classifier.safetensors", lambda temporary: temporary.write_bytes(content))
    held = {
        "format": FORMAT,
        "classes": classes,
        "temperature": temperature,
        "layers": [_described(layer) for layer in stack],
        "names": evidence.names,
        "digests": evidence.digests,
        "facts": facts,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    replace_text(folder / "classifier.json", json.dumps(held, indent=1) + "\n")


@contextmanager
def new_directory(folder: Path) -> Iterator[None]:
    """Within: a directory of ours, which is gone again if an error comes before it is a run's.

    Raises FileExistsError where it is there already and holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(not is_leftover(path) for path in folder.iterdir())):
        raise FileExistsError(f"{str(folder)!r} is there already and is never overwritten: name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not (folder / "config.yaml").is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def publish(
    folder: Path,
    run: Run,
    encoder: Encoder,
    layers: list[nn.Module],
    samples: Samples,
    *,
    label: Tensor,
    classes: list[str],
    known: Tensor,
    held: Tensor,
    test: Tensor,
    temperature: float | None,
    facts: dict[str, Any],
    trained_on: Samples | None,
    seconds: float,
    say: Callable[[str], None],
) -> Classifier:
    """Write a classifier and all that makes its directory a run's, then measure it on the rows `test`, if any.

    encoder, layers: the network, of which the last layer names the classes.  label: N, of the samples, as
    `Rows.number` gives it.  known: rows of the labeled samples that it rests on.  held: those of them that were not
    learned from.  trained_on: what moved the encoder after it left `run`; None where nothing did, and what is told of
    its training is what `run` tells.
    """
    export_encoder(encoder, folder)
    named = samples.subset(known)
    features = embedded(nn.Sequential(encoder, *layers[:-1]).eval(), run, named)
    evidence = Evidence(
        names=named.names,
        digests=digests(named),
        label=label[known],
        held=torch.isin(known, held),
        features=features,
    )
    _write(folder, layers=layers, classes=classes, temperature=temperature, evidence=evidence, facts=facts)
    for name in ("views.png", *(("metrics.jsonl", "skipped.csv") if trained_on is None else ())):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    seen = pq.read_table(run.path / "samples.parquet").select(["name", "digest"])
    if trained_on is not None:
        more = pa.table({"name": trained_on.names, "digest": digests(trained_on)}, schema=seen.schema)
        seen = pa.concat_tables([seen, more])
    replace(folder / "samples.parquet", lambda temporary: pq.write_table(seen, temporary))
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8")) | {
        **session(),
        "seconds": round(seconds, 1),
        "finished": True,
        "notes": [*encoder.notes, *facts.get("notes", [])],
    }
    replace_text(folder / "environment.json", json.dumps(environment, indent=1))
    config = run.config | {"encoder": encoder.spec["name"], "classifier": facts}
    config["made"] = run.config["made"] | {"encoder": encoder.spec}
    config["settings"] = run.config["settings"] | {"encoder": encoder.spec["name"]}
    if trained_on is not None:
        how = "distilled" if facts["train"] == "distilled" else "fine-tuned"
        config |= {"method": f"{run.config['method']}, {how}", "samples": len(trained_on)}
        config |= {"epochs": facts["epochs"], "batch": facts["batch"]}
    replace_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    classifier = Classifier(folder)
    if len(test):
        table = measured(classifier, samples.subset(test), label[test], [*classes, *samples.classes])
        classifier.run.write("finetune", table)
        say(table["note"])
    else:
        say("Not measured: the labels name no row of the split test.")
    return classifier


def measured(classifier: Classifier, samples: Samples, label: Tensor, classes: list[str]) -> dict[str, Any]:
    """How good a classifier is on samples that it has not learned from: a report's table.

    label: N, all known, as numbers into `classes`, the first of which are the classifier's; it is wrong on the others.
    """
    p = (classifier.logits(classifier.features(samples)) / (classifier.temperature or 1.0)).softmax(1)
    group = samples.group if bool((samples.group != MISSING).any()) else None
    found = judged("classifier", p.argmax(1), label, group, torch.arange(len(label)), {}, [], 0)
    wide = torch.nn.functional.pad(p, (0, len(classes) - p.shape[1]))
    strange, seen = int((label >= p.shape[1]).sum()), int(classifier.run.seen(samples).sum())
    column, missed = "accuracy (%)", "calibration error (%)"
    values = {
        column: {"value": found["accuracy"], "low": found["low"], "high": found["high"]},
        missed: {"value": 100 * calibration_error(wide, label)},
    }
    note = (
        f"{found['accuracy']:.1f} % of {len(label):,} test samples are named right (95 % interval "
        f"{found['low']:.1f} to {found['high']:.1f}); always naming the most frequent class would "
        f"give {found['chance']:.1f} %."
    )
    note += f" {strange:,} are of classes without a label to learn from, and count as wrong." if strange else ""
    note += f" {seen:,} were in pre-training without their labels." if seen else ""
    each = [
        {"name": classes[c], "values": {column: {"value": value}}} for c, value in sorted(found["per_class"].items())
    ]
    return {
        "title": "The classifier on the test split",
        "note": note,
        "columns": [column, missed],
        "rows": [{"name": "this classifier", "main": True, "values": values}],
        "per_class": {"columns": [column], "rows": each},
        "confusion": {"by": "the classifier", "classes": classes, "counts": found["confusion"]},
        "protocol": found["protocol"] | {"temperature": classifier.temperature, **classifier.facts},
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not is_classifier(path):
        what = "is a run without a classifier" if (path / "config.yaml").is_file() else "is no classifier's directory"
        named = str(path) if (path / "config.yaml").is_file() else "RUN"
        raise FileNotFoundError(
            f"{str(path)!r} {what}. Make one from a few labels: nearfar finetune {named} DATA --labels labels.csv"
        )
    try:
        held = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
        content = (path / "classifier.safetensors").read_bytes()
        if held["format"] != FORMAT:
            raise ValueError(f"it has format {held['format']!r}, and this version reads {FORMAT}: update nearfar")
        if hashlib.sha256(content).hexdigest() != held["sha256"]:
            raise ValueError("classifier.safetensors is not the file that classifier.json describes")
        return held, load(content)
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise ValueError(f"the classifier in {str(path)!r} cannot be read ({error}): make it again") from error


def _described(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        return {"kind": "linear", "dims": [layer.in_features, layer.out_features], "bias": layer.bias is not None}
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
        return {"kind": "norm", "dim": layer.num_features, "eps": layer.eps, "affine": layer.affine}
    if isinstance(layer, nn.ReLU):
        return {"kind": "relu"}
    raise ValueError(f"a classifier's layers are linear layers, batch norms and ReLUs, and not {type(layer).__name__}")


def _built(layers: list[dict[str, Any]]) -> nn.Sequential:
    made: list[nn.Module] = []
    for layer in layers:
        match layer["kind"]:
            case "linear":
                made.append(nn.Linear(*layer["dims"], bias=layer["bias"]))
            case "norm":
                made.append(nn.BatchNorm1d(layer["dim"], eps=layer["eps"], affine=layer["affine"]))
            case "relu":
                made.append(nn.ReLU())
            case kind:
                raise ValueError(f"a classifier with a layer {kind!r}: update nearfar")
    return nn.Sequential(*made)
