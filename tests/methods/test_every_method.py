"""The battery: what holds for every method there is. A new file in methods/ is tested by existing."""

from __future__ import annotations

import copy
import dataclasses
import io
import re

import pytest
import torch
import yaml
from torch import Tensor, nn

from nearfar import methods
from nearfar.batch import MISSING, Batch
from nearfar.cli.train import parse
from nearfar.method import Method, frozen_statistics, start_epoch
from nearfar.modalities import recipes
from nearfar.training import plan as plans
from nearfar.training.log import OWN
from tests.two_ranks import Pool

from .ranks import hold_two_ranks_to_one
from .small import OLD, Form, clock, copied_state, forms, freeze_norms, grown, norms, sgd, statistics, step

every_form = pytest.mark.parametrize("form", forms(), ids=str)
every_method = pytest.mark.parametrize("name", methods.names())
aged = pytest.mark.parametrize(
    ("form", "age"),
    [(form, age) for form in forms() for age in (0, OLD) if age or not form.changed],
    ids=lambda value: {0: "young", OLD: "old"}.get(value, str(value)) if isinstance(value, int) else str(value),
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


def trained(method: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


@aged
def test_forward_reads_state(form: Form, age: int) -> None:
    method, batch = of_age(form, age), form.batch(8)
    before = copied_state(method)
    method(batch)
    assert moved(before, method.state_dict()) <= statistics(method)
    for path, norm in norms(method).items():
        passes = int(norm.num_batches_tracked - before[f"{path}.num_batches_tracked"])
        once = passes == 1 or (passes == 0 and not any(p.requires_grad for p in norm.parameters()))
        assert once, f"{path} took its statistics {passes} times in one step"
    before = copied_state(method)
    with frozen_statistics(method):
        method(batch)
        told = method(batch).log
    assert moved(before, method.state_dict()) == set()
    assert not OWN & told.keys()


@aged
def test_micro_batches_give_the_step_of_the_whole_batch(form: Form, age: int) -> None:
    whole, batch = of_age(form, age, dtype=torch.float64), form.batch(8, dtype=torch.float64)
    parts = copy.deepcopy(whole)
    parts.micro_batch = 3
    for method in (whole, parts):
        freeze_norms(method)
        step(method, sgd(method), batch)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-10, atol=1e-12)
    for (name, p), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)


@every_form
def test_micro_batches_move_statistics_once(form: Form) -> None:
    method = form.build()
    method.micro_batch = 3
    step(method, sgd(method), form.batch(8))
    for path, norm in norms(method).items():
        assert norm.num_batches_tracked <= 1, path
    assert all(norm.num_batches_tracked == 1 for norm in norms(method.encoder).values())


@aged
def test_forward_may_be_called_again(form: Form, age: int) -> None:
    method, batch = of_age(form, age), form.batch(8)
    losses, before = [], copied_state(method)
    before = {name: before[name] for name in statistics(method)}  # what is seen in eval mode goes by them
    for _ in range(2):
        method.load_state_dict(before, strict=False)
        torch.manual_seed(5)
        losses.append(method(batch).loss.detach())
    assert losses[0].shape == ()
    assert torch.equal(losses[0], losses[1])


@aged
def test_gradients_reach_what_is_trained_and_nothing_else(form: Form, age: int) -> None:
    method, batch = of_age(form, age), form.batch(8)
    out = method(batch)
    out.loss.backward()
    for name, p in method.named_parameters():
        if not p.requires_grad:
            assert p.grad is None, f"a gradient reached {name}"
            continue
        assert p.grad is not None, f"no gradient reached {name}"
        assert p.grad.isfinite().all(), name
        # A bias just before a batch norm has none by nature.
        assert p.grad.any() or p.dim() == 1, f"the gradient of {name} is all zeros"
    method.before_step()
    left = {name for name, p in trained(method).items() if p.grad is not None}
    assert left, "before_step left no gradient"
    if age:
        assert left == set(trained(method)), "before_step still drops gradients late in training"
    method.after_step(out)
    assert not any(buffer.requires_grad for buffer in method.buffers()), "memory holds a graph"
    assert not any(value.requires_grad for value in out.log.values()), "numbers to show must be detached"


@aged
def test_after_step_writes_memory_only(form: Form, age: int) -> None:
    method, batch = of_age(form, age), form.batch(8)
    optimizer = sgd(method)
    out = method(batch)
    out.loss.backward()
    method.before_step()
    optimizer.step()
    before = copied_state(method)
    method.after_step(out)
    after = method.state_dict()
    changed = moved(before, after)
    assert not changed & statistics(method)
    for name in changed & set(trained(method)):
        # What is trained may be put back on the sphere, no more.
        rows = before[name].flatten(1), after[name].flatten(1)
        torch.testing.assert_close(torch.cosine_similarity(*rows), torch.ones(len(rows[0])), msg=name)
    # Weights may stand in two places under two names; a weight that is held at 0 is no memory.
    weights = {p.data_ptr() for p in method.parameters() if p.requires_grad or not p.any()}
    memory = {name for name, value in after.items() if value.data_ptr() not in weights} - statistics(method)
    encoder = {f"encoder.{name}" for name in method.encoder.state_dict()}
    if age and memory - encoder and not changed & memory:
        young = form.build()
        before = copied_state(young)
        start_epoch(young, form.look(young))  # some memory is written before an epoch alone
        assert moved(before, young.state_dict()) & memory, f"none of {sorted(memory)} was written"


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
    for number in range(2, 5):
        batch = form.batch(8, seed=number)
        method.clock = again.clock = clock(OLD + 5 + number)
        one, two = step(method, optimizer, batch), step(again, other, batch)
        assert torch.equal(one.loss, two.loss)
        assert list(one.log) == list(two.log)
    assert moved(method.state_dict(), again.state_dict()) == set()


