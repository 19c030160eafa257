"""Which pairs are scored."""

import numpy as np
import polars as pl
import pytest

from anna import io, schemas
from anna.teachers import reranker
from anna.teachers.pairs import choose_queries, texts_of
from tests.teachers.conftest import Toy, table


def test_fusion_of_ranks_by_hand() -> None:
    ranks = pl.DataFrame(
        [
            ("q", "a", 1),  # 1/61 = 0.016393
            ("q", "b", 2),  # 1/62 + 1/61 = 0.032522
            ("q", "b", 1),
            ("q", "d", 3),  # 1/63, as c: the tie goes to c
            ("q", "c", 3),
            ("p", "z", 9),
        ],
        schema=["query_id", "doc_id", "rank"],
        orient="row",
    )
    best = reranker.best_of_runs(ranks, 3)
    assert best.rows() == [("p", "z"), ("q", "b"), ("q", "a"), ("q", "c")]


def test_positives_and_judged_negatives_come_on_top_of_the_best(toy: Toy) -> None:
    bm25 = table(schemas.RUN, [("A:q:1", 1, "A:d:2", 9.0), ("A:q:1", 2, "A:d:4", 8.0)])
    dense = table(schemas.RUN, [("A:q:1", 1, "A:d:4", 0.9), ("A:q:1", 2, "A:d:3", 0.8)])
    pairs = reranker.choose_candidates(toy.queries, toy.qrels, bm25, dense, depth=1, queries_per_task=None)
    assert pairs.rows() == [
        ("A:q:1", "A:d:1"),  # positive
        ("A:q:1", "A:d:4"),  # best of both runs
        ("A:q:2", "A:d:3"),  # judged not relevant
        ("A:q:2", "A:d:4"),  # positive
        ("B:q:1", "B:d:2"),  # positive
    ]


def test_few_documents_judged_not_relevant(toy: Toy) -> None:
    qrels = table(schemas.QRELS, [("A:q:1", f"A:d:{i}", int(i == 3)) for i in range(9)])
    empty = schemas.RUN.empty_table()
    pairs = reranker.choose_candidates(toy.queries, qrels, empty, empty, depth=1, queries_per_task=None)
    assert pairs["doc_id"].to_list() == ["A:d:0", "A:d:1", "A:d:2", "A:d:3", "A:d:4"]


def test_samples_nest_and_do_not_depend_on_other_tasks(toy: Toy) -> None:
    rows = [(f"{task}:q:{i}", task, "retrieval", "train", f"text {i}", None) for task in "AB" for i in range(20)]
    queries = table(schemas.QUERIES, rows)
    few, more = (set(choose_queries(queries, n)["query_id"]) for n in (3, 7))
    assert len(few) == 6
    assert few < more
    alone = table(schemas.QUERIES, [row for row in rows if row[1] == "A"])
    assert set(choose_queries(alone, 3)["query_id"]) == {name for name in few if name.startswith("A")}
    assert choose_queries(queries, None).height == 40


def test_run_is_ranked_with_ties_by_id_and_texts_are_in_order(toy: Toy) -> None:
    pairs = pl.DataFrame({"query_id": ["A:q:1"] * 3, "doc_id": ["A:d:4", "A:d:1", "A:d:3"]})
    assert texts_of(pairs, toy.corpus, toy.queries)[1] == (
        "which river flows through Paris",
        "The river Seine flows through Paris.",
    )
    run = reranker.to_run(pairs, np.array([1.0, 1.0, 2.0], dtype=np.float32))
    assert run["doc_id"].to_pylist() == ["A:d:3", "A:d:1", "A:d:4"]
    assert run["rank"].to_pylist() == [1, 2, 3]
    assert run.schema.equals(schemas.RUN)
    assert reranker.summarise(run, toy.queries) == {
        "queries": 1,
        "pairs": 3,
        "docs": 3,
        "tasks": {"A": {"queries": 1, "pairs": 3, "docs": 3}},
    }


def test_no_array_of_a_run_is_larger_than_a_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 2)  # an Arrow array of strings holds 2 GiB, and a run may hold more
    pairs = pl.DataFrame({"query_id": ["q"] * 5, "doc_id": list("abcde")})
    run = reranker.to_run(pairs, np.arange(5, dtype=np.float32))
    assert [chunk.to_pylist() for chunk in run["doc_id"].chunks if len(chunk)] == [["e", "d"], ["c", "b"], ["a"]]
    assert reranker.to_run(pairs.head(0), np.zeros(0, dtype=np.float32)).equals(schemas.RUN.empty_table())
