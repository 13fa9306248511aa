"""Sentences: a step of SimCSE beside sentence-transformers, tokens of a corpus, and the memory of a long stream."""

from __future__ import annotations

import gzip
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.memory import forget_peak, peak
from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar import optim
from nearfar.methods.simcse import SimCSE
from nearfar.modalities.text import encoder as encoders
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.modalities.text.views import plain, views
from nearfar.training.loop import fit
from nearfar.training.options import Loop
from nearfar.training.probe import passed

DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data")) / "sentences.jsonl.gz"
LENGTH = 32
EQUAL, LIBRARY, LOSS = "padded to the longest of the batch", "sentence-transformers", "sentence-transformers' loss"


def corpus(most: int) -> tuple[list[str], str]:
    """Real sentences, or where there are none such of random words."""
    if DATA.exists():
        with gzip.open(DATA, "rt", encoding="utf-8") as file:
            return [json.loads(line)["text"] for _, line in zip(range(most), file, strict=False)], "real"
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    return [" ".join(draw.choices(words, k=draw.randint(4, 40))) for _ in range(most)], "made up"


def fresh(tokenizer: Tokenizer) -> encoders.TextEncoder:
    torch.manual_seed(0)
    return encoders.fresh("bert", tokenizer, pooler="avg", length=LENGTH, dropout=0.1)


def simcse_contenders(texts: list[str], tokenizer: Tokenizer, batch: int, folder: Path) -> dict[str, Contender]:
    """An epoch of SimCSE: each sentence twice, dropout, AdamW, temperature 0.05, no layer behind the mean."""

    def ours(bucket: int) -> Run:
        method, data = SimCSE(fresh(tokenizer), mlp=False), open_texts(texts)
        optimizer = optim.adamw(optim.parameter_groups(method, 0.01), 1e-4)
        made = views("dropout", tokenizer, length=LENGTH)

        def run() -> None:
            before, encoders.BUCKET = encoders.BUCKET, bucket
            fit(method, data, made, optimizer, Loop(epochs=1, batch=batch, clip=1.0, quiet=True, say=lambda text: None))
            encoders.BUCKET = before

        return run

    def model() -> Any:
        from sentence_transformers import SentenceTransformer

        if not (folder / "modules.json").exists():
            fresh(tokenizer).eval().publish(folder)
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def loss() -> Run:
        """The loop by hand, the rest by the library."""
        from sentence_transformers.losses import (  # pyright: ignore[reportMissingImports]
            MultipleNegativesRankingLoss,
        )

        net = model()
        judge = MultipleNegativesRankingLoss(net, scale=20)
        optimizer = torch.optim.AdamW(net.parameters(), 1e-4, weight_decay=0.01)

        def run() -> None:
            net.train()
            for start in range(0, len(texts) - batch + 1, batch):
                given = [net.tokenize(texts[start : start + batch]) for _ in range(2)]
                cost = judge(given, torch.arange(batch))
                optimizer.zero_grad()
                cost.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()

        return run

    def trainer() -> Run:
        import accelerate  # noqa: F401  # pyright: ignore[reportMissingImports] (the trainer needs it)
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.losses import (  # pyright: ignore[reportMissingImports]
            MultipleNegativesRankingLoss,
        )

        net = model()
        asked = SentenceTransformerTrainingArguments(
            output_dir=str(folder / "out"),
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            dataloader_drop_last=True,
            learning_rate=1e-4,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        pairs = Dataset.from_dict({"anchor": texts, "positive": texts})
        judge = MultipleNegativesRankingLoss(net, scale=20)
        return lambda: SentenceTransformerTrainer(net, asked, train_dataset=pairs, loss=judge).train()

    return {
        OURS: lambda: ours(encoders.BUCKET),
        EQUAL: lambda: ours(1 << 30),
        LIBRARY: trainer,
        LOSS: loss,
    }


def measure(setting: Setting) -> Found:
    """A step of a BERT of 4 layers and width 256; all sentences as tokens; memory that a stream of them takes."""
    found, clock = Found(), clock_for(setting.threads)
    texts, source = corpus(2000 if setting.quick else 186_225)
    tokenizer = Tokenizer.learn(texts[:20_000], 8000)
    batch, steps = (8, 1) if setting.quick else (64, 2)
    with tempfile.TemporaryDirectory() as name:
        row = compare(
            f"SimCSE, BERT 4 x 256, sentences ({source}), {steps} steps",
            {"Batch": batch},
            simcse_contenders(texts[: batch * steps], tokenizer, batch, Path(name)),
            clock=clock,
            seconds=1 if setting.quick else 40,
            rate=(batch * steps, "sentences/s"),
        )
    found.add(row, "SimCSE step")
    for other in (LIBRARY, LOSS):
        if other in row.ratio:
            found.number(f"SimCSE step: {other} / {EQUAL}", row.ratio[other].median / row.ratio[EQUAL].median)
    began = clock()
    for start in range(0, len(texts), 1024):
        tokenizer(texts[start : start + 1024], LENGTH)
    found.number("seconds, tokens of 186,225 sentences", (clock() - began) * 186_225 / len(texts))
    small = encoders.fresh("bert-1x64", tokenizer, pooler="avg", length=LENGTH, dropout=0.0).eval()
    found.number("MiB more for ten times the sentences, rows apart", stream(small, tokenizer, texts, setting.quick))
    return found


def stream(encoder: encoders.TextEncoder, tokenizer: Tokenizer, texts: list[str], quick: bool) -> float:
    """MiB by which the peak of encoding ten times the sentences is higher, without the rows that come out."""
    few = 200 if quick else 4_000
    peaks = []
    for count in (few, 10 * few):
        data = open_texts([texts[i % len(texts)] for i in range(count)])
        passed(encoder, plain(tokenizer, LENGTH), data.subset(range(min(count, 512))))
        before = forget_peak()
        rows = passed(encoder, plain(tokenizer, LENGTH), data)
        peaks.append((peak() - before - 2 * rows.nbytes) / 2**20)  # the parts, and what they are joined to
    return max(peaks[1] - peaks[0], 0.0)
