"""Ids as numbers, and labelled positives."""

import polars as pl
import pyarrow as pa
import pytest

from anna import schemas
from anna.errors import InputError
from anna.teachers.tables import BOTH, Known, mark_positives, split, without_positive
from tests.teachers.conftest import Toy, table


def test_positives_are_judged_ones_and_those_of_the_class(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    listed = ["A:q:1 A:d:3", "A:q:1 A:d:1", "B:q:1 B:d:1", "B:q:1 B:d:3", "A:q:2 A:d:3"]
    pairs = known.encode(pa.table(list(zip(*map(str.split, listed), strict=True)), ["query_id", "doc_id"]), "pairs")
    marked = mark_positives(pairs, known, known.encode(toy.qrels, "qrels"))
    assert marked.select("query_id", "doc_id").equals(pairs)
    assert marked["is_judged"].to_list() == [False, True, False, False, False]
    assert marked["is_positive"].to_list() == [False, True, True, False, False]
    assert marked["has_class"].to_list() == [False, False, True, True, False]
    assert marked["task"].to_list() == ["A", "A", "B", "B", "A"]


def test_queries_without_positive_are_named_in_order(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    rows = known.encode(toy.qrels, "qrels").with_columns((pl.col("doc_id") == 3).alias("is_positive"))  # A:d:4
    assert without_positive(rows, known, toy.queries).to_list() == ["A:q:1", "B:q:1"]
    assert without_positive(rows, known, toy.queries.slice(1, 1)).to_list() == []


def test_ids_that_nobody_knows_are_named(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    with pytest.raises(InputError, match=r"bm25 run has query_id 'C:q:1', which is not in the query table"):
        known.encode(table(schemas.RUN, [("C:q:1", 1, "A:d:1", 1.0)]), "bm25 run")


def test_ids_come_back_and_a_missing_one_is_empty(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    coded = known.encode(toy.qrels, "qrels")
    assert known.decode(coded, schemas.QRELS).equals(toy.qrels)
    without = coded.with_columns(pl.lit(None, dtype=pl.UInt32).alias("doc_id"))
    assert known.decode(without, schemas.QRELS)["doc_id"].unique().to_pylist() == [""]


def test_a_pair_is_one_number_in_the_order_of_both_ids() -> None:
    ids = {"query_id": [1, 0, 0], "doc_id": [0, 2**32 - 1, 1]}
    rows = pl.DataFrame(ids, schema=dict.fromkeys(ids, pl.UInt32))
    pairs = rows.select(BOTH.alias("pair"), pl.Series("score", [1, 2, 3]))
    assert split(pairs).equals(rows.with_columns(pl.Series("score", [1, 2, 3])))
    assert split(pairs.sort("pair"))["score"].to_list() == [3, 2, 1]
