from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar.export.encoder import export_encoder, load_encoder
from nearfar.modalities.audio import networks
from nearfar.modalities.audio.encoder import AudioEncoder, from_spec
from nearfar.modalities.audio.settings import insist_encoder, own_network
from nearfar.modalities.encoder import own_encoder

from .small import SPEC, samples, tiny

NAMES = ["melconv-8", "melgru-8", "wavegru-8", "resnet10t"]


@pytest.mark.parametrize("name", NAMES)
def test_an_export_carries_the_spectrogram_and_needs_no_library(name: str, tmp_path: Path) -> None:
    encoder = tiny(name=name).eval()
    report = export_encoder(encoder, tmp_path)
    assert report.difference is not None
    assert report.difference < 1e-5
    assert "nearfar" not in report.loader
    wave = encoder.example(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(load_encoder(tmp_path)(wave), encoder(wave))
    again = from_spec(encoder.spec)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in encoder.state_dict().items()
    }


@pytest.mark.parametrize(("name", "shape"), [("melconv-8", (8, 1, 2)), ("resnet10t", (512, 1, 1))])
def test_maps_lie_over_bands_and_frames_of_the_spectrogram(name: str, shape: tuple[int, ...]) -> None:
    encoder = tiny(name=name).eval()
    wave = encoder.example(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        row, last = encoder.with_map(wave)
        maps = encoder.maps(wave)
        torch.testing.assert_close(row, encoder(wave))
    assert len(maps) == 4
    assert torch.equal(maps[-1], last)
    assert tuple(last.shape[1:]) == (encoder.map_dim, *shape[1:]) == shape
    with pytest.raises(ValueError, match="wavegru-8 has no maps"):
        tiny(name="wavegru-8").maps(wave)


def test_filters_and_window_are_those_of_the_spec_whatever_the_weights() -> None:
    first, second = (encoder.net[0] for encoder in (tiny(), tiny(rate=8000)))
    assert isinstance(first, networks.LogMel)
    assert first.filters.shape == (12, 81)
    assert not torch.equal(first.filters, second.filters)
    assert {key.rpartition(".")[2] for key, _ in tiny().named_buffers()} >= {"hann", "filters"}


@pytest.mark.parametrize("name", ["melgru-8", "wavegru-8"])
def test_a_step_knows_nothing_of_later_ones_and_its_latent_nothing_of_others(name: str) -> None:
    encoder = tiny(name=name).eval()
    local, context = encoder.steps()
    wave = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) / 10
    z = local(wave)
    c = context(z)
    assert (z.shape[2], c.shape[2]) == (local.dim, context.dim)
    torch.testing.assert_close(encoder(wave), torch.cat([c.mean(1), c.amax(1)], 1))
    other = wave.clone()
    other[:, 3000:] = 0
    changed = (local(other) != z).any(2)[0]
    first = int(changed.nonzero()[0])
    assert 0 < first < len(changed)
    assert first * 4000 / len(changed) > 2500  # far from what changed nothing did
    before = context(local(other))[:, :first]
    torch.testing.assert_close(before, c[:, :first])
    latent = z.clone()
    latent[:, 3] += 1
    assert (context(latent) != c).any(2)[0].tolist() == [t >= 3 for t in range(z.shape[1])]


def test_networks_without_steps_say_who_has_them() -> None:
    assert not tiny().sequential
    with pytest.raises(ValueError, match=r"melconv-8 sees no sequence of steps; .*melgru"):
        tiny().steps()


def test_silence_is_a_recording_like_any_other() -> None:
    for name in NAMES[:3]:
        out = tiny(name=name)(torch.zeros(2, 1000))
        assert out.isfinite().all()


@pytest.mark.parametrize(
    ("name", "words"),
    [("melconf", "did you mean melconv"), ("melconv-6", "multiple of 4"), ("resnet1800", "no encoder is called")],
)
def test_a_name_that_is_none_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        insist_encoder(name)


def test_names_and_shapes_that_are_understood() -> None:
    assert own_network("melgru") == ("melgru", 256)
    assert own_network("wavegru-64") == ("wavegru", 64)
    assert own_network("resnet18") is None
    with pytest.raises(ValueError, match="mix channels down"):
        tiny()(torch.zeros(2, 3, 1000))
    with pytest.raises(ValueError, match="the keys"):
        from_spec({"kind": "audio", "name": "melconv"})
    with pytest.raises(ValueError, match=r"cannot take recordings of 0.05 s.*--seconds"):
        AudioEncoder(SPEC | {"name": "vit_tiny_patch16_224", "length": 200})


def test_a_module_of_ones_own_takes_waves() -> None:
    class Mine(torch.nn.Module):
        dim = 3

        def forward(self, wave: torch.Tensor) -> torch.Tensor:
            return wave[:, :3]

    facts: dict[str, Any] = {"channels": 1, "rate": 4000, "length": 1000}
    encoder = own_encoder(Mine(), "audio", samples(), facts)
    assert encoder.example(2).shape == (2, 1000)
    assert not encoder.sequential


def test_training_sees_a_recording_as_evaluation_does_whatever_its_batch() -> None:
    """Statistics of batches, which are mostly of silence around short recordings, cost melconv half of what it says."""
    encoder = tiny()
    wave = encoder.example(6, torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 6)[:, None]
    with torch.no_grad():
        alone, together = encoder.train()(wave[:2]), encoder(wave)
        torch.testing.assert_close(alone, together[:2])
        torch.testing.assert_close(together, encoder.eval()(wave))


def test_rounding_errors_of_silence_stay_small() -> None:
    torch.manual_seed(0)
    silence = torch.full((2, 12, 16), -3.0) + 3e-7 * torch.randn(2, 12, 16)
    assert networks.MelConv(8)(silence).abs().max() < 1e-2
