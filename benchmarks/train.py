"""A training step, ours against the peers': same model, batch, prompts and dtype, in one run.

Full fine-tuning of the default's student on pairs of the default's BoolQ: queries and positives, in-batch negatives,
with no in-context examples and with five. Peers are sentence-transformers, with `MultipleNegativesRankingLoss` in one
pass and `CachedMultipleNegativesRankingLoss` (GradCache) at two mini-batch sizes, and FlagEmbedding's decoder-only ICL
model where it is installed (`pip install --no-deps FlagEmbedding==1.4.2`; it has no GradCache). All of them pad, and
repeat the prompt for every query. The best of them counts.

Usage: python -m benchmarks.train [--queries 64] [--steps 1] [--rounds 3]   (after `make repro`, whose data it reads)
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModel

from anna.allocation import keep_freed_memory
from anna.modeling.encoder import Encoder
from anna.modeling.export import export
from anna.modeling.student import StudentParams
from anna.planning.hardware import matrix_rate
from anna.prompts import query_prefix
from anna.training import engine as engines
from anna.training import step
from anna.training.batches import Batch, Group, Texts
from anna.training.recipe import TrainParams
from benchmarks import side_by_side
from benchmarks.encode import EXAMPLE_TOKENS, NUM_EXAMPLES, TASK, USEFUL, make_config
from benchmarks.side_by_side import Figures, Row, Side, Work

DOC_TOKENS, QUERY_TOKENS, MINI_BATCHES = 64, 48, (None, 8, 32)
MOST = 1.25
"""What a step with examples is to cost of one without, at most."""


def pairs(count: int) -> list[tuple[str, str]]:
    """Return `count` queries of the default's BoolQ with their positives."""
    frames = [pl.read_parquet(f"data/{name}.parquet") for name in ("qrels", "queries", "corpus")]
    joined = frames[0].join(frames[1], on="query_id").join(frames[2], on="doc_id", suffix="_doc")
    chosen = joined.filter(pl.col("task") == TASK, pl.col("relevance") > 0).sort("query_id").head(count)
    return list(chosen.select("text", "text_doc").iter_rows())


def new_encoder() -> Encoder:
    """Return the default's student, untrained, with the benchmark's prompt."""
    student = StudentParams.load()
    encoder = Encoder.untrained(student, make_config(student))
    encoder.backbone.get_input_embeddings().requires_grad_(False)
    return encoder.train()


def ours(count: int, num_examples: int, num_steps: int) -> Figures:
    """Take our optimizer steps: packed rows, the prompt once, DeepSpeed."""
    keep_freed_memory(even_large=True)
    torch.manual_seed(0)
    engines.init_distributed()
    recipe = TrainParams.load().model_copy(
        update={"query_tokens": QUERY_TOKENS, "doc_tokens": DOC_TOKENS, "kd_weight": 0.0, "batch_kd_weight": 0.0}
    )
    encoder, work = new_encoder(), Work()
    work.count(encoder.backbone.embed_tokens)
    engine = engines.start_engine(encoder, recipe)
    chosen = pairs(count + num_examples)
    groups = [Group(f"q{n}", TASK, (f"d{n}",), (1.0,)) for n in range(len(chosen))]
    texts = Texts(
        {f"q{n}": (query * 8 if n >= count else query) for n, (query, _) in enumerate(chosen)},
        {f"d{n}": doc for n, (_, doc) in enumerate(chosen)},
        {},
    )
    batch = Batch(TASK, tuple(groups[:count]), tuple(groups[count:]))
    step.take(engine, encoder, batch, texts, recipe)
    work.computed = 0
    for _ in range(num_steps):
        work.run(lambda: step.take(engine, encoder, batch, texts, recipe))
    return work.figures(work.computed)


