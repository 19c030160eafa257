"""Ids as numbers, and labelled positives."""

import polars as pl
import pytest

from anna import schemas
from anna.errors import InputError
from anna.teachers.tables import Known, mark_positives
from tests.teachers.conftest import Toy, table


def test_positives_are_judged_ones_and_those_of_the_class(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    pairs = pl.DataFrame(
        [("A:q:1", "A:d:3"), ("A:q:1", "A:d:1"), ("B:q:1", "B:d:1"), ("B:q:1", "B:d:3"), ("A:q:2", "A:d:3")],
        schema=known.types,
        orient="row",
    )
    marked = mark_positives(pairs, known, known.encode(toy.qrels, "qrels"))
    assert marked.select("query_id", "doc_id").equals(pairs)
    assert marked["is_positive"].to_list() == [False, True, True, False, False]
    assert marked["has_class"].to_list() == [False, False, True, True, False]
    assert marked["task"].to_list() == ["A", "A", "B", "B", "A"]


def test_ids_that_nobody_knows_are_named(toy: Toy) -> None:
    known = Known(toy.corpus, toy.queries)
    with pytest.raises(InputError, match=r"bm25 run has query_id 'C:q:1', which is not in the query table"):
        known.encode(table(schemas.RUN, [("C:q:1", 1, "A:d:1", 1.0)]), "bm25 run")
