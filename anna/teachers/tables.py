"""Arrow tables as polars frames, with ids as numbers."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna.errors import InputError


def frame(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table as a polars frame."""
    result = pl.from_arrow(table)
    if not isinstance(result, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(result).__name__}")
    return result


class Known:
    """Queries and documents by number: in the order of their ids, so that joins and sorts compare no text."""

    def __init__(self, corpus: pa.Table, queries: pa.Table) -> None:
        """Number the ids of tables CORPUS and QUERIES, which are sorted."""
        docs, asked = frame(corpus), frame(queries.select(["query_id", "task", "label"]))
        self.types = {"query_id": pl.Enum(asked["query_id"]), "doc_id": pl.Enum(docs["doc_id"])}
        self.texts = docs["text"]
        self.tasks = asked["task"]
        classes = pl.Enum(pl.concat([docs["label"], asked["label"]]).drop_nulls().unique().sort())
        self.doc_classes, self.query_classes = docs["label"].cast(classes), asked["label"].cast(classes)

    def encode(self, table: pa.Table, source: str) -> pl.DataFrame:
        """Return `table` with its ids as numbers.

        Args:
            table: Any table with query_id, doc_id or both.
            source: What the table is, for messages.

        Raises:
            InputError: If it has an id that corpus or queries lack.
        """
        rows = frame(table)
        for name in [name for name in self.types if name in rows.columns]:
            coded = rows[name].cast(self.types[name], strict=False)
            if coded.null_count():
                unknown = rows[name].filter(coded.is_null())[0]
                raise InputError(
                    f"{source} has {name} {unknown!r}, which is not in the {name.removesuffix('_id')} table; it was "
                    "made from other data, run: dvc repro"
                )
            rows = rows.with_columns(coded)
        return rows


def decode(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` as an Arrow table, ids as text again."""
    texts = [pl.col(name).cast(pl.String) for name in ("query_id", "doc_id") if name in rows.columns]
    return rows.with_columns(texts).select(schema.names).to_arrow().cast(schema)


def mark_positives(pairs: pl.DataFrame, known: Known, qrels: pl.DataFrame) -> pl.DataFrame:
    """Return `pairs` in their order, with `task`, `has_class` and `is_positive`.

    A document is a labelled positive if the qrels say so, or if it has the query's class: of a class the qrels may name
    one document only.

    Args:
        pairs: Rows with coded query_id and doc_id.
        known: What they are coded by.
        qrels: QRELS of these queries, coded.
    """
    judged = qrels.filter(pl.col("relevance") > 0).select("query_id", "doc_id", pl.lit(True).alias("is_judged"))
    joined = pairs.join(judged, on=["query_id", "doc_id"], how="left", maintain_order="left")
    query, doc = (pairs[name].to_physical() for name in ("query_id", "doc_id"))
    query_class, doc_class = known.query_classes.gather(query), known.doc_classes.gather(doc)
    return joined.with_columns(
        known.tasks.gather(query).alias("task"),
        query_class.is_not_null().alias("has_class"),
        (pl.col("is_judged").fill_null(False) | (query_class == doc_class).fill_null(False)).alias("is_positive"),
    ).drop("is_judged")


def numbers(rows: pl.DataFrame, name: str) -> NDArray[Any]:
    """Return a column as an array: ids as their numbers, null as NaN."""
    column = rows[name]
    if isinstance(column.dtype, pl.Enum):
        return column.to_physical().to_numpy()
    return column.fill_null(np.nan).to_numpy() if column.dtype.is_float() else column.to_numpy()
