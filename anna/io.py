"""Tables, metrics and folders on disk: checked, atomic, the same bytes for the same content.

Every Parquet file has a JSON sidecar beside it, kept in git, so that a diff shows what changed in the data.
"""

import csv
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anna.errors import InputError

Add = Callable[[pa.Table], None]

ROW_GROUP_SIZE = 65_536
"""Rows per Parquet row group: fixed, so that bytes depend on content alone."""

ROWS_AT_ONCE = 1024
"""Rows of a table that are cast and checked in one piece: Arrow wants their texts to be less than 2 GiB together."""

DAY = 86_400
"""Seconds."""


class SchemaError(InputError):
    """A table that breaks its schema, its key or its order."""


def sidecar(path: Path) -> Path:
    """Return where the JSON description of table `path` lies."""
    return path.with_suffix(".json")


def write(path: Path, table: pa.Table, schema: pa.Schema, **provenance: Any) -> None:
    """Sort `table` by its key, check it and write it with its sidecar; nothing appears if anything fails.

    Args:
        path: Where the Parquet file goes; its sidecar goes beside it.
        table: Columns of `schema`, in any order of columns and rows.
        schema: One of `anna.schemas`.
        provenance: What produced the scores (unit, teacher, revision ...), for the sidecar.

    Raises:
        SchemaError: If columns, types, nulls or key break the schema.
    """
    conform(path, table.slice(0, 0), schema)
    # By polars: Arrow would copy the whole table for it, and a string column of over 2 GiB cannot be one array there.
    rows = pl.DataFrame(table).sort(key(schema))
    with writing(path, schema, **provenance) as add:
        for part in rows.iter_slices(ROWS_AT_ONCE):
            add(part.to_arrow())


@contextmanager
def writing(path: Path, schema: pa.Schema, **provenance: Any) -> Iterator[Add]:
    """Yield a function that adds rows to a table; at the end it is there, and its sidecar, as `write` leaves them.

    Rows must come in the order of the key, within a call and from call to call. However they are divided, the bytes are
    the same.

    Args:
        path: As for `write`.
        schema: As for `write`.
        provenance: As for `write`.

    Raises:
        SchemaError: From the function, as `write`.
    """
    held, last, num_rows = schema.empty_table(), schema.empty_table(), 0

    def add(part: pa.Table) -> None:
        nonlocal held, last, num_rows
        table = conform(path, part, schema)
        check(path, pa.concat_tables([last, table]), schema)
        held, last, num_rows = pa.concat_tables([held, table]), last_row(last, table), num_rows + table.num_rows
        while held.num_rows >= ROW_GROUP_SIZE:
            writer.write_table(held.slice(0, ROW_GROUP_SIZE).combine_chunks())
            held = held.slice(ROW_GROUP_SIZE)

    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=True) as writer:
            yield add
            if held.num_rows or not num_rows:
                writer.write_table(held.combine_chunks())
    describe(path, schema, num_rows, provenance)


def last_row(before: pa.Table, table: pa.Table) -> pa.Table:
    """Return the last row of `table`, or `before` if it has none."""
    return table.slice(table.num_rows - 1) if table.num_rows else before


def read(path: Path, schema: pa.Schema, without: Sequence[str] = ()) -> pa.Table:
    """Return the table at `path`, checked against `schema`.

    Args:
        path: Where it lies.
        schema: What it is.
        without: Columns that are not read, and so not checked, none of the key: a corpus is texts more than all else.

    Raises:
        InputError: If the file is missing or unreadable.
        SchemaError: If its columns, nulls, key or order are not the schema's.
    """
    wanted = pa.schema([field for field in schema if field.name not in without], schema.metadata)
    with opened(path, schema) as file:
        table = file.read(wanted.names)
        check(path, table, wanted)
    return table


def read_rows(path: Path, schema: pa.Schema, name: str, values: Sequence[str]) -> pa.Table:
    """Return the rows of the table at `path` that have one of `values` in column `name`, checked against `schema`.

    Row groups without them are not read, where the table is in the order of that column.

    Raises:
        InputError: As `read`, of what is read.
    """
    with opened(path, schema):
        wanted = pc.field(name).isin(pa.array(values, schema.field(name).type))
        table = pq.read_table(path, filters=wanted, partitioning=None)
        check(path, table, schema)
    return table


