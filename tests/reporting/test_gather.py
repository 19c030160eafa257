"""The report's facts: joins, shares and files that are not what their stage writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from anna import schemas
from anna.errors import InputError
from anna.reporting import gather
from anna.reporting.gather import Facts, Tables
from tests.reporting.conftest import HOSTILE, read_facts, write_run


def small_tables() -> Tables:
    """Query q1 with a positive, a negative and one candidate above the positive; q2 with a positive alone."""
    labels = [
        {"query_id": "q1", "rank": 1, "doc_id": "d3", "fused_score": 2.0, "soft_label": 0.5},
        {"query_id": "q1", "rank": 2, "doc_id": "d1", "fused_score": 1.0, "soft_label": 0.25},
        {"query_id": "q1", "rank": 3, "doc_id": "d2", "fused_score": -1.0, "soft_label": 0.25},
        {"query_id": "q2", "rank": 1, "doc_id": "d1", "fused_score": 0.0, "soft_label": 1.0},
    ]
    groups = [{"query_id": "q1", "positive_id": "d1", "negative_ids": ["d2"], "soft_labels": [0.5, 0.5]}]
    drops = [
        {"query_id": "q1", "doc_id": "d1", "reason": "labelled_positive", "margin": 0.0, "score": 1.0},
        {"query_id": "q1", "doc_id": "d3", "reason": "above_positive", "margin": -1.0, "score": 2.0},
        {"query_id": "q2", "doc_id": "", "reason": "too_few_negatives", "margin": None, "score": None},
        {"query_id": "q2", "doc_id": "d1", "reason": "labelled_positive", "margin": 0.0, "score": 0.0},
    ]
    return Tables(
        pa.Table.from_pylist(labels, schema=schemas.LABELS),
        pa.Table.from_pylist(groups, schema=schemas.GROUPS),
        pa.Table.from_pylist(drops, schema=schemas.DROPS),
        schemas.INGEST_DROPS.empty_table(),
    )


def test_spread_puts_each_candidate_where_it_belongs() -> None:
    spread = gather.spread(small_tables())
    assert sorted(spread.positives) == [0.0, 1.0]
    assert sorted(spread.others) == [-1.0, 2.0]
    assert list(spread.group_positives) == [1.0]
    assert list(spread.negatives) == [-1.0]


def test_groups_without_negatives_add_none() -> None:
    tables = small_tables()
    alone = [{"query_id": "q1", "positive_id": "d1", "negative_ids": [], "soft_labels": [1.0]}]
    spread = gather.spread(tables._replace(groups=pa.Table.from_pylist(alone, schema=schemas.GROUPS)))
    assert list(spread.group_positives) == [1.0]
    assert len(spread.negatives) == 0


def test_entropy_is_a_share_of_log_n() -> None:
    tables = small_tables()
    shares = gather._entropy_shares(tables.labels, "soft_label")
    expected = (0.5 * np.log(2) + 2 * 0.25 * np.log(4)) / np.log(3)
    assert shares[0] == pytest.approx(expected)
    assert np.isnan(shares[1]), "a single candidate has no entropy"
    assert gather._entropy_shares(gather._exploded(tables.groups, "soft_labels"), "soft_labels") == pytest.approx([1.0])


def test_all_parts_of_a_run_are_read(facts: Facts) -> None:
    assert facts.tasks["student_with_examples"][HOSTILE]["metric"] == "accuracy"
    assert facts.means["bm25"] == {"Retrieval": 0.65312}
    assert len(facts.curve) == 96
    assert facts.curve.values["tokens_saved"].tolist() == [1200.0] * 96
    assert facts.validation.queries.tolist() == [1280.0, 2560.0, 3840.0, 5120.0]
    assert facts.validation.ndcg.tolist() == [0.875, 0.8875, 0.891667, 0.89375]
    assert facts.costs["train"]["seconds"] == 353.8
    assert [table.rows for table in facts.tables if table.path == "data/groups.parquet"] == []
    assert {Path(table.path).name: table.rows for table in facts.tables}["groups.parquet"] == 240
    assert len(facts.entropies.candidates) == 240


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (
            "metrics/training.csv",
            "step,loss\n1,2\n",
            r"training.csv has columns \['step', 'loss'\], expected \['step', 'que",
        ),
        ("metrics/training.csv", "", r"training.csv has columns \[\], expected"),
        (
            "metrics/validation.csv",
            "step\n",
            r"validation.csv has columns \['step'\], expected \['step', 'queries', 'nd",
        ),
        ("metrics/scores.csv", "model,category,score\nstudent,STS\n", "scores.csv: line 2 has 2 values, expected 3"),
        ("metrics/scores.csv", "model,category,score\nstudent,STS,high\n", "scores.csv: 'high' is not a number"),
        ("metrics/mteb.json", "[1]", "mteb.json holds list, expected a JSON object"),
        ("data/corpus.json", "{}", r"corpus.json has \[\], expected rows and fields"),
        ("metrics/cost/train.json", None, "train.json does not exist; make it with: dvc repro"),
        ("metrics/training.csv", None, "training.csv does not exist; make it with: dvc repro"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, path: str, content: str | None, message: str) -> None:
    write_run(tmp_path, num_queries=8)
    (tmp_path / path).unlink()
    if content is not None:
        (tmp_path / path).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path)
