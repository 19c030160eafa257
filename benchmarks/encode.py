"""Encoding, ours against sentence-transformers: same model, texts, prompts and dtype, in one run.

The model is the default's student, untrained (speed does not depend on its weights), exported for
sentence-transformers; texts are the default's own. The peer runs at the best of five batch sizes.

Usage: python -m benchmarks.encode [--texts 400] [--rounds 3]   (after `make repro`, whose data it reads)
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from anna.allocation import keep_freed_memory
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, TaskPrompt
from anna.modeling.export import export
from anna.modeling.student import StudentParams
from anna.planning.hardware import matrix_rate
from anna.shapes import Shape
from benchmarks import side_by_side
from benchmarks.side_by_side import Figures, Row, Side, Work

TASK, MAX_TOKENS, BUDGET, BATCH_SIZES = "BoolQ", 256, 4096, (1, 4, 8, 16, 32)
USEFUL = 0.6
"""Share of the measured matrix rate that useful tokens are to reach."""
SAME = 0.99999
"""Least cosine of the two sides' vectors of a text."""
EXAMPLE_TOKENS, NUM_EXAMPLES = 64, 5
"""Query and response of an example have 64 tokens each: 128 an example."""


def ours(folder: Path, texts: list[str], num_examples: int, vectors: Path) -> Figures:
    """Encode with our encoder, the prompt shared."""
    keep_freed_memory()
    encoder, work = Encoder.load(folder), Work()
    prefix = encoder.config.prefix(TASK, num_examples) if num_examples else ""
    work.count(encoder.backbone.embed_tokens)
    encoder.encode(texts[:8], prefix=prefix, max_tokens=MAX_TOKENS, tokens_per_batch=BUDGET)
    work.computed = 0
    found: list[np.ndarray] = []
    work.run(lambda: found.append(encoder.encode(texts, prefix=prefix, max_tokens=MAX_TOKENS, tokens_per_batch=BUDGET)))
    np.save(vectors, found[0])
    rows = encoder.tokenize(texts, prefix=prefix, max_tokens=MAX_TOKENS)
    shared = encoder.count(prefix)
    return work.figures(shared + sum(len(row) - shared for row in rows))


def sentence_transformers(folder: Path, texts: list[str], num_examples: int, batch_size: int, vectors: Path) -> Figures:
    """Encode with `SentenceTransformer.encode`, which pads and repeats the prompt for every text."""
    from sentence_transformers import SentenceTransformer

    model, work = SentenceTransformer(str(folder), device="cpu", local_files_only=True), Work()
    prefix = EncoderConfig.load(folder).prefix(TASK, num_examples) if num_examples else ""
    model.max_seq_length = len(model.tokenizer(prefix)["input_ids"]) - 1 + MAX_TOKENS if prefix else MAX_TOKENS
    work.count(model[0].auto_model.embed_tokens)
    found: list[np.ndarray] = []

    def act(part: list[str]) -> None:
        found.append(model.encode(part, prompt=prefix or None, batch_size=batch_size, show_progress_bar=False))

    act(texts[:8])
    work.computed = 0
    work.run(lambda: act(texts))
    np.save(vectors, found[-1])
    lengths = map(
        len,
        model.tokenizer([prefix + text for text in texts], truncation=True, max_length=model.max_seq_length)[
            "input_ids"
        ],
    )
    return work.figures(sum(lengths))


def make_model(folder: Path) -> tuple[Encoder, list[str], list[str]]:
    """Write the untrained student to `folder`; return it, mixed texts and queries of the default's data."""
    corpus, queries = pl.read_parquet("data/corpus.parquet"), pl.read_parquet("data/queries.parquet")
    mine = queries.filter(task=TASK)["text"].to_list()
    passages = corpus.filter(task=TASK)["text"].to_list()
    student = StudentParams.load()
    encoder = Encoder.untrained(student, make_config(student))
    examples = tuple(encoder.cut_example(passages[-n] * 3, passages[n] * 3) for n in range(1, NUM_EXAMPLES + 1))
    prompt = encoder.config.task(TASK).model_copy(update={"examples": examples})
    encoder.config = encoder.config.model_copy(update={"tasks": {TASK: prompt}})
    export(encoder, folder)
    return encoder, passages + queries["text"].to_list(), mine


def make_config(student: StudentParams) -> EncoderConfig:
    """Return an encoder.json with one task, without examples."""
    prompt = TaskPrompt(instruction="Given a question, retrieve passages that answer it", symmetric=False)
    return EncoderConfig(
        base="benchmark",
        layers=student.layers,
        pooling=student.pooling,
        attention=student.attention,
        max_tokens=2048,
        example_tokens=EXAMPLE_TOKENS,
        tasks={TASK: prompt},
    )


def main() -> None:
    """Run both comparisons and print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=400, help="a quarter of them with examples")
    parser.add_argument("--rounds", type=int, default=side_by_side.ROUNDS)
    arguments = parser.parse_args()
    rows, rate = {}, matrix_rate(torch.float32)
    sys.stdout.write(f"matrix products: {rate / 1e9:.0f} GFLOP/s\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        encoder, mixed, queries = make_model(folder)
        shape = Shape.of(encoder.backbone.config.to_dict())
        cases = (
            ("zero-shot, mixed lengths", mixed, arguments.texts, 0, 1.3),
            ("5 examples of 128 tokens", queries, arguments.texts // 4, NUM_EXAMPLES, 8.0),
        )
        for title, texts, count, examples, target in cases:
            results, cosine = compare(folder, sample(texts, count), examples, arguments.rounds)
            mine, peer = results["anna"], min(list(results.values())[1:])
            share = side_by_side.operations(shape, mine.useful, passes=1) / mine.seconds / rate
            sys.stdout.write(side_by_side.table(f"{title}, {count} texts", results))
            sys.stdout.write(f"\n\nsmallest cosine between the two: {cosine:.7f}\n")
            if cosine < SAME:
                raise SystemExit("the two sides do not compute the same: nothing is compared")
            rows[title] = side_by_side.faster(mine, peer, target)
            rows[f"{title}: useful share of the matrix rate, for {USEFUL}"] = Row(share, USEFUL, share / USEFUL, 1.0)
    sys.stdout.write(side_by_side.report(rows) + "\n")


def compare(folder: Path, texts: list[str], num_examples: int, rounds: int) -> tuple[dict[str, Figures], float]:
    """Return every side's figures, ours first, and the smallest cosine between our vectors and the peer's."""
    files = [folder.with_name(f"{side}.npy") for side in ("ours", "peer")]
    sides: dict[str, tuple[Side, Sequence[Any]]] = {"anna": (ours, (folder, texts, num_examples, files[0]))}
    for size in BATCH_SIZES:
        sides[f"sentence-transformers, batch {size}"] = (
            sentence_transformers,
            (folder, texts, num_examples, size, files[1]),
        )
    results = side_by_side.compare(sides, rounds)
    return results, float((np.load(files[0]) * np.load(files[1])).sum(axis=1).min())


def sample(texts: list[str], count: int) -> list[str]:
    """Return `count` different texts, evenly spaced."""
    different = list(dict.fromkeys(texts))
    return different[:: max(1, len(different) // count)][:count]


if __name__ == "__main__":
    main()
