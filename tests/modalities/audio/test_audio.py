"""Recordings from the command line to a report, and what is refused before anything long begins."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import nearfar
from nearfar.batch import Batch
from nearfar.cli import main
from nearfar.distributed import local
from nearfar.method import Method
from nearfar.methods.cpc import CPC
from nearfar.modalities import kind as kinds
from nearfar.modalities.audio import settings as audio_settings
from nearfar.modalities.audio import views as audio_views
from nearfar.modalities.audio.views import plain
from nearfar.training import loop as loops
from tests.tiny import evaluated
from tests.two_ranks import Pool

from .small import RATE, SPEC, TINY, folder, samples, soundfile, tiny, tones

METHODS = ["simclr", "byol", "moco", "barlow", "supcon", "dcl", "imix"]


def test_from_a_folder_to_a_report_that_plays(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "tones"), tmp_path / "run"
    assert main(["train", "simclr", str(data), "--labels", "folders", "--out", str(out), *TINY]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["kind"], config["recipe"], config["made"]["length"]) == ("audio", "recordings", 1000)
    with Image.open(out / "views.png") as sheet:
        assert sheet.width > 400
    assert main(["evaluate", str(out), str(data), "--labels", "folders"]) == 0
    rows = {row["name"]: row["values"] for row in json.loads(evaluated(out).read_text())["rows"]}
    assert list(rows) == ["mel statistics", "untrained encoder", "trained encoder"]
    assert rows["mel statistics"]["linear (%)"]["value"] > 90
    assert main(["report", str(out), "--data", str(data), "--labels", "folders"]) == 0
    page = (out / "report.html").read_text()
    assert "media-src data:" in page
    sounds = re.findall(r'<audio controls preload="none" src="data:audio/wav;base64,([^"]+)"', page)
    assert len(sounds) >= 8
    with wave.open(io.BytesIO(base64.b64decode(sounds[0]))) as played:
        assert (played.getframerate(), played.getsampwidth()) == (RATE, 2)
        assert 0 < played.getnframes() <= 2 * RATE
    run = nearfar.load(out)
    features = run.embed(str(data))
    soundfile.write(tmp_path / "one.flac", soundfile.read(data / "class1" / "001.wav")[0], RATE)
    at = sorted(file.relative_to(data).as_posix() for file in data.rglob("*.wav")).index("class1/001.wav")
    torch.testing.assert_close(run.embed(str(tmp_path / "one.flac"))[0], features[at], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_steps_on_recordings(method: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {"moco": {"queue": 16}, "byol": {"hidden": 16}, "barlow": {"dim": 16}}.get(method, {})
    flags: dict[str, Any] = {"encoder": "melconv-8", "bands": 12, "epochs": 1, "batch": 16, "array_rate": RATE}
    data = (tones(32), [i % 4 for i in range(32)])
    run = nearfar.fit(data, method, out=tmp_path / "run", say=lambda text: None, **flags, **small)
    features = run.embed(samples(32))
    assert features.isfinite().all()
    assert features.std(0).max() > 0


def test_cpc_goes_over_the_steps_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder(tmp_path / "tones"), tmp_path / "run"
    words = ["train", "cpc", str(data), *TINY[2:], "--steps", "4", "--skip", "1"]
    assert main([*words, "--encoder", "melgru-8", "--out", str(out)]) == 0
    assert nearfar.load(out).embed(str(data)).shape == (32, 16)
    assert main([*words, "--encoder", "melconv-8", "--out", str(tmp_path / "no")]) == 2
    assert "'melconv-8' see steps" in capsys.readouterr().err
    assert main([*words, "--encoder", "melgru-8", "--seconds", "0.05", "--out", str(tmp_path / "no")]) == 2
    assert "nothing is left to predict in" in capsys.readouterr().err
    assert not (tmp_path / "no" / "checkpoints").exists()


def build(**arguments: Any) -> CPC:
    torch.manual_seed(0)
    given: dict[str, Any] = {"skip": 1, "steps": 3, "stretch": 5}
    return CPC(tiny(name="melgru-8"), **given | arguments).train()


def waves(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 1000, generator=torch.Generator().manual_seed(0)) / 10


def batch(view: torch.Tensor, group: torch.Tensor | None = None) -> Batch:
    index = torch.arange(len(view))
    return Batch([view], index, index % 2, group)


def test_the_loss_on_a_sequence_is_that_of_a_loop() -> None:
    method = build(stretch=0)
    view = waves(3)
    local_, context = method.encoder.steps()
    z = local_(view)
    c = context(z)
    count = z.shape[1]
    every, terms = z.flatten(0, 1), list[torch.Tensor]()
    for k, w in ((2, method.maps[0]), (3, method.maps[1])):
        for n in range(3):
            for t in range(count - k):
                scores = every @ w(c[n, t])
                terms.append(scores.logsumexp(0) - scores[n * count + t + k])
    torch.testing.assert_close(method(batch(view)).loss, torch.stack(terms).mean())
    assert float(method.chance(batch(view))) == pytest.approx(np.log(3 * count))
    short = build()
    assert float(short.chance(batch(view))) == pytest.approx(np.log(3 * 5))
    assert float(short(batch(view)).loss.detach()) == pytest.approx(np.log(15), abs=0.5)


def test_cpc_learns_to_predict_and_trains_every_weight() -> None:
    method, view = build(stretch=0), plain(1000, RATE)(*samples(16).fetch(torch.arange(16)))[0]
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        out = method(batch(view))
        out.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
        optimizer.step()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < losses[0] - 0.5


def _loss_and_gradient(method: Method, whole: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    mine = Batch([local(whole.views[0])], local(whole.index), local(whole.label), local(whole.group))  # pyright: ignore[reportArgumentType]
    method.zero_grad()
    loss = method(mine).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])


def test_two_ranks_are_one_on_sequences(two_ranks: Pool) -> None:
    method, whole = build().double(), batch(waves(8).double(), torch.tensor([0, 0, 1, -1, 1, 2, -1, 2]))
    method.encoder.net[0].float()
    method.encoder.net[0].to(torch.float64)
    loss, gradient = _loss_and_gradient(method, whole)
    ranks = two_ranks.run(_loss_and_gradient, method, whole)
    torch.testing.assert_close(torch.stack([one[0] for one in ranks]).mean(), loss)
    torch.testing.assert_close(torch.stack([one[1] for one in ranks]).mean(0), gradient)


def test_cpc_in_parts_has_the_loss_of_the_whole() -> None:
    method, view = build(), waves(6)
    whole = method(batch(view)).loss
    method.micro_batch = 2
    torch.testing.assert_close(method(batch(view)).loss, whole)


def halting(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
    """Do something before a step is made."""
    step, made = loops.step, []

    def watched(*args: object, **more: object) -> object:
        made.append(1)
        if len(made) == at:
            act()
        return step(*args, **more)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(loops, "step", watched)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "tones")
    words = ["train", "simclr", str(data), *TINY, "--epochs", "2"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patched:
        halting(patched, 4, interrupt)
        assert main([*words, "--out", str(tmp_path / "parts")]) == 130
    assert main([*words, "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (nearfar.load(tmp_path / name).encoder for name in ("whole", "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


@pytest.mark.parametrize("allowed", [0.1, 0.0])
def test_files_that_vanish_in_the_middle_are_counted(
    allowed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path / "tones", 40)
    halting(monkeypatch, 1, (data / "class0" / "000.wav").unlink)
    words = ["train", "simclr", str(data), *TINY, "--epochs", "3", "--max-bad", str(allowed), "--views", "crop"]
    assert main([*words, "--out", str(tmp_path / "run")]) == (0 if allowed else 2)
    heard = capsys.readouterr()
    assert "'class0/000.wav'" in heard.out + heard.err
    assert ("others stand in" in heard.out) == bool(allowed)


def test_few_labels_name_new_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run, tuned = folder(tmp_path / "tones"), tmp_path / "run", tmp_path / "tuned"
    assert main(["train", "simclr", str(data), *TINY, "--epochs", "8", "--out", str(run)]) == 0
    assert main(["finetune", str(run), str(data), "--labels", "folders", "--epochs", "1", "--out", str(tuned)]) == 0
    new = [str(data / "class0" / "000.wav"), str(data / "class2" / "002.wav")]
    assert main(["predict", str(tuned), *new, "--out", str(tmp_path / "found.csv")]) == 0
    assert all(name in (tmp_path / "found.csv").read_text() for name in new)


def test_mel_statistics_are_mean_and_deviation_of_each_band() -> None:
    known = samples(4, rate=8000)
    (rows,) = kinds.of("audio").baselines([known.subset([0, 1]), known.subset([2, 3])], tiny(rate=8000)).values()
    assert rows.shape == (4, 80)
    assert (rows[:, 40:] >= 0).all()
    alone = kinds.of("audio").baselines([known.subset([2])], tiny(rate=8000))["mel statistics"]
    torch.testing.assert_close(alone[0], rows[2])


def test_views_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from nearfar.modalities.audio.views import View, Views\n\n\n"
        "def loud(length, rate, samples):\n"
        "    return Views([View(gain=(0, 9)), View(mix=0.2)], length, rate, samples)\n"
    )
    data = folder(tmp_path / "tones", 16)
    assert main(["train", "simclr", str(data), "--views", "mine.py:loud", "--out", "run", *TINY]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder", "melcon"], "did you mean melconv"),
        (["--views", "blur"], "none of sound, mixed, speech, masks, crop"),
        (["--seconds", "-1"], "--seconds -1"),
        (["--bands", "400"], r"of 400 mel bands are narrower.*--bands"),
        (["--hop", "0"], "--hop 0"),
        (["--label-column", "digit"], "no column 'digit'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_begins(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path / "tones", 8)
    assert main(["train", "simclr", str(data), "--out", str(tmp_path / "run"), *flags]) == 2
    assert re.search(words, capsys.readouterr().err.replace("\n", " "))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_soundfile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "tones", 2)
    monkeypatch.setattr(audio_settings, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nearfar\[audio\]'"):
        nearfar.fit(str(data), "simclr", out=tmp_path / "run")
    assert len(samples(2)) == 2  # arrays take none


def test_every_name_of_views_is_one() -> None:
    assert set(audio_views.NAMED) == set(audio_settings.VIEWS)
    assert set(SPEC) == set(tiny().spec)
