"""Training that begins with given weights: of other libraries, by files made as these write them, and of our own."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import nearfar
from nearfar.files import read_json
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.settings import Settings
from nearfar.modalities.image.start import started
from nearfar.modalities.timm_nets import RESNET_PARTS
from nearfar.training.checkpoints import read
from nearfar.training.journal import Journal
from nearfar.training.plan import make
from tests.tiny import SETTINGS, array_file, tiny_images

State = dict[str, Tensor]
zero = torch.zeros(2)
RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """Random weights of a small ResNet and a small ViT, with heads, by timm's names."""
    torch.manual_seed(5)
    return {name: dict(timm.create_model(name, num_classes=7).state_dict()) for name in (RESNET, VIT)}


def body(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith(("fc.", "head."))}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def lightly(state: State) -> State:
    """A ResNet of torchvision without its last layer, in a Sequential."""
    number = {name: str(i) for i, name in enumerate(RESNET_PARTS)}
    return {f"{number[key.partition('.')[0]]}.{key.partition('.')[2]}": value for key, value in body(state).items()}


def zeros(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


FILES: dict[str, tuple[str, Callable[[State], Any]]] = {
    "torchvision, with fc and without counters": (
        RESNET, lambda s: {key: value for key, value in s.items() if "num_batches" not in key}
    ),
    "MoCo, with its slow copy": (
        RESNET,
        lambda s: {
            "epoch": 3, "arch": "resnet",
            "state_dict": under("module.encoder_q.", s) | under("module.encoder_k.", zeros(s)),
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        },
    ),
    "solo-learn": (
        RESNET,
        lambda s: {
            "state_dict": under("backbone.", body(s)) | under("momentum_backbone.", zeros(body(s)))
            | {"projector.0.weight": zero}
        },
    ),
    "lightly": (
        RESNET, lambda s: {"state_dict": under("backbone.", lightly(s)) | {"projection_head.layers.0.bias": zero}}
    ),
    "DINO": (
        VIT,
        lambda s: {
            "student": under("module.backbone.", zeros(body(s))) | {"module.head.last_layer.weight_v": zero},
            "teacher": under("backbone.", body(s)), "args": argparse.Namespace(arch="vit"), "epoch": 1,
        },
    ),
    "a checkpoint of a run, with a slow copy": (
        RESNET,
        lambda s: {"step": 3, "method": under("encoder.net.", body(s)) | under("slow.encoder.net.", zeros(body(s)))},
    ),
    "DINOv2, plain": (VIT, lambda s: body(s) | {"mask_token": torch.zeros(1, s["cls_token"].shape[-1])}),
}  # fmt: skip


@pytest.mark.parametrize("which", FILES)
def test_exports_of_other_libraries_are_taken_whole(which: str, states: dict[str, State], tmp_path: Path) -> None:
    name, made = FILES[which]
    torch.save(made(states[name]), tmp_path / "w.pth")
    encoder = started(Settings(encoder=name, weights=str(tmp_path / "w.pth")), 160, 3)
    own = encoder.net.state_dict()
    for key, value in own.items():
        if "num_batches" not in key:
            assert torch.equal(value, states[name][key]), key
    assert f"All {len(own)} entries" in (said := " ".join(encoder.notes))
    assert "belong to no part of the encoder" in said
    assert encoder.spec["mean"] == list(timm.get_pretrained_cfg(name).mean)
    assert encoder.spec["small_stem"] is False


def test_position_embeddings_fit_another_grid_as_timm_has_it(states: dict[str, State], tmp_path: Path) -> None:
    save_file(body(states[VIT]), tmp_path / "w.safetensors")
    encoder = started(Settings(encoder=VIT, weights=str(tmp_path / "w.safetensors"), size=96), 96, 3)
    whole = timm.create_model(VIT, num_classes=0, img_size=96)
    filtered = timm.models.vision_transformer.checkpoint_filter_fn(body(states[VIT]), whole)
    assert torch.equal(encoder.net.state_dict()["pos_embed"], filtered["pos_embed"])
    assert any("pos_embed was resized from" in note for note in encoder.notes)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 / 0",)


def damaged_files(states: dict[str, State], at: Path) -> Iterator[tuple[str, str, str]]:
    """Files that cannot be a start, the network that is asked for, and what is said."""
    resnet, path = states[RESNET], at / "w.pth"
    torch.save(body(states[VIT]), path)
    yield str(path), RESNET, r"w\.pth has 0 of the \d+ entries .*name the encoder that these weights belong to"
    torch.save(dict(list(resnet.items())[: len(resnet) // 2]), path)
    yield str(path), RESNET, r"w\.pth has \d+ of the \d+ entries .*missing: layer"
    torch.save(resnet, path)
    yield str(path), "resnet18", r"entries"
    torch.save(resnet | {"layer4.1.conv1.weight": resnet["layer4.0.conv1.weight"]}, path)
    yield str(path), RESNET, r"has 1 entries more in parts of this network \(layer4\.1\.conv1\.weight\)"
    torch.save(lightly(resnet) | {"7.1.conv1.weight": resnet["layer4.0.conv1.weight"]}, path)
    yield str(path), RESNET, r"has 1 entries more in parts"
    gray = {
        key: value[:, :1] if key == "conv1.weight" or key == "conv1.0.weight" else value
        for key, value in resnet.items()
    }
    torch.save(gray, at / "gray.pth")
    yield str(at / "gray.pth"), RESNET, r"is for images of 1 channels, and these have 3"
    torch.save({"state_dict": Trap()}, path)
    yield str(path), RESNET, r"code in it is never run"
    torch.save({key: value.to(torch.int8) for key, value in resnet.items()}, path)
    yield str(path), RESNET, r"are whole numbers .*: int8\)"
    torch.save(resnet | {"layer1.0.conv1.weight": resnet["layer1.0.conv1.weight"] * torch.nan}, path)
    yield str(path), RESNET, r"w\.pth' makes numbers that are not finite"
    torch.save(zeros(resnet), path)
    yield str(path), RESNET, r"w\.pth' makes one and the same row"
    save_file(resnet, at / "cut.safetensors")
    (at / "cut.safetensors").write_bytes((at / "cut.safetensors").read_bytes()[:5000])
    yield str(at / "cut.safetensors"), RESNET, r"may be cut short"
    yield str(at / "nowhere.pth"), RESNET, r"no such file"
    yield str(at), RESNET, r"holds no encoder\.json"


def test_what_cannot_be_a_start_is_said_before_data_are_opened(states: dict[str, State], tmp_path: Path) -> None:
    """But for channels, which only the data tell, and what weights make; nothing is left of such a run."""
    color = tmp_path / "color.npz"
    np.savez(color, images=np.repeat(tiny_images(24)[..., None], 3, axis=3) // np.array([1, 2, 3], dtype=np.uint8))
    files = tmp_path / "files"
    files.mkdir()
    for weights, name, message in damaged_files(states, files):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            nearfar.fit(color, "simclr", out=tmp_path / "out", weights=weights, encoder=name, epochs=1, size=32)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="does not say of which network: name it by --encoder"):
        make("simclr", color, None, {"weights": str(files / "gray.pth")})
    with pytest.raises(ValueError, match="begins with one of the two"):
        make("simclr", color, None, {"weights": str(files / "gray.pth"), "from_run": "run", "encoder": RESNET})
    with pytest.raises(TypeError, match="'weights' can be set for data of the kind image"):
        make("simcse", ["one", "two"], None, {"weights": "w.pth"}, kind="text")


def run(data: Path, out: Path, method: str = "simclr", **flags: Any) -> nearfar.Run:
    return nearfar.fit(data, method, out=out, say=lambda text: None, **(SETTINGS | flags))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return array_file(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    run(data, out)
    return out


@pytest.fixture(scope="module")
def ruined(data: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that begins with the weights of another, on other images, at a rate that leaves nothing of them."""
    out = tmp_path_factory.mktemp("ruined") / "run"
    weights = tmp_path_factory.mktemp("export") / "export"
    shutil.copytree(first, weights)
    run(data, out, weights=str(weights), lr=50.0, epochs=2)
    shutil.rmtree(weights)
    return out


def test_the_start_is_kept_measured_and_a_row_of_every_evaluation(ruined: Path, first: Path, data: Path) -> None:
    opened = nearfar.load(ruined)
    given, one = opened.given(), nearfar.load(first).encoder
    assert given is not None
    assert all(torch.equal(value, one.state_dict()[key]) for key, value in given.state_dict().items())
    assert read_json(ruined / "encoder.json", "")["encoder"] == read_json(first / "encoder.json", "")["encoder"]
    table = opened.evaluate(data)
    assert [row["name"] for row in table["rows"]] == [
        "raw pixels",
        "untrained encoder",
        "given weights",
        "trained encoder",
    ]
    values = {row["name"]: row["values"]["kNN (%)"]["value"] for row in table["rows"]}
    assert values["given weights"] == nearfar.load(first).evaluate(data)["rows"][-1]["values"]["kNN (%)"]["value"]
    lines = list(Journal(ruined / "metrics.jsonl").read())
    assert lines[0]["step"] == 0
    assert lines[0]["knn"] >= max(line.get("knn") or 0 for line in lines)
    best = read(ruined / "checkpoints" / "best.pt")  # the start: nothing in training was better
    assert best["step"] == 0
    assert all(torch.equal(best["method"][f"encoder.{key}"], value) for key, value in given.state_dict().items())


def test_a_random_start_is_never_the_best(first: Path) -> None:
    assert nearfar.load(first).given() is None
    best = first / "checkpoints" / "best.pt"
    assert not best.exists() or read(best)["step"] > 0


CONTINUED = {"recipe": "continue", "epochs": 3, "batch": 16, "views": "drawing", "probe_every": 1, "start_pull": 0.1}


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_continue_holds_the_encoder_still_at_first_and_resumes_to_the_same_bits(
    method: str, data: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = CONTINUED | {"weights": str(first), "frozen": 0.34}  # 4 of 9 steps: the first epoch ends within

    def go(out: Path, **more: Any) -> State:
        nearfar.fit(data, method, out=out, say=lambda text: None, keep=9, **(flags | more))
        return {path.stem: read(path)["method"] for path in sorted((out / "checkpoints").glob("step-*.pt"))}

    whole = go(tmp_path / "whole")
    start = dict(nearfar.load(first).encoder.state_dict())
    steps = sorted(whole)
    for key, value in start.items():
        assert torch.equal(whole[steps[1]][f"encoder.{key}"], value), key
    assert any(not torch.equal(whole[steps[-1]][f"encoder.{key}"], value) for key, value in start.items())
    heads = [key for key in whole[steps[0]] if key.startswith("projector") and key.endswith("weight")]
    assert any(not torch.equal(whole[steps[0]][key], whole[steps[1]][key]) for key in heads)
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    for name in steps[2:]:
        (cut / "checkpoints" / f"{name}.pt").unlink()
    (cut / "environment.json").unlink()
    again = go(cut, resume=True)[steps[-1]]
    assert all(torch.equal(again[key], value) for key, value in whole[steps[-1]].items())
    with pytest.raises(ValueError, match=r"frozen was 0\.34 and is 0\.1"):
        go(cut, resume=True, frozen=0.1)
    said: list[str] = []
    longer = tmp_path / "whole"
    nearfar.fit(data, method, out=longer, say=said.append, keep=9, resume=True, **(flags | {"epochs": 9}))
    assert "Up to step 10 the encoder stands still, as --frozen is a share of all steps." in said
    (cut / "given.safetensors").unlink()  # what the encoder is pulled to: nothing takes its place
    (cut / "environment.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"given\.safetensors"):
        go(cut, resume=True)


def test_layers_toward_the_input_learn_more_slowly(first: Path) -> None:
    from nearfar.methods.simclr import SimCLR
    from nearfar.training.optimization import make_optimizer

    for name in ("conv4", "test_resnet", "test_vit"):
        encoder = image_encoder(name, channels=3, size=32 if name != "test_vit" else 160)
        method = SimCLR(encoder)
        groups = make_optimizer(method, Settings(lr=0.5, layer_decay=0.5, optimizer="adamw"), 256).param_groups
        rate = {p: group["initial_lr"] for group in groups for p in group["params"]}
        assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in method.parameters())
        names = dict(encoder.named_parameters())
        assert rate[next(method.projector.parameters())] == groups[0]["initial_lr"] == 0.5
        ordered = [rate[p] for p in names.values() if p.dim() == 4 or p.dim() == 2]
        assert ordered == sorted(ordered)
        assert len(set(ordered)) >= 4
        assert max(ordered) == 0.25


class Unordered(torch.nn.Module):
    dim = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, :1] * torch.ones(1, requires_grad=True)


def test_layers_without_order_are_said_before_a_run_is_written_down(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave --layer-decay at 1"):
        run(data, tmp_path / "out", encoder=Unordered(), layer_decay=0.75)
    assert not (tmp_path / "out").exists()


def test_random_weights_are_not_kept(data: Path, tmp_path: Path) -> None:
    for flags in ({"recipe": "continue"}, {"start_pull": 0.1, **SETTINGS}):
        with pytest.raises(ValueError, match="random weights: give others by --weights"):
            nearfar.fit(data, "simclr", out=tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_images_of_other_channels_than_the_start(first: Path, tmp_path: Path) -> None:
    images = np.repeat(tiny_images(24)[..., None], 3, axis=3) // np.array([1, 2, 3], dtype=np.uint8)
    with pytest.raises(ValueError, match="is for images of 1 channels, and these have 3: give images of 1 channels"):
        nearfar.fit(images, "simclr", out=tmp_path / "out", weights=str(first), epochs=1)
