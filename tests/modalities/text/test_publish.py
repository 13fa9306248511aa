from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nearfar.errors import UserError
from nearfar.export.onnx import export_onnx
from nearfar.modalities.text import publish as module
from nearfar.modalities.text.encoder import from_folder
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.nn.towers import Joint

from .small import TOKENIZER, sentences, tiny

TEXTS = ["the film", *sentences(6), " ".join(sentences(4))]


@pytest.mark.parametrize("pooler", ["avg", "cls", "cls_before_pooler", "avg_first_last"])
def test_other_libraries_load_the_folder_and_give_the_same_rows(pooler: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = tiny(pooler=pooler).eval()
    files = {path.relative_to(tmp_path).as_posix() for path in encoder.publish(tmp_path)}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    want = encoder(TOKENIZER(TEXTS, 16)).detach()
    back = from_folder(str(tmp_path), Tokenizer.from_folder(tmp_path), pooler="avg", length=16)
    for name, value in encoder.net.state_dict().items():
        assert torch.equal(back.net.state_dict()[name], value)
    if pooler == "avg_first_last":
        assert "modules.json" not in files
        return
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = library.SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    got = torch.as_tensor(model.encode(TEXTS))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pooler", ["avg", "cls"])
def test_the_layer_into_a_space_that_is_shared_goes_with_a_tower(pooler: str, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    torch.manual_seed(0)
    encoder = Joint(tiny(pooler=pooler), 8).eval()
    encoder.publish(tmp_path)
    model = library.SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    got = torch.as_tensor(model.encode(TEXTS))
    torch.testing.assert_close(got, encoder(TOKENIZER(TEXTS, 16)).detach(), rtol=1e-3, atol=1e-4)


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_difference", lambda encoder, folder: 0.1)
    with pytest.raises(UserError, match=r"differs by 0\.1"):
        tiny().publish(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pooler", ["avg", "cls"])
def test_onnx_takes_any_number_of_sentences_of_any_length(pooler: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra export)")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (the extra export)")
    torch.manual_seed(0)
    encoder = Joint(tiny(pooler=pooler), 8).eval()
    path, difference, shapes = export_onnx(encoder, tmp_path)
    assert difference < 1e-4
    assert shapes == ["1 x 16", "5 x 8"]
    session = onnxruntime.InferenceSession(path)
    for texts in (TEXTS, TEXTS[:1]):
        tokens = TOKENIZER(texts, 16)
        given = {"input_ids": tokens.ids.numpy(), "attention_mask": tokens.mask.long().numpy()}
        with torch.no_grad():
            want = encoder(tokens)
        torch.testing.assert_close(torch.from_numpy(session.run(None, given)[0]), want, rtol=1e-3, atol=1e-4)
