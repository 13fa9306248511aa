from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nearfar.batch import cat, select
from nearfar.errors import NotFound, UserError
from nearfar.modalities.text.encoder import Restorer, TextEncoder, buckets, from_folder, from_spec, pool
from nearfar.modalities.text.settings import insist_encoder
from nearfar.modalities.text.tokenizer import Tokenizer, Tokens

from .small import TOKENIZER, sentences, tiny

TEXTS = ["the film", *sentences(8), "her slow music is a quiet masterpiece " * 3]


def test_poolers_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(3, 5, 4, generator=generator) for _ in range(4)]  # of embeddings and three layers
    length = [5, 2, 1]
    mask = torch.arange(5) < torch.tensor(length)[:, None]

    def mean(layers: list[Tensor]) -> Tensor:
        rows = [sum(x[i, t] for x in layers for t in range(n)) / (n * len(layers)) for i, n in enumerate(length)]
        return torch.stack(rows)  # pyright: ignore[reportArgumentType]

    want = {"cls": states[3][:, 0], "cls_before_pooler": states[3][:, 0], "avg": mean([states[3]])}
    want |= {"avg_top2": mean([states[3], states[2]]), "avg_first_last": mean([states[1], states[3]])}
    for pooler, rows in want.items():
        torch.testing.assert_close(pool(states, mask, pooler), rows)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pooler", ["cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last"])
def test_rows_are_those_of_the_network_whatever_the_padding_order_and_batch(pooler: str) -> None:
    torch.manual_seed(0)
    encoder = tiny(pooler=pooler).eval()
    tokens = TOKENIZER(TEXTS, 16)
    rows = encoder(tokens)
    for i, text in enumerate(TEXTS):
        one = TOKENIZER([text], 16)
        out = encoder.net(input_ids=one.ids, output_hidden_states=True)
        alone = pool(out.hidden_states, torch.ones_like(one.ids), pooler)  # pyright: ignore[reportArgumentType]
        alone = alone if encoder.dense is None else encoder.dense(alone).tanh()
        torch.testing.assert_close(rows[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoder(select(tokens, order)), rows[order], rtol=1e-4, atol=1e-5)
    wide = Tokens(torch.nn.functional.pad(tokens.ids, (0, 7), value=3), tokens.length)
    torch.testing.assert_close(encoder(wide), rows, rtol=1e-4, atol=1e-5)


def test_sentences_of_like_length_pass_together_and_come_back_in_their_places() -> None:
    length = torch.tensor([3, 30] * 60 + [16] * 40)
    parts = buckets(length)
    assert torch.cat(parts).sort().values.tolist() == list(range(160))
    assert min(map(len, parts)) >= 32
    padded = sum(int(length[part].max()) * len(part) for part in parts)
    assert padded <= 1.05 * int(length.sum())
    assert len(buckets(torch.full((200,), 9))) == len(buckets(torch.tensor([1, 2, 3]))) == 1
    torch.manual_seed(0)
    encoder = tiny().eval()
    many = TOKENIZER(sentences(50) + ["the film"] * 50, 16)
    shuffle = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    many = select(many, shuffle)
    assert len(buckets(many.length)) > 1
    whole = encoder._encode(many.ids, many.length)
    torch.testing.assert_close(encoder(many), whole, rtol=1e-4, atol=1e-5)


def test_dropout_is_on_in_training_alone() -> None:
    torch.manual_seed(0)
    encoder, tokens = tiny(), TOKENIZER(TEXTS, 16)
    both = cat([tokens, tokens])
    one, other = encoder.train()(both).chunk(2)
    assert not torch.allclose(one, other)
    one, other = encoder.eval()(both).chunk(2)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_spec_builds_it_again_and_attention_is_fused() -> None:
    encoder = tiny(pooler="cls")
    spec = json.loads(json.dumps(encoder.spec))
    other = from_spec(spec)
    other.load_state_dict(encoder.state_dict())
    tokens = TOKENIZER(TEXTS, 16)
    torch.testing.assert_close(other.eval()(tokens), encoder.eval()(tokens))
    assert encoder.net.config._attn_implementation == "sdpa"
    assert encoder(encoder.example(3)).shape == (3, 16)
    used = {name for name, p in encoder.named_parameters()}
    encoder.train()(tokens).sum().backward()
    assert {name for name, p in encoder.named_parameters() if p.grad is not None} == used


def saved(folder: Path, encoder: TextEncoder, tokenizer: Tokenizer = TOKENIZER) -> Path:
    encoder.net.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.text)
    return folder


