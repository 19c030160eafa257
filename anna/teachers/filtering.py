"""Turn labelled candidates into training groups, with a reason for every candidate that is in none."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna import negatives, schemas, segments
from anna.errors import InputError
from anna.negatives import QUERY_VERDICTS, Judgement, Rule, Verdict
from anna.segments import Int
from anna.teachers.tables import Ids, decode, mark_positives, numbers


class Selection(NamedTuple):
    """What becomes of the candidates."""

    groups: pa.Table
    """Table GROUPS."""
    drops: pa.Table
    """Table DROPS: every candidate that is no group's negative, and every query without a group."""
    metrics: dict[str, Any]


def select_groups(
    corpus: pa.Table,
    queries: pa.Table,
    qrels: pa.Table,
    labels: pa.Table,
    *,
    rule: Rule,
    margin: float,
    background_quantile: float,
    negatives_per_query: int,
    min_negatives: int,
    max_positive_rank: int | None,
) -> Selection:
    """Return the training group of each query, and why every other candidate is in none.

    A group's positive stands among the drops too, as a labelled positive: of each query, negatives kept plus candidates
    dropped are all its candidates. A candidate that only its query's verdict rules out carries that verdict.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.
        qrels: Table QRELS.
        labels: Table LABELS.
        rule: See `negatives.judge_candidates`, as for the following.
        margin: In the rule's unit.
        background_quantile: What counts as a query's background.
        negatives_per_query: Most negatives of a group.
        min_negatives: Fewest.
        max_positive_rank: Worst rank of a query's best positive.

    Raises:
        InputError: If no query gives a group, or a table has ids that corpus or queries lack.
    """
    ids = Ids(corpus, queries)
    docs, asked, judged = ids.encode(corpus, "corpus"), ids.encode(queries, "queries"), ids.encode(qrels, "qrels")
    rows = mark_positives(ids.encode(labels, "labels"), docs, asked, judged)
    rows = mark_duplicates(rows, docs)
    starts_Q = segments.find_starts(numbers(rows, "query_id"))
    judgement = negatives.judge_candidates(
        numbers(rows, "fused_score").astype(np.float64),
        numbers(rows, "is_positive"),
        numbers(rows, "is_duplicate"),
        numbers(rows, "has_class")[starts_Q],
        starts_Q,
        rule=rule,
        margin=margin,
        background_quantile=background_quantile,
        negatives_per_query=negatives_per_query,
        min_negatives=min_negatives,
        max_positive_rank=max_positive_rank,
    )
    groups, drops = _groups(rows, judgement), _drops(rows, judgement, starts_Q)
    metrics = _summarise(rows, groups, drops)
    if not groups.num_rows:
        raise InputError(
            f"no query of {len(starts_Q)} gives a training group ({metrics['drops']}); lower filter.margin or "
            "filter.min_negatives, or raise filter.max_positive_rank in params.yaml"
        )
    return Selection(groups, decode(drops, schemas.DROPS), metrics)


