"""A training step, ours against the peers': same model, batch, prompts and dtype, in one run.

Full fine-tuning of the default's student on groups of the default's BoolQ, a query with its positive and a hard
negative, and in-batch negatives; with no in-context examples and with five. Peers are sentence-transformers, with
`MultipleNegativesRankingLoss` in one pass and `CachedMultipleNegativesRankingLoss` (GradCache) at two mini-batch sizes,
and FlagEmbedding's decoder-only ICL model where it is installed (`pip install --no-deps FlagEmbedding==1.4.2`; it has
no GradCache). All of them pad, and repeat the prompt for every query. The best of them counts.

Usage: python -m benchmarks.train [--queries 64] [--negatives 1] [--steps 1] [--rounds 3]
(after `make repro`, whose data it reads)
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from transformers import AutoModel

from anna.allocation import keep_freed_memory
from anna.modeling.encoder import Encoder
from anna.modeling.export import export
from anna.modeling.student import StudentParams
from anna.planning.hardware import matrix_rate
from anna.prompts import query_prefix
from anna.shapes import Shape
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


class Job(NamedTuple):
    """What all sides do."""

    queries: int
    negatives: int
    """Of a query: 0, or 1, which the default mines."""
    examples: int
    steps: int

    @property
    def title(self) -> str:
        """What it is called in tables."""
        groups = f"{self.queries} queries with {1 + self.negatives} documents"
        return f"{self.steps} steps of {groups}, {self.examples} examples of {2 * EXAMPLE_TOKENS} tokens"

    def texts(self) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
        """Return queries with their documents, the positive first, and examples, each of the default's BoolQ."""
        queries, corpus, groups = (pl.read_parquet(f"data/{name}.parquet") for name in ("queries", "corpus", "groups"))
        chosen = groups.join(queries.filter(task=TASK), on="query_id").sort("query_id")
        found = dict(corpus.select("doc_id", "text").iter_rows())
        rows = [
            (text, [found[doc] for doc in (positives[0], *negatives[: self.negatives])])
            for text, positives, negatives in chosen.head(self.queries + self.examples)
            .select("text", "positive_ids", "negative_ids")
            .iter_rows()
        ]
        shown = [(query * 8, docs[0]) for query, docs in rows[self.queries :]]  # long enough to be cut
        return rows[: self.queries], shown


def new_encoder() -> Encoder:
    """Return the default's student, untrained, with the benchmark's prompt."""
    student = StudentParams.load()
    encoder = Encoder.untrained(student, make_config(student))
    encoder.backbone.get_input_embeddings().requires_grad_(False)
    return encoder.train()


def ours(job: Job) -> Figures:
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
    asked, shown = job.texts()
    rows = [*asked, *((query, [doc]) for query, doc in shown)]
    texts = Texts({query: query for query, _ in rows}, {doc: doc for _, docs in rows for doc in docs}, {})
    groups = [Group(query, TASK, tuple(docs), (1.0, *[0.0] * (len(docs) - 1))) for query, docs in rows]
    batch = Batch(TASK, tuple(groups[: job.queries]), tuple(groups[job.queries :]))
    step.take(engine, encoder, batch, texts, recipe)
    work.computed = 0
    for _ in range(job.steps):
        work.run(lambda: step.take(engine, encoder, batch, texts, recipe))
    return work.figures(work.computed)


def sentence_transformers(job: Job, mini_batch: int | None) -> Figures:
    """Take sentence-transformers' optimizer steps, in one pass or in mini-batches."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    encoder, work = new_encoder(), Work()
    queries, docs, useful = rows_of(encoder, job)
    with tempfile.TemporaryDirectory() as name:
        export(encoder, Path(name) / "model")
        model = SentenceTransformer(str(Path(name) / "model"), device="cpu", local_files_only=True).train()
    work.count(model[0].auto_model.embed_tokens)
    model[0].auto_model.get_input_embeddings().requires_grad_(False)
    if mini_batch:
        loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=mini_batch)
    else:
        loss = MultipleNegativesRankingLoss(model, scale=20.0)
    columns = [queries, *([group[n] for group in docs] for n in range(1 + job.negatives))]
    features = [pad(encoder.tokenizer, column) for column in columns]
    take_steps(work, model, lambda: loss(features, torch.zeros(job.queries)), job.steps)
    return work.figures(job.steps * useful)


def flag_embedding(job: Job) -> Figures:
    """Take the optimizer steps of FlagEmbedding's ICL model, in one pass."""
    from FlagEmbedding.finetune.embedder.decoder_only.icl.modeling import BiDecoderOnlyEmbedderICLModel

    encoder, work = new_encoder(), Work()
    queries, docs, useful = rows_of(encoder, job)
    with tempfile.TemporaryDirectory() as name:
        export(encoder, Path(name) / "model")
        backbone = AutoModel.from_pretrained(Path(name) / "model", local_files_only=True).train()
    work.count(backbone.embed_tokens)
    backbone.get_input_embeddings().requires_grad_(False)
    model = BiDecoderOnlyEmbedderICLModel(backbone, encoder.tokenizer, temperature=0.05, normalize_embeddings=True)
    features = [pad(encoder.tokenizer, rows) for rows in (queries, [row for group in docs for row in group])]
    take_steps(work, model, lambda: model(queries=features[0], passages=features[1]).loss, job.steps)
    return work.figures(job.steps * useful)


def rows_of(encoder: Encoder, job: Job) -> tuple[list[list[int]], list[list[list[int]]], int]:
    """Return token ids of queries and of their documents for the peers, and how many tokens of them are useful."""
    torch.manual_seed(0)
    asked, shown = job.texts()
    prefix = query_prefix(encoder.config.task(TASK).instruction, [encoder.cut_example(*pair) for pair in shown])
    shared = encoder.count(prefix)
    queries = encoder.tokenize([query for query, _ in asked], prefix=prefix, max_tokens=QUERY_TOKENS)
    docs = [encoder.tokenize(docs, max_tokens=DOC_TOKENS) for _, docs in asked]
    each_once = {tuple(row) for group in docs for row in group}
    return queries, docs, shared + sum(len(row) - shared for row in queries) + sum(map(len, each_once))


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


def main() -> None:
    """Run both comparisons and print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--negatives", type=int, default=1, choices=[0, 1], help="of a query")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=side_by_side.ROUNDS)
    arguments = parser.parse_args()
    results = {}
    for examples in (0, NUM_EXAMPLES):
        job = Job(arguments.queries, arguments.negatives, examples, arguments.steps)
        sides: dict[str, tuple[Side, Any]] = {"anna": (ours, (job,))}
        for size in MINI_BATCHES:
            sides[f"sentence-transformers, {f'mini-batch {size}' if size else 'one pass'}"] = (
                sentence_transformers,
                (job, size),
            )
        if find_spec("FlagEmbedding"):
            sides["FlagEmbedding ICL, one pass"] = (flag_embedding, (job,))
        results[examples] = side_by_side.compare(sides, arguments.rounds)
        sys.stdout.write(side_by_side.table(job.title, results[examples]) + "\n")
    mine = [results[examples]["anna"] for examples in (0, NUM_EXAMPLES)]
    peers = [min(list(results[examples].values())[1:]) for examples in (0, NUM_EXAMPLES)]
    cost, peer_cost = (pair[1].seconds / pair[0].seconds for pair in (mine, peers))
    rate = matrix_rate(torch.float32)
    shape = Shape.of(new_encoder().backbone.config.to_dict())
    share = side_by_side.operations(shape, mine[0].useful, passes=3) / mine[0].seconds / rate
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
