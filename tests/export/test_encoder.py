from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nearfar.export.encoder import ExportReport, export_encoder, load_encoder
from nearfar.files import read_json, read_text, replace_json
from nearfar.method import Encoder
from nearfar.modalities.encoder import wrap
from nearfar.modalities.image.encoder import ImageEncoder, image_encoder
from nearfar.modalities.image.views import plain
from nearfar.nn.norms import split_norms, synchronize_norms
from nearfar.nn.towers import Towers
from tests.methods.small import TinyEncoder, TinyStreams


def images(encoder: ImageEncoder, n: int = 3) -> Tensor:
    shape = n, encoder.spec["channels"], encoder.spec["size"], encoder.spec["size"]
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def trained(name: str, *, channels: int = 3, size: int = 32) -> ImageEncoder:
    """An encoder whose norms have seen something, and were changed as methods change them."""
    torch.manual_seed(0)
    encoder = image_encoder(name, channels=channels, size=size)
    synchronize_norms(split_norms(encoder, 2), torch.device("cpu"))
    with torch.no_grad():
        encoder(images(encoder, 8))
    return encoder


@pytest.fixture
def exported(tmp_path: Path) -> tuple[ImageEncoder, Path]:
    encoder = trained("conv4", channels=1)
    export_encoder(encoder, tmp_path)
    return encoder, tmp_path


@pytest.mark.parametrize(
    ("name", "channels", "size", "unchanged"),
    [
        ("conv4", 1, 32, False),
        ("0+0:conv4", 1, 32, False),
        ("biggan2", 3, 32, False),
        ("0+0:biggan2", 1, 64, False),
        ("ycbcr:test_resnet", 3, 32, False),
        ("ycbcr:test_resnet", 3, 96, False),
        ("test_resnet", 3, 96, True),
        ("test_resnet", 3, 32, False),
        ("resnet10t", 1, 32, False),
        ("test_vit", 3, 160, True),
        ("test_vit", 3, 64, False),
        ("test_efficientnet", 3, 64, True),
        ("mobilenetv3_small_050", 3, 64, True),
    ],
)
def test_what_is_exported_loads_here_and_elsewhere(
    tmp_path: Path, name: str, channels: int, size: int, unchanged: bool
) -> None:
    encoder = trained(name, channels=channels, size=size)
    state = torch.get_rng_state()
    report = export_encoder(encoder, tmp_path / "out")
    assert torch.get_rng_state().equal(state)
    assert encoder.training
    assert report.plain is unchanged
    assert report.difference is not None
    assert report.difference < 1e-5
    assert report.parameters == sum(p.numel() for p in encoder.parameters())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in report.files)
    weights = load_file(tmp_path / "out" / "encoder.safetensors")
    assert sorted(weights) == sorted(encoder.net.state_dict())
    assert len(weights) == report.entries
    if unchanged:
        import timm

        timm.create_model(name, num_classes=0, in_chans=channels).load_state_dict(weights, strict=True)
    again = load_encoder(tmp_path / "out")
    assert not again.training
    assert (again.dim, again.spec) == (encoder.dim, encoder.spec)
    torch.testing.assert_close(again(images(encoder)), encoder.eval()(images(encoder)))


def test_the_loader_needs_nothing_of_ours(exported: tuple[ImageEncoder, Path], tmp_path: Path) -> None:
    encoder, folder = exported
    loader = (folder / "encoder.py").read_text()
    roots = set()
    for node in ast.walk(ast.parse(loader)):
        if isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
    assert roots == {"hashlib", "pathlib", "torch", "safetensors"}
    assert "pickle" not in loader
    save_file({"x": images(encoder)}, tmp_path / "x.safetensors")
    code = (
        "import sys; sys.modules['nearfar'] = None; from encoder import encode\n"
        "from safetensors.torch import load_file, save_file\n"
        "save_file({'h': encode(load_file('x.safetensors')['x']).detach()}, 'h.safetensors')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    torch.testing.assert_close(load_file(tmp_path / "h.safetensors")["h"], encoder.eval()(images(encoder)))
    content = bytearray((folder / "encoder.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "encoder.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"encoder\.safetensors is damaged"):
        runpy.run_path(str(folder / "encoder.py"))


def test_the_description_tells_how_to_prepare_images(exported: tuple[ImageEncoder, Path]) -> None:
    description = json.loads((exported[1] / "encoder.json").read_text())
    assert description["format"] == 1
    assert description["dim"] == 512
    assert {key: description["input"][key] for key in ("channels", "size", "mean", "std", "range")} == {
        "channels": 1,
        "size": 32,
        "mean": [0.5],
        "std": [0.5],
        "range": [0, 1],
    }
    assert "as large as its short side" in description["input"]["resize"]
    assert set(description["versions"]) == {"torch", "timm", "safetensors"}


@pytest.mark.parametrize(("size", "words"), [(64, "as large as its short side"), (96, "of 224/256 of its short side")])
def test_the_preparation_is_the_test_view(tmp_path: Path, size: int, words: str) -> None:
    export_encoder(image_encoder("conv4", size=size), tmp_path)
    assert words in json.loads((tmp_path / "encoder.json").read_text())["input"]["resize"]
    assert plain(size).views[0].center == (1.0 if "as large" in words else 224 / 256)


def test_a_failed_check_leaves_the_older_export(exported: tuple[ImageEncoder, Path]) -> None:
    encoder, folder = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    encoder.mean.fill_(0.9)  # no longer what the spec says
    with pytest.raises(ValueError, match="other outputs"):
        export_encoder(encoder, folder)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"1 of the 24 tensors .* not finite"):
        export_encoder(encoder, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_compiled_encoder_is_exported_like_any_other(tmp_path: Path) -> None:
    encoder = trained("conv4")
    encoder.compile(backend="eager")
    report = export_encoder(encoder, tmp_path)
    assert report.difference is not None
    assert report.difference < 1e-5


def test_exporting_twice_gives_the_same_files(exported: tuple[ImageEncoder, Path]) -> None:
    encoder, folder = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = export_encoder(encoder, folder)
    assert isinstance(report, ExportReport)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors"])
def test_missing_and_damaged_files_are_named(exported: tuple[ImageEncoder, Path], name: str) -> None:
    path = exported[1] / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name}.*export the run again"):
        load_encoder(exported[1])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}' is missing: export the run again"):
        load_encoder(exported[1])


