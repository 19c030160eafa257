"""A sample of the queries, and the texts of pairs of queries and passages."""

import hashlib
from collections.abc import Iterable

import polars as pl
import pyarrow as pa

from anna.errors import InputError


def choose_queries(queries: pa.Table, queries_per_task: int | None) -> pl.DataFrame:
    """Return the query_id of the first queries of each task by the hash of their id, so that samples nest."""
    ids = pl.DataFrame(queries.select(["task", "query_id"]))
    if queries_per_task is None:
        return ids.select("query_id")
    digests = [hashlib.blake2b(name.encode(), digest_size=16).hexdigest() for name in ids["query_id"]]
    ordered = ids.with_columns(pl.Series("digest", digests, dtype=pl.String)).sort("task", "digest", "query_id")
    return ordered.group_by("task", maintain_order=True).head(queries_per_task).select("query_id")


def texts_of(pairs: pl.DataFrame, corpus: pa.Table, queries: pa.Table) -> list[tuple[str, str]]:
    """Return the (query, passage) texts of pairs of ids, in their order; each text is one object, however many pairs.

    Args:
        pairs: (query_id, doc_id).
        corpus: Table CORPUS.
        queries: Table QUERIES.

    Raises:
        InputError: If corpus or queries lack an id.
    """

    def side(name: str, table: pa.Table) -> Iterable[str]:
        wanted = pl.DataFrame(table.select([name, "text"])).join(pairs.select(name).unique(), on=name, how="semi")
        text = dict(wanted.iter_rows())
        if len(text) < (named := pairs[name].n_unique()):
            raise InputError(
                f"the runs name {named - len(text)} of {named} {name} that data/ does not have; they were made from "
                "other data, run: dvc repro"
            )
        return map(text.__getitem__, pairs[name])

    return list(zip(side("query_id", queries), side("doc_id", corpus), strict=True))
