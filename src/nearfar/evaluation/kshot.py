"""Learning from very few labels: n-way k-shot episodes, and k labels per class against a whole test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.held import TRIED, standardize
from nearfar.evaluation.intervals import bootstrap, of_answers
from nearfar.evaluation.linear import linear_scores
from nearfar.evaluation.protocol import Result, labeled, packed, result

Classifier = Callable[[Tensor, Tensor], Tensor]
"""(support E x W x S x D, query E x Q x D), unit rows -> scores E x Q x W. E episodes, W ways, S shots."""


def nearest_neighbor(support: Tensor, query: Tensor) -> Tensor:
    """The cosine to the nearest example of each class: E x Q x W."""
    ways, shots = support.shape[1:3]
    return (query @ support.flatten(1, 2).mT).unflatten(2, (ways, shots)).amax(3)


def nearest_mean(support: Tensor, query: Tensor) -> Tensor:
    """The cosine to the mean of the examples of each class: E x Q x W. With one shot, the nearest neighbor."""
    return query @ F.normalize(support.mean(2), dim=2).mT


def episodes(
    feature: Tensor,
    label: Tensor,
    *,
    within: Tensor | None = None,
    ways: int = 20,
    shots: int = 1,
    queries: int = 1,
    episodes: int = 1000,
    classifier: Classifier = nearest_neighbor,
    seed: int = 0,
) -> Result:
    """The accuracy of n-way k-shot episodes on classes the encoder has not learned from, in per cent.

    An episode draws `ways` classes, and of each `shots` examples to learn from and `queries` others to name. Rows
    without label take no part, nor do classes with fewer than shots + queries rows.
    feature: N x D.  label: N.  within: N, all classes of an episode come from one unit (the alphabet of a character).
    A row without one takes no part, and a unit with fewer than `ways` classes is left out and named in the notes.
    The episodes are spread over the units evenly.
    Gives accuracy, the mean over units, with low and high, its 95 % bootstrap interval over units (over episodes
    where there is only one); chance; and per_unit, the accuracy of each unit by its number.
    """
    _positive(ways=ways, shots=shots, queries=queries, episodes=episodes)
    x, y, index = labeled(feature, label, "k-shot")
    x = F.normalize(x, dim=1)
    unit = torch.zeros_like(y) if within is None else within.to(y.device)[index]
    names, tables, short = [], [], []
    for name in unit[unit != MISSING].unique().tolist():
        rows, size = _table(y, (unit == name).nonzero().squeeze(1), shots + queries)
        if len(size) < ways:
            short.append(name)
        else:
            names.append(name)
            tables.append((rows, size))
    if not names:
        raise UserError(
            f"{'no unit has' if within is not None else 'there are not'} {ways} classes of {shots + queries} rows or "
            "more; ask for fewer ways, shots or queries"
        )
    if len(names) > episodes:
        raise UserError(f"{episodes} episodes cannot be spread over {len(names)} units; wanted one for each or more")
    generator = torch.Generator().manual_seed(seed)
    share: list[Tensor] = []  # of each unit, the accuracy of its episodes
    for number, (rows, size) in enumerate(tables):
        count = episodes // len(names) + (number < episodes % len(names))
        drawn = _draw(rows, size, count, ways, shots + queries, generator).to(x.device)  # E x W x (S + Q)
        step = max(1, (1 << 24) // (drawn[0].numel() * x.shape[1]))
        share.append(torch.cat([_judge(x[part], shots, classifier) for part in drawn.split(step)]).double().cpu())
    units = torch.stack([s.mean() for s in share])
    mean, low, high = bootstrap(units if len(units) > 1 else share[0], seed=seed)
    numbers = {
        "accuracy": 100 * mean,
        "low": 100 * low,
        "high": 100 * high,
        "chance": 100 / ways,
        "per_unit": {name: 100 * float(value) for name, value in zip(names, units, strict=True)},
    }
    config = {
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "episodes": episodes,
        "units": len(names),
        "interval_over": "units" if len(units) > 1 else "episodes",
        "classifier": classifier.__name__,
        "similarity": "cosine",
        "seed": seed,
    }
    notes = [f"left out, with fewer than {ways} classes of {shots + queries} rows: units {short}"] if short else []
    return result("episodes", numbers, config, notes)


def _positive(**count: int) -> None:
    for name, value in count.items():
        if value < 1:
            raise UserError(f"{name} is {value}; wanted 1 or more")


def _table(label: Tensor, rows: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """The rows of each class that has `least` of them: C x most int64 on the CPU, and how many of them count, C."""
    rows = rows[label[rows].argsort(stable=True)].cpu()
    size = label[rows.to(label.device)].unique_consecutive(return_counts=True)[1].cpu()
    table = torch.zeros(len(size), int(size.max()) if len(size) else 0, dtype=torch.int64)
    inside = torch.arange(table.shape[1]) < size[:, None]
    table[inside] = rows
    return table[size >= least], size[size >= least]


def _draw(rows: Tensor, size: Tensor, count: int, ways: int, each: int, generator: torch.Generator) -> Tensor:
    """For each episode, `ways` classes and of each `each` different rows: E x W x each."""
    classes = torch.rand(count, len(size), generator=generator).argsort(1)[:, :ways]  # E x W
    key = torch.rand(count, ways, rows.shape[1], generator=generator)
    key[torch.arange(rows.shape[1]) >= size[classes][..., None]] = 2  # padding comes last
    return rows[classes].gather(2, key.argsort(2)[..., :each])


def _judge(x: Tensor, shots: int, classifier: Classifier) -> Tensor:
    """The share of right answers of each episode. x: E x W x (S + Q) x D."""
    ways, queries = x.shape[1], x.shape[2] - shots
    scores = classifier(x[:, :, :shots], x[:, :, shots:].flatten(1, 2))  # E x WQ x W
    truth = torch.arange(ways, device=x.device).repeat_interleave(queries)
    return (scores.argmax(2) == truth).float().mean(1)


Scorer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(train N x D, its labels N, test M x D) -> class scores M x C."""


