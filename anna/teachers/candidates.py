"""Mark each candidate before any margin: labelled positive, duplicate of one, relabelled, or judged a negative."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from anna import schemas, segments
from anna.errors import InputError
from anna.folding import fold
from anna.negatives import Candidates
from anna.teachers.blocks import Block
from anna.teachers.tables import PAIR, Known, mark_positives, numbers, with_query, without_positive


class Marked(NamedTuple):
    """The candidates of some queries."""

    rows: pl.DataFrame
    """LABELS with coded ids, and `task`, `has_class`, `is_positive`, `is_duplicate`, `is_relabelled`,
    `is_judged_negative`."""
    candidates: Candidates
    """The same, as arrays."""


class Marker:
    """Marks queries' candidates, some queries at a time."""

    def __init__(self, corpus: pa.Table, queries: pa.Table, *, relabel_margin: float | None) -> None:
        """Number all ids.

        Args:
            corpus: Table CORPUS.
            queries: Table QUERIES.
            relabel_margin: See `mark_relabelled`; None: nothing is relabelled.
        """
        self.known = Known(corpus, queries)
        self._texts = pl.DataFrame(corpus.select(["text"]))["text"]
        self._hashes = np.zeros(len(self._texts), dtype=np.uint64)
        self._is_hashed = np.zeros(len(self._texts), dtype=np.bool_)
        self._relabel_margin = relabel_margin

    def mark(self, block: Block) -> Marked:
        """Return the candidates of the block's queries.

        Args:
            block: With the rows of `labels` and `qrels`, and of `reranker` where there is a `relabel_margin`.

        Raises:
            InputError: If a table has ids that corpus or queries lack, or a query no positive among its labels.
        """
        judged = self.known.encode(block.rows["qrels"], "qrels")
        rows = mark_positives(self.known.encode(block.rows["labels"], "labels"), self.known, judged)
        self._refuse_without_positive(rows, block.queries)
        plain = self._plain(rows["doc_id"])
        rows = mark_duplicates(rows.with_columns(pl.lit(False).alias("is_relabelled")), plain)
        if self._relabel_margin is not None:
            reranked = self.known.encode(block.rows["reranker"], "reranker run")
            rows = mark_relabelled(rows, reranked, judged, self._relabel_margin)
            rows = mark_duplicates(rows, plain)  # now those of relabelled candidates, too
        rows = mark_judged_negatives(rows, self.known, judged)
        starts_Q = segments.find_starts(numbers(rows, "query_id"))
        candidates = Candidates(
            scores=numbers(rows, "fused_score").astype(np.float64),
            is_positive=numbers(rows, "is_positive"),
            is_duplicate=numbers(rows, "is_duplicate"),
            is_relabelled=numbers(rows, "is_relabelled"),
            is_judged_negative=numbers(rows, "is_judged_negative"),
            has_class=numbers(rows, "has_class")[starts_Q],
            starts=starts_Q,
        )
        return Marked(rows, candidates)

    def _refuse_without_positive(self, rows: pl.DataFrame, queries: pa.Table) -> None:
        """Refuse labels that were made of other queries: without a positive no margin can be measured."""
        without = without_positive(rows, self.known, queries)
        if len(without):
            raise InputError(
                f"data/labels.parquet has no positive of {len(without)} queries, the first {without[0]!r}; it was made "
                "from other data, run: dvc repro filter"
            )

    def _plain(self, docs: pl.Series) -> pl.Series:
        """Return `plain_texts` of documents given by number. A text is folded once, and only if it is a candidate."""
        doc_C = docs.to_numpy()
        new = np.unique(doc_C[~self._is_hashed[doc_C]])
        self._hashes[new] = plain_texts(self._texts.gather(new)).to_numpy()
        self._is_hashed[new] = True
        return pl.Series(self._hashes[doc_C])


def sources(folder: Path, relabel_margin: float | None) -> dict[str, tuple[Path, pa.Schema]]:
    """Return the tables in `folder` whose rows `Marker.mark` takes, for `query_blocks`."""
    tables = {"labels": (folder / "labels.parquet", schemas.LABELS), "qrels": (folder / "qrels.parquet", schemas.QRELS)}
    if relabel_margin is not None:
        tables["reranker"] = folder / "reranker_run.parquet", schemas.RUN
    return tables


def plain_texts(texts: pl.Series) -> pl.Series:
    """Return a hash of each text, 64 bits, that is the same for texts equal but for case, punctuation and spacing."""
    return texts.to_frame("text").select(fold(pl.col("text")).hash(0).alias("plain"))["plain"]


def mark_duplicates(rows: pl.DataFrame, plain: pl.Series) -> pl.DataFrame:
    """Return `rows` in their order, with `is_duplicate`: whether the text is that of one of the query's positives.

    Args:
        rows: Candidates with coded query_id, `is_positive` and `is_relabelled`; either makes a positive.
        plain: Of each candidate; see `plain_texts`.
    """
    is_positive = pl.col("is_positive") | pl.col("is_relabelled")
    joined = rows.with_columns(with_query(plain.rank("dense")).alias("text"))
    is_twin = pl.col("text").is_in(joined.filter(is_positive)["text"].implode())
    return joined.with_columns((is_twin & ~is_positive).alias("is_duplicate")).drop("text")


def mark_judged_negatives(rows: pl.DataFrame, known: Known, judged: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` in their order, with `is_judged_negative`: judged not relevant, or of another class than the query.

    Args:
        rows: Candidates with coded ids and `is_positive`.
        known: What they are coded by.
        judged: QRELS of these queries, coded.
    """
    relevance = rows.join(judged.select(*PAIR, "relevance"), on=PAIR, how="left", maintain_order="left")["relevance"]
    query_class, doc_class = known.query_classes.gather(rows["query_id"]), known.doc_classes.gather(rows["doc_id"])
    is_negative = (relevance == 0).fill_null(False) | (query_class != doc_class).fill_null(False)
    return rows.with_columns((is_negative & ~rows["is_positive"]).alias("is_judged_negative"))


def mark_relabelled(rows: pl.DataFrame, reranked: pl.DataFrame, judged: pl.DataFrame, margin: float) -> pl.DataFrame:
    """Return `rows` in their order, with `is_relabelled`: whether the reranker finds a positive that nobody labelled.

    A candidate is one if its score lies more than `margin` standard deviations above that of the best labelled
    positive. The (population) deviation is that of all candidates of the query that the reranker has scored. Candidates
    that somebody has judged, duplicates of positives and all candidates of queries with a class are never relabelled.

    Args:
        rows: Candidates with `has_class`, `is_positive` and `is_duplicate`.
        reranked: The reranker's RUN of these queries, coded.
        judged: QRELS of these queries, coded.
        margin: In standard deviations, >= 0.

    Reference: after RLHN (Thakur et al. 2025, arXiv:2505.16967), which asks language models where we ask the reranker.
    """
    scored = rows.join(reranked.select(*PAIR, "score"), on=PAIR, how="left", maintain_order="left")
    scored = scored.join(judged.select(*PAIR, "relevance"), on=PAIR, how="left", maintain_order="left")
    score = pl.col("score").cast(pl.Float64)
    bound = score.filter("is_positive").max() + margin * score.std(ddof=0)
    is_free = ~pl.col("is_positive") & ~pl.col("is_duplicate") & ~pl.col("has_class") & pl.col("relevance").is_null()
    is_relabelled = (is_free & (score > bound.over("query_id"))).fill_null(False)
    return scored.with_columns(is_relabelled.alias("is_relabelled")).drop("score", "relevance")
