"""What an encoder with a decoder writes: prompts, likelihoods, texts of its own, hidden spans; folders with a T5."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.methods.calm import CALM, PROMPTS
from nearfar.methods.simcse import SimCSE
from nearfar.modalities.text.encoder import TextEncoder, fresh, from_folder, from_spec, pool
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.modalities.text.views import Sentences
from nearfar.modalities.text.views import views as text_views
from nearfar.modalities.text.writer import SpanRestorer, spans

from .small import sentences, tiny

TEXTS = [*sentences(5), "smile", " ".join(sentences(2))]
TOKENIZER = Tokenizer.learn([*sentences(100), *PROMPTS], 300, sentinels=4)


def writing(tokenizer: Tokenizer = TOKENIZER, **changed: Any) -> TextEncoder:
    torch.manual_seed(0)
    form: dict[str, Any] = {"pooler": "avg", "length": 32, "dropout": 0.0}
    return fresh("t5-1x16", tokenizer, **form | changed).eval()


@pytest.mark.parametrize("prompt", [*PROMPTS, "{}", "{} and {}."])
def test_a_filled_prompt_has_the_tokens_of_the_text(prompt: str) -> None:
    # One tokenizer with a token at the start of a sentence, as BERT's, and one with none, as T5's.
    for tokenizer in (TOKENIZER, Tokenizer.learn(sentences(100), 300)):
        writer = writing(tokenizer).writer()
        views = [tokenizer(texts, 32) for texts in (TEXTS, TEXTS[::-1])][: prompt.count("{}")]
        made = writer.filled(prompt, *views)
        heads = len(tokenizer.first)
        for i in range(len(TEXTS)):
            text = prompt.format(*(" ".join(writer.texts(view)[i].split()) for view in views))
            want = tokenizer([text], 200).ids[0, heads:].tolist()
            assert made.ids[i, : made.length[i]].tolist() == want
    assert writer.bare(tokenizer(["", "a b"], 8)).length.tolist() == [0, 2]


def test_the_likelihood_is_that_of_each_text_by_itself() -> None:
    encoder = writing()
    source, target = TOKENIZER(TEXTS, 32), TOKENIZER(TEXTS[::-1], 32)
    got = encoder.writer()({"source": source, "target": target})
    for i in range(len(TEXTS)):
        ids, label = (view.ids[i : i + 1, : view.length[i]] for view in (source, target))
        given = torch.cat([torch.zeros_like(label[:, :1]), label[:, :-1]], 1)
        logits = encoder.net(input_ids=ids, decoder_input_ids=given).logits[0]
        want = F.cross_entropy(logits, label[0], reduction="sum")
        torch.testing.assert_close(got[i, 0], want, rtol=1e-5, atol=1e-5)
        mean = encoder.net(input_ids=ids, labels=label).loss
        torch.testing.assert_close(want, mean * label.numel(), rtol=1e-5, atol=1e-5)


def test_it_writes_the_likeliest_tokens_without_gradient_and_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = writing(dropout=0.5).train()
    source, generate, seen = TOKENIZER(TEXTS, 32), encoder.net.generate, []

    def watched(**given: Any) -> Tensor:
        seen.append((torch.is_grad_enabled(), encoder.net.training, given.get("num_beams", 1)))
        return generate(**given)

    monkeypatch.setattr(encoder.net, "generate", watched)
    with torch.no_grad():  # so that it writes something
        encoder.net.lm_head.weight.mul_(30)
    one, two, beams = (encoder.writer().write(source, beams) for beams in (1, 1, 3))
    assert seen == [(False, False, 1), (False, False, 1), (False, False, 3)]
    assert encoder.net.training
    assert torch.equal(one.ids, two.ids)
    assert int(one.length.max()) > 2
    assert int(beams.length.max()) <= 32
    encoder.eval()
    ids, made = source.ids[5:6, : source.length[5]], [0]
    while len(made) < 4:  # while nothing can be repeated
        made.append(int(encoder.net(input_ids=ids, decoder_input_ids=torch.tensor([made])).logits[0, -1].argmax()))
    raw = generate(input_ids=ids, max_new_tokens=3, do_sample=False)[0].tolist()
    assert raw[: len(made)] == made[: len(raw)]
    assert encoder.writer().lemmas(TOKENIZER(["the films went on"], 8)) == [["the", "film", "go", "on"]]


def test_hidden_spans_and_what_restores_them() -> None:
    draw = random.Random(0)
    for n in range(60):
        cuts, gaps = ([draw.random() for _ in range(60)] for _ in range(2))
        made, tokens = spans(n, cuts, gaps), list(range(n))
        assert [i for kept, hidden in made for i in (*tokens[kept], *tokens[hidden])] == tokens
        sizes = [hidden.stop - hidden.start for _, hidden in made if hidden.stop > hidden.start]
        assert sum(sizes) == (max(1, round(0.15 * n)) if n > 1 else 0)
        assert len(sizes) == max(1, round(sum(sizes) / 3)) * (n > 1)
    encoder = writing()
    restorer = encoder.restorer()
    assert isinstance(restorer, SpanRestorer)
    view = TOKENIZER(TEXTS, 32)
    source, target = restorer.hide(
        encoder, view, torch.rand(len(TEXTS), 2, 32, generator=torch.Generator().manual_seed(1))
    )
    last = set()
    for i in range(len(TEXTS)):
        ids, told = source.ids[i, : source.length[i]].tolist(), target.ids[i, : target.length[i]].tolist()
        restored: list[int] = []
        for token in ids:
            if token in TOKENIZER.sentinels:
                begin = told.index(token) + 1
                ends = [told.index(mark) for mark in TOKENIZER.sentinels if mark in told[begin:]]
                restored += told[begin : min(ends, default=len(told) - 1)]
            else:
                restored.append(token)
        assert restored == view.ids[i, : view.length[i]].tolist()
        last.add(ids[-1])
    assert last == set(TOKENIZER.last)
    loss = restorer(encoder, view, torch.Generator().manual_seed(0))
    loss.backward()
    assert 4 < loss.item() < 8
    parts = restorer(encoder, view, torch.Generator().manual_seed(0), 3)
    torch.testing.assert_close(parts, loss)
    with pytest.raises(UserError, match="extra_id_0"):
        SpanRestorer(writing(Tokenizer.learn(sentences(50), 200)))


def test_the_states_of_the_encoder_are_the_representation_and_other_libraries_load_it(tmp_path: Path) -> None:
    encoder = writing()
    view = TOKENIZER(TEXTS, 32)
    states = encoder.net.get_encoder()(input_ids=view.ids, attention_mask=view.mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(view), pool([states], view.mask, "avg"))
    assert from_spec(encoder.spec).state_dict().keys() == encoder.state_dict().keys()
    encoder.publish(tmp_path)
    back = from_folder(str(tmp_path), Tokenizer.from_folder(tmp_path), pooler="avg", length=32).eval()
    torch.testing.assert_close(back(view), encoder(view))
    one, two = (e.writer()({"source": view, "target": view}) for e in (encoder, back))
    torch.testing.assert_close(one, two)
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = library.SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    torch.testing.assert_close(torch.as_tensor(model.encode(TEXTS)), encoder(view).detach(), rtol=1e-3, atol=1e-4)


def test_the_decoder_is_trained_only_where_a_method_asks_for_it() -> None:
    for built, trained in (
        (SimCSE, False),
        (CALM, True),
        (partial(SimCSE, mlm=0.1), True),
        (partial(CALM, stage="span"), True),
    ):
        encoder = writing().train()
        method = built(encoder)
        apart = [p for name, p in encoder.named_parameters() if ".decoder." in name]
        assert {p.requires_grad for p in apart} == {trained}
        view = TOKENIZER(sentences(4), 32)
        method(Batch([view, view], torch.arange(4), torch.zeros(4)) if built is not CALM else words(4)).loss.backward()
        assert all((p.grad is not None) == p.requires_grad for p in method.parameters())


def words(n: int) -> Batch:
    """What CALM takes of some sentences."""
    seen = text_views("concepts", TOKENIZER, length=32)(Sentences(sentences(n)))
    return Batch(seen, torch.arange(n), torch.zeros(n))


def test_what_cannot_write_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bert-1x16 writes nothing.*--encoder t5"):
        tiny().writer()
    for pooler in ("cls", "cls_before_pooler"):
        with pytest.raises(UserError, match=rf"--pooler {pooler}.*give --pooler avg"):
            writing(pooler=pooler)
    (tmp_path / "config.json").write_text('{"model_type": "bart", "is_encoder_decoder": true}')
    with pytest.raises(UserError, match="bart of encoder and decoder: of these only T5"):
        from_folder(str(tmp_path), TOKENIZER, pooler="avg", length=16)
