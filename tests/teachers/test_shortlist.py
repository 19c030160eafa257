"""Which pairs are scored."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from anna import io, schemas
from anna.teachers import blocks, shortlist
from anna.teachers.blocks import Block, query_blocks
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
    best = shortlist.best_of_runs(ranks, 3)
    assert best.rows() == [("p", "z"), ("q", "b"), ("q", "a"), ("q", "c")]


def test_positives_and_judged_negatives_come_on_top_of_the_best(toy: Toy) -> None:
    bm25 = table(schemas.RUN, [("A:q:1", 1, "A:d:2", 9.0), ("A:q:1", 2, "A:d:4", 8.0)])
    dense = table(schemas.RUN, [("A:q:1", 1, "A:d:4", 0.9), ("A:q:1", 2, "A:d:3", 0.8)])
    whole = Block(toy.queries, {"qrels": toy.qrels, "bm25": bm25, "dense": dense})
    pairs = shortlist.choose_candidates(toy.queries, [whole], depth=1, queries_per_task=None)
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
    whole = Block(toy.queries, {"qrels": qrels, "bm25": empty, "dense": empty})
    pairs = shortlist.choose_candidates(toy.queries, [whole], depth=1, queries_per_task=None)
    assert pairs["doc_id"].to_list() == ["A:d:0", "A:d:1", "A:d:2", "A:d:3", "A:d:4"]


def test_pairs_are_the_same_in_whatever_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"{task}:q:{number}" for task in "AB" for number in range(9)]
    queries = table(schemas.QUERIES, [(name, name[0], "retrieval", "train", name, None) for name in names])
    qrels = [(name, f"d{doc}", int(doc < 2)) for name in names for doc in rng.choice(20, 8, replace=False)]
    run = [(name, rank, f"d{doc}", -rank) for name in names for rank, doc in enumerate(rng.permutation(20), start=1)]
    for name, rows, schema in (("qrels", qrels, schemas.QRELS), ("run", run, schemas.RUN)):
        io.write(tmp_path / f"{name}.parquet", table(schema, rows), schema)
    paths = {"qrels": schemas.QRELS, "bm25": schemas.RUN, "dense": schemas.RUN}
    sources = {
        name: (tmp_path / f"{'qrels' if name == 'qrels' else 'run'}.parquet", schema) for name, schema in paths.items()
    }

    def pairs(queries_at_once: int) -> tuple[int, pl.DataFrame]:
        monkeypatch.setattr(blocks, "QUERIES_AT_ONCE", queries_at_once)
        parts = list(query_blocks(queries, sources))
        return len(parts), shortlist.choose_candidates(queries, parts, depth=3, queries_per_task=5)

    (one, whole), (many, again) = pairs(100), pairs(4)
    assert (one, many) == (1, 5)
    assert whole["query_id"].n_unique() == 10
    assert again.equals(whole)
    assert again.equals(again.sort("query_id", "doc_id"))


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
    run = shortlist.to_run(pairs, np.array([1.0, 1.0, 2.0], dtype=np.float32))
    assert run["doc_id"].to_pylist() == ["A:d:3", "A:d:1", "A:d:4"]
    assert run["rank"].to_pylist() == [1, 2, 3]
    assert run.schema.equals(schemas.RUN)
    assert shortlist.summarise(run, toy.queries) == {
        "queries": 1,
        "pairs": 3,
        "docs": 3,
        "tasks": {"A": {"queries": 1, "pairs": 3, "docs": 3}},
    }


def test_no_array_of_a_run_is_larger_than_a_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 2)  # an Arrow array of strings holds 2 GiB, and a run may hold more
    pairs = pl.DataFrame({"query_id": ["q"] * 5, "doc_id": list("abcde")})
    run = shortlist.to_run(pairs, np.arange(5, dtype=np.float32))
    assert [chunk.to_pylist() for chunk in run["doc_id"].chunks if len(chunk)] == [["e", "d"], ["c", "b"], ["a"]]
    assert shortlist.to_run(pairs.head(0), np.zeros(0, dtype=np.float32)).equals(schemas.RUN.empty_table())
