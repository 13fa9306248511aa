"""Labels, splits and tables in the forms in which people write them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.faults import Faults, command
from nearfar.batch import MISSING
from nearfar.data.labels import SPLITS, array_labels, meet, table_labels
from nearfar.data.splits import folds
from nearfar.errors import UserError
from nearfar.modalities.table.samples import TableSamples, open_table

FORMS: list[tuple[Callable[[int], Any], bool]] = [
    (lambda c: c, True),
    (float, True),
    (str, True),
    (lambda c: f"{c}.0", True),
    (lambda c: f"{c}e0", True),
    (lambda c: f"+{c}", True),
    (lambda c: f"0{c}", False),
    (lambda c: f"{c:03d}", False),
    (lambda c: chr(0xFF10 + c), False),
    (lambda c: ["false", "true"][c], False),
    (bool, False),
]
"""Forms of the classes 0 and 1, and whether they are numbers, equal to 0 and 1."""


def _labels(values: list[Any], reader: str, folder: Path) -> Any:
    """What a reader makes of labels."""
    names = list(map(str, range(len(values))))
    if reader == "array":
        return array_labels(values, len(values))
    if reader == "frame":
        return open_table(pd.DataFrame({"x": np.arange(len(values)) % 7, "label": values}))
    if reader == "parquet":
        path = folder / "labels.parquet"
        kept = values if len({type(v) for v in values}) == 1 else list(map(str, values))
        pq.write_table(pa.table({"index": list(range(len(values))), "label": kept}), path)
    else:
        path = folder / "labels.csv"
        path.write_text("index,label\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)), encoding="utf-8")
    return table_labels(path, names)


def class_names(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Classes that two sources write differently

    Equal numbers are one class. Others are apart, and both spellings are named.
    """
    readers = ("array", "frame", "parquet", "csv")
    for _ in range(many):
        (one, a_number), (two, b_number) = random.choice(FORMS), random.choice(FORMS)
        first, second = (_labels([f(i % 2) for i in range(12)], random.choice(readers), folder) for f in (one, two))
        text = f"{first.classes} met {second.classes}"
        try:
            notes = meet(first.classes, second.classes, ours="one", theirs="the other")
        except UserError as error:
            told = all(
                repr(name) in str(error) or ascii(name) in str(error) for name in (first.classes[0], second.classes[0])
            )
            faults.tell(told and not (a_number and b_number), text)
            continue
        same = first.classes == second.classes
        faults.tell((a_number and b_number) or same or bool(notes), text)


