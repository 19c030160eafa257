"""What is known of every candidate before any margin: whether it is a positive, the text of one, or taken for one."""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from anna import segments
from anna.negatives import Candidates
from anna.teachers.blocks import Block
from anna.teachers.tables import PAIR, Known, mark_positives, numbers, with_query

_CASED = range(0x20000)
"""Code points among which all letters with case and all punctuation lie; above there are ideographs."""


class Marked(NamedTuple):
    """The candidates of some queries."""

    rows: pl.DataFrame
    """LABELS with coded ids, and `task`, `has_class`, `is_positive`, `is_duplicate`, `is_relabelled`."""
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
        self._plain = plain_texts(self.known.texts)
        self._relabel_margin = relabel_margin

    def mark(self, block: Block) -> Marked:
        """Return the candidates of the block's queries.

        Args:
            block: With the rows of `labels` and `qrels`, and of `reranker` where there is a `relabel_margin`.

        Raises:
            InputError: If a table has ids that corpus or queries lack.
        """
        judged = self.known.encode(block.rows["qrels"], "qrels")
        rows = mark_positives(self.known.encode(block.rows["labels"], "labels"), self.known, judged)
        rows = mark_duplicates(rows.with_columns(pl.lit(False).alias("is_relabelled")), self._plain)
        if self._relabel_margin is not None:
            reranked = self.known.encode(block.rows["reranker"], "reranker run")
            rows = mark_relabelled(rows, reranked, judged, self._relabel_margin)
            rows = mark_duplicates(rows, self._plain)  # now of the relabelled, too
        starts_Q = segments.find_starts(numbers(rows, "query_id"))
        candidates = Candidates(
            scores=numbers(rows, "fused_score").astype(np.float64),
            is_positive=numbers(rows, "is_positive"),
            is_duplicate=numbers(rows, "is_duplicate"),
            is_relabelled=numbers(rows, "is_relabelled"),
            has_class=numbers(rows, "has_class")[starts_Q],
            starts=starts_Q,
        )
        return Marked(rows, candidates)


def plain_texts(texts: pl.Series) -> pl.Series:
    """Return a number for each text that is the same for texts equal but for case, punctuation and spacing."""
    number = fold(pl.col("text")).hash(0).rank("dense").cast(pl.UInt64)
    return texts.to_frame("text").select(number.alias("plain"))["plain"]


def fold(text: pl.Expr) -> pl.Expr:
    """Return what `ingest` compares texts by, `anna.corpus.clean.normalise`, of a whole column at once."""
    folded = _foldings()
    words = text.str.replace_many(list(folded), list(folded.values()))
    words = words.str.replace_all(" {2,}", " ").str.strip_chars(" ")
    # A text of nothing but punctuation equals only itself.
    return pl.when(words == "").then(text).otherwise(words)


@cache
def _foldings() -> dict[str, str]:
    """Return what is put in place of each character that is not its own: case folded, punctuation and spaces a space.

    A table of Python's own: lower case and classes of characters in polars are not quite those of `normalise`.
    """
    folded = {char: "".join(map(_spaced, char.casefold())) for char in map(chr, _CASED)}
    return {char: other for char, other in folded.items() if other != char}


def _spaced(char: str) -> str:
    return " " if char.isspace() or unicodedata.category(char).startswith("P") else char


def mark_duplicates(rows: pl.DataFrame, plain: pl.Series) -> pl.DataFrame:
    """Return `rows` in their order, with `is_duplicate`: whether the text is that of one of the query's positives.

    Args:
        rows: Candidates with coded doc_id, `is_positive` and `is_relabelled`; either makes a positive.
        plain: Of each document, by its number; see `plain_texts`.
    """
    is_positive = pl.col("is_positive") | pl.col("is_relabelled")
    joined = rows.with_columns(with_query(plain.gather(rows["doc_id"])).alias("text"))
    is_twin = pl.col("text").is_in(joined.filter(is_positive)["text"].implode())
    return joined.with_columns((is_twin & ~is_positive).alias("is_duplicate")).drop("text")


def mark_relabelled(rows: pl.DataFrame, reranked: pl.DataFrame, judged: pl.DataFrame, margin: float) -> pl.DataFrame:
    """Return `rows` in their order, with `is_relabelled`: whether the reranker finds a positive that nobody labelled.

    It is one if its score lies more than `margin` standard deviations above that of the best labelled positive, the
    (population) deviation taken over all candidates of the query that the reranker has scored. What has been judged not
    relevant, or has another class than the query, is none; nor is a text of a positive.

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
