"""A user's own method: one file, given by its path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nearfar import methods
from nearfar.methods.moco import MoCo
from nearfar.modalities.image.samples import open_images
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.journal import Journal

from .small import TinyEncoder

MINE = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nearfar import Batch, Method, Step


@dataclass
class Memo:
    text: str = "a dataclass, which looks its module up"


class Head(nn.Sequential):
    """No method, for all its forward."""

    def forward(self, x):
        return super().forward(x)


class Mine(Method):
    """Views are near in the plane.

    Use it never.

    Args:
        dim: Width of the plane.
        deep: One more layer: a linear one,
            for what it is worth.

    Nobody 2026, "Nothing: a title", arXiv 2601.00001.
    """

    title = "Mine: Nothing (Nobody 2026)"

    def __init__(self, encoder, *, samples: int, dim: int = 4, deep: bool = False) -> None:
        super().__init__(encoder)
        layers = [nn.Linear(encoder.dim, dim), nn.Linear(dim, dim)]
        self.head = Head(*layers[: 2 if deep else 1])
        self.register_buffer("seen", torch.zeros(samples))
        self.memo = Memo()

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.each(lambda view: self.head(self.embed(view)), batch.views)
        return Step((z1 - z2).square().mean(), {"length": z1.detach().norm(dim=1).mean()}, carry=batch.index)

    def after_step(self, step: Step) -> None:
        self.seen[step.carry] += 1
'''


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_it_is_read_and_run(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    page, kind = methods.page(path), methods.load(path)
    assert (page.name, page.title, page.summary) == ("mine", kind.title, "Views are near in the plane.")
    assert (page.about, page.paper) == ("Use it never.", "2601.00001")
    assert page.citation == 'Nobody 2026, "Nothing: a title", arXiv 2601.00001.'
    assert kind.__name__ == "Mine"
    assert list(methods.flags(kind)) == ["dim", "deep"]
    assert methods.flag_texts(path) == {
        "dim": "Width of the plane.",
        "deep": "One more layer: a linear one, for what it is worth.",
    }


def test_it_trains(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    flags = {"deep": True, "epochs": 1, "batch": 4, "encoder": "conv4", "device": "cpu"}
    plan = plans.make(path, open_images(images), "small_images", flags)
    assert plan.arguments == {"dim": 4, "deep": True}
    assert training.train(plan, tmp_path / "run", say=lambda text: None)
    lines = [line for line in Journal(tmp_path / "run" / "metrics.jsonl").read() if "loss" in line]
    assert lines[-1]["step"] == 2
    assert np.isfinite(lines[-1]["loss"])
    assert lines[-1]["length"] > 0
    (newest,) = sorted((tmp_path / "run" / "checkpoints").glob("step-*2.pt"))
    state = torch.load(newest, weights_only=True)["method"]
    assert state["seen"].tolist() == [1] * 8
    assert {name for name in state if name.startswith("head")} == {
        "head.0.weight",
        "head.0.bias",
        "head.1.weight",
        "head.1.bias",
    }


def test_it_may_extend_a_method_of_the_library(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "from nearfar.methods.moco import MoCo as Base\n\n\n"
        'class Twice(Base):\n    """MoCo, but twice."""\n\n'
        "    def after_step(self, step):\n        super().after_step(step)\n        super().after_step(step)\n",
    )
    kind = methods.load(path)
    assert kind.__mro__[1] is methods.load("moco")
    assert list(methods.flags(kind)) == list(methods.flags(methods.load("moco")))
    assert (methods.page(path).title, methods.page(path).summary) == ("Twice", "MoCo, but twice.")
    method = methods.build(kind, TinyEncoder(), {"queue": 8, "dim": 4}, samples=1, classes=1, channels=1)
    assert isinstance(method, nn.Module)


def test_it_may_take_over_the_flags_of_the_method_it_extends(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "from nearfar.methods.moco import MoCo\n\n\n"
        'class Mine(MoCo):\n    """MoCo, but mine.\n\n'
        '    Args:\n        width: Of something.\n        dim: Wider.\n    """\n\n'
        "    def __init__(self, encoder, *, width: int = 3, dim: int = 256, **moco):\n"
        "        super().__init__(encoder, dim=dim, **moco)\n        self.width = width\n",
    )
    kind, page = methods.load(path), methods.page(path)
    flags = methods.flags(kind)
    assert list(flags) == ["width", "dim", *[flag for flag in methods.flags(MoCo) if flag != "dim"]]
    assert flags["dim"].default == 256
    texts = methods.flag_texts(path)
    assert texts == methods.flag_texts("moco") | {"width": "Of something.", "dim": "Wider."}
    assert page.family == methods.page("moco").family
    listed = methods.listed_flags(path)
    assert (listed["width"], listed["dim"], listed["splits"]) == ("int = 3", "int = 256", "int, 1 or more = 8")
    assert set(listed) == set(flags)
    method = methods.build(kind, TinyEncoder(), {"queue": 8, "width": 5}, samples=1, classes=1, channels=1)
    assert len(method.get_submodule("queue").get_buffer("keys")) == 8
    with pytest.raises(TypeError, match="depth"):
        methods.build(kind, TinyEncoder(), {"depth": 5})


CLASS = "class {0}(Method):\n    def forward(self, batch):\n        return None\n\n\n"
IMPORT = "from nearfar import Method\n\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "exactly one public class that extends nearfar.Method, and holds 0: none"),
        ("class Method:\n    def forward(self, batch): ...\n", "holds 0: none"),
        (IMPORT + CLASS.format("_Hidden"), "holds 0: none"),
        (IMPORT + CLASS.format("One") + CLASS.format("Two"), "holds 2: One, Two"),
    ],
)
def test_a_file_without_one_method(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        methods.load(write(tmp_path, text))
    assert "mine.py" in str(error.value)


def test_a_file_without_any_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.py.* holds no public class that extends nearfar\.Method"):
        methods.page(
            write(tmp_path, "from torch import nn\n\n\nclass Head(nn.Module):\n    def forward(self, x): ...\n")
        )


@pytest.mark.parametrize("arguments", ["dim", "*, dim", "dim=3", "*, dim: int"])
def test_a_flag_needs_a_name_and_a_default(tmp_path: Path, arguments: str) -> None:
    text = IMPORT + CLASS.format("Mine").rstrip() + f"\n\n    def __init__(self, encoder, {arguments}): ...\n"
    with pytest.raises(ValueError, match=r"Mine\.__init__: 'dim' must be keyword-only and have a default"):
        methods.flags(methods.load(write(tmp_path, text)))


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no method 'simclrr'; did you mean simclr or simclrv2.*moco"):
        methods.load("simclrr")
    with pytest.raises(ValueError, match=r"no method 'xyzzy'\. The methods are: .*barlow"):
        methods.load("xyzzy")
    with pytest.raises(FileNotFoundError, match=r"no method file '.*absent\.py'"):
        methods.page(str(tmp_path / "absent.py"))


def test_a_flag_that_nobody_has(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    with pytest.raises(TypeError, match=r"neither a run nor '.*mine\.py' has an argument 'deeep'; did you mean deep"):
        plans.make(path, "anywhere.npz", None, {"deeep": True})


def test_no_flag_of_a_method_has_the_name_of_a_setting() -> None:
    from dataclasses import fields

    from nearfar.cli.train import Place
    from nearfar.settings import Settings

    taken = {field.name for kind in (Settings, Place) for field in fields(kind)}
    for name in methods.names():
        assert not taken & set(methods.flags(methods.load(name))), f"flags of {name} would set the run as well"