def sentence_transformers(count: int, num_examples: int, num_steps: int, mini_batch: int | None) -> Figures:
    """Take sentence-transformers' optimizer steps, in one pass or in mini-batches."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    encoder, work = new_encoder(), Work()
    features, useful = padded_batch(encoder, count, num_examples)
    with tempfile.TemporaryDirectory() as name:
        export(encoder, Path(name) / "model")
        model = SentenceTransformer(str(Path(name) / "model"), device="cpu", local_files_only=True).train()
    work.count(model[0].auto_model.embed_tokens)
    model[0].auto_model.get_input_embeddings().requires_grad_(False)
    if mini_batch:
        loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=mini_batch)
    else:
        loss = MultipleNegativesRankingLoss(model, scale=20.0)
    take_steps(work, model, lambda: loss(features, torch.zeros(count)), num_steps)
    return work.figures(num_steps * useful)


def flag_embedding(count: int, num_examples: int, num_steps: int) -> Figures:
    """Take the optimizer steps of FlagEmbedding's ICL model, in one pass."""
    from FlagEmbedding.finetune.embedder.decoder_only.icl.modeling import BiDecoderOnlyEmbedderICLModel

    encoder, work = new_encoder(), Work()
    features, useful = padded_batch(encoder, count, num_examples)
    with tempfile.TemporaryDirectory() as name:
        export(encoder, Path(name) / "model")
        backbone = AutoModel.from_pretrained(Path(name) / "model", local_files_only=True).train()
    work.count(backbone.embed_tokens)
    backbone.get_input_embeddings().requires_grad_(False)
    model = BiDecoderOnlyEmbedderICLModel(backbone, encoder.tokenizer, temperature=0.05, normalize_embeddings=True)
    take_steps(work, model, lambda: model(queries=features[0], passages=features[1]).loss, num_steps)
    return work.figures(num_steps * useful)


def padded_batch(encoder: Encoder, count: int, num_examples: int) -> tuple[list[dict[str, torch.Tensor]], int]:
    """Return queries and documents as the peers take them, and how many tokens of them are useful."""
    torch.manual_seed(0)
    chosen = pairs(count + num_examples)
    prefix = prompt(encoder, chosen[count:])
    shared = encoder.count(prefix)
    queries = encoder.tokenize([query for query, _ in chosen[:count]], prefix=prefix, max_tokens=QUERY_TOKENS)
    docs = encoder.tokenize([doc for _, doc in chosen[:count]], max_tokens=DOC_TOKENS)
    useful = shared + sum(len(row) - shared for row in queries) + sum(map(len, docs))
    return [pad(encoder.tokenizer, rows) for rows in (queries, docs)], useful


def take_steps(work: Work, model: torch.nn.Module, loss: Callable[[], torch.Tensor], num_steps: int) -> None:
    """Take optimizer steps, one of them before the clock runs."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def act() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    act()
    work.computed = 0
    for _ in range(num_steps):
        work.run(act)


def pad(tokenizer: Any, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return token ids and mask as the peers' collators make them: one padded batch."""
    padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


def prompt(encoder: Encoder, examples: list[tuple[str, str]]) -> str:
    """Return the prompt with the examples, as `step` makes it from the same groups."""
    cut = [encoder.cut_example(query * 8, doc) for query, doc in examples]
    return query_prefix(encoder.config.task(TASK).instruction, cut)


def main() -> None:
    """Run both comparisons and print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=side_by_side.ROUNDS)
    arguments = parser.parse_args()
    results = {}
    for examples in (0, NUM_EXAMPLES):
        common = (arguments.queries, examples, arguments.steps)
        sides: dict[str, tuple[Side, Any]] = {"anna": (ours, common)}
        for size in MINI_BATCHES:
            sides[f"sentence-transformers, {f'mini-batch {size}' if size else 'one pass'}"] = (
                sentence_transformers,
                (*common, size),
            )
        if find_spec("FlagEmbedding"):
            sides["FlagEmbedding ICL, one pass"] = (flag_embedding, common)
        results[examples] = side_by_side.compare(sides, arguments.rounds)
        work = f"{arguments.steps} steps of {arguments.queries} queries"
        title = f"{work}, {examples} examples of {2 * EXAMPLE_TOKENS} tokens"
        sys.stdout.write(side_by_side.table(title, results[examples]) + "\n")
    mine = [results[examples]["anna"] for examples in (0, NUM_EXAMPLES)]
    peers = [min(list(results[examples].values())[1:]) for examples in (0, NUM_EXAMPLES)]
    cost, peer_cost = (pair[1].seconds / pair[0].seconds for pair in (mine, peers))
    rate = matrix_rate(torch.float32)
    weights = sum(p.numel() for n, p in new_encoder().backbone.named_parameters() if "layers." in n)
    share = 6 * weights * mine[0].useful / mine[0].seconds / rate
    rows = {
        "step without examples": side_by_side.faster(mine[0], peers[0], 1.0),
        "step with 5 examples": side_by_side.faster(mine[1], peers[1], 4.0),
        f"cost of 5 examples, for at most {MOST}": Row(cost, MOST, MOST / cost, 1.0),
        "cost of 5 examples": Row(cost, peer_cost, peer_cost / cost, 1.0),
        f"useful share of the matrix rate, for {USEFUL}": Row(share, USEFUL, share / USEFUL, 1.0),
    }
    sys.stdout.write(f"\nmatrix products: {rate / 1e9:.0f} GFLOP/s\n{side_by_side.report(rows)}\n")


if __name__ == "__main__":
    main()
