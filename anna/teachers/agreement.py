"""Whether scores computed in a shorter number format rank candidates as float32 does, measured on some queries."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray

from anna.engine import Items
from anna.errors import InputError
from anna.modeling.hardware import Dtype, compute_dtype
from anna.teachers.pairs import choose_queries, texts_of
from anna.teachers.tables import PAIR

Score = Callable[[Items], NDArray[np.float32]]
"""From (query, document) texts, (N, 2), to their scores, (N,)."""


class Checked(Protocol):
    """Params of a teacher that is compared with itself in float32."""

    section: ClassVar[str]

    @property
    def dtype(self) -> Dtype:
        """What it computes in."""

    @property
    def check_queries(self) -> int:
        """Queries of each task, the first by the hash of their id; 0: nothing is compared."""

    @property
    def min_spearman(self) -> float:
        """Mean correlation that must be reached."""


def check(
    run: pa.Table,
    corpus: pa.Table,
    queries: pa.Table,
    score: Score,
    params: Checked,
) -> dict[str, Any]:
    """Return {"spearman_float32": ...} for metrics, as `correlations` gives it, or {} where nothing is to be compared.

    Args:
        run: Table RUN, of a teacher that has computed in `params.dtype`.
        corpus: Table CORPUS.
        queries: Table QUERIES.
        score: The same teacher in float32; called unless it has computed in that on this machine.
        params: The teacher's.

    Raises:
        InputError: If it is not reached.
    """
    used = compute_dtype(params.dtype)
    if used == torch.float32 or not params.check_queries:
        return {}
    chosen = choose_queries(queries, params.check_queries)
    rows = pl.DataFrame(run.select(["query_id", "doc_id", "score"])).join(chosen, on="query_id", how="semi")
    found = correlations(rows, score(texts_of(rows.select(PAIR), corpus, queries)))
    if found["queries"] and found["mean"] < params.min_spearman:
        name = str(used).removeprefix("torch.")
        raise InputError(
            f"{params.section}.min_spearman is {params.min_spearman}, but over {found['queries']} queries the order of "
            f"candidates in {name} has a mean rank correlation of {found['mean']:.4f} with that in float32; set "
            f"{params.section}.dtype: float32"
        )
    return {"spearman_float32": found}


def correlations(rows: pl.DataFrame, exact: NDArray[np.float32]) -> dict[str, Any]:
    """Return the mean and the lowest of the queries' Spearman correlations, -1 to 1, and the number of queries.

    A query whose exact scores are all equal has no order and is left out; where only its other scores are all equal,
    its correlation is 0. Equal scores share their mean rank.

    Args:
        rows: (query_id, score), N of them.
        exact: Scores of the same rows, (N,).
    """
    both = rows.with_columns(pl.Series("exact", exact, dtype=pl.Float32))
    ordered = both.filter(pl.col("exact").n_unique().over("query_id") > 1)
    # Of mean ranks; NaN, which becomes 0, where all scores are equal.
    correlation = pl.corr(pl.col("score").rank("average"), pl.col("exact").rank("average")).fill_nan(0.0)
    found = ordered.group_by("query_id", maintain_order=True).agg(correlation.alias("correlation"))["correlation"]
    return {"mean": found.mean(), "lowest": found.min(), "queries": len(found)}
