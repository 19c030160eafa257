"""What is known of a source's rows before it is read: how many there are, and how many documents each has."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anna.errors import InputError
from anna.origins import FilesOrigin, HubOrigin
from anna.planning.known_rows import ROWS, Known

LOOKED_AT = 2**26
"""Bytes of a local file whose lines are counted."""

FIRST = 1000
"""Rows of a local file whose lists of documents are counted, at most."""

LISTS = frozenset({"docs", "negatives", "unjudged"})
"""Our columns that hold several documents of a row."""

JUDGED = re.compile(rb'(?m)"query-id": *"([^"]*)"|^([^\t\n{]+)\t')
"""The query's id in a line of BEIR's judgements, an object or a row divided by tabs."""

FILTERS = ("require", "where", "unless", "minus")
"""What params may leave rows out by."""


def known_rows(source: Any) -> Known | None:
    """Return what is known of a source's rows before it is read: of data sets in `ROWS`, and of files that are here."""
    origin = source.origin
    if isinstance(origin, FilesOrigin):
        if source.format == "beir":
            return _of_beir(origin.path, source.split)
        return _of_file(origin.path, source.format, source.columns)
    return ROWS.get((origin.repo, origin.split)) if isinstance(origin, HubOrigin) else None


def rows_of(source: Any, known: Known | None, assumed: int) -> int:
    """Return the rows that are read of a source: what params ask for, at most what there are, else `assumed`.

    Args:
        source: As params have it.
        known: What `known_rows` gives of it.
        assumed: Rows where neither says how many.
    """
    asked: int | None = source.rows
    return min(asked or known.rows, known.rows) if known else asked or assumed


def filters(source: Any, name: str) -> list[str]:
    """Return the filters of rows that a source sets: a plan applies none of them."""
    return [f"`{key}` of {name}" for key in FILTERS if getattr(source, key)]


def _of_file(path: Path, form: str, columns: Mapping[str, str]) -> Known | None:
    """Return about how many rows a file of this machine has: what Parquet says, or its lines, counted at its start."""
    if not path.exists():
        return None
    if form == "parquet":
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return Known(sum(map(_rows_of_parquet, files)), _docs(columns, *_listed_in_parquet(files, columns)))
    if form not in ("jsonl", "csv", "tsv", "lines") or not path.is_file() or path.suffix == ".gz":
        return None
    rows, start = _lines(path)
    return Known(rows, _docs(columns, *_listed_in_lines(start, columns)) if form == "jsonl" else 1.0)


def _lines(path: Path) -> tuple[int, bytes]:
    """Return about how many lines a file has, and its start, in which they are counted."""
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
    return round(start.count(b"\n") * path.stat().st_size / max(1, len(start))), start


def _of_beir(folder: Path, split: str | None) -> Known | None:
    """Return about how many documents a folder in BEIR's form has, or judged queries of a split."""
    names = ["corpus.jsonl"] if split is None else [f"qrels/{split}.tsv", f"qrels/{split}.jsonl"]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    rows, start = _lines(path)
    if split is None:
        return Known(rows, 1.0)
    found = [match[1] or match[2] for match in JUDGED.finditer(start)]
    judged = [query_id for query_id in found if query_id != b"query-id"]  # which a first line may be
    queries = max(1, len(set(judged)))
    return Known(round(rows * queries / max(1, len(found))), len(judged) / queries)


def _rows_of_parquet(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}); correct the path or the file") from None


def _lists(columns: Mapping[str, str]) -> list[str]:
    """Return the source's columns that hold several documents of a row."""
    return [theirs.strip("{}") for ours, theirs in columns.items() if ours in LISTS]


def _docs(columns: Mapping[str, str], rows: int, listed: int) -> float:
    """Return the documents of a row: its one, and as many as its lists have, on average of the first rows."""
    return max(1.0, ("docs" not in columns) + listed / rows) if rows else 1.0


def _listed_in_parquet(files: Iterable[Path], columns: Mapping[str, str]) -> tuple[int, int]:
    """Return how many of the first rows were read, and how many documents their lists have; no text is read."""
    for path in files:
        file = pq.ParquetFile(path)
        wanted = [name for name in _lists(columns) if name in file.schema_arrow.names]
        for batch in file.iter_batches(FIRST, columns=wanted) if wanted else ():
            lists = [column for column in batch.columns if _is_list(column.type)]
            return batch.num_rows, sum(pc.sum(pc.list_value_length(column)).as_py() or 0 for column in lists)
    return 0, 0


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _listed_in_lines(start: bytes, columns: Mapping[str, str]) -> tuple[int, int]:
    """Return the same of a jsonl; lines that cannot be read are left out, as `ingest` does."""
    rows = listed = 0
    for line in start.split(b"\n", FIRST)[:FIRST] if _lists(columns) else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        lists = [row.get(name) for name in _lists(columns)] if isinstance(row, dict) else []
        rows, listed = rows + 1, listed + sum(len(value) for value in lists if isinstance(value, list))
    return rows, listed
