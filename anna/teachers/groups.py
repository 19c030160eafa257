"""What the filter writes of judged candidates: training groups, and the reason of each candidate that is in none."""

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna import fusion, negatives, schemas, segments
from anna.errors import InputError
from anna.negatives import Candidates, Judgement, Verdict
from anna.segments import Int
from anna.teachers.tables import Known, numbers

_LEAST_SUM = float(np.finfo(np.float32).tiny)
"""Soft labels below it, float32, have lost digits: their shares would be others than those of the scores."""


def make_groups(
    rows: pl.DataFrame, judgement: Judgement, candidates: Candidates, known: Known, most: int | None
) -> pa.Table:
    """Return table GROUPS: of each query its positives, best first, then the negatives kept, hardest first.

    Args:
        rows: As `candidates.Marker` marks them.
        judgement: Of `candidates`.
        candidates: The same rows, as arrays.
        known: What ids are coded by.
        most: Positives of a group, see `negatives.find_positives`.

    Raises:
        InputError: If soft labels of a group have lost their digits.
    """
    is_shown_C = negatives.find_positives(judgement, candidates, most)
    if not is_shown_C.any():
        return schemas.GROUPS.empty_table()
    rows = rows.with_columns(pl.Series("is_shown", is_shown_C))
    members = rows.filter(pl.Series(is_shown_C | (judgement.verdicts == Verdict.KEPT)))
    # Both parts stay in the order of the teacher's ranking, but what people have labelled comes first.
    members = members.sort(
        "query_id", "is_shown", "is_relabelled", descending=[False, True, False], maintain_order=True
    )
    named = members.select(
        "query_id",
        "is_shown",
        "has_class",
        known.ids["doc_id"].gather(members["doc_id"]).alias("doc"),
        pl.Series("soft_labels", _share(members, known)),
    )
    groups = named.group_by("query_id", maintain_order=True).agg(
        pl.col("doc").filter("is_shown").alias("positive_ids"),
        pl.col("doc").filter(~pl.col("is_shown")).alias("negative_ids"),
        # Teachers see topics: where a query has a class, they often prefer a near text of another one.
        pl.col("soft_labels").filter(~pl.col("has_class")),
    )
    return known.decode(groups, schemas.GROUPS)


def _share(members: pl.DataFrame, known: Known) -> NDArray[np.float32]:
    """Return the members' soft labels, summing to 1 per group; of no use where the query has a class."""
    starts_G = segments.find_starts(numbers(members, "query_id"))
    soft_C = np.where(numbers(members, "has_class"), 1.0, numbers(members, "soft_label").astype(np.float64))
    # What an epoch shows of a group is one of its positives with all negatives.
    is_shown_C = numbers(members, "is_shown")
    of_negatives_G = segments.total(np.where(is_shown_C, 0.0, soft_C), starts_G)
    sums_C = np.where(is_shown_C, soft_C + segments.spread(of_negatives_G, starts_G, len(soft_C)), np.inf)
    lowest = int(np.argmin(sums_C))
    if sums_C[lowest] < _LEAST_SUM:
        query = known.ids["query_id"][members["query_id"][lowest]]
        raise InputError(
            f"data/labels.parquet: the soft labels of query {query!r} add up to {sums_C[lowest]:.1g} over its group, "
            "too little for float32 to tell them apart; raise label.teacher_temperature in params.yaml"
        )
    return fusion.share(soft_C, starts_G).astype(np.float32)


def make_drops(rows: pl.DataFrame, judgement: Judgement, starts_Q: Int) -> pl.DataFrame:
    """Return table DROPS, coded: every candidate that is no negative, every query without a group, and the reason.

    Args:
        rows: As `candidates.Marker` marks them.
        judgement: Of the same candidates.
        starts_Q: First row of each query.
    """
    reasons = np.array([verdict.reason for verdict in Verdict], dtype=object)
    reference_C = segments.spread(judgement.standing.references, starts_Q, rows.height)
    scores = numbers(rows, "fused_score").astype(np.float64)
    columns = ["query_id", "doc_id", "task", "reason", "margin", "score"]
    candidates = rows.with_columns(
        pl.Series("reason", reasons[judgement.verdicts], dtype=pl.String),
        pl.Series("margin", reference_C - scores, dtype=pl.Float64).cast(pl.Float32),
        pl.col("fused_score").alias("score"),
    ).filter(pl.Series(judgement.verdicts != Verdict.KEPT))
    is_dropped_Q = judgement.query_verdicts != Verdict.KEPT
    dropped: pl.DataFrame = rows[starts_Q[is_dropped_Q]].with_columns(
        pl.lit(None, dtype=pl.UInt32).alias("doc_id"),
        pl.Series("reason", reasons[judgement.query_verdicts[is_dropped_Q]], dtype=pl.String),
        pl.lit(None, dtype=pl.Float32).alias("margin"),
        pl.lit(None, dtype=pl.Float32).alias("score"),
    )
    both = pl.concat([candidates.select(columns), dropped.select(columns)])
    return both.sort("query_id", "doc_id")
