from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nearfar.distributed import local
from nearfar.errors import UserError
from nearfar.ops.mixing import cutmix, input_mix, insist_fit, mixup, universum
from tests.two_ranks import Pool


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 10, 14, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(9, 5), (9, 3, 4, 6), (9, 2, 7)])
def test_mixup_adds_each_row_and_its_partner(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=seeded(), dtype=torch.float64)
    mixed = mixup(x, alpha=1.0, generator=seeded())
    assert sorted(mixed.partner.tolist()) == list(range(9))
    assert 0.5 <= mixed.lam.min() < mixed.lam.max() <= 1
    for i in range(9):
        want = mixed.lam[i] * x[i] + (1 - mixed.lam[i]) * x[mixed.partner[i]]
        torch.testing.assert_close(mixed.x[i], want)


def test_shares_are_those_of_the_beta_distribution() -> None:
    lam = [mixup(torch.zeros(4000, 1), alpha=alpha, generator=seeded()).lam for alpha in (0.01, 0.5, 1.0, 50.0)]
    means = [float(x.mean()) for x in lam]
    assert all(a > b for a, b in pairwise(means)), "a smaller alpha mixes less"
    assert means[0] > 0.98
    assert means[2] == pytest.approx(0.75, abs=0.01)  # the larger part of a stick broken anywhere
    assert means[3] < 0.55


def test_cutmix_pastes_one_box_and_tells_how_large_it_is() -> None:
    x, sizes = images(6), []
    for seed in range(40):
        mixed = cutmix(x, alpha=1.0, generator=seeded(seed))
        pasted = (mixed.x == x[mixed.partner]) & (mixed.x != x)  # N x C x H x W
        own = mixed.x == x
        assert (own | pasted).all()
        moved = pasted[mixed.partner != torch.arange(6)]
        assert (moved == moved[:1, :1]).all(), "the box is the same for all"
        rows, columns = moved[0, 0].any(1), moved[0, 0].any(0)
        assert torch.equal(moved[0, 0], rows[:, None] & columns), "it is a box"
        torch.testing.assert_close(mixed.lam, 1 - moved[0, 0].double().mean().expand(6))
        sizes.append(float(mixed.lam[0]))
    assert 0.5 <= min(sizes) < max(sizes)


def test_the_sides_of_a_pair_are_mixed_with_those_of_one_partner_in_one_proportion() -> None:
    pair = {"a": torch.randn(6, 3), "b": torch.randn(6, 2, 4)}
    x, partner, lam = mixup(pair, alpha=1.0, generator=torch.Generator().manual_seed(0))
    for name, part in pair.items():
        alone = mixup(part, alpha=1.0, generator=torch.Generator().manual_seed(0))
        assert torch.equal(alone.partner, partner)
        torch.testing.assert_close(x[name], alone.x)
        torch.testing.assert_close(alone.lam, lam)


def test_what_does_not_fit_is_refused_by_what_a_method_does_with_it() -> None:
    class Graph:
        pass

    rows, images = torch.zeros(2, 3), torch.zeros(2, 3, 4, 4)
    fit = {"": [rows, Graph()], "mixed": [rows, {"a": rows}], "numbers": [rows, images], "images": [images]}
    unfit = {"mixed": [Graph(), {"a": Graph()}], "numbers": [{"a": rows}, Graph()], "images": [rows, {"a": images}]}
    for how, views in fit.items():
        for view in views:
            insist_fit(view, how, "it")
    for how, views in unfit.items():
        for view in views:
            with pytest.raises(UserError, match="'it'"):
                insist_fit(view, how, "it")


def test_cutmix_is_for_images() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        cutmix(torch.zeros(4, 3), alpha=1.0, generator=seeded())


@pytest.mark.parametrize("others", [1, 2, 3])
def test_input_mix_keeps_half_of_each_row_and_its_shares_sum_to_one(others: int) -> None:
    views = list(torch.eye(10, dtype=torch.float64).chunk(2))  # in the mixture, column j is the share of row j
    mixed = torch.cat(input_mix(views, others, alpha=1.0, generator=seeded()))
    torch.testing.assert_close(mixed.sum(1), torch.ones(10, dtype=torch.float64))
    assert (mixed >= 0).all()
    assert (mixed.diagonal() >= 0.5).all()
    assert ((mixed > 0).sum(1) <= 1 + others).all()
    torch.testing.assert_close(mixed.sum(0), mixed.sum(1), rtol=0, atol=1.0)
    assert (mixed[:5, 5:] > 0).any(), "rows of the other view are company too"


