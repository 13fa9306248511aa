from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nearfar.export.onnx import export_onnx
from nearfar.modalities.audio.encoder import AudioEncoder
from nearfar.modalities.image.encoder import image_encoder
from nearfar.nn.towers import Towers


@pytest.mark.parametrize("name", ["conv4", "test_resnet", "ycbcr:conv4"])
def test_any_batch_gives_the_features_of_the_encoder(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra export)")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (the extra export)")
    torch.manual_seed(0)
    encoder = image_encoder(name, size=32)
    encoder.train()(torch.rand(8, 3, 32, 32))  # statistics of its own
    path, difference, _ = export_onnx(encoder, tmp_path)
    assert difference < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(path)
    pixels = torch.rand(7, 3, 32, 32)
    (features,) = session.run(None, {"input": pixels.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(features), encoder.eval()(pixels), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["melconv-8", "melgru-8", "wavegru-8"])
def test_encoders_of_recordings_take_their_spectrogram_along(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra export)")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (the extra export)")
    torch.manual_seed(0)
    spec = {"kind": "audio", "name": name, "rate": 4000, "length": 1000, "bands": 12, "window": 160, "hop": 64}
    encoder = AudioEncoder(spec | {"mean": -5.0, "std": 3.0}).eval()
    path, _, _ = export_onnx(encoder, tmp_path)
    waves = torch.randn(3, 1000) / 10
    waves[1, 300:] = 0  # a short recording
    waves[2] = 0
    (features,) = onnxruntime.InferenceSession(path).run(None, {"input": waves.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(features), encoder(waves), rtol=1e-3, atol=1e-3)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxruntime.*pip install 'nearfar\[export\]'"):
        export_onnx(image_encoder("conv4", size=32), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_view_of_several_tensors_is_refused(tmp_path: Path) -> None:
    both = Towers({"a": image_encoder("conv4", size=16), "b": image_encoder("conv4", size=16)})
    with pytest.raises(ValueError, match="takes a dict: export without --onnx"):
        export_onnx(both, tmp_path / "out")
    assert not (tmp_path / "out").exists()
