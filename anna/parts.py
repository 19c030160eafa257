"""Tables that do not fit in memory: written and read in parts, with the checks and the bytes of `anna.io`."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from anna import io

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield `items`; the next one is made in a thread while the caller uses the current one.

    Arrow and polars let both run.
    """
    rest = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(list, islice(rest, 1))
        while made := coming.result():
            coming = thread.submit(list, islice(rest, 1))
            yield made[0]


def write(path: Path, parts: Iterable[pa.Table], schema: pa.Schema, **provenance: Any) -> None:
    """Write a table that comes in parts; see `io.writing`."""
    with io.writing(path, schema, **provenance) as add:
        for part in parts:
            add(part)


def read(path: Path, schema: pa.Schema, bounds: Iterable[str | None]) -> Iterator[pa.Table]:
    """Yield the rows of a table in blocks, checked as by `io.read`.

    Args:
        path: As for `io.read`.
        schema: As for `io.read`.
        bounds: For each block, the largest value of the key's first column, rising; None: the rest of the table.

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
            last = io.last_row(last, table)
            yield table
