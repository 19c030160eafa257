"""How fused scores and soft labels are distributed: histograms, added up over blocks of queries.

So memory does not grow with the number of queries. Legend: B bins, Q queries, C candidates of all queries together.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from anna import fusion, io, schemas, segments
from anna.reporting.curves import Floats

Counts = NDArray[np.int64]
"""How many values lie in each bin, (B,)."""

SCORE_BINS = 48
SHARE_EDGES: Floats = np.linspace(0, 1, 41)
"""Bins of entropies, which are shares."""


class Spread(NamedTuple):
    """Fused scores before and after the filter."""

    edges: Floats
    """Of the bins, (B + 1,)."""
    positives: Counts
    """Of all labelled positives."""
    others: Counts
    """Of all other candidates."""
    group_positives: Counts
    negatives: Counts
    """Hard negatives kept."""


class Entropies(NamedTuple):
    """Entropy of each query's soft labels as a share of log n; a single candidate has none, and is in no bin."""

    candidates: Counts
    groups: Counts


class Distributions(NamedTuple):
    """All that is counted over the queries."""

    spread: Spread
    entropies: Entropies


def measure(labels: Path, blocks: Iterable[Mapping[str, pa.Table]]) -> Distributions:
    """Return the distributions over all queries.

    Args:
        labels: Where table LABELS lies.
        blocks: Rows of `labels`, `groups` and `drops` of some queries, together all.

    Raises:
        InputError: If a table is missing or not of its schema.
    """
    edges = score_edges(labels)
    spreads, entropies = [], []
    for rows in blocks:
        spreads.append(_spread(rows, edges))
        entropies.append(_entropies(rows))
    scores, shares = np.sum(spreads, axis=0), np.sum(entropies, axis=0)
    return Distributions(Spread(edges, *scores), Entropies(*shares))


def score_edges(labels: Path) -> Floats:
    """Return the edges of equal bins over all fused scores, (B + 1,), from the statistics of the file."""
    with io.opened(labels, schemas.LABELS) as file:
        column, groups = schemas.LABELS.get_field_index("fused_score"), range(file.num_row_groups)
        known = [file.metadata.row_group(group).column(column).statistics for group in groups]
    ends = [end for each in known if each and each.has_min_max for end in (each.min, each.max)]
    return np.histogram_bin_edges(np.array(ends), SCORE_BINS)


def _spread(rows: Mapping[str, pa.Table], edges: Floats) -> list[Counts]:
    """Return the histograms of `Spread`, in its order."""
    labels = pl.DataFrame(rows["labels"].select(["query_id", "doc_id", "fused_score"]))
    drops, groups = pl.DataFrame(rows["drops"].select(["query_id", "doc_id", "reason"])), pl.DataFrame(rows["groups"])

    def count(pairs: pl.DataFrame) -> Counts:
        found = labels.join(pairs.select("query_id", "doc_id"), on=["query_id", "doc_id"], how="semi")
        return _histogram(found["fused_score"].to_numpy(), edges)

    positives = count(drops.filter(pl.col("reason") == "labelled_positive"))
    chosen, kept = (
        count(groups.select("query_id", pl.col(name).alias("doc_id")).explode("doc_id"))
        for name in ("positive_ids", "negative_ids")
    )
    return [positives, _histogram(labels["fused_score"].to_numpy(), edges) - positives, chosen, kept]


def _entropies(rows: Mapping[str, pa.Table]) -> list[Counts]:
    """Return the histograms of `Entropies`, in its order."""
    groups = pl.DataFrame(rows["groups"].select(["query_id", "soft_labels"])).explode("soft_labels").drop_nulls()
    of_labels = entropy_shares(pl.DataFrame(rows["labels"].select(["query_id", "soft_label"])))
    return [_histogram(shares_Q, SHARE_EDGES) for shares_Q in (of_labels, entropy_shares(groups))]


def entropy_shares(rows: pl.DataFrame) -> Floats:
    """Return each query's entropy as a share of its largest value, at most 1, (Q,); NaN for a single candidate.

    Args:
        rows: query_id, all rows of a query together, and its soft labels.
    """
    starts_Q = segments.find_starts(rows["query_id"].rle_id().to_numpy())
    soft_C = rows.to_series(1).to_numpy().astype(np.float64)
    return np.minimum(fusion.entropies(soft_C, starts_Q)[1], 1.0)  # equal labels come out above by rounding


def _histogram(values: NDArray[np.floating], edges: Floats) -> Counts:
    """Return how many of the finite values lie in each bin."""
    values = values.astype(np.float64)
    return np.histogram(values[np.isfinite(values)], edges)[0].astype(np.int64)
