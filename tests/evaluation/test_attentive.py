"""The attentive probe."""

from __future__ import annotations

import pytest
import torch

from nearfar.evaluation.attentive import MultiQuery, attentive_answers


def hidden(n: int, classes: int = 3, tokens: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of which one, anywhere, tells the class, and says that it does; the others say some class too."""
    draw = torch.Generator().manual_seed(n)
    y, place = torch.arange(n) % classes, torch.randint(tokens, (n,), generator=draw)
    said = torch.randint(classes, (n, tokens), generator=draw).scatter_(1, place[:, None], y[:, None])
    x = torch.zeros(n, tokens, 8)
    x[..., :classes] = torch.nn.functional.one_hot(said, classes).float()
    x[torch.arange(n), place, classes] = 1
    return x + 0.05 * torch.randn(x.shape, generator=draw), y


def test_it_finds_the_token_that_tells() -> None:
    (x, y), (test, truth) = hidden(192), hidden(90)
    answer, chosen, notes = attentive_answers(x, y, test, decays=(0.3,))
    assert (answer == truth).float().mean() > 0.9  # the mean over tokens tells much less
    assert chosen["decay"] == 0.3
    assert chosen["held_out_accuracy"][0] > 90
    assert notes == []


def test_attention_sums_to_one_and_each_query_has_its_part() -> None:
    probe, x = MultiQuery(6, 3, queries=4).eval(), torch.randn(5, 7, 6)
    assert probe.queries == 3  # 4 does not divide 6
    with torch.no_grad():
        a, value, logits = probe.attention(x), probe.value(x), probe(x)
    torch.testing.assert_close(a.sum(2), torch.ones(5, 3))
    found = torch.zeros(5, 6)
    for n in range(5):
        for d in range(6):
            found[n, d] = sum(float(a[n, d // 2, t] * value[n, t, d]) for t in range(7))
    torch.testing.assert_close(probe.classifier(probe.norm(found)).detach(), logits)


def test_with_too_few_labels_the_decay_is_the_middle_one() -> None:
    x, y = hidden(3)
    _, chosen, notes = attentive_answers(x, y, x)
    assert chosen["decay"] == 0.3
    assert len(notes) == 1


@pytest.mark.parametrize("rows", [1, 5])
def test_a_single_class_is_the_answer(rows: int) -> None:
    x = torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(0))
    answer, _, _ = attentive_answers(x, torch.full((rows,), 2), x[:1].repeat(3, 1, 1))
    assert answer.tolist() == [2, 2, 2]