@contextmanager
def opened(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Yield the open table at `path`, of the columns of `schema`.

    Raises:
        InputError: If the file is missing or, now or while it is read, unreadable.
        SchemaError: If its columns are not the schema's.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; make it with: dvc repro")
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                got = {f.name: str(f.type) for f in file.schema_arrow}
                want = {f.name: str(f.type) for f in schema}
                raise SchemaError(
                    f"{path} has columns {got}, expected {want}; it was written by other code, run: dvc repro"
                )
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        if is_refusal(error):
            raise
        raise InputError(
            f"{path} is not a readable Parquet file ({error}); DVC may still have it: dvc checkout --force {path}; "
            "if not, delete it and run: dvc repro"
        ) from None


def is_refusal(error: Exception) -> bool:
    """Return whether the system refused to read (memory, permissions, too many open files, a share that is gone).

    What lies on disk may be whole then: it is not to be deleted and made again, which may take hours.
    """
    return isinstance(error, pa.ArrowMemoryError) or getattr(error, "errno", None) is not None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused.

    Raises:
        InputError: If a number is not finite.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise InputError(f"{path}: a metric is NaN or infinite ({error}); nothing written") from None
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write a small table for plots, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read_json(path: Path, remedy: str = "delete it and run: dvc repro") -> dict[str, Any]:
    """Return the JSON object at `path`.

    Args:
        path: A file of the pipeline, or another.
        remedy: What helps if it holds something else.

    Raises:
        InputError: If the file is missing or not a JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; make it with: dvc repro")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, expected a JSON object; {remedy}")
    return value


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, a file or a folder to be, that takes its place only on success.

    It is on disk before it does: what is in memory alone would be an empty file after a power cut. What killed
    processes left of earlier attempts is removed, as `remove_left` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent.glob(f".{path.name}.*.tmp"))
    temporary, old = (path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp") for _ in range(2))
    try:
        yield temporary
        sync(temporary)
        if path.is_dir():  # which no rename replaces
            path.replace(old)
        temporary.replace(path)
        _sync_one(path.parent)
    finally:
        _remove(temporary)
        _remove(old)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on disk."""
    for inner in path.rglob("*") if path.is_dir() else ():
        _sync_one(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_left(paths: Iterable[Path]) -> None:
    """Remove those of temporary files and folders that are a day old: a younger one may be somebody's."""
    for path in paths:
        with suppress(FileNotFoundError):  # another process may do the same
            if time.time() - path.stat().st_mtime > DAY:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def describe(path: Path, schema: pa.Schema, num_rows: int, provenance: Mapping[str, Any]) -> None:
    """Write the sidecar of table `path`."""
    fields = [
        {"name": f.name, "type": str(f.type), "nullable": f.nullable, "meaning": f.metadata[b"meaning"].decode()}
        for f in schema
    ]
    write_json(
        sidecar(path),
        {"table": _name(schema), "key": list(key(schema)), "rows": num_rows, **provenance, "fields": fields},
    )


def _name(schema: pa.Schema) -> str:
    return str(schema.metadata[b"name"].decode())


def key(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns of the schema's key, in order."""
    return tuple(schema.metadata[b"key"].decode().split(","))


def conform(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table` with the columns and types of `schema`; `path` is for messages.

    Raises:
        SchemaError: If it cannot be.
    """
    if set(table.column_names) != set(schema.names):
        raise SchemaError(f"{path}: got columns {table.column_names}, expected {schema.names} ({_name(schema)})")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowNotImplementedError, ValueError) as error:
        raise SchemaError(f"{path}: cannot become table {_name(schema)}: {error}") from None


def check(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Refuse a table with nulls where none belong, in lists too, NaN, or keys that repeat or are out of order.

    Raises:
        SchemaError: With the column or row; `path` is for the message.
    """
    for name, column, field in _flat(table, schema):
        if not field.nullable and column.null_count:
            raise SchemaError(f"{path}: column {name!r} has {column.null_count} nulls, expected none")
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(column.drop_null()), min_count=0).as_py():
            raise SchemaError(f"{path}: column {name!r} has NaN or infinite values, expected finite ones")
    keys = table.select(list(key(schema)))
    if keys.num_rows < 2:
        return
    order = _compare_neighbours(keys)
    if not pc.all(order).as_py():
        place = pc.index(order, False).as_py() + 1
        row = keys.slice(place, 1).to_pylist()[0]
        raise SchemaError(f"{path}: row {place} {row} repeats or is out of order in key {list(key(schema))}")


def _flat(table: pa.Table, schema: pa.Schema) -> Iterator[tuple[str, pa.ChunkedArray, pa.Field]]:
    """Yield each column, and what the lists of one hold, with the name of the column."""
    for field in schema:
        yield field.name, table[field.name], field
        if pa.types.is_list(field.type):
            yield field.name, pc.list_flatten(table[field.name]), field.type.value_field


def _compare_neighbours(keys: pa.Table) -> pa.ChunkedArray:
    """Return, for each row but the first, whether it comes strictly after the one before."""
    before, after = keys.slice(0, keys.num_rows - 1), keys.slice(1)
    result = pa.chunked_array([pa.repeat(False, keys.num_rows - 1)])
    for name in reversed(keys.column_names):
        is_equal = pc.equal(before[name], after[name])
        result = pc.or_(pc.less(before[name], after[name]), pc.and_(is_equal, result))
    return result
