"""Fused scores and soft labels of a toy collection, by hand and by a loop."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.teachers import labelling
from anna.teachers.blocks import Block
from tests.teachers.conftest import Toy, table

WEIGHTS = {"bm25": 0.5, "dense": 1.0, "reranker": 2.0}

BM25 = [("A:q:1", 1, "A:d:2", 4.0), ("A:q:1", 2, "A:d:4", 2.0), ("B:q:1", 1, "B:d:1", 3.0)]
DENSE = [
    ("A:q:1", 1, "A:d:2", 0.9),
    ("A:q:1", 2, "A:d:1", 0.8),
    ("A:q:1", 3, "A:d:5", 0.1),
    ("A:q:2", 1, "A:d:5", 0.5),
    ("A:q:2", 2, "A:d:4", 0.5),
    ("A:q:2", 3, "A:d:1", 0.4),
    ("B:q:1", 1, "B:d:1", 0.7),
    ("B:q:1", 2, "B:d:3", 0.6),
]
RERANKER = [("A:q:1", 1, "A:d:1", -1.0), ("A:q:1", 2, "A:d:2", -3.0)]


@pytest.fixture
def runs() -> dict[str, pa.Table]:
    return {name: table(schemas.RUN, rows) for name, rows in [("bm25", BM25), ("dense", DENSE), ("reranker", RERANKER)]}


def label(
    toy: Toy, runs: dict[str, pa.Table], temperature: float = 0.8, depth: int = 2
) -> tuple[pa.Table, dict[str, Any]]:
    labeller = labelling.Labeller(
        toy.corpus, toy.queries, weights=WEIGHTS, teacher_temperature=temperature, bm25_depth=depth
    )
    labels = labeller.label(Block(toy.queries, {"qrels": toy.qrels, **runs}))
    return labels, labeller.metrics()


def z_scores(scores: dict[str, float], candidates: list[str], most: float) -> list[float]:
    """Return z-scores; a run that lists fewer than `most` documents knows that the others have 0."""
    low = 0.0 if len(scores) < most else min(scores.values())
    filled = [scores.get(doc, low) for doc in candidates]
    if max(filled) == min(filled):
        return [0.0] * len(filled)
    mean, deviation = float(np.mean(filled)), float(np.std(filled))
    return [(score - mean) / deviation for score in filled]


def literal(
    toy: Toy, runs: dict[str, pa.Table], query: str, temperature: float, depth: int
) -> list[tuple[str, float, float]]:
    """Return doc_id, fused score and soft label of one query's candidates by a loop."""
    scores = {
        name: {row["doc_id"]: row["score"] for row in run.to_pylist() if row["query_id"] == query}
        for name, run in runs.items()
    }
    judged = [row["doc_id"] for row in toy.qrels.to_pylist() if row["query_id"] == query]
    candidates = sorted({*scores["bm25"], *scores["dense"], *judged})
    parts = {name: z_scores(scores[name], candidates, depth if name == "bm25" else 1) for name in runs}
    fused = [sum(WEIGHTS[name] * parts[name][i] for name in runs) for i in range(len(candidates))]
    weights = [math.exp(value / temperature) for value in fused]
    rows = [(doc, value, weight / sum(weights)) for doc, value, weight in zip(candidates, fused, weights, strict=True)]
    return sorted(rows, key=lambda row: (-np.float32(row[1]), row[0]))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equal_to_a_loop(toy: Toy, runs: dict[str, pa.Table], depth: int) -> None:
    labels, _ = label(toy, runs, depth=depth)
    for query in ("A:q:1", "A:q:2", "B:q:1"):
        own = [row for row in labels.to_pylist() if row["query_id"] == query]
        expected = literal(toy, runs, query, 0.8, depth)
        assert [row["doc_id"] for row in own] == [doc for doc, _, _ in expected]
        np.testing.assert_allclose([row["fused_score"] for row in own], [row[1] for row in expected], atol=1e-6)
        np.testing.assert_allclose([row["soft_label"] for row in own], [row[2] for row in expected], atol=1e-6)
        assert [row["rank"] for row in own] == list(range(1, len(own) + 1))
        assert sum(row["soft_label"] for row in own) == pytest.approx(1, abs=1e-6)


def test_candidates_are_both_runs_and_all_that_is_judged(toy: Toy, runs: dict[str, pa.Table]) -> None:
    labels, _ = label(toy, runs)
    rows = labels.to_pylist()
    assert {row["doc_id"] for row in rows if row["query_id"] == "A:q:1"} == {"A:d:1", "A:d:2", "A:d:4", "A:d:5"}
    assert {row["doc_id"] for row in rows if row["query_id"] == "A:q:2"} == {"A:d:1", "A:d:3", "A:d:4", "A:d:5"}