def test_two_views_of_a_sample_get_different_company() -> None:
    view = images(8)
    one, two = input_mix([view, view], 1, alpha=1.0, generator=seeded())
    assert one.shape == two.shape == view.shape
    assert not torch.allclose(one, two)
    assert input_mix([view, view], 0, alpha=1.0, generator=seeded())[0] is view


IDS = torch.tensor([5, 0, 5, 5, -3, 0, 5, -7])


@pytest.mark.parametrize("box", [False, True])
def test_a_universum_is_half_a_row_and_half_one_of_another_class_as_the_first_view_shows_it(box: bool) -> None:
    views = [images(8, 0), images(8, 1)]
    mixed, partner = universum(views, IDS, lam=0.5, generator=seeded(), box=box) or ([], IDS)
    for new, view, of in zip(mixed, views, partner.chunk(2), strict=True):
        assert (IDS[of] != IDS).all()
        if not box:
            torch.testing.assert_close(new, (view + views[0][of]) / 2)
            continue
        own = new == view
        assert (own | (new == views[0][of])).all()
        assert (own == own[:1, :1]).all(), "the box is the same for all"
        rows, columns = own[0, 0].any(1), own[0, 0].any(0)
        assert torch.equal(own[0, 0], rows[:, None] & columns), "it is a box"
        assert own[0, 0].double().mean() == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(*partner.chunk(2)), "two views of a sample have partners of their own"


def test_every_sample_of_another_class_is_as_likely() -> None:
    counts = torch.zeros(8, 8)
    for seed in range(1000):
        _, partner = universum([torch.zeros(8, 1)] * 2, IDS, lam=0.5, generator=seeded(seed)) or ([], IDS)
        counts.index_put_((torch.arange(8).repeat(2), partner), torch.ones(16), accumulate=True)
    strangers = IDS[:, None] != IDS
    assert not counts[~strangers].any()
    want = 2000 / strangers.sum(1, keepdim=True).expand(8, 8)
    assert ((counts - want).abs()[strangers] < 5 * want[strangers].sqrt()).all()


def test_lam_is_the_share_of_the_other_and_one_class_alone_has_no_universum() -> None:
    x = images(8)
    for lam, want in ((0.0, x), (1.0, None), (0.3, None)):
        mixed, partner = universum([x], IDS, lam=lam, generator=seeded()) or ([], IDS)
        torch.testing.assert_close(mixed[0], (1 - lam) * x + lam * x[partner] if want is None else want)
    boxes = [universum([x], IDS, lam=0.25, generator=seeded(seed), box=True) or ([], IDS) for seed in range(20)]
    for mixed, _ in boxes:
        assert (mixed[0] == x).double().mean() == pytest.approx(0.75, abs=0.03)
    assert len({tuple((mixed[0] == x)[0, 0].flatten().tolist()) for mixed, _ in boxes}) > 1, "at a random place"
    assert universum([x], torch.ones(8, dtype=torch.long), lam=0.5, generator=seeded()) is None
    with pytest.raises(ValueError, match=r"\(8, 3\)"):
        universum([torch.zeros(8, 3)], IDS, lam=0.5, generator=seeded(), box=True)


def _mixed(x: Tensor) -> list[Tensor]:
    x = local(x)
    parts = [*mixup(x, alpha=0.5, generator=seeded()), *cutmix(x, alpha=1.0, generator=seeded(3))]
    for box in (False, True):
        made, partner = universum([x, x + 1], local(IDS), lam=0.5, generator=seeded(5), box=box) or ([], x)
        parts += [*made, *partner.chunk(2)]
    return [*parts, *input_mix([x, x], 2, alpha=1.0, generator=seeded())]


def test_two_ranks_mix_as_one(two_ranks: Pool) -> None:
    x = images(8)
    want = _mixed(x)
    for part, (one, two) in enumerate(zip(*two_ranks.run(_mixed, x), strict=True)):
        torch.testing.assert_close(torch.cat([one, two]), want[part])
