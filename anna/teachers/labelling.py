"""Join the teachers' runs into fused scores and soft labels over every query's candidates."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from anna import fusion, schemas, segments
from anna.errors import InputError
from anna.teachers.blocks import Block
from anna.teachers.tables import BOTH, PAIR, Known, mark_positives, measured, numbers, split, without_positive


class Labeller:
    """Fuses the scores of queries' candidates, some queries at a time."""

    def __init__(
        self,
        corpus: pa.Table,
        queries: pa.Table,
        *,
        weights: Mapping[str, float],
        teacher_temperature: float,
        bm25_depth: int,
    ) -> None:
        """Number all ids.

        Args:
            corpus: Table CORPUS; its texts may be missing.
            queries: Table QUERIES.
            weights: Weight of each run's z-score, by its name: bm25, dense, reranker.
            teacher_temperature: Divides the fused score in the softmax.
            bm25_depth: Documents that the run of BM25 lists per query at most.
        """
        self._known, self._weights, self._temperature = Known(corpus, queries), weights, teacher_temperature
        self._bm25_depth = bm25_depth
        self._measured: list[pl.DataFrame] = []

    def label(self, block: Block) -> pa.Table:
        """Return table LABELS of the block's queries.

        The candidates of a query are those of the first-stage runs `bm25` and `dense`, and all that the qrels judge.
        What a run does not list takes its lowest score for that query, or 0 where BM25 lists fewer than it may; a run
        without rows for the query is left out (`fusion.fill_missing`, `fusion.fill_unmatched`).

        Args:
            block: With the rows of `qrels` and of every run.

        Raises:
            InputError: If a table has ids that corpus or queries lack, or a query has no labelled positive.
        """
        judged = self._known.encode(block.rows["qrels"], "qrels")
        runs = {
            name: self._known.encode(block.rows[name].select([*PAIR, "score"]), f"{name} run").select(
                BOTH.alias("pair"), pl.col("score").alias(name)
            )
            for name in self._weights
        }
        listed = [judged.select(BOTH).to_series(), runs["bm25"]["pair"], runs["dense"]["pair"]]
        pair_C = np.sort(np.concatenate([series.to_numpy() for series in listed]))
        pairs = pl.DataFrame({"pair": pair_C[segments.find_starts(pair_C)]})
        for run in runs.values():
            pairs = pairs.join(run, on="pair", how="left", maintain_order="left")
        pairs = split(pairs)
        starts_Q = segments.find_starts(numbers(pairs, "query_id"))
        signals = {name: numbers(pairs, name).astype(np.float64) for name in runs}
        signals["bm25"] = fusion.fill_unmatched(signals["bm25"], starts_Q, self._bm25_depth)
        fused_C = fusion.fuse_scores(list(signals.values()), list(self._weights.values()), starts_Q)
        soft_C = fusion.soften(fused_C, self._temperature, starts_Q)
        labels = pairs.with_columns(
            pl.Series("fused_score", fused_C, dtype=pl.Float64).cast(pl.Float32),
            pl.Series("soft_label", soft_C, dtype=pl.Float64).cast(pl.Float32),
        ).sort("query_id", "fused_score", descending=[False, True], maintain_order=True)
        ranks_C = segments.number_within(np.ones(labels.height, dtype=np.bool_), starts_Q)
        labels = labels.with_columns(pl.Series("rank", ranks_C))
        labels = mark_positives(labels, self._known, judged)
        self._refuse_without_positive(labels, block.queries)
        self._measured.append(_measure(labels, *fusion.entropies(soft_C, starts_Q)))
        return self._known.decode(labels, schemas.LABELS)

    def _refuse_without_positive(self, labels: pl.DataFrame, queries: pa.Table) -> None:
        without = without_positive(labels, self._known, queries)
        if len(without):
            raise InputError(
                f"data/qrels.parquet: query {without[0]!r} has no labelled positive ({len(without)} such queries); it "
                "can teach nothing, run: dvc repro ingest"
            )

    def metrics(self) -> dict[str, Any]:
        """Return means over the queries so far, overall and by task."""
        by_query = pl.concat(self._measured, rechunk=True)
        measures = [
            pl.len().alias("queries"),
            pl.col("candidates").sum(),
            pl.col("reranked").sum().alias("reranked_queries"),
            *(pl.col(name).mean().round(6) for name in ("positive_first", "bm25_recall", "dense_recall", "entropy")),
            # A query with one candidate has no entropy to share.
            pl.col("share").fill_nan(None).mean().fill_null(0.0).round(6).alias("entropy_share"),
        ]
        return measured(by_query, measures)


def label_all(
    labeller: Labeller, blocks: Iterable[Block], *, min_entropy_share: float, max_entropy_share: float
) -> Iterator[pa.Table]:
    """Yield table LABELS of each block, and at the end refuse labels that teach nothing (`refuse_degenerate`)."""
    for block in blocks:
        yield labeller.label(block)
    refuse_degenerate(labeller.metrics(), min_entropy_share=min_entropy_share, max_entropy_share=max_entropy_share)


def refuse_degenerate(metrics: Mapping[str, Any], *, min_entropy_share: float, max_entropy_share: float) -> None:
    """Refuse soft labels that teach nothing beyond the positive, or nothing at all.

    Args:
        metrics: As a `Labeller` gives them.
        min_entropy_share: Smallest mean entropy, as a share of log(number of candidates).
        max_entropy_share: Largest.

    Raises:
        InputError: If the share is outside.
    """
    share = metrics["entropy_share"]
    if share < min_entropy_share and metrics["candidates"] == metrics["queries"]:
        raise InputError(
            f"each of {metrics['queries']} queries has one candidate alone, its positive, so there is nothing to rank "
            "below it; raise retrieve_bm25.depth and retrieve_dense.depth in params.yaml"
        )
    if share < min_entropy_share:
        raise InputError(
            f"soft labels are nearly one-hot: their mean entropy is {share:.4f} of the largest possible, below "
            f"label.min_entropy_share {min_entropy_share}; raise label.teacher_temperature in params.yaml"
        )
    if share > max_entropy_share:
        raise InputError(
            f"soft labels are nearly uniform: their mean entropy is {share:.4f} of the largest possible, above "
            f"label.max_entropy_share {max_entropy_share}; lower label.teacher_temperature in params.yaml"
        )


def _measure(labels: pl.DataFrame, entropy_Q: segments.Float, share_Q: segments.Float) -> pl.DataFrame:
    """Return what the metrics are means of, one row per query."""
    by_query = labels.group_by("query_id", maintain_order=True).agg(
        pl.col("task").first(),
        pl.len().alias("candidates"),
        pl.col("is_positive").first().alias("positive_first"),
        pl.col("reranker").is_not_null().any().alias("reranked"),
        *(
            # Of a class the qrels may name one document of many, whose rank says nothing.
            pl.when(~pl.col("has_class").first())
            .then(pl.col(name).filter("is_judged").is_not_null().mean())
            .alias(f"{name}_recall")
            for name in ("bm25", "dense")
        ),
    )
    return by_query.with_columns(pl.Series("entropy", entropy_Q), pl.Series("share", share_Q))
