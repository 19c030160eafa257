"""Run tables and the collections they come from."""

import numpy as np
import pyarrow as pa
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.teachers import runs
from tests.teachers.conftest import Toy, table


def test_collections_by_task_in_order_of_ids(toy: Toy) -> None:
    first, second = runs.collections(toy.corpus, toy.queries)
    assert (first.task, second.task) == ("A", "B")
    assert first.doc_ids == ["A:d:1", "A:d:2", "A:d:3", "A:d:4", "A:d:5"]
    assert second.queries == ["Who wrote that book?"]


def test_a_task_of_one_document_is_refused(toy: Toy) -> None:
    corpus = table(
        schemas.CORPUS,
        [*[tuple(row.values()) for row in toy.corpus.to_pylist() if row["task"] == "A"], ("B:d:1", "B", "x", None)],
    )
    with pytest.raises(InputError, match="task 'B' has 1 documents"):
        list(runs.collections(corpus, toy.queries))


def test_infinite_scores_are_left_out() -> None:
    scores = np.array([[2.0, 1.0], [0.5, -np.inf]], dtype=np.float32)
    run = runs.to_run(["q1", "q2"], ["a", "b", "c"], np.array([[2, 0], [1, 0]]), scores)
    assert run.to_pylist() == [
        {"query_id": "q1", "rank": 1, "doc_id": "c", "score": 2.0},
        {"query_id": "q1", "rank": 2, "doc_id": "a", "score": 1.0},
        {"query_id": "q2", "rank": 1, "doc_id": "b", "score": 0.5},
    ]


def test_no_array_of_a_run_is_larger_than_a_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 2)  # an Arrow array of strings holds 2 GiB, and a run may hold more
    index, scores = np.arange(6).reshape(2, 3) % 5, np.array([[3, 2, 1], [2, 1, -np.inf]], dtype=np.float32)
    run = runs.to_run(["q1", "q2"], pa.array(list("abcde")), index, scores)
    assert [chunk.to_pylist() for chunk in run["doc_id"].chunks if len(chunk)] == [["a", "b"], ["c", "d"], ["e"]]
    assert run["query_id"].to_pylist() == ["q1"] * 3 + ["q2"] * 2
    nothing = runs.to_run([], ["a"], np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3), dtype=np.float32))
    assert nothing.equals(schemas.RUN.empty_table())


def test_summary_counts_queries_without_result(toy: Toy) -> None:
    run = table(schemas.RUN, [("A:q:1", 1, "A:d:1", 2.0), ("A:q:1", 2, "A:d:2", 1.0)])
    assert runs.summarise_run(run, toy.queries) == {
        "queries": 3,
        "rows": 2,
        "queries_without_result": 2,
        "tasks": {
            "A": {"queries": 2, "rows": 2, "queries_without_result": 1},
            "B": {"queries": 1, "rows": 0, "queries_without_result": 1},
        },
    }
