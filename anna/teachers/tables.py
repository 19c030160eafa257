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


class Ids:
    """Ids of queries and documents as numbers in the order of the ids: joins and sorts compare numbers, not text."""

    def __init__(self, corpus: pa.Table, queries: pa.Table) -> None:
        """Number the ids of tables CORPUS and QUERIES, which are sorted."""
        self.types = {
            "query_id": pl.Enum(frame(queries.select(["query_id"]))["query_id"]),
            "doc_id": pl.Enum(frame(corpus.select(["doc_id"]))["doc_id"]),
        }

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


def mark_positives(
    pairs: pl.DataFrame, corpus: pl.DataFrame, queries: pl.DataFrame, qrels: pl.DataFrame
) -> pl.DataFrame:
    """Return `pairs` in their order, with `task`, `has_class` and `is_positive`.

    A document is a labelled positive if the qrels say so, or if it has the query's class: of a class the qrels may name
    one document only.

    Args:
        pairs: Rows with coded query_id and doc_id.
        corpus: CORPUS, coded.
        queries: QUERIES, coded.
        qrels: QRELS, coded.
    """
    asked = queries.select("query_id", "task", pl.col("label").alias("query_label"))
    docs = corpus.select("doc_id", pl.col("label").alias("doc_label"))
    judged = qrels.filter(pl.col("relevance") > 0).select("query_id", "doc_id", pl.lit(True).alias("is_judged"))
    joined = pairs.join(asked, on="query_id", how="left", maintain_order="left")
    joined = joined.join(docs, on="doc_id", how="left", maintain_order="left")
    joined = joined.join(judged, on=["query_id", "doc_id"], how="left", maintain_order="left")
    has_class = pl.col("query_label").is_not_null()
    is_classmate = (pl.col("query_label") == pl.col("doc_label")).fill_null(False)
    return joined.with_columns(
        has_class.alias("has_class"), (pl.col("is_judged").fill_null(False) | is_classmate).alias("is_positive")
    ).drop("query_label", "doc_label", "is_judged")


def numbers(rows: pl.DataFrame, name: str) -> NDArray[Any]:
    """Return a column as an array: ids as their numbers, null as NaN."""
    column = rows[name]
    if isinstance(column.dtype, pl.Enum):
        return column.to_physical().to_numpy()
    return column.fill_null(np.nan).to_numpy() if column.dtype.is_float() else column.to_numpy()
