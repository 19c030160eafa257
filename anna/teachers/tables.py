"""Arrow tables as polars frames, with ids as numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna.errors import InputError

PAIR = ["query_id", "doc_id"]
"""The columns that name a candidate of a query."""


def with_query(number: pl.Expr | pl.Series) -> pl.Expr:
    """Return a coded query_id and another number below 2**32 as one number: sorted as the two are, joined faster."""
    return pl.col("query_id").cast(pl.UInt64) * 2**32 + number


BOTH = with_query(pl.col("doc_id"))
"""A coded query and document as one number; `split` makes two of it again."""


class Known:
    """Queries and documents by number: in the order of their ids, so that joins and sorts compare no text."""

    def __init__(self, corpus: pa.Table, queries: pa.Table) -> None:
        """Number the ids of tables CORPUS and QUERIES, which are sorted; no text is looked at."""
        docs = pl.DataFrame(corpus.select(["doc_id", "label"]))
        asked = pl.DataFrame(queries.select(["query_id", "task", "label"]))
        self.ids = {"query_id": asked["query_id"], "doc_id": docs["doc_id"]}
        # Kept as expressions: polars goes through all names of an Enum each time that Python hands it over.
        self._codes = {
            name: pl.col(name).cast(pl.Enum(ids), strict=False).to_physical().cast(pl.UInt32)
            for name, ids in self.ids.items()
        }
        self.tasks = asked["task"]
        classes = pl.Enum(pl.concat([docs["label"], asked["label"]]).drop_nulls().unique().sort())
        self.doc_classes, self.query_classes = (
            side["label"].cast(classes).to_physical().cast(pl.UInt32) for side in (docs, asked)
        )

    def encode(self, table: pa.Table, source: str) -> pl.DataFrame:
        """Return `table` with its ids as numbers.

        Args:
            table: Any table with query_id, doc_id or both.
            source: What the table is, for messages.

        Raises:
            InputError: If it has an id that corpus or queries lack.
        """
        rows = pl.DataFrame(table)
        names = [name for name in self._codes if name in rows.columns]
        coded = rows.with_columns(self._codes[name] for name in names)
        for name in names:
            if coded[name].null_count():
                unknown = rows[name].filter(coded[name].is_null())[0]
                raise InputError(
                    f"{source} has {name} {unknown!r}, which is not in the {name.removesuffix('_id')} table; it was "
                    "made from other data, run: dvc repro"
                )
        return coded

    def decode(self, rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
        """Return the columns of `schema` as an Arrow table, ids as text again; a missing one is empty."""
        names = [name for name in self.ids if name in rows.columns]
        texts = [self.ids[name].gather(rows[name]).fill_null("").alias(name) for name in names]
        return rows.with_columns(texts).select(schema.names).to_arrow().cast(schema)


def split(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with coded query_id and doc_id in place of `pair` (`BOTH`)."""
    query, doc = pl.col("pair") // 2**32, pl.col("pair") % 2**32
    return rows.select(query.cast(pl.UInt32).alias("query_id"), doc.cast(pl.UInt32).alias("doc_id"), pl.exclude("pair"))


def mark_positives(pairs: pl.DataFrame, known: Known, qrels: pl.DataFrame) -> pl.DataFrame:
    """Return `pairs` in their order, with `task`, `has_class`, `is_judged` and `is_positive`.

    A document is a labelled positive if the qrels say so (`is_judged`), or if it has the query's class: the qrels may
    name only one document of a class.

    Args:
        pairs: Rows with coded query_id and doc_id.
        known: What they are coded by.
        qrels: QRELS of these queries, coded.
    """
    judged = qrels.filter(pl.col("relevance") > 0).select(BOTH.alias("pair"), pl.lit(True).alias("is_judged"))
    joined = pairs.with_columns(BOTH.alias("pair")).join(judged, on="pair", how="left", maintain_order="left")
    query = pairs["query_id"]
    query_class, doc_class = known.query_classes.gather(query), known.doc_classes.gather(pairs["doc_id"])
    return joined.drop("pair").with_columns(
        known.tasks.gather(query).alias("task"),
        query_class.is_not_null().alias("has_class"),
        pl.col("is_judged").fill_null(False),
        (pl.col("is_judged").fill_null(False) | (query_class == doc_class).fill_null(False)).alias("is_positive"),
    )


def without_positive(rows: pl.DataFrame, known: Known, queries: pa.Table) -> pl.Series:
    """Return the ids of table QUERIES, in order, of which no row of `rows`, coded, has `is_positive`."""
    asked = known.encode(queries.select(["query_id"]), "queries")["query_id"]
    has_one = asked.is_in(rows.filter("is_positive")["query_id"].implode())
    return known.ids["query_id"].gather(asked.filter(~has_one))


def measured(rows: pl.DataFrame, measures: Sequence[pl.Expr]) -> dict[str, Any]:
    """Return aggregates of `rows` by name, of all of them and, under `tasks`, by their `task`."""
    tasks = rows.group_by("task").agg(measures).sort("task").to_dicts()
    return rows.select(measures).to_dicts()[0] | {"tasks": {row.pop("task"): row for row in tasks}}


def numbers(rows: pl.DataFrame, name: str) -> NDArray[Any]:
    """Return a column as an array, null as NaN."""
    column = rows[name]
    return column.fill_null(np.nan).to_numpy() if column.dtype.is_float() else column.to_numpy()
