"""An encoder of sentences as a folder that transformers and sentence-transformers load, compared first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nearfar.errors import UserError
from nearfar.files import staging
from nearfar.modalities.text.encoder import TextEncoder, pool, quiet

TOLERANCE = 1e-4
"""Of the largest output: by how much what was loaded again may differ."""

TRIED = (
    "One sentence.",
    "Another, which is longer than the first one is, and says more.",
    "\u4f60 \U0001f600 na\u00efve",
)

POOLINGS = {"avg": "mean", "cls": "cls", "cls_before_pooler": "cls"}
"""What sentence-transformers calls a pooler; it has none for the mean over two layers."""


def publish(encoder: TextEncoder, folder: Path, behind: nn.Linear | None = None) -> list[Path]:
    """Write config.json, model.safetensors and tokenizer files, which `AutoModel.from_pretrained(folder)` loads, and
    what `SentenceTransformer(folder)` needs besides, where it has such a pooler; gives the files.

    behind: a layer behind the encoder, for which transformers has no place: it is of sentence-transformers alone.
    They are loaded again and compared with the encoder on sentences first. Raises ValueError where they differ.
    """
    with staging(folder) as staged, quiet():
        _write(encoder, staged, behind)
        worst = _difference(encoder, staged)
        if not worst <= TOLERANCE:
            raise UserError(f"what transformers loads again differs by {worst:.2g} of the largest output: not written")
        names = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
        shutil.copytree(staged, folder, dirs_exist_ok=True)
    return [folder / name for name in names]


def _write(encoder: TextEncoder, folder: Path, behind: nn.Linear | None) -> None:
    from transformers import PreTrainedTokenizerFast

    encoder.net.save_pretrained(folder)
    tokenizer = encoder.tokenizer
    ends = {"cls_token": tokenizer.first, "sep_token": tokenizer.last}
    if encoder.writes:
        ends["eos_token"] = tokenizer.last
    numbers = {name: ids[0] for name, ids in ends.items() if len(ids) == 1}
    numbers |= {"mask_token": tokenizer.mask, "unk_token": tokenizer.unknown, "pad_token": encoder.pad}
    named = {name: tokenizer.net.id_to_token(i) for name, i in numbers.items() if i is not None}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.net,
        model_max_length=encoder.length,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )
    wrapped.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.text, encoding="utf-8")  # as it is in the run, to the letter
    if encoder.pooler not in POOLINGS:
        return
    modes = {f"pooling_mode_{mode}": mode.startswith(POOLINGS[encoder.pooler]) for mode in ("cls_token", "mean_tokens")}
    _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.dim, **modes})
    _json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.length, "do_lower_case": False})
    layers = ["Transformer", "Pooling"]
    for layer, activation in ((encoder.dense, "activation.Tanh"), (behind, "linear.Identity")):
        if layer is None:
            continue
        place = folder / f"{len(layers)}_Dense"
        form = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None}
        _json(place / "config.json", form | {"activation_function": f"torch.nn.modules.{activation}"})
        state = {f"linear.{key}": value.detach().contiguous() for key, value in layer.state_dict().items()}
        save_file(state, place / "model.safetensors")
        layers.append("Dense")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(layers)
    ]
    _json(folder / "modules.json", modules)


@torch.no_grad()
def _difference(encoder: TextEncoder, folder: Path) -> float:
    """How far what transformers loads is from the encoder, of its largest output, on sentences."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    net: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    net = net.get_encoder() if encoder.writes else net
    given = tokenizer(list(TRIED), padding=True, truncation=True, max_length=encoder.length, return_tensors="pt")
    states = net(**given, output_hidden_states=True).hidden_states
    other = pool(states, given["attention_mask"], encoder.pooler)
    other = other if encoder.dense is None else encoder.dense(other).tanh()
    own = encoder(encoder.tokenizer(TRIED, encoder.length))
    return float((other - own).abs().max() / own.abs().max().clamp(min=1e-12))


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
