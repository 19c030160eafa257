"""The files of a store: Parquet with rows (key, value), a checksum on every page, written whole or not at all."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anna import io
from anna.errors import one_line
from anna.fingerprints import KEY_BYTES, Keys

Int = NDArray[np.int64]
Values = NDArray[np.float32]

KEY, VALUE = np.dtype((np.void, KEY_BYTES)), np.dtype("<f4")
"""Numbers in the columns; void is compared byte by byte."""

GROUP_BYTES = 16 * 2**20
"""Size of a row group, and so of what is read at once."""


WIDTH = b"value bytes"
"""Under what a shard says once more how wide its values are; older ones do not."""


class DamagedError(Exception):
    """A shard that cannot be read, or not as it was written."""

    def __init__(self, path: Path, reason: object) -> None:
        """Store which shard, and what is wrong with it."""
        super().__init__(f"{path} is damaged ({one_line(reason)})")
        self.path = path


def write(path: Path, keys: Keys, values: Values) -> None:
    """Write rows (key, value) as a shard, atomically.

    Args:
        path: Where it goes.
        keys: (N, 16).
        values: (N, D).
    """
    _write(path, [pa.table({"key": _column(keys), "value": _column(values.astype(VALUE))})])


def join(paths: Sequence[Path], path: Path) -> None:
    """Write the rows of several shards of one store as a new one, a row group at a time.

    Raises:
        DamagedError: If one of them is damaged; nothing is written then.
        FileNotFoundError: If one of them is gone.
    """
    _write(path, (table for old in paths for table in _row_groups(old)))


class Wanted(NamedTuple):
    """Keys to look for, in order, so that each shard costs no more than its own keys."""

    keys: NDArray[np.void]
    """(N,), N > 0, 16 bytes each, ascending byte by byte."""
    places: Int
    """(N,), where each stood before."""


def wanted(keys: Keys) -> Wanted:
    """Return keys to look for with `matches`."""
    keys_N = keys.view(KEY).ravel()
    places = np.argsort(keys_N)
    return Wanted(keys_N[places], places)


def matches(path: Path, wanted: Wanted) -> Iterator[tuple[Int, Values]]:
    """Yield which of the wanted keys the shard holds, as their places, and their values, by row group.

    Row groups without any are not read.

    Raises:
        DamagedError: If the shard is damaged.
        FileNotFoundError: If it is gone.
    """
    with _reading(path) as file:
        keys = _rows(file.read(columns=["key"])["key"], KEY).ravel()
        if len(keys) != file.metadata.num_rows:
            raise DamagedError(path, f"{len(keys)} keys of {file.metadata.num_rows}")
        # The first wanted key that is not smaller: the same one, or the shard's is not wanted.
        at = np.searchsorted(wanted.keys, keys).clip(max=len(wanted.keys) - 1)
        places = np.where(wanted.keys[at] == keys, wanted.places[at], -1)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            rows = np.flatnonzero(places[start:stop] >= 0)
            if len(rows):
                values = _rows(file.read_row_group(group, columns=["value"])["value"], VALUE)
                if len(values) != stop - start:
                    raise DamagedError(path, f"{len(values)} values of {stop - start} keys")
                yield places[start:stop][rows], values[rows]
            start = stop


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables as one shard, in row groups of `GROUP_BYTES`, however small the tables are."""
    pending = iter(tables)
    first = next(pending)
    width = first.schema.field("value").type.byte_width
    schema, size = first.schema.with_metadata({WIDTH: b"%d" % width}), max(1, GROUP_BYTES // (KEY_BYTES + width))
    # Neither hashes nor vectors can be compressed.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    with io.atomic(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        held = first
        for table in pending:
            held = pa.concat_tables([held, table])
            while held.num_rows >= size:
                writer.write_table(held.slice(0, size), row_group_size=size)
                held = held.slice(size)
        writer.write_table(held, row_group_size=size)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with _reading(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Yield the open shard; whatever its bytes make Parquet raise becomes a `DamagedError`.

    What the system refuses (permissions, too many open files, a share that is gone) stays what it is: the shard is
    whole, and hours of computing need not be done again.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not _is_ours(file.schema_arrow):
                raise DamagedError(path, f"columns {file.schema_arrow}")
            yield file
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:  # the last two of names and sizes that lie
        if io.is_refusal(error):
            raise
        raise DamagedError(path, error) from None


def _is_ours(schema: pa.Schema) -> bool:
    """Return whether a shard has the columns that it was written with: no checksum covers what a file says of them."""
    if schema.names != ["key", "value"] or not all(map(pa.types.is_fixed_size_binary, schema.types)):
        return False
    key, value = (kind.byte_width for kind in schema.types)
    return key == KEY_BYTES and (schema.metadata or {}).get(WIDTH) in (None, b"%d" % value)


def _column(rows: NDArray[np.generic]) -> pa.FixedSizeBinaryArray:
    """Return the rows of a matrix as an Arrow array of their bytes."""
    rows = np.ascontiguousarray(rows)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.itemsize * rows.shape[1]), len(rows), [None, pa.py_buffer(rows)]
    )


def _rows(column: pa.ChunkedArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an Arrow column of bytes as the matrix that it was made from."""
    array = pa.concat_arrays(column.chunks)
    flat = np.frombuffer(array.buffers()[1], dtype).reshape(-1, array.type.byte_width // dtype.itemsize)
    return flat[array.offset : array.offset + len(array)]
