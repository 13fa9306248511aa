"""Does contrast make better images of a class? `python -m benchmarks.generation`: three seeds of each form.

Drawings of four alphabets, which are the classes; every fifth drawing is of the split test and seen by nothing. The
same generator and discriminator, equal steps, and the condition in the discriminator alone is another one: 2C, D2D-CE,
projection, an auxiliary classifier, or none. Images are judged by the representation of a classifier (conv4,
cross-entropy) of the same training drawings. The last step counts. What is done is kept, and not done again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from nearfar import generation
from nearfar.modalities.image.drawings import alphabets, drawings
from nearfar.modalities.image.samples import Images
from nearfar.run import Run, fit

RESULTS = Path(__file__).parent / "results" / "generation"
ALPHABETS = ("Angelic", "Aurek-Besh", "Ge_ez", "Malayalam")
FORMS = ("2c", "projection", "none", "d2dce", "classifier")
JUDGE = {"epochs": 30, "batch": 128, "encoder": "conv4", "optimizer": "adamw", "lr": 2e-3, "views": "drawing"}
GAN = {"views": "plain", "batch": 32, "lr": 0.0016}
METHOD = {"dim": 128, "temperature": 0.5, "discriminator_steps": 1}


@dataclass(frozen=True)
class Ask:
    """Which runs."""

    forms: tuple[str, ...] = FORMS[:3]
    """Conditions of the discriminator."""
    seeds: int = 3
    """So many of each."""
    epochs: int = 50
    """Passes over the training drawings, of 59 steps each."""
    size: int = 16
    """Side of the images, in pixels."""
    width: int = 16
    """Of the generator and of the discriminator."""

    @property
    def settings(self) -> dict[str, Any]:
        """Of a run but its condition and seed."""
        sizes = {"encoder": f"biggan{self.width}", "width": self.width, "size": self.size, "epochs": self.epochs}
        return GAN | METHOD | sizes

    @property
    def name(self) -> str:
        """Of the runs of this length and these sizes."""
        return f"{self.size}px-{self.width}-{self.epochs}"

    runs: str = ""
    """A folder for the runs and their sheets, in which a call that was stopped goes on; none keeps none."""


def main(asked: Ask) -> int:
    """Train, judge, keep and print."""
    data, folder = classes(), Path(asked.runs or tempfile.mkdtemp())
    for seed in range(asked.seeds):
        for form in asked.forms:
            path = RESULTS / f"{form}-{asked.name}-seed{seed}.json"
            if not path.exists():
                keep(path, run(data, folder, form, seed, asked))
            known = json.loads(path.read_text())
            print(f"{form:<10} seed {seed}  {known['values']}", flush=True)
    if not asked.runs:
        shutil.rmtree(folder)
    return 0


def classes() -> Images:
    """The drawings, labeled with their alphabets, every fifth drawer in the split test."""
    every = drawings("train")
    of = alphabets(every)
    index = torch.tensor([i for i, name in enumerate(of) if name in ALPHABETS])
    some = every.subset(index)
    some.label = torch.tensor([ALPHABETS.index(of[i]) for i in index.tolist()])
    some.classes, some.label_column = list(ALPHABETS), "alphabet"
    some.split = ["test" if name.endswith(("/03", "/08", "/13", "/18")) else "train" for name in some.names]
    return some


def run(data: Images, folder: Path, form: str, seed: int, asked: Ask) -> dict[str, Any]:
    """Train one form, and judge what it makes; the judge is trained once."""
    quiet = {"say": lambda text: None, "probe_every": 0, "label_column": "alphabet"}
    of, out = folder / f"classifier of alphabets {asked.size}px", folder / f"{form}-{asked.name}-seed{seed}"
    judge = fit(data, "crossentropy", out=of, resume=of.exists(), seed=0, size=asked.size, **quiet, **JUDGE)
    wanted = asked.settings | {"condition": form, "seed": seed}
    one = fit(data, "contragan", out=out, resume=out.exists(), **quiet, **wanted)
    table = judged(one, judge, data, out / "sheet.png")
    return {
        "form": form, "seed": seed, "epochs": asked.epochs, "steps": one.made["steps"], "settings": asked.settings,
        "judge": JUDGE, "classes": data.classes, "protocol": table["protocol"],
        "values": {name: round(cell["value"], 2) for name, cell in table["rows"][0]["values"].items()},
        "command": "python -m benchmarks.generation", "threads": torch.get_num_threads(),
    }  # fmt: skip


def judged(made_by: Run, judge: Run, data: Images, sheet: Path) -> dict[str, Any]:
    """The numbers of a run: of as many images as there are test drawings, as many of each class."""
    count = -(-data.split.count("test") // len(made_by.made["classes"]))
    names = [] if made_by.config["arguments"]["condition"] == "none" else data.classes
    made = generation.generate(made_by, names, count=count if names else data.split.count("test"), seed=1)
    by = generation.Judge.of(judge)
    generation.sheet(made_by, made, by, data).save(sheet)
    return generation.quality(made_by, made, data, by, seed=0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Ask, args=sys.argv[1:])))
