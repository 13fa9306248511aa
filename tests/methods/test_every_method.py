"""The battery: what holds for every method there is. A new file in methods/ is tested by existing.

Cheap properties are asked of every form (each method as it comes, and with each switch the other way), expensive ones
of each method as it comes, on each kind of data.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import re
from itertools import zip_longest

import pytest
import torch
import yaml
from torch import Tensor, nn

from nearfar import methods
from nearfar.batch import MISSING, Batch
from nearfar.cli.train import parse
from nearfar.method import Method, Step, frozen_statistics, in_turn, start_epoch
from nearfar.modalities import recipes
from nearfar.modalities.image.settings import DRAWINGS
from nearfar.training import plan as plans
from nearfar.training.log import OWN
from tests.two_ranks import Pool

from .border import constant, hold_half_precision_to_float32, loss_and_chance
from .ranks import hold_two_ranks_to_one
from .small import (
    OLD,
    Form,
    clock,
    copied_state,
    form,
    forms,
    freeze_norms,
    grown,
    norms,
    others,
    sgd,
    small,
    statistics,
    step,
)

FORMS = forms()
PLAIN = [form for form in FORMS if not form.changed]


def by_age(given: list[Form], *ages: int) -> list[object]:
    """Forms when all has started, and at the very beginning, as test cases."""
    words = {0: "young", OLD: "old"}
    return [pytest.param(form, age, id=f"{form}-{words[age]}") for form in given for age in ages]


every_method = pytest.mark.parametrize("name", methods.names())
every_form = pytest.mark.parametrize("form", FORMS, ids=str)
every_plain_form = pytest.mark.parametrize("form", PLAIN, ids=str)
aged = pytest.mark.parametrize(
    ("form", "age"), by_age(PLAIN, 0, OLD) + by_age([form for form in FORMS if form.changed], OLD)
)
"""Each form when all has started; those that are as they come also before."""


def of_age(form: Form, age: int, **kwargs: torch.dtype) -> Method:
    if age:
        return grown(form, **kwargs)
    method = form.build().to(kwargs.get("dtype", torch.float32))
    start_epoch(method, form.look(method))
    return method


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert list(before) == list(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained(method: Method) -> dict[str, nn.Parameter]:
    """What a step moves: where players take turns, of the one whose turn it is."""
    with in_turn(method):
        return {name: p for name, p in method.named_parameters() if p.requires_grad}


@dataclasses.dataclass
class Stages:
    """A step, watched from inside: the state at its four stages, and the gradients before and after `before_step`."""

    method: Method
    out: Step
    start: dict[str, Tensor]
    after_forward: dict[str, Tensor]
    after_optimizer: dict[str, Tensor]
    end: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    left: set[str]


def watched_step(method: Method, batch: Batch) -> Stages:
    """Make a step of the loop, and look at the method at each of its hooks."""
    states: dict[str, object] = {"start": copied_state(method)}
    before_step, after_step = method.before_step, method.after_step

    class Forward(nn.Module):
        def forward(self, batch: Batch) -> Step:
            out = method(batch)
            states["after_forward"] = copied_state(method)
            return out

    def before() -> None:
        gradients = {name: p.grad for name, p in method.named_parameters()}
        states["gradients"] = {name: None if g is None else g.clone() for name, g in gradients.items()}
        before_step()
        states["left"] = {name for name, p in trained(method).items() if p.grad is not None}

    def after(out: Step) -> None:
        states["after_optimizer"] = copied_state(method)
        after_step(out)
        states["end"] = copied_state(method)

    method.before_step, method.after_step = before, after  # pyright: ignore[reportAttributeAccessIssue]
    try:
        out = step(method, sgd(method), batch, Forward())
    finally:
        del method.before_step, method.after_step
    return Stages(method=method, out=out, **states)  # pyright: ignore[reportArgumentType]


@aged
def test_forward_reads_state_gradients_reach_what_is_trained_and_after_step_writes(form: Form, age: int) -> None:
    method, batch = of_age(form, age), form.batch(8)
    stages = watched_step(method, batch)
    forward_read_state(stages)
    gradients_reached_what_is_trained(stages, age)
    after_step_wrote_memory_only(stages, form, age)
    forward_may_be_called_again(method, batch)


def forward_read_state(stages: Stages) -> None:
    method, out = stages.method, stages.out
    assert moved(stages.start, stages.after_forward) <= statistics(method)
    for path, norm in norms(method).items():
        key = f"{path}.num_batches_tracked"
        passes = int(stages.after_forward[key] - stages.start[key])
        own = {f"{path}.{name}" for name, _ in norm.named_parameters()}
        once = passes == 1 or (passes == 0 and not own & set(trained(method)))
        assert once, f"{path} took its statistics {passes} times in one step"
    assert out.loss.shape == ()
    assert out.loss.isfinite()
    assert not OWN & out.log.keys()
    assert not any(value.requires_grad for value in out.log.values()), "numbers to show must be detached"


def gradients_reached_what_is_trained(stages: Stages, age: int) -> None:
    method = stages.method
    for name, p in method.named_parameters():
        gradient = stages.gradients[name]
        if name not in trained(method):
            assert gradient is None, f"a gradient reached {name}"
            continue
        assert gradient is not None, f"no gradient reached {name}"
        assert gradient.isfinite().all(), name
        # A bias just before a batch norm has none by nature.
        assert gradient.any() or p.dim() == 1, f"the gradient of {name} is all zeros"
    assert stages.left, "before_step left no gradient"
    if age:
        assert stages.left == set(trained(method)), "before_step still drops gradients late in training"
    assert not any(buffer.requires_grad for buffer in method.buffers()), "memory holds a graph"


def after_step_wrote_memory_only(stages: Stages, form: Form, age: int) -> None:
    method, before, after = stages.method, stages.after_optimizer, stages.end
    assert moved(stages.after_forward, before) <= set(trained(method)) | shared(method), "the optimizer moved a buffer"
    changed = moved(before, after)
    assert not changed & statistics(method)
    for name in changed & set(trained(method)):
        # What is trained may be put back on the sphere, no more.
        rows = before[name].flatten(1), after[name].flatten(1)
        torch.testing.assert_close(torch.cosine_similarity(*rows), torch.ones(len(rows[0])), msg=name)
    # Weights may stand in two places under two names; a weight that is held at 0 is no memory.
    weights = {p.data_ptr() for p in method.parameters() if p.requires_grad or not p.any()}
    memory = {name for name, value in method.state_dict().items() if value.data_ptr() not in weights}
    memory -= statistics(method)
    encoder = {f"encoder.{name}" for name in method.encoder.state_dict()}
    if age and memory - encoder and not changed & memory:
        young = form.build()
        early = copied_state(young)
        start_epoch(young, form.look(young))  # some memory is written before an epoch alone
        assert moved(early, young.state_dict()) & memory, f"none of {sorted(memory)} was written"


def shared(method: Method) -> set[str]:
    """The names under which trained weights stand a second time."""
    weights = {p.data_ptr() for p in trained(method).values()}
    return {name for name, value in method.state_dict().items() if value.data_ptr() in weights} - set(trained(method))


def forward_may_be_called_again(method: Method, batch: Batch) -> None:
    with frozen_statistics(method):
        before, losses = copied_state(method), []
        for _ in range(2):
            torch.manual_seed(5)
            losses.append(method(batch).loss.detach())
    assert moved(before, method.state_dict()) == set()
    assert torch.equal(*losses)


@every_plain_form
def test_micro_batches_give_the_step_of_the_whole_batch_and_move_statistics_once(form: Form) -> None:
    whole, batch = grown(form, dtype=torch.float64), form.batch(8, dtype=torch.float64)
    parts = copy.deepcopy(whole)
    parts.micro_batch = 3
    for method in (whole, parts):
        freeze_norms(method)
        step(method, sgd(method), batch)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-10, atol=1e-12)
    for (name, p), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)
    live = form.build()
    live.micro_batch = 3
    step(live, sgd(live), form.batch(8))
    for path, norm in norms(live).items():
        assert norm.num_batches_tracked <= 1, path
    assert all(norm.num_batches_tracked == 1 for norm in norms(live.encoder).values())


@every_form
def test_saved_and_loaded_it_goes_on_bit_for_bit(form: Form) -> None:
    method = grown(form)
    optimizer = sgd(method)
    method.clock = clock(OLD + 6)
    step(method, optimizer, form.batch(8, seed=1))
    file = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = form.build(seed=9)
    other = sgd(again)
    again.load_state_dict(saved["method"])
    other.load_state_dict(saved["optimizer"])
    for number in range(2, 4):
        batch = form.batch(8, seed=number)
        method.clock = again.clock = clock(OLD + 5 + number)
        one, two = step(method, optimizer, batch), step(again, other, batch)
        assert torch.equal(one.loss, two.loss)
        assert list(one.log) == list(two.log)
    assert moved(method.state_dict(), again.state_dict()) == set()


@pytest.mark.parametrize(
    ("form", "age"),
    by_age([form for form in PLAIN if form.kind != "table"], 0, OLD)
    + by_age([form for form in FORMS if form.changed], OLD),
)
def test_two_ranks_are_one(two_ranks: Pool, form: Form, age: int) -> None:
    """In double precision, as rounding alone takes 2e-5 of some gradients; batch norms see the rows of both ranks."""
    method = of_age(form, age, dtype=torch.float64)
    seeds = (0,) if form.changed else (0, 2)
    batches = [form.batch(16, seed=seed, dtype=torch.float64, grouped=seed == 2 or not age) for seed in seeds]
    tolerance = 1e-6 if form.kind == "text" else 1e-10  # T5 takes its norms and softmax in single precision
    hold_two_ranks_to_one(two_ranks, form, method, batches, tolerance=tolerance, live=bool(age))


FEWER = {"fnc": {"top": 2}}
"""Where a method as it comes attracts nearly all of 8 samples to each other: then no encoder is far below chance."""


@every_plain_form
def test_it_overfits_a_tiny_batch(form: Form) -> None:
    """Against memory that stands still: else the batch would soon be among its own negatives.

    A bank that stands still may hold rows of the batch that nothing can tell apart, so it may also go on.
    """
    form = dataclasses.replace(form, arguments=form.arguments | FEWER.get(form.name, {}))
    still = overfitted(form, write=False)
    if still:
        writing = overfitted(form, write=True)
        assert not writing, f"{still} (with memory that goes on, {writing})"


def overfitted(form: Form, *, write: bool) -> str:
    """What was reached, if that is not enough."""
    method, batch = grown(form), form.batch(8)
    optimizer = torch.optim.Adam(trained(method).values(), lr=1e-2)
    with torch.no_grad():
        level, losses = method.chance(batch), []
    chance = None if level is None else float(level)
    for number in range(60):
        torch.manual_seed(0)
        optimizer.zero_grad()
        out = method(batch)
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
        # Twenty steps do for contrast; to tell what was done to an image of noise takes longer. Where negatives follow
        # the query, 0.4 below chance is far.
        first = min(losses[0], chance or losses[0])
        if number >= 19 and (losses[-1] < 0.85 * first or (chance is not None and losses[-1] < first - 0.4)):
            return ""
        if write:
            method.after_step(out)
    return f"from {losses[0]:.3f} to {losses[19]:.3f} in 20 steps, to {losses[-1]:.3f} in 60"


def with_labels(batch: Batch, label: Tensor) -> Batch:
    return dataclasses.replace(batch, label=label)


@every_form
def test_any_number_of_rows_and_labels(form: Form) -> None:
    """Few rows and an odd number of them; all labels missing, or one for all. Of a method as it comes, at first too."""
    for age in (OLD,) if form.changed else (0, OLD):
        method = of_age(form, age)
        optimizer = sgd(method, lr=0.01)
        for rows, label in ((7, None), (8, MISSING), (3, MISSING), (5, 0), (2, None)):
            batch = form.batch(rows, seed=rows)
            if label is not None:
                batch = with_labels(batch, torch.full_like(batch.label, label))
            before = copied_state(method)
            out = step(method, optimizer, batch)
            assert out.loss.isfinite(), f"{rows} rows, labels {batch.label.tolist()}"
            assert moved(before, method.state_dict()) & set(trained(method))
        assert all(value.isfinite().all() for value in method.state_dict().values())


NO_CHANCE = {
    *(
        "alignuniform",
        "byol",
        "pixpro",
        "npairs",
        "opencon",
        "renyicl",
        "triplet",
        "margin",
    ),  # no softmax of similarities
    "calm",  # likelihoods of texts
    *("paco", "gpaco", "rescom", "colorization"),  # logits and similarities side by side; weighted classes
    "contragan",  # two players: neither's loss says how far it is from knowing nothing
    "supportset",  # what writing costs depends on the words
    *("cmc", "instdisc", "interclr"),  # by default: a constant Z; negatives chosen by similarity
}
"""Methods that have no chance level as they come."""

LABELS = ([0, 1, 2, 0, 1, 2, -1, -1], [0, 0, 0, 0, 0, 1, 2, 2], [0] * 8, [MISSING] * 8, [0, 1, 2, -1, -1, -1, -1, -1])
"""Balanced, uneven, one class, none, and no class twice."""


@every_form
def test_chance_is_the_loss_of_a_constant_encoder(form: Form) -> None:
    """Of batches of any composition, once memories hold what it gives."""
    with constant(form) as method:
        levels, every = set(), [(0, False), (1, False), (2, True), (4, False)]
        for views, grouped in every[::2] if form.changed else every:
            # Where labels are not learned from, no more than whether there are any can matter.
            for label in LABELS if method.needs_labels else (LABELS[0], LABELS[3]):
                batch = with_labels(form.batch(8, grouped=grouped), torch.tensor(label))
                both = loss_and_chance(method, batch, views)
                levels.add(None if both is None else both[1])
                if both is not None and both[1] is not None:
                    assert both[1] == pytest.approx(both[0], rel=1e-5, abs=2e-5), f"{views} views, labels {label}"
    assert form.changed or (levels == {None}) == (form.name in NO_CHANCE)


@every_form
def test_in_half_precision_the_loss_has_the_value_and_gradient_of_float32(form: Form) -> None:
    hold_half_precision_to_float32(form, form.batch(8))


@every_method
def test_config_comes_back_from_yaml(name: str) -> None:
    planned = 0
    for recipe in recipes.names():
        try:
            plan = plans.make(name, DRAWINGS, recipe, {})
        except ValueError:  # a kind of data for which this method has no recipe
            continue
        saved = yaml.safe_load(yaml.safe_dump(plan.saved()))
        again = plans.make(saved["method"], saved["data"], saved["recipe"], saved["settings"] | saved["arguments"])
        assert again.saved() == plan.saved() == saved
        assert again.arguments == plan.arguments
        planned += 1
    assert planned >= 2


@every_method
def test_arguments_come_back_from_the_command_line_and_from_yaml(name: str) -> None:
    """As they come, and then with every flag changed at once, to one after another of what it can be."""
    flags = methods.flags(methods.load(name))
    plain = {flag: small(parameter.default) for flag, parameter in flags.items()}
    choices = [[(flag, value) for value in others(p.default, p.annotation)] for flag, p in flags.items()]
    for changed in [(), *zip_longest(*choices)]:
        arguments = plain | dict(pair for pair in changed if pair is not None)
        words = []
        for flag, value in arguments.items():
            dashed = flag.replace("_", "-")
            words += [f"--{'' if value else 'no-'}{dashed}"] if isinstance(value, bool) else [f"--{dashed}", str(value)]
        _, _, parsed = parse(name, [DRAWINGS, *words])
        saved = yaml.safe_load(yaml.safe_dump(parsed))
        assert saved == parsed == arguments
        assert {k: type(v) for k, v in saved.items()} == {k: type(v) for k, v in arguments.items()}


@every_method
def test_the_page_tells_of_the_method_its_flags_and_its_paper(name: str) -> None:
    page, kind = methods.page(name), methods.load(name)
    assert page.class_name == kind.__name__
    assert page.title == vars(kind)["title"]
    assert len(page.summary) <= 120
    assert re.fullmatch(r"[A-Z][^.]*\.", page.summary), f"not one sentence: {page.summary!r}"
    assert re.search(r"\b\d{4}\.\d{4,5}\b", page.paper), "names no arXiv id"
    flags, texts = methods.flags(kind), methods.flag_texts(name)
    assert set(texts) == set(flags) == set(methods.listed_flags(name))
    assert all(re.fullmatch(r"\S.{7,}\.", text) for text in texts.values()), texts


@every_method
def test_flags_read_from_the_source_are_those_of_the_constructor(name: str) -> None:
    read, there = methods.read_flags(name), methods.flags(methods.load(name))
    assert list(read) == list(there)
    for flag, parameter in there.items():
        assert read[flag].annotation == parameter.annotation
        assert (type(read[flag].default), read[flag].default) == (type(parameter.default), parameter.default)


@every_method
def test_a_step_takes_as_many_views_as_are_declared_and_no_others(name: str) -> None:
    own = form(name)
    method, batch = own.build(), own.batch(12)
    fewest, most = method.fewest_views, method.most_views
    assert fewest <= len(batch.views) <= (most or len(batch.views)), "the recipe's own views"

    def loss(count: int) -> Tensor:
        method = own.build()
        start_epoch(method, own.look(method))
        views = (batch.views * count)[:count]
        return step(method, sgd(method), dataclasses.replace(batch, views=views)).loss

    for count in {fewest, most or fewest + 2} - {len(batch.views)}:
        assert loss(count).isfinite()
    for count in ({fewest - 1} if fewest > 1 else set()) | ({most + 1} if most else set()):
        with pytest.raises((ValueError, TypeError, RuntimeError, IndexError)):
            loss(count)


@every_method
def test_a_copy_is_a_method_of_its_own(name: str) -> None:
    own = form(name)
    method = grown(own)
    before, twin = copied_state(method), copy.deepcopy(method)
    step(twin, sgd(twin), own.batch(8))
    assert moved(before, method.state_dict()) == set()