def mark_duplicates(rows: pl.DataFrame, docs: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` in their order, with `is_duplicate`: whether the text is that of one of the query's positives.

    Case, punctuation and spacing do not count.

    Args:
        rows: Candidates with `is_positive`.
        docs: CORPUS, coded.
    """
    words = pl.col("text").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ")
    plain = words.str.strip_chars(" ")
    # A text of nothing but punctuation equals only itself.
    plain = pl.when(plain == "").then(pl.col("text")).otherwise(plain).hash(0)
    joined = rows.join(docs.select("doc_id", plain.alias("plain")), on="doc_id", how="left", maintain_order="left")
    positive = joined.filter("is_positive").select("query_id", "plain", pl.lit(True).alias("is_twin")).unique()
    joined = joined.join(positive, on=["query_id", "plain"], how="left", maintain_order="left")
    is_duplicate = pl.col("is_twin").fill_null(False) & ~pl.col("is_positive")
    return joined.with_columns(is_duplicate.alias("is_duplicate")).drop("plain", "is_twin")


def _groups(rows: pl.DataFrame, judgement: Judgement) -> pa.Table:
    """Return table GROUPS: of each query its positive, then the negatives kept, hardest first."""
    positive_G = judgement.positives[judgement.query_verdicts == Verdict.KEPT]
    is_member_C, is_positive_C = judgement.verdicts == Verdict.KEPT, np.zeros(rows.height, dtype=np.bool_)
    is_member_C[positive_G] = is_positive_C[positive_G] = True
    if not len(positive_G):
        return schemas.GROUPS.empty_table()
    # The positive comes before its query's others, which stay in the order of the teacher's ranking.
    order_C = np.lexsort((~is_positive_C, numbers(rows, "query_id")))
    members = rows[order_C[is_member_C[order_C]]]
    starts_G = segments.find_starts(numbers(members, "query_id"))
    soft_labels = _share(members, starts_G)
    doc_ids = members["doc_id"].cast(pl.String)
    is_negative = np.ones(members.height, dtype=np.bool_)
    is_negative[starts_G] = False
    ends_G = np.append(starts_G[1:], members.height)
    return pa.table(
        {
            "query_id": members["query_id"].cast(pl.String)[starts_G].to_arrow().cast(pa.string()),
            "positive_id": doc_ids[starts_G].to_arrow().cast(pa.string()),
            "negative_ids": _lists(
                doc_ids.filter(pl.Series(is_negative)).to_arrow(), ends_G - np.arange(1, len(ends_G) + 1)
            ),
            "soft_labels": _lists(pa.array(soft_labels), ends_G),
        }
    ).cast(schemas.GROUPS)


def _share(members: pl.DataFrame, starts_G: Int) -> NDArray[np.float32]:
    """Return the members' soft labels, summing to 1 per group."""
    soft_C = numbers(members, "soft_label").astype(np.float64)
    sums_G = segments.total(soft_C, starts_G)
    if not (sums_G > 0).all():
        query = members["query_id"].cast(pl.String)[int(starts_G[np.argmin(sums_G)])]
        raise InputError(
            f"data/labels.parquet: the soft labels of query {query!r} are zero over its whole group; raise "
            "label.teacher_temperature in params.yaml"
        )
    return negatives.share_probability(soft_C, starts_G).astype(np.float32)


def _lists(values: pa.Array, ends_G: Int) -> pa.ListArray:
    """Return one list per group, given where each ends."""
    return pa.ListArray.from_arrays(pa.array(np.insert(ends_G, 0, 0), pa.int32()), values)


def _drops(rows: pl.DataFrame, judgement: Judgement, starts_Q: Int) -> pl.DataFrame:
    """Return every candidate that is no negative, and every query without a group, with the reason."""
    reasons = np.array([verdict.reason for verdict in Verdict], dtype=object)
    reference_C = segments.spread(judgement.references, starts_Q, rows.height)
    scores = numbers(rows, "fused_score").astype(np.float64)
    columns = ["query_id", "doc_id", "task", "reason", "margin", "score"]
    candidates = rows.with_columns(
        pl.Series("reason", reasons[judgement.verdicts], dtype=pl.String),
        pl.Series("margin", reference_C - scores, dtype=pl.Float64).cast(pl.Float32),
        pl.col("fused_score").alias("score"),
        pl.col("doc_id").cast(pl.String),
    ).filter(pl.Series(judgement.verdicts != Verdict.KEPT))
    is_dropped_Q = judgement.query_verdicts != Verdict.KEPT
    dropped: pl.DataFrame = rows[starts_Q[is_dropped_Q]].with_columns(
        pl.lit("").alias("doc_id"),
        pl.Series("reason", reasons[judgement.query_verdicts[is_dropped_Q]], dtype=pl.String),
        pl.lit(None, dtype=pl.Float32).alias("margin"),
        pl.lit(None, dtype=pl.Float32).alias("score"),
    )
    return pl.concat([candidates.select(columns), dropped.select(columns)])


def _summarise(rows: pl.DataFrame, groups: pa.Table, drops: pl.DataFrame) -> dict[str, Any]:
    """Return counts of queries, candidates and drops by reason, overall and by task."""
    tasks = rows.group_by("query_id").agg(pl.col("task").first(), pl.len().alias("candidates"))
    sizes = pl.DataFrame(
        {
            "query_id": pl.Series(groups["query_id"].to_pylist(), dtype=rows["query_id"].dtype),
            "negatives": pl.Series(groups["negative_ids"].combine_chunks().value_lengths().to_pylist(), dtype=pl.Int64),
        }
    )
    queries = tasks.join(sizes, on="query_id", how="left")
    by_task = {
        task: _count(queries.filter(pl.col("task") == task), drops.filter(pl.col("task") == task))
        for task in tasks["task"].unique().sort()
    }
    return _count(queries, drops) | {"tasks": by_task}


def _count(queries: pl.DataFrame, drops: pl.DataFrame) -> dict[str, Any]:
    of_queries = drops.filter(pl.col("doc_id") == "")["reason"].to_list()
    of_candidates = drops.filter(pl.col("doc_id") != "")["reason"].to_list()
    return {
        "queries": queries.height,
        "groups": queries["negatives"].count(),
        "candidates": int(queries["candidates"].sum()),
        "negatives": int(queries["negatives"].sum()),
        "suspected_missing_positives": of_candidates.count(Verdict.ABOVE_POSITIVE.reason),
        "drops": {verdict.reason: of_candidates.count(verdict.reason) for verdict in Verdict if verdict},
        "query_drops": {verdict.reason: of_queries.count(verdict.reason) for verdict in QUERY_VERDICTS},
    }