def test_other_weights_are_refused_with_counts(exported: tuple[ImageEncoder, Path]) -> None:
    folder = exported[1]
    description = read_json(folder / "encoder.json", "")
    description["encoder"] |= {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    replace_json(folder / "encoder.json", description)
    with pytest.raises(ValueError, match=r"23 of the 24 entries of conv4 and has 24 \(not fitting: 0\.weight\)"):
        load_encoder(folder)
    replace_json(folder / "encoder.json", description | {"format": 99})
    with pytest.raises(ValueError, match="format 99, this version reads 1"):
        load_encoder(folder)
    replace_json(folder / "encoder.json", {"format": 1})
    with pytest.raises(ValueError, match="encoder"):
        load_encoder(folder)


def test_towers_are_exported_together_or_one_by_one(tmp_path: Path) -> None:
    both = Towers({"a": trained("conv4", channels=1), "b": trained("test_resnet")}).eval()
    report = export_encoder(both, tmp_path)
    assert [path.name for path in report.files] == ["encoder.safetensors", "encoder.json"]
    assert (report.loader, report.plain, report.dim) == ("", False, 608)
    assert report.difference is not None
    assert report.difference < 1e-5
    view = both.example(3)
    torch.testing.assert_close(load_encoder(tmp_path)(view), both(view))
    torch.testing.assert_close(load_encoder(tmp_path, "b")(view["b"]), both(view)[:, 512:])
    one = export_encoder(both, tmp_path, tower="b")
    assert one.dim == 96
    assert read_text(tmp_path / "encoder.py", "") == one.loader != ""
    torch.testing.assert_close(load_encoder(tmp_path)(view["b"]), both(view)[:, 512:])
    export_encoder(both, tmp_path)
    assert not (tmp_path / "encoder.py").exists()  # it would load one tower where there are two
    for encoder, tower in ((both, "c"), (both.tower("a"), "a")):
        with pytest.raises(ValueError, match="tower"):
            export_encoder(encoder, tmp_path, tower=tower)


class Sum(Encoder):
    """Takes two tensors, and says how it is built: what it gives is their sum, three times."""

    dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.spec = {"name": "sum", "own": True}
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        return self.factor * (view["x"] + view["y"])

    def example(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {name: torch.rand(n, 2, generator=generator) for name in "xy"}

    def source(self) -> tuple[list[str], bool]:
        return [
            "net = torch.nn.Module()",
            "net.register_parameter('factor', torch.nn.Parameter(torch.ones(())))",
        ], False

    def encode_lines(self) -> list[str]:
        return ["", "", "def encode(view):", "    return net.factor * (view['x'] + view['y'])"]


def test_any_encoder_that_says_how_it_is_built_gets_a_loader(tmp_path: Path) -> None:
    report = export_encoder(Sum(), tmp_path)
    assert report.difference == 0
    assert report.loader
    assert report.parameters == 1


def test_a_module_without_a_description_is_exported_as_weights(tmp_path: Path) -> None:
    spec = {"kind": "image", "name": "TinyEncoder", "own": True, "channels": 3, "size": 8}
    encoder = wrap(TinyEncoder(), spec).eval()
    report = export_encoder(encoder, tmp_path)
    assert (report.loader, report.difference, report.entries) == ("", None, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "encoder.safetensors"]
    again = load_encoder(tmp_path, network=TinyEncoder())
    x = encoder.example(3)
    assert torch.equal(again(x), encoder(x))
    with pytest.raises(ValueError, match=r"encoder=TinyEncoder\(\)"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="0 of the 12 entries of TinyEncoder"):
        load_encoder(tmp_path, network=TinyStreams())