def class_means(train: Tensor, train_label: Tensor, test: Tensor) -> Tensor:
    """The cosine to the mean of the unit rows of each class: M x C; a class without a row scores -inf."""
    x = F.normalize(train, dim=1)
    mean = x.new_zeros(int(train_label.max()) + 1, x.shape[1]).index_add_(0, train_label, x)
    scores = F.normalize(test, dim=1) @ F.normalize(mean, dim=1).T
    return scores.masked_fill(torch.bincount(train_label) == 0, -torch.inf)


def linear_probe(train: Tensor, train_label: Tensor, test: Tensor) -> Tensor:
    """The scores of the linear classifier of `linear_scores`: M x C."""
    return linear_scores(train, train_label, test)[0]


def few_labels(
    train: Tensor,
    train_label: Tensor,
    test: Tensor,
    test_label: Tensor,
    *,
    group: Tensor | None = None,
    shots: int = 10,
    draws: int = 10,
    scorer: Scorer = class_means,
    scaled: Sequence[bool] = (False,),
    seed: int = 0,
) -> Result:
    """The accuracy on the whole test set when only `shots` training rows of each class have a label, in per cent.

    train: N x D and train_label: N.  test: M x D and test_label: M.  The rest, and what it gives: as in
    `few_labels_in_folds`, of which this is one fold.
    """
    fold = (train, train_label, test, test_label)
    return few_labels_in_folds([fold], group=group, shots=shots, draws=draws, scorer=scorer, scaled=scaled, seed=seed)