@aged
def test_two_ranks_are_one(two_ranks: Pool, form: Form, age: int) -> None:
    method = of_age(form, age, dtype=torch.float64)
    batches = [form.batch(16, seed=seed, dtype=torch.float64, grouped=seed == 2) for seed in range(3)]
    hold_two_ranks_to_one(two_ranks, form, method, batches, tolerance=1e-10)


@every_form
def test_two_ranks_are_one_in_single_precision(two_ranks: Pool, form: Form) -> None:
    # Rounding alone takes 2e-5 of a gradient that is a sum over the pixels of a thousand patches.
    hold_two_ranks_to_one(two_ranks, form, grown(form), [form.batch(16)], tolerance=4e-5)


@every_form
def test_two_ranks_are_one_with_live_norms(two_ranks: Pool, form: Form) -> None:
    method = grown(form, dtype=torch.float64)
    batches = [form.batch(16, seed=seed, dtype=torch.float64) for seed in range(2)]
    hold_two_ranks_to_one(two_ranks, form, method, batches, tolerance=1e-10, live=True)


@every_form
def test_it_overfits_a_tiny_batch(form: Form) -> None:
    """Against memory that stands still: else the batch would soon be among its own negatives.

    A bank that stands still may hold rows of the batch that nothing can tell apart, so it may also go on.
    """
    still = overfitted(form, write=False)
    if still:
        writing = overfitted(form, write=True)
        assert not writing, f"{still} (with memory that goes on, {writing})"


def overfitted(form: Form, *, write: bool) -> str:
    """What was reached, if that is not enough."""
    method, batch = grown(form), form.batch(8)
    optimizer = torch.optim.Adam(trained(method).values(), lr=1e-2)
    chance, losses = method.chance(8), []
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


@aged
def test_any_number_of_rows_and_labels(form: Form, age: int) -> None:
    method = of_age(form, age)
    optimizer = sgd(method, lr=0.01)
    for number, rows in enumerate((8, 7, 5, 3, 2)):
        batch = form.batch(rows, seed=number)
        others = (torch.full_like(batch.label, MISSING), torch.zeros_like(batch.label))
        for labels in (batch.label, *(others if rows in (8, 3) else ())):
            before = copied_state(method)
            out = step(method, optimizer, with_labels(batch, labels))
            assert out.loss.isfinite(), f"{rows} rows, labels {labels.tolist()}"
            assert moved(before, method.state_dict()) & set(trained(method))
    assert all(value.isfinite().all() for value in method.state_dict().values())


@every_form
@pytest.mark.parametrize("rows", [2, 7, 8])
def test_chance_is_the_loss_of_a_network_of_zeros(form: Form, rows: int) -> None:
    method = grown(form)
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
    chance = method.chance(rows)
    batch = form.batch(rows)
    if chance is not None:
        label = torch.arange(rows) % 3 if method.classifies else torch.full_like(batch.label, MISSING)
        loss = method(with_labels(batch, label)).loss
        assert loss.item() == pytest.approx(chance, rel=1e-5)


@every_method
@pytest.mark.parametrize("recipe", recipes.names())
def test_config_comes_back_from_yaml(name: str, recipe: str) -> None:
    try:
        plan = plans.make(name, plans.DRAWINGS, recipe, {})
    except ValueError as error:  # a kind of data for which this method has no recipe
        assert "have nothing for" in str(error)  # noqa: PT017
        return
    saved = yaml.safe_load(yaml.safe_dump(plan.saved()))
    again = plans.make(saved["method"], saved["data"], saved["recipe"], saved["settings"] | saved["arguments"])
    assert again.saved() == plan.saved() == saved
    assert again.arguments == plan.arguments


@every_form
def test_arguments_come_back_from_the_command_line_and_from_yaml(form: Form) -> None:
    words = []
    for flag, value in form.arguments.items():
        name = flag.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    _, _, arguments = parse(form.name, [plans.DRAWINGS, *words])
    assert arguments == form.arguments
    saved = yaml.safe_load(yaml.safe_dump(arguments))
    assert saved == form.arguments
    assert {k: type(v) for k, v in saved.items()} == {k: type(v) for k, v in form.arguments.items()}
    one, two = form.build(), dataclasses.replace(form, arguments=saved).build()
    assert type(one) is type(two)
    assert moved(one.state_dict(), two.state_dict()) == set()


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
def test_a_copy_is_a_method_of_its_own(name: str) -> None:
    form = next(form for form in forms() if form.name == name)
    method = grown(form)
    before, twin = copied_state(method), copy.deepcopy(method)
    step(twin, sgd(twin), form.batch(8))
    assert moved(before, method.state_dict()) == set()
