from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nearfar.nn.weights import load_weights


def network(channels: int = 3) -> nn.Sequential:
    """Six entries: one of the convolution, five of the norm."""
    return nn.Sequential(nn.Conv2d(channels, 4, 3, bias=False), nn.BatchNorm2d(4))


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    return path


@pytest.mark.parametrize(("file", "prefix"), [("w.safetensors", ""), ("w.pt", "module.encoder_q."), ("w.pt", "")])
def test_weights_are_loaded_whole(tmp_path: Path, file: str, prefix: str) -> None:
    weights, net = network().state_dict(), network()
    path = save(tmp_path / file, {prefix + k: v for k, v in weights.items()} | {"fc.weight": torch.zeros(10, 256)})
    notes = load_weights(net, path)
    torch.testing.assert_close(dict(net.state_dict()), dict(weights))
    assert ["6 entries" in notes[0], "1 entries" in notes[1], "fc.weight" in notes[1]] == [True] * 3


@pytest.mark.parametrize("under", ["state_dict", "model"])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, under: str) -> None:
    weights, net = network().state_dict(), network()
    torch.save({"epoch": 3, under: weights}, tmp_path / "c.pth")
    assert len(load_weights(net, tmp_path / "c.pth")) == 1
    torch.testing.assert_close(dict(net.state_dict()), dict(weights))


def test_weights_that_do_not_fit_are_refused_with_counts_and_change_nothing(tmp_path: Path) -> None:
    weights, net = dict(network().state_dict()), network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    some = {key: value for key, value in weights.items() if key != "1.weight"}
    twice = {f"{p}.{key}": value for key, value in weights.items() for p in ("q", "k")}
    for entries, message in (
        (some, r"5 of the 6 entries.*missing: 1\.weight"),
        ({"x": torch.zeros(1)}, "0 of the 6 entries"),
        (dict(network(1).state_dict()), r"1 of the 6 entries.*\(4, 1, 3, 3\), wanted \(4, 3, 3, 3\)"),
        (twice, r"2 networks .*'q\.', 'k\.'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_weights(net, save(tmp_path / "w.pt", entries))
    torch.testing.assert_close(dict(net.state_dict()), before)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 / 0",)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_weights(network(), tmp_path / "nowhere.pt")
    torch.save({"w": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="never run"):
        load_weights(network(), tmp_path / "trap.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no state dict"):
        load_weights(network(), tmp_path / "list.pt")
    for name in ("cut.safetensors", "cut.pt"):
        whole = save(tmp_path / name, dict(network().state_dict())).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="cut"):
            load_weights(network(), tmp_path / name)