def test_metrics(toy: Toy, runs: dict[str, pa.Table]) -> None:
    _, metrics = label(toy, runs)
    assert (metrics["queries"], metrics["candidates"], metrics["reranked_queries"]) == (3, 11, 1)
    # A:q:1 by the reranker; A:q:2 ties with A:d:5 and comes first by id; B:q:1's best document has its class.
    assert metrics["positive_first"] == 1.0
    assert metrics["bm25_recall"] == 0.0
    # B:q:1 does not count: that one of its class's documents is found says nothing.
    assert {name: of["dense_recall"] for name, of in metrics["tasks"].items()} == {"A": 1.0, "B": None}
    assert metrics["dense_recall"] == 1.0
    assert 0 < metrics["entropy_share"] < 1
    assert list(metrics["tasks"]) == ["A", "B"]


def test_order_of_rows_does_not_matter_and_the_table_is_valid(
    toy: Toy, runs: dict[str, pa.Table], tmp_path: Any
) -> None:
    labels, metrics = label(toy, runs)
    turned = {name: run.take(list(range(run.num_rows))[::-1]) for name, run in runs.items()}
    again, same = label(toy, turned)
    assert again.equals(labels)
    assert same == metrics
    io.write(tmp_path / "labels.parquet", labels, schemas.LABELS)


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (1e-3, "nearly one-hot.*raise label.teacher_temperature"),
        (1e3, "nearly uniform.*lower label.teacher_temperature"),
    ],
)
def test_degenerate_labels_are_refused(toy: Toy, runs: dict[str, pa.Table], temperature: float, message: str) -> None:
    _, metrics = label(toy, runs, temperature)
    # A:q:2's two best tie, so that one of three queries keeps some entropy at any temperature.
    with pytest.raises(InputError, match=message):
        labelling.refuse_degenerate(metrics, min_entropy_share=0.3, max_entropy_share=0.98)


def test_positives_without_other_candidates_are_not_called_one_hot(toy: Toy, runs: dict[str, pa.Table]) -> None:
    qrels = table(schemas.QRELS, [("A:q:1", "A:d:1", 1), ("A:q:2", "A:d:4", 1), ("B:q:1", "B:d:2", 1)])
    _, metrics = label(toy._replace(qrels=qrels), {name: run.slice(0, 0) for name, run in runs.items()})
    labelling.refuse_degenerate(metrics, min_entropy_share=0.0, max_entropy_share=1.0)
    with pytest.raises(
        InputError, match=r"^each of 3 queries has one candidate alone.*; raise retrieve_bm25.depth and"
    ):
        labelling.refuse_degenerate(metrics, min_entropy_share=0.1, max_entropy_share=1.0)


def test_ids_of_other_data_are_refused(toy: Toy, runs: dict[str, pa.Table]) -> None:
    runs["dense"] = table(schemas.RUN, [("A:q:1", 1, "A:d:99", 1.0)])
    with pytest.raises(InputError, match=r"dense run has doc_id 'A:d:99', which is not in the doc table"):
        label(toy, runs)


def test_a_query_without_positive_is_refused(toy: Toy, runs: dict[str, pa.Table]) -> None:
    qrels = table(schemas.QRELS, [("A:q:1", "A:d:1", 1), ("A:q:2", "A:d:3", 0)])
    with pytest.raises(InputError, match=r"query 'A:q:2' has no labelled positive \(1 such queries\)"):
        label(toy._replace(qrels=qrels), runs)


def test_blocks_of_queries_make_no_difference(toy: Toy, runs: dict[str, pa.Table]) -> None:
    whole, metrics = label(toy, runs)
    labeller = labelling.Labeller(toy.corpus, toy.queries, weights=WEIGHTS, teacher_temperature=0.8, bm25_depth=2)
    tables = {"qrels": toy.qrels, **runs}

    def blocks() -> Iterator[Block]:
        for query in toy.queries["query_id"].to_pylist():
            own = {name: rows.filter(pc.equal(rows["query_id"], query)) for name, rows in tables.items()}
            yield Block(toy.queries.filter(pc.equal(toy.queries["query_id"], query)), own)

    bounds = {"min_entropy_share": 0.0, "max_entropy_share": 1.0}
    assert pa.concat_tables(labelling.label_all(labeller, blocks(), **bounds)).equals(whole)
    assert labeller.metrics() == metrics
    with pytest.raises(InputError, match="nearly one-hot"):
        list(labelling.label_all(labeller, [], min_entropy_share=1.0, max_entropy_share=1.0))
