"""What all retrievers share: the collections they search, and the run tables they give."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna import io, schemas
from anna.errors import InputError
from anna.folding import fold
from anna.segments import Int
from anna.teachers.tables import measured


class Collection(NamedTuple):
    """The documents and queries of one task; a query is searched for within its own task only."""

    task: str
    doc_ids: list[str]
    """In order, which is how ties in score are broken."""
    docs: list[str]
    query_ids: list[str]
    queries: list[str]


def collections(corpus: pa.Table, queries: pa.Table) -> Iterator[Collection]:
    """Yield the collection of each task that has queries, by name.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.

    Raises:
        InputError: If a task has fewer than two documents, so that no query of it can have a negative.
    """
    docs = pl.DataFrame(corpus.select(["task", "doc_id", "text"]))
    asked = pl.DataFrame(queries.select(["task", "query_id", "text"]))
    for task in asked["task"].unique().sort():
        own, own_queries = docs.filter(pl.col("task") == task), asked.filter(pl.col("task") == task)
        check_size(task, own.height)
        yield Collection(
            task,
            own["doc_id"].to_list(),
            own["text"].to_list(),
            own_queries["query_id"].to_list(),
            own_queries["text"].to_list(),
        )


def check_size(task: str, num_docs: int) -> None:
    """Refuse a collection in which nothing could be a negative."""
    if num_docs < 2:
        raise InputError(
            f"task {task!r} has {num_docs} documents, needs at least 2 to search; raise `rows` of its source in "
            "params.yaml: ingest.train, or remove the source"
        )


def same_text(queries: Sequence[str], docs: Sequence[str]) -> Int:
    """Return the position of the document that has the query's own text, or -1; (Q,).

    Texts are compared folded. No two of `docs` are then equal: `ingest` leaves none.
    """
    asked, found = (
        pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(fold(pl.col("text"))).to_series()
        for texts in (queries, docs)
    )
    place = dict(zip(found, range(len(docs)), strict=True))
    return np.array([place.get(text, -1) for text in asked], dtype=np.int64)


def to_run(
    query_ids: Sequence[str], doc_ids: Sequence[str] | pa.Array, index_QK: Int, score_QK: NDArray[np.float32]
) -> pa.Table:
    """Return table RUN of the results of each query, best first; results with score -inf are left out.

    Args:
        query_ids: Of the Q queries.
        doc_ids: Of the N documents.
        index_QK: Positions in `doc_ids`, best first.
        score_QK: Their scores; -inf where there are fewer than K results, after all others.
    """
    queries, docs = pa.array(query_ids, pa.string()), pa.array(doc_ids, pa.string())
    found = np.argwhere(np.isfinite(score_QK))
    parts = [schemas.RUN.empty_table()]
    for start in range(0, len(found), io.ROW_GROUP_SIZE):  # a column of over 2 GiB cannot be one Arrow array of strings
        rows, columns = found[start : start + io.ROW_GROUP_SIZE].T
        own = {
            "query_id": queries.take(rows),
            "rank": pa.array(columns + 1, pa.int32()),
            "doc_id": docs.take(index_QK[rows, columns]),
            "score": pa.array(score_QK[rows, columns], pa.float32()),
        }
        parts.append(pa.table(own, schema=schemas.RUN))
    return pa.concat_tables(parts)


def join_runs(runs: Sequence[pa.Table]) -> pa.Table:
    """Return the runs of several tasks as one table."""
    return pa.concat_tables([schemas.RUN.empty_table(), *runs])


def summarise_run(run: pa.Table, queries: pa.Table) -> dict[str, Any]:
    """Return counts of a run, overall and by task: queries, rows, and queries for which nothing was found."""
    found = pl.DataFrame(run.select(["query_id"])).group_by("query_id").len("rows")
    counts = pl.DataFrame(queries.select(["query_id", "task"])).join(found, on="query_id", how="left")
    without = pl.col("rows").is_null().sum().alias("queries_without_result")
    return measured(counts, [pl.len().alias("queries"), pl.col("rows").sum(), without])
