"""Histograms over blocks of queries are those of all queries at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from anna import io, schemas
from anna.reporting import distributions
from anna.reporting.distributions import SHARE_EDGES
from anna.teachers import blocks
from stages import report

LABELS: list[dict[str, Any]] = [
    {"query_id": "q1", "rank": 1, "doc_id": "d3", "fused_score": 2.0, "soft_label": 0.5},
    {"query_id": "q1", "rank": 2, "doc_id": "d1", "fused_score": 1.0, "soft_label": 0.25},
    {"query_id": "q1", "rank": 3, "doc_id": "d2", "fused_score": -1.0, "soft_label": 0.25},
    {"query_id": "q2", "rank": 1, "doc_id": "d1", "fused_score": 0.0, "soft_label": 1.0},
]
"""Query q1 with a positive, a negative and one candidate above the positive; q2 with a positive alone."""

GROUP: dict[str, Any] = {"query_id": "q1", "positive_ids": ["d1"], "negative_ids": ["d2"], "soft_labels": [0.5, 0.5]}

DROPS = [
    {"query_id": "q1", "doc_id": "d1", "reason": "labelled_positive", "margin": 0.0, "score": 1.0},
    {"query_id": "q1", "doc_id": "d3", "reason": "above_positive", "margin": -1.0, "score": 2.0},
    {"query_id": "q2", "doc_id": "", "reason": "too_few_negatives", "margin": None, "score": None},
    {"query_id": "q2", "doc_id": "d1", "reason": "labelled_positive", "margin": 0.0, "score": 0.0},
]


def measured(folder: Path, group: dict[str, Any] = GROUP) -> distributions.Distributions:
    rows = {
        "labels": pa.Table.from_pylist(LABELS, schema=schemas.LABELS),
        "groups": pa.Table.from_pylist([group], schema=schemas.GROUPS),
        "drops": pa.Table.from_pylist(DROPS, schema=schemas.DROPS),
    }
    io.write(folder / "labels.parquet", rows["labels"], schemas.LABELS)
    return distributions.measure(folder / "labels.parquet", [rows])


def test_each_candidate_is_where_it_belongs(tmp_path: Path) -> None:
    edges, *counted = measured(tmp_path).spread
    assert edges == pytest.approx(np.linspace(-1, 2, 49))
    values = [[edges[place] for place in np.flatnonzero(counts)] for counts in counted]
    assert values == [[0.0, 1.0], [-1.0, edges[-2]], [1.0], [-1.0]]
    assert [counts.sum() for counts in counted] == [2, 2, 1, 1]


def test_groups_without_negatives_add_none(tmp_path: Path) -> None:
    spread = measured(tmp_path, GROUP | {"negative_ids": [], "soft_labels": [1.0]}).spread
    assert spread.group_positives.sum() == 1
    assert spread.negatives.sum() == 0


def test_groups_without_soft_labels_have_no_entropy(tmp_path: Path) -> None:
    found = measured(tmp_path, GROUP | {"positive_ids": ["d1", "d3"], "soft_labels": []})
    assert (found.spread.group_positives.sum(), found.entropies.groups.sum()) == (2, 0)


def test_entropy_is_a_share_of_log_n(tmp_path: Path) -> None:
    rows = pl.DataFrame(LABELS).select("query_id", "soft_label")
    shares = distributions.entropy_shares(rows)
    expected = (0.5 * np.log(2) + 2 * 0.25 * np.log(4)) / np.log(3)
    assert shares[0] == pytest.approx(expected)
    assert np.isnan(shares[1]), "a single candidate has no entropy"
    candidates, groups = measured(tmp_path).entropies
    assert candidates.tolist() == np.histogram([expected], SHARE_EDGES)[0].tolist()
    assert groups.tolist() == [0] * 39 + [1]


def test_equal_labels_are_not_lost_above_the_last_bin() -> None:
    rows = pl.DataFrame({"query_id": ["q"] * 49, "soft_label": np.full(49, 1 / 49)})  # comes to 1 + 2e-16
    assert distributions.entropy_shares(rows).tolist() == [1.0]


def test_no_candidate_is_in_no_bin(tmp_path: Path) -> None:
    empty = {name: getattr(schemas, name.upper()).empty_table() for name in ("labels", "groups", "drops")}
    io.write(tmp_path / "labels.parquet", empty["labels"], schemas.LABELS)
    spread, entropies = distributions.measure(tmp_path / "labels.parquet", [empty])
    assert not any(counts.any() for counts in (*spread[1:], *entropies))


def test_blocks_add_up_to_the_whole(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[dict[str, pa.Table]]:
        queries = io.read(report.QUERIES, schemas.QUERIES)
        return (block.rows for block in blocks.query_blocks(queries, report.SOURCES))

    whole = distributions.measure(report.LABELS, rows())
    monkeypatch.setattr(blocks, "QUERIES_AT_ONCE", 7)
    parted = distributions.measure(report.LABELS, rows())
    for one, other in zip((*whole.spread, *whole.entropies), (*parted.spread, *parted.entropies), strict=True):
        assert np.array_equal(one, other)
    scores = io.read(report.LABELS, schemas.LABELS)["fused_score"].to_numpy().astype(np.float64)
    assert (whole.spread.positives + whole.spread.others).tolist() == np.histogram(scores, 48)[0].tolist()
    assert whole.spread.edges.tolist() == np.histogram_bin_edges(scores, 48).tolist()
    assert whole.spread.positives.sum() == whole.spread.negatives.sum() == 240
