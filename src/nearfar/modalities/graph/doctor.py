"""What is in a set of graphs."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import some
from nearfar.errors import counted
from nearfar.modalities.examination import Copies, Examination, common_warnings, equal_samples, labeled, parts
from nearfar.modalities.graph import counts
from nearfar.modalities.graph.samples import GraphSamples

FEW = 0.1
"""Of all graphs: where more have too few nodes for the views to change, that is told."""


def examine(samples: GraphSamples, strength: float) -> Examination:
    """Look at every graph.  strength: of the views."""
    graphs = samples.known(torch.arange(len(samples)))
    start, end = graphs.edge_index
    found = copies(samples)
    edges = graphs.edges()
    touched = torch.zeros(len(graphs.x), dtype=torch.bool)
    touched[start] = True
    touched[end] = True
    bare, single = edges == 0, graphs.nodes == 1
    alone = (graphs.sums((~touched).float()[:, None])[:, 0] > 0) & ~bare
    key = start * len(graphs.x) + end
    one_way = ~torch.isin(end * len(graphs.x) + start, key)
    repeated = len(key) - len(key.unique())
    told = samples.inputs
    kinds = [
        *([f"{len(told.labels)} labels"] if told.labels else []),
        *([counted(told.numbers, "numbers")] if told.numbers else []),
        *([f"degrees up to {told.degrees}"] if told.degrees else []),
        *(["nothing but that it is there"] if told.constant else []),
    ]
    on_edges = [*([f"{len(told.edge_labels)} labels"] if told.edge_labels else [])]
    on_edges += [counted(told.edge_numbers, "numbers")] if told.edge_numbers else []
    facts = [
        ("graphs", f"{len(samples):,}" + parts(samples)),
        ("nodes", _spread(graphs.nodes)),
        ("edges", f"{_spread(edges)}, each way counted"),
        ("of a node", " and ".join(kinds)),
        ("of an edge", " and ".join(on_edges) or "nothing"),
        ("copies", f"{found.exact:,} the same, {found.near:,} alike but for the order of nodes, as far as can be told"),
        ("labeled", labeled(samples)),
    ]
    if bool((samples.fold != MISSING).any()):
        count = len(samples.fold[samples.fold != MISSING].unique())
        facts.append(("folds", f"{count} given; {int((samples.fold == MISSING).sum()):,} graphs in none"))
    sound = "no graph without edges or of one node, no node alone, no copies, no uneven classes"
    examination = Examination(samples=samples, copies=found, noun="graphs", facts=facts, sound=sound)
    said = examination.warnings
    if samples.skipped:
        reasons = some([f"{name}: {reason}" for name, reason in samples.skipped])
        said.append(f"{counted(len(samples.skipped), 'graphs')} cannot be used and are left out ({reasons}).")
    said.extend(common_warnings(samples, found, examination.noun))
    for which, what, then in (
        (bare & ~single, "no edge", "its nodes pass no messages"),
        (single, "one node", "views cannot change it"),
        (alone, "nodes without an edge", "these pass no messages"),
    ):
        if count := int(which.sum()):
            names = some([samples.names[i] for i in which.nonzero()[:, 0].tolist()])
            have = "has" if count == 1 else "have"
            said.append(f"{counted(count, 'graphs')} {have} {what} ({names}): {then}.")
    if (count := int(one_way.sum())) and len(key):
        remedy = "messages go that way only; --both-ways adds the reverse of each"
        said.append(f"{count / len(key):.0%} of the edges are listed one way only: {remedy}.")
    if repeated:
        said.append(f"{counted(repeated, 'edges')} are listed twice: they count twice.")
    small = int((graphs.nodes * strength < 1).sum())
    if small > FEW * len(samples):
        said.append(
            f"{small / len(samples):.0%} of the graphs are so small that --strength {strength:g} of their nodes is "
            "less than one: nothing of these is dropped or masked. A higher --strength changes them."
        )
    return examination


def copies(samples: GraphSamples) -> Copies:
    """Which graphs are the same, and which but for the order of their nodes, as far as Weisfeiler and Lehman tell."""
    code = counts.whole(samples.known(torch.arange(len(samples)))).tolist()
    often = Counter(code)
    number = {value: i for i, value in enumerate(value for value in often if often[value] > 1)}
    group = torch.tensor([number.get(value, MISSING) for value in code], dtype=torch.int64)
    return Copies(group, equal_samples(samples).same)


def _spread(count: Tensor) -> str:
    low, middle, high = count.double().quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return f"{middle:,.0f} in the middle, {low:,.0f} to {high:,.0f} for nine in ten, {int(count.max()):,} at most"
