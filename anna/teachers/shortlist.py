"""Which candidates the reranker reads, and the run that its scores make."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna import io, schemas
from anna.teachers.blocks import Block
from anna.teachers.pairs import choose_queries
from anna.teachers.tables import PAIR, measured

RRF_K = 60
"""Cormack, Clarke and Büttcher 2009: the constant that worked best in their pilot study, and in all use since."""

MAX_JUDGED = 4
"""Documents judged not relevant that are scored per query; ids are hashes, so the first by id are a random sample."""


def choose_candidates(
    queries: pa.Table, blocks: Iterable[Block], *, depth: int, queries_per_task: int | None
) -> pl.DataFrame:
    """Return the pairs to score, (query_id, doc_id), in that order.

    Of each chosen query: all labelled positives, a few documents judged not relevant, and the best `depth` of both runs
    by reciprocal rank fusion, `sum over runs of 1 / (60 + rank)`.

    Args:
        queries: Table QUERIES.
        blocks: All of them in order, with the rows of `qrels`, `bm25` and `dense`.
        depth: Candidates from the runs, per query.
        queries_per_task: How many queries of each task, the first by the hash of their id; None: all.
    """
    chosen = choose_queries(queries, queries_per_task)
    return pl.concat([_of_chosen(block.rows, chosen, depth) for block in blocks])


def _of_chosen(rows: Mapping[str, pa.Table], chosen: pl.DataFrame, depth: int) -> pl.DataFrame:
    own = {name: pl.DataFrame(table).join(chosen, on="query_id", how="semi") for name, table in rows.items()}
    best = best_of_runs(pl.concat([own[name].select(*PAIR, "rank") for name in ("bm25", "dense")]), depth)
    judged = own["qrels"].sort(PAIR)
    is_positive = pl.col("relevance") > 0
    positives = judged.filter(is_positive).select(PAIR)
    negatives = judged.filter(~is_positive).group_by("query_id", maintain_order=True).head(MAX_JUDGED).select(PAIR)
    return pl.concat([positives, negatives, best]).unique().sort(PAIR)


def best_of_runs(ranks: pl.DataFrame, depth: int) -> pl.DataFrame:
    """Return the best `depth` documents of each query by reciprocal rank fusion, ties by doc_id.

    Args:
        ranks: Rows (query_id, doc_id, rank) of any number of runs together.
        depth: Documents per query.

    Reference: Cormack et al. 2009, Reciprocal Rank Fusion outperforms Condorcet.
    """
    # Ranks are sorted first, so that equal sums are equal to the last bit.
    terms = ranks.sort(*PAIR, "rank").with_columns((1.0 / (RRF_K + pl.col("rank"))).alias("fused"))
    fused = terms.group_by(PAIR, maintain_order=True).agg(pl.col("fused").sum())
    ordered = fused.sort("query_id", "fused", "doc_id", descending=[False, True, False])
    return ordered.group_by("query_id", maintain_order=True).head(depth).select(PAIR)


def to_run(pairs: pl.DataFrame, scores: NDArray[np.float32]) -> pa.Table:
    """Return table RUN: the pairs of each query, best first, ties by doc_id."""
    scored = pairs.with_columns(pl.Series("score", scores, dtype=pl.Float32))
    ordered = scored.sort("query_id", "score", "doc_id", descending=[False, True, False])
    ranked = ordered.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("query_id").alias("rank"))
    # In slices: a column of over 2 GiB cannot be one Arrow array of strings.
    slices = ranked.select(schemas.RUN.names).iter_slices(io.ROW_GROUP_SIZE)
    return pa.concat_tables([schemas.RUN.empty_table(), *(part.to_arrow().cast(schemas.RUN) for part in slices)])


def summarise(run: pa.Table, queries: pa.Table) -> dict[str, Any]:
    """Return how much was scored: queries, pairs and distinct passages, overall and by task."""
    tasks = pl.DataFrame(queries.select(["query_id", "task"]))
    rows = pl.DataFrame(run.select(PAIR)).join(tasks, on="query_id", how="left")
    num_queries, num_docs = pl.col("query_id").n_unique(), pl.col("doc_id").n_unique()
    return measured(rows, [num_queries.alias("queries"), pl.len().alias("pairs"), num_docs.alias("docs")])
