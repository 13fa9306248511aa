from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.nn import heads


def layers(head: nn.Sequential) -> list[str]:
    """Each layer in words: what a reader of the paper would write down."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"{layer.in_features}->{layer.out_features}{'' if layer.bias is None else ' +b'}")
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("BN" if layer.bias.requires_grad else "BN without offset")
        else:
            words.append(type(layer).__name__)
    return words


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (heads.simclr_head(32, out=8), ["32->32", "BN", "ReLU", "32->8", "BN without offset"]),
        (
            heads.simclr_head(32, out=8, layers=3),
            ["32->32", "BN", "ReLU", "32->32", "BN", "ReLU", "32->8", "BN without offset"],
        ),
        (heads.moco_v1_head(32, out=8), ["32->8 +b"]),
        (heads.moco_v2_head(32, out=8), ["32->32 +b", "ReLU", "32->8 +b"]),
        (heads.supcon_head(32, out=8), ["32->32 +b", "ReLU", "32->8 +b"]),
        (heads.byol_head(32, hidden=64, out=8), ["32->64 +b", "BN", "ReLU", "64->8"]),
        (heads.swav_head(32, hidden=64, out=8), ["32->64 +b", "BN", "ReLU", "64->8 +b"]),
        (heads.barlow_head(32, out=48), ["32->48", "BN", "ReLU", "48->48", "BN", "ReLU", "48->48"]),
        (heads.debiased_head(32, hidden=64, out=8), ["32->64", "BN", "ReLU", "64->8 +b"]),
        (heads.moco_v3_head(32, hidden=64, out=8), ["32->64", "BN", "ReLU", "64->8", "BN without offset"]),
        (heads.paco_head(32, out=8), ["32->32 +b", "BN", "ReLU", "32->8 +b"]),
        (heads.gpaco_head(32, out=8), ["32->32 +b", "ReLU", "32->32 +b", "ReLU", "32->8 +b"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_heads_are_those_of_the_papers(head: heads.MLP, expected: list[str]) -> None:
    assert layers(head) == expected
    out = head(torch.randn(6, 32))
    assert out.shape == (6, head.dim)
    (out * torch.randn(6, head.dim)).sum().backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


def test_widths_of_the_papers() -> None:
    with torch.device("meta"):
        assert heads.simclr_head(64).dim == heads.moco_v1_head(64).dim == heads.moco_v2_head(64).dim == 128
        assert heads.supcon_head(64).dim == heads.swav_head(64).dim == 128
        assert heads.byol_head(64).dim == 256
        assert heads.byol_head(64)[0].out_features == 4096
        assert heads.swav_head(64)[0].out_features == 2048
        assert heads.barlow_head(64).dim == 8192
        assert heads.debiased_head(64).dim == 128
        assert heads.debiased_head(64)[0].out_features == 512
        assert heads.moco_v3_head(64).dim == 256


def test_the_last_norm_of_moco_v3_only_standardizes() -> None:
    norm = heads.moco_v3_head(16, hidden=8, out=4)[-1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert not any(p.requires_grad for p in norm.parameters())
    assert norm.weight.eq(1).all()


def test_simclrs_last_norm_scales_without_shift() -> None:
    head = heads.simclr_head(16, out=4)
    out = head(torch.randn(64, 16))
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_a_head_needs_two_widths() -> None:
    with pytest.raises(ValueError, match=r"\[8\]"):
        heads.mlp([8], norm=False, bias=True, last_bias=True)


def test_a_linear_classifier_knows_the_shares_and_its_logits_do_without() -> None:
    h = torch.randn(5, 4)
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    for prior, share in ((True, torch.tensor([0.5, 0.3, 0.2])), (False, torch.ones(3))):
        torch.manual_seed(0)
        classifier = heads.LinearClassifier(4, (5, 3, 2), prior=prior)
        assert torch.equal(classifier(h), plain(h))
        torch.testing.assert_close(classifier.balanced(h), plain(h) + share.log())
        assert list(classifier.state_dict()) == list(plain.state_dict())
