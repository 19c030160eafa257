"""A toy collection with every case that labelling and filtering tell apart."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from anna import schemas


class Toy(NamedTuple):
    """Tables of a small collection."""

    corpus: pa.Table
    queries: pa.Table
    qrels: pa.Table


def table(schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return rows, given in the order of the schema's columns, as a table sorted by its first two columns."""
    columns = list(zip(*sorted(rows, key=lambda row: tuple(row[:2])), strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


@pytest.fixture
def toy() -> Toy:
    """The toy collection."""
    return make_toy()


def make_toy() -> Toy:
    """Return two retrieval queries and one of a class, over two tasks."""
    corpus = table(
        schemas.CORPUS,
        [
            ("A:d:1", "A", "The river Seine flows through Paris.", None),
            ("A:d:2", "A", "the river SEINE flows, through Paris", None),
            ("A:d:3", "A", "Mountains are high.", None),
            ("A:d:4", "A", "Paris is the capital of France.", None),
            ("A:d:5", "A", "Berlin is the capital of Germany.", None),
            ("B:d:1", "B", "Who wrote this book?", "person"),
            ("B:d:2", "B", "Who painted that wall?", "person"),
            ("B:d:3", "B", "Where is the book?", "place"),
        ],
    )
    queries = table(
        schemas.QUERIES,
        [
            ("A:q:1", "A", "retrieval", "train", "which river flows through Paris", None),
            ("A:q:2", "A", "retrieval", "validation", "capital of France", None),
            ("B:q:1", "B", "classification", "train", "Who wrote that book?", "person"),
        ],
    )
    qrels = table(
        schemas.QRELS, [("A:q:1", "A:d:1", 1), ("A:q:2", "A:d:4", 1), ("A:q:2", "A:d:3", 0), ("B:q:1", "B:d:2", 1)]
    )
    return Toy(corpus, queries, qrels)
