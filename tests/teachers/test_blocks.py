"""Blocks of queries hold all that belongs to them."""

from pathlib import Path

import pytest

from anna import io, schemas
from anna.teachers import blocks
from anna.teachers.blocks import query_blocks
from tests.teachers.conftest import Toy, table

RUN = [("A:q:1", 1, "A:d:2", 9.0), ("A:q:1", 2, "A:d:4", 8.0), ("B:q:1", 1, "B:d:3", 7.0)]


def test_blocks_hold_every_row_of_their_queries(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 2)
    monkeypatch.setattr(blocks, "QUERIES_AT_ONCE", 2)
    io.write(tmp_path / "run.parquet", table(schemas.RUN, RUN), schemas.RUN)
    io.write(tmp_path / "qrels.parquet", toy.qrels, schemas.QRELS)
    sources = {"run": (tmp_path / "run.parquet", schemas.RUN), "qrels": (tmp_path / "qrels.parquet", schemas.QRELS)}
    first, second = query_blocks(toy.queries, sources)
    assert first.queries["query_id"].to_pylist() == ["A:q:1", "A:q:2"]
    assert first.rows["run"]["query_id"].to_pylist() == ["A:q:1", "A:q:1"]
    assert first.rows["qrels"]["query_id"].to_pylist() == ["A:q:1", "A:q:2", "A:q:2"]
    assert second.queries["query_id"].to_pylist() == ["B:q:1"]
    assert second.rows["run"]["doc_id"].to_pylist() == ["B:d:3"]
    (none,) = query_blocks(schemas.QUERIES.empty_table(), sources)
    assert none.rows["run"].num_rows == 3
