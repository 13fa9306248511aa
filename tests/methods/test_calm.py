"""CALM in particular: its losses against loops over sentences, its choices, and what takes no part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra text)")

from nearfar.batch import Batch
from nearfar.methods.calm import CALM, CHOICE, CONCEPTS, CORRECTION, ORDER
from nearfar.modalities.text.views import Sentences
from nearfar.modalities.text.views import views as text_views

from .small import TinyEncoder, captions, clock, tiny_writer

N = 6


def calm(**arguments: Any) -> CALM:
    torch.manual_seed(0)
    method = CALM(tiny_writer(), **arguments).eval()
    method.clock = clock(3)
    return method


def views(method: CALM, texts: list[str]) -> list[Any]:
    made = text_views("concepts", method.encoder.tokenizer, length=16)  # pyright: ignore[reportArgumentType]
    return made(Sentences(texts), draws=made.draw(len(texts), torch.Generator().manual_seed(0)))


def batch(seen: list[Any]) -> Batch:
    n = len(seen[0].length)
    return Batch(seen, torch.arange(n), torch.zeros(n, dtype=torch.int64))


def slow(method: CALM, told: list[tuple[str, str]]) -> Tensor:
    """The mean over all tokens, of texts that are told one by one."""
    tokenizer: Any = method.encoder.tokenizer
    lost, count = torch.zeros(()), 0
    for source, target in told:
        ids, label = (tokenizer([text], 100).ids for text in (source, target))
        given = torch.cat([torch.zeros_like(label[:, :1]), label[:, :-1]], 1)
        logits = method.encoder.net(input_ids=ids, decoder_input_ids=given).logits[0]  # pyright: ignore[reportCallIssue]
        lost, count = lost + F.cross_entropy(logits, label[0], reduction="sum"), count + label.numel()
    return lost / count


def options(method: CALM, true: Any, other: Any) -> tuple[list[str], list[int]]:
    """The prompts of the choice as text, and which option is the true one, 1 or 2."""
    writer = method.encoder.writer()
    own, against, places, made = writer.texts(true), writer.texts(other), [], []
    for text, a, b in zip(writer.texts(method.choice(true, other)), own, against, strict=True):
        first = text.index(" 1 : ") + 5
        places.append(1 if text[first:].startswith(a) and not (text[first:].startswith(b) and a != b) else 2)
        made.append(CHOICE.format(*((a, b) if places[-1] == 1 else (b, a))))
    return made, places


def test_the_mix_is_the_mean_of_three_losses_per_token() -> None:
    method = calm()
    seen = views(method, captions(N, 1))
    sentence, words, shuffled, concepts = seen
    writer = method.encoder.writer()
    texts, jumbled = writer.texts(sentence), writer.texts(shuffled)
    asked, _ = options(method, words, shuffled)
    want = {
        "concepts": slow(method, [(CONCEPTS.format(c), t) for c, t in zip(writer.texts(concepts), texts, strict=True)]),
        "order": slow(method, [(ORDER.format(s), t) for s, t in zip(jumbled, texts, strict=True)]),
        "choice": slow(method, list(zip(asked, texts, strict=True))),
    }
    out = method(batch(seen))
    for name, value in want.items():
        torch.testing.assert_close(out.log[name], value.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.loss, torch.stack(list(want.values())).mean(), rtol=1e-5, atol=1e-5)


def test_with_a_writer_that_repairs_nothing_the_joint_stage_is_choice_and_correction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = calm(stage="joint")
    sentence, words, shuffled, concepts = views(method, captions(N, 2))
    writer = method.encoder.writer()
    asked: list[Any] = []

    def write(self: Any, view: Any, beams: int) -> Any:
        asked.append((writer.texts(view), beams))
        return shuffled

    monkeypatch.setattr(type(writer), "write", write)
    out = method(batch([sentence, words, shuffled, concepts]))
    texts, jumbled = writer.texts(sentence), writer.texts(shuffled)
    told = [CORRECTION.format(text) for text in jumbled]
    repair = slow(method, list(zip(told, texts, strict=True)))
    choice = calm().mix(sentence, words, shuffled, concepts)["choice"]
    torch.testing.assert_close(out.loss, repair + choice, rtol=1e-5, atol=1e-5)
    assert [text.replace(" :", ":") for text in asked[0][0]] == [text.replace(" :", ":") for text in told]
    assert asked[0][1] == 1


def test_nothing_is_learned_through_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    method = calm(stage="joint", beams=2)
    net: Any = method.encoder.net
    generate = net.generate

    def watched(**given: Any) -> Tensor:
        assert not torch.is_grad_enabled()
        assert given["num_beams"] == 2
        return generate(**given)

    monkeypatch.setattr(net, "generate", watched)
    seen = views(method, captions(N, 3))
    method(batch(seen)).loss.backward()
    got = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    writer = method.encoder.writer()
    fixed = writer.write(writer.filled(CORRECTION, seen[2]), 2)
    monkeypatch.setattr(type(writer), "write", lambda *given: fixed)
    method.zero_grad()
    method(batch(seen)).loss.backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.grad, got[name])


def test_the_answer_is_one_of_two_options_whose_order_is_drawn_anew_each_step() -> None:
    method = calm()
    seen = views(method, captions(64, 4))
    first = []
    for step in range(6):
        method.clock = clock(step)
        asked, places = options(method, seen[1], seen[2])
        prompts = [text.lower().replace("?:", "? :") for text in asked]
        made = method.encoder.writer().texts(method.choice(seen[1], seen[2]))
        assert [" ".join(text.replace(":", " : ").split()) for text in prompts] == (
            [" ".join(text.replace(":", " : ").split()) for text in made]
        )
        first.append(places)
    assert 0.4 < sum(place == 1 for places in first for place in places) / (6 * 64) < 0.6
    assert first[0] != first[1]


def test_sentences_without_two_concepts_take_no_part() -> None:
    method = calm()
    some = captions(4, 5)
    whole = method(batch(views(method, some)))
    more = views(method, [*some, "a dog", "over the near"])
    assert torch.equal(method.encoder.writer().bare(more[3]).length[4:], torch.zeros(2, dtype=torch.int64))
    out = method(batch(more))
    for name in ("concepts", "order"):  # the draws of the choice are those of another batch
        torch.testing.assert_close(out.log[name], whole.log[name])
    none = method(batch(views(method, ["a dog", "the lake"])))
    assert float(none.loss.detach()) == 0
    none.loss.backward()


def test_an_encoder_without_a_decoder_is_refused() -> None:
    from nearfar.nn.wrapped import Wrapped

    with pytest.raises(ValueError, match=r"writes nothing.*--encoder t5"):
        CALM(Wrapped(TinyEncoder(), {}))