def test_a_local_folder_brings_weights_and_tokenizer(tmp_path: Path) -> None:
    encoder, tokens = tiny().eval(), TOKENIZER(TEXTS, 16)
    folder = saved(tmp_path / "net", encoder)
    insist_encoder(str(folder))
    read = from_folder(str(folder), Tokenizer.from_folder(folder), pooler="avg", length=16)
    torch.testing.assert_close(read.eval()(tokens), encoder(tokens))
    again = from_spec(json.loads(json.dumps(read.spec)))
    again.load_state_dict(read.state_dict())
    torch.testing.assert_close(again.eval()(tokens), encoder(tokens))
    nested = tmp_path / "sentence-transformers"
    shutil.copytree(folder, nested / "0_Transformer")
    insist_encoder(str(nested))
    read = from_folder(str(nested), TOKENIZER, pooler="avg", length=16)
    torch.testing.assert_close(read.eval()(tokens), encoder(tokens))


def test_what_is_no_encoder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("bert-base-uncased", "nothing/there", "resnet18"):
        with pytest.raises(UserError, match="Nothing is downloaded"):
            insist_encoder(name)
    for name in ("bert-2x100", "bert-1x7"):
        with pytest.raises(UserError, match="width"):
            insist_encoder(name)
    folder = saved(tmp_path / "net", tiny())
    with pytest.raises(UserError, match=r"--length 600.*512"):
        from_folder(str(folder), TOKENIZER, pooler="avg", length=600)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.0.attention.self.query" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 2 of the \d+ .*query"):
        from_folder(str(folder), TOKENIZER, pooler="avg", length=16)
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (folder / name).unlink()
        with pytest.raises(NotFound, match=name):
            insist_encoder(str(folder))


def test_masked_tokens_are_hidden_as_bert_has_it_and_named() -> None:
    torch.manual_seed(0)
    encoder = tiny()
    restorer = encoder.restorer()
    assert isinstance(restorer, Restorer)
    tokens = TOKENIZER(sentences(400), 16)
    drawn = torch.rand(400, 3, 16, generator=torch.Generator().manual_seed(0))
    ids, which = restorer.hide(tokens, drawn)
    ends = (tokens.ids == TOKENIZER.first[0]) | (tokens.ids == TOKENIZER.last[0])
    assert not (which & (ends | ~tokens.mask)).any()
    assert torch.equal(ids[~which], tokens.ids[~which])
    share = which.sum() / (tokens.mask & ~ends).sum()
    assert float(share) == pytest.approx(0.15, abs=0.02)
    hidden = ids[which] == TOKENIZER.mask
    same = ids[which] == tokens.ids[which]
    assert float(hidden.float().mean()) == pytest.approx(0.8, abs=0.05)
    assert float(same.float().mean()) == pytest.approx(0.1, abs=0.04)
    with torch.no_grad():
        loss = restorer.eval()(encoder.eval(), tokens, torch.Generator().manual_seed(0))
        logits = torch.nn.functional.linear(
            restorer.layers(encoder.net(input_ids=ids, attention_mask=tokens.mask.long()).last_hidden_state),
            encoder.net.get_input_embeddings().weight,
            restorer.bias,
        )
    # The draws of `forward` follow from the generator as these do, since no other process takes part.
    want = torch.nn.functional.cross_entropy(logits[which], tokens.ids[which])
    assert float(loss) == pytest.approx(float(want), rel=1e-4)


def test_a_writer_writes_the_words_of_a_sentence_and_its_end() -> None:
    writer, tokens = tiny().captioner(6, width=8, layers=1), TOKENIZER(TEXTS, 16)
    ids, length = writer.written(tokens)
    assert torch.equal(ids, tokens.ids[:, 1:])
    assert torch.equal(length, tokens.length - 1)
    assert (ids[torch.arange(len(ids)), length - 1] == TOKENIZER.last[0]).all()
    assert writer(ids, torch.randn(len(ids), 2, 6)).shape == (*ids.shape, TOKENIZER.size)


def test_mixed_sentences_are_mixed_in_the_embeddings_of_their_words() -> None:
    torch.manual_seed(0)
    encoder, tokens = tiny().eval(), TOKENIZER(TEXTS, 16)
    n = len(TEXTS)
    partner, one = torch.arange(n).flip(0), torch.ones(n)
    torch.testing.assert_close(encoder(tokens.mixed(torch.arange(n), 0.3 * one)), encoder(tokens), rtol=1e-4, atol=1e-5)
    mixed = tokens.mixed(partner, 0.7 * one)
    assert not torch.allclose(encoder(mixed), encoder(tokens))
    words, (a, b) = encoder.net.get_input_embeddings(), (TOKENIZER([TEXTS[i]], 16).ids for i in (0, n - 1))
    rows = 0.3 * words(b)
    rows[:, : a.shape[1]] += 0.7 * words(a)
    alone = encoder.net(inputs_embeds=rows).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder(mixed)[:1], alone, rtol=1e-4, atol=1e-5)
    both = cat([mixed, tokens])
    torch.testing.assert_close(encoder(both), torch.cat([encoder(mixed), encoder(tokens)]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(select(both, torch.tensor([0]))), encoder(mixed)[:1], rtol=1e-4, atol=1e-5)
