"""Candidates in blocks of queries: all rows of a query stand together, and no query touches another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from anna import parts

QUERIES_AT_ONCE = 10_000
"""Number of queries whose candidates are in memory together."""


class Block(NamedTuple):
    """Some queries, in order, and all rows of tables that belong to them."""

    queries: pa.Table
    """Of table QUERIES."""
    rows: dict[str, pa.Table]
    """By name of the table."""


def query_blocks(queries: pa.Table, tables: Mapping[str, tuple[Path, pa.Schema]]) -> Iterator[Block]:
    """Yield all queries in blocks of `QUERIES_AT_ONCE`; where there are none, one empty block.

    Args:
        queries: Table QUERIES.
        tables: Path and schema of each table, by name; their keys begin with query_id.

    Raises:
        InputError: If a table is missing, or breaks its schema.
    """
    blocks = [queries.slice(start, QUERIES_AT_ONCE) for start in range(0, max(len(queries), 1), QUERIES_AT_ONCE)]
    bounds = [block["query_id"][-1].as_py() for block in blocks[:-1]]
    readers = [parts.read(path, schema, [*bounds, None]) for path, schema in tables.values()]
    for block, *rows in parts.ahead(zip(blocks, *readers, strict=True)):
        yield Block(block, dict(zip(tables, rows, strict=True)))