def few_labels_in_folds(
    folds: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    *,
    group: Tensor | None = None,
    shots: int = 10,
    draws: int = 10,
    scorer: Scorer = class_means,
    scaled: Sequence[bool] = (False,),
    seed: int = 0,
) -> Result:
    """The accuracy on the test rows of all folds when only `shots` training rows of each class have a label.

    folds: of each, train, train_label, test, test_label as in `few_labels`. Labels are drawn `draws` times anew. Rows
    without label take no part; a class with fewer rows gives them all, and the notes say so.
    scaled: whether features have mean 0 and deviation 1 on all training rows, which takes no label; of two ways that is
    taken, in each fold, which names more of the training rows that were not drawn.
    group: of all test rows, fold after fold: those that belong together, and are drawn together in the interval.
    Gives accuracy in per cent, the mean over draws, with low and high, its 95 % interval over test samples (or groups)
    and draws; right, which answers are right in each draw, as `packed` writes them; and chance, the accuracy of always
    naming the commonest test class.
    """
    _positive(shots=shots, draws=draws)
    tables, truths, places, ways, learned, short, before = [], [], [], [], 0, 0, 0
    for train, train_label, test, test_label in folds:
        x, y, _ = labeled(train, train_label, "training")
        z, truth, place = labeled(test, test_label, "test")
        z, truth = z.to(x.device), truth.to(x.device)
        right, way = _right(x, y, z, truth, shots, draws, scorer, scaled, seed)
        tables.append(right)
        truths.append(truth.cpu())
        places.append(before + place.cpu())
        ways.append(way)
        before += len(test)
        learned += len(x)
        short = max(short, int((torch.bincount(y)[y.unique()] < shots).sum()))
    table, truth = torch.cat(tables, 1), torch.cat(truths)  # draws x M, M
    mean, low, high = of_answers(table, group=None if group is None else group.cpu()[torch.cat(places)], seed=seed)
    over = "test samples" if group is None else "groups"
    numbers = {
        "accuracy": mean,
        "low": low,
        "high": high,
        "right": packed(table),
        "chance": 100 * float(torch.bincount(truth).max()) / len(truth),
    }
    config = {
        "shots": shots,
        "draws": draws,
        "classifier": scorer.__name__,
        "standardized": ways[0] if len(set(ways)) == 1 else f"in {sum(ways)} of {len(ways)} folds",
        "interval_over": f"{over} and draws" if draws > 1 else over,
        "splits": len(folds),
        "train": learned // len(folds),
        "test": len(truth),
        "seed": seed,
    }
    notes = [f"{short} classes have fewer than {shots} labeled rows"] if short else []
    return result("few_labels", numbers, config, notes)


def _right(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    truth: Tensor,
    shots: int,
    draws: int,
    scorer: Scorer,
    scaled: Sequence[bool],
    seed: int,
) -> tuple[Tensor, bool]:
    """Which answers to the test rows are right in each draw, and whether features were standardized: draws x M."""
    generator = torch.Generator().manual_seed(seed)
    drawn, others = [], []
    for _ in range(draws):
        order = torch.randperm(len(y), generator=generator).to(y.device)
        drawn.append(_first_of_each(y, order, shots))
        others.append(order[~torch.isin(order, drawn[-1])][:TRIED])
    ways = {way: standardize(x, z) if way else (x, z) for way in scaled}
    named = (
        {
            way: sum(
                int((scorer(a[c], y[c], a[rest]).argmax(1) == y[rest]).sum())
                for c, rest in zip(drawn, others, strict=True)
            )
            for way, (a, _) in ways.items()
        }
        if len(ways) > 1
        else {}
    )
    way = max(named, key=lambda way: named[way]) if named else scaled[0]
    x, z = ways[way]
    return torch.stack([scorer(x[c], y[c], z).argmax(1) == truth for c in drawn]).cpu(), way


def _first_of_each(label: Tensor, order: Tensor, count: int) -> Tensor:
    """The first `count` positions of each class, in the given order of all positions."""
    by_class = order[label[order].argsort(stable=True)]
    sizes = torch.bincount(label)
    rank = torch.arange(len(label), device=label.device) - (sizes.cumsum(0) - sizes)[label[by_class]]
    return by_class[rank < count]