def mixed_class_names(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """One class in several spellings within one source"""
    words = ["Cat", "New York", "Straße", "café", "7", "Dog"]

    def spoiled(word: str) -> str:
        ways = [
            str.swapcase,
            lambda w: w.replace(" ", "\xa0") + "\u200b",
            lambda w: f"0{w}" if w.isdigit() else w.upper(),
        ]
        return random.choice(ways)(word)

    for _ in range(many):
        word = random.choice(words)
        other = spoiled(word)
        values = [*words * 2, other]
        labels = _labels(values, random.choice(("array", "frame", "parquet", "csv")), folder)
        apart = other == word or (word in labels.classes and other.strip() in labels.classes)
        noted = other == word or any(repr(word) in n or ascii(word) in n for n in labels.notes)
        faults.tell(apart and noted, f"{word!r} and {other!r}: {labels.classes}, {labels.notes}")


def split_words(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Words in a column split

    What is understood is understood in any case; all else is refused. What test rows hold changes nothing learned.
    """
    strange = ["holdout", "0", "1", "2", "eval set", "tset", "x", "trian", "all", "fold 1"]
    for k in range(many):
        if k % 3 == 0:
            word = random.choice(strange)
            table = {"x": [1.5, 2.0, 4.0], "split": ["train", word, "train"]}
            try:
                open_table(table)
                faults.tell(False, f"split {word!r} was taken")
            except UserError as error:
                faults.tell(repr(word) in str(error) and "validation" in str(error), str(error))
            continue
        word = random.choice([w for w, meaning in SPLITS.items() if meaning != "train"])
        word = random.choice([str.upper, str.title, lambda w: f" {w} "])(word)
        learned, garbage = [random.gauss(0, 1) for _ in range(30)], random.choice(["1e9", "unknown", "", "007", "-3"])
        specs = []
        for test in ("0.5", garbage):
            path = folder / "a.csv"
            lines = [f"{v:.4f},{'abc'[i % 3]},Train" for i, v in enumerate(learned)] + [f"{test},{test},{word}"] * 3
            path.write_text("\n".join(["x,c,split", *lines]) + "\n", encoding="utf-8")
            specs.append(open_table(path).columns.spec())
        faults.tell(specs[0] == specs[1], f"test rows of {garbage!r} change what is learned ({word!r})")


def table_forms(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Tables as spreadsheets and other tools write them

    Every form that is read gives the same rows; the others are refused by name.
    """

    def same(table: TableSamples, other: TableSamples) -> bool:
        parts = zip((table.numbers, table.codes, table.label), (other.numbers, other.codes, other.label), strict=True)
        return (
            all(torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9)) for a, b in parts) and table.classes == other.classes
        )

    for _ in range(many):
        n = random.randrange(20, 60)
        rows = [
            [f"{random.gauss(0, 1):.3f}", random.choice("xyz"), f"{random.randrange(5):03d}", str(i % 2)]
            for i in range(n)
        ]
        rows[3][0], rows[5][1] = random.choice(["", "NA", "null", "?"]), random.choice(["", "None", "N/A"])
        head = ["a", "b", "zip", "label"]
        (folder / "plain.csv").write_text("\n".join(map(",".join, [head, *rows])) + "\n", encoding="utf-8")
        plain = open_table(folder / "plain.csv")
        mark, end = random.choice(",;\t|"), random.choice(["\n", "\r\n"])
        head = [random.choice([str, str.upper, lambda w: f" {w} "])(w) if w == "label" else w for w in head]
        quote = random.choice([lambda c: c, lambda c: f'"{c}"', lambda c: f" {c} "])
        text = end.join(mark.join(map(quote, row)) for row in [head, *rows]) + end
        text = random.choice(["", f"sep={mark}{end}"]) + text
        path = folder / random.choice(["a.csv", "A.CSV", "a.Csv"])
        path.write_bytes(text.encode(random.choice(["utf-8", "utf-8-sig", "utf-16"])))
        try:
            faults.tell(same(plain, open_table(path)), f"{path.name}: {text[:60]!r}")
        except UserError as error:
            faults.tell(False, f"{text[:60]!r}: {error}")
        frame = pd.read_csv(folder / "plain.csv", dtype=str, keep_default_na=random.random() < 0.5)
        faults.tell(same(plain, open_table(frame)), f"a frame of {rows[3]} and {rows[5]}")
        bad = random.choice(
            [
                ("\n".join(map(",".join, rows)), "names"),
                ("\n".join(map(",".join, [["a", "a", "zip", "label"], *rows])), "'a'"),
                ("\n".join(";".join(row).replace(".", ",") for row in [head, *rows]), "decimal point"),
                ("\n".join(map(",".join, [head, *rows])) + "\ncafé,x,1,0\n", "UTF-8"),
            ]
        )
        path.write_bytes(bad[0].encode("latin-1"))
        try:
            open_table(path)
            faults.tell(False, f"taken: {bad[1]}")
        except UserError as error:
            faults.tell(bad[1] in str(error), str(error))


def few_labels(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Folds of few labels, few groups, and rare classes"""
    for _ in range(many):
        n = random.randrange(1, 30)
        label = torch.tensor([random.choice([MISSING, *range(random.choice([1, 2, 4]))]) for _ in range(n)])
        group = torch.tensor([random.choice([MISSING, 0, 1, 2]) for _ in range(n)])
        known = label[label != MISSING]
        units = len(set(group[label != MISSING].tolist()) - {MISSING}) + int(
            ((group == MISSING) & (label != MISSING)).sum()
        )
        most = min(5, int(torch.bincount(known).max()) if len(known) else 0, units)
        try:
            parts = folds(label, group)
        except UserError as error:
            faults.tell(most < 2, f"{label.tolist()} {group.tolist()}: {error}")
            continue
        tested = torch.cat([test for _, test in parts])
        faults.tell(1 < len(parts) <= most and len(tested.unique()) == len(tested) == len(known), f"{label.tolist()}")


def evaluated_tables(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """`evaluate --test` with labels in other forms

    Equal numbers give the accuracy of the plain form; all else is noted or refused with both spellings.
    """
    draw = np.random.default_rng(random.randrange(2**31))
    y = draw.integers(0, 2, 80)
    x = draw.normal(3.0 * y, 1)

    def file(name: str, form: Callable[[int], Any], rows: slice) -> Path:
        buffer = io.StringIO()
        pd.DataFrame({"x": x[rows], "u": draw.normal(size=40), "label": [form(int(c)) for c in y[rows]]}).to_csv(
            buffer, index=False
        )
        (folder / name).write_text(buffer.getvalue(), encoding="utf-8")
        return folder / name

    learn = file("learn.csv", int, slice(40))
    small = ["--encoder", "mlp-8x1", "--epochs", 1, "--batch", 16, "--device", "cpu", "--probe-every", 0]
    command(["train", "simclr", learn, "--out", folder / "run", *small])
    for form, is_number in (FORMS * (1 + many // len(FORMS)))[: min(many, 22)]:
        said = command(["evaluate", folder / "run", learn, "--test", file("test.csv", form, slice(40, 80))])
        if is_number:
            faults.tell(said.status == 0 and "0.0 [" not in said.text, said.text[-300:])
        else:
            faults.tell(said.refused and "'1'" in said.text, said.text[-300:])
