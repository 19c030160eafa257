"""Tables that do not fit in memory: written and read in parts, with the checks and the bytes of `anna.io`."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anna import io

Add = Callable[[pa.Table], None]

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield `items`, and make the next one in a thread while the last one is used: Arrow and polars let both run."""
    rest = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(list, islice(rest, 1))
        while made := coming.result():
            coming = thread.submit(list, islice(rest, 1))
            yield made[0]


@contextmanager
def writing(path: Path, schema: pa.Schema, **provenance: Any) -> Iterator[Add]:
    """Yield a function that adds rows to a table; at the end it is there, and its sidecar, as `io.write` leaves them.

    Rows must come in the order of the key, within a call and from call to call. However they are divided, the bytes are
    those of `io.write`.

    Args:
        path: As for `io.write`.
        schema: As for `io.write`.
        provenance: As for `io.write`.

    Raises:
        SchemaError: From the function, as `io.write`.
    """
    held, last, num_rows = schema.empty_table(), schema.empty_table(), 0

    def add(part: pa.Table) -> None:
        nonlocal held, last, num_rows
        table = io.conform(path, part, schema)
        io.check(path, pa.concat_tables([last, table]), schema)
        held, last, num_rows = pa.concat_tables([held, table]), _last(last, table), num_rows + table.num_rows
        while held.num_rows >= io.ROW_GROUP_SIZE:
            writer.write_table(held.slice(0, io.ROW_GROUP_SIZE).combine_chunks())
            held = held.slice(io.ROW_GROUP_SIZE)

    with io.atomic(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=True) as writer:
            yield add
            if held.num_rows or not num_rows:
                writer.write_table(held.combine_chunks())
    io.describe(path, schema, num_rows, provenance)


def write(path: Path, parts: Iterable[pa.Table], schema: pa.Schema, **provenance: Any) -> None:
    """Write a table that comes in parts; see `writing`."""
    with writing(path, schema, **provenance) as add:
        for part in parts:
            add(part)


def read(path: Path, schema: pa.Schema, bounds: Iterable[str | None]) -> Iterator[pa.Table]:
    """Yield the rows of a table in blocks, checked as by `io.read`.

    Args:
        path: As for `io.read`.
        schema: As for `io.read`.
        bounds: Of each block the last value that it may have in the first column of the key, rising; None: whatever is
            left.

    Raises:
        InputError: As `io.read`.
    """
    name = io.key(schema)[0]
    groups, held = row_groups(path, schema), schema.empty_table()
    for bound in bounds:
        block = [schema.empty_table()]
        while held is not None:
            inside = held.num_rows if bound is None else pc.sum(pc.less_equal(held[name], bound)).as_py() or 0
            block.append(held.slice(0, inside))
            held = held.slice(inside)
            if held.num_rows:
                break
            held = next(groups, None)
        yield pa.concat_tables(block)


def row_groups(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the table at `path` by row group, checked as by `io.read`, which says what it raises."""
    last = schema.empty_table()
    with io.opened(path, schema) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            io.check(path, pa.concat_tables([last, table]), schema)
            last = _last(last, table)
            yield table


def _last(before: pa.Table, table: pa.Table) -> pa.Table:
    """Return the last row of `table`, or `before` if it has none."""
    return table.slice(table.num_rows - 1) if table.num_rows else before
