"""Rows of every file format, and of the hub, as dictionaries.

Bytes that are not UTF-8 become lone surrogates (PEP 383) here, so that one rule in `anna.corpus.clean` finds them in
any format. A row that cannot be read at all is None.
"""

import csv
import gzip
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anna import origins
from anna.corpus import beir, ontologies
from anna.corpus.drops import Drop
from anna.corpus.files import json_lines, load_json, open_text
from anna.corpus.sources import Format, Reading, repeats
from anna.errors import InputError, one_line
from anna.origins import HubOrigin, describe

Raw = dict[str, Any] | None
"""A source row by the source's own column names; None where it is malformed."""

_SAVED = ("dataset_dict.json", "state.json")
"""A folder that `datasets` saved to disk has one of them, a copy of a repository neither."""

FIELD_CHARACTERS = 2**31 - 1
"""Longest CSV field; the library's own limit is 131,072, and some documents are longer."""

_QUOTED = re.compile(r'"([^"]|"")*"')
"""A field as csv quotes it."""

MOST_QUOTED = 0.05
"""There is a warning if more than this share of the rows of a tsv have such a field."""

_log = logging.getLogger(__name__)

ROWS_AT_ONCE = 1000
"""How many rows of a data set of the hub become Python objects at a time."""


def read(reading: Reading, drop: Drop) -> Iterator[Raw]:
    """Yield the rows of a source in its own order; `drop` counts what is left out of them.

    Raises:
        InputError: If it cannot be fetched, or a file as a whole is not of its format.
    """
    if isinstance(reading.origin, HubOrigin):
        yield from _hub(reading.origin, reading.named)
        return
    path = origins.fetch(reading.origin)
    try:
        if reading.split is None:
            yield from FORMATS[reading.format](path, reading)
        else:
            yield from beir.queries(path, reading.split, drop)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}); correct the file or its name") from None


def _jsonl(path: Path, _: Reading) -> Iterator[Raw]:
    yield from json_lines(path)


def _json(path: Path, _: Reading) -> Iterator[Raw]:
    tree = load_json(path)
    rows = list(tree.values()) if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        raise InputError(f"{path} holds {type(rows).__name__}, expected a list or a mapping of rows; correct the file")
    yield from (row if isinstance(row, dict) else None for row in rows)


def _csv(path: Path, reading: Reading) -> Iterator[Raw]:
    with open_text(path, newline="") as file:
        yield from _separated(path, csv.reader(file, strict=True), reading)


def _tsv(path: Path, reading: Reading) -> Iterator[Raw]:
    """Yield the rows of a tsv, in which a quotation mark is a character like any other."""
    number = quoted = 0
    with open_text(path, newline="") as file:
        for row in _separated(path, csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), reading):
            number += 1
            quoted += any(map(_QUOTED.fullmatch, (row or {}).values()))
            yield row
    if quoted > MOST_QUOTED * number:
        _log.warning(
            "%s: in %d of %d rows a field stands in quotation marks, which tsv takes for text; write the file without "
            "them, or with commas as csv",
            path,
            quoted,
            number,
        )


def _separated(path: Path, rows: Any, reading: Reading) -> Iterator[Raw]:
    csv.field_size_limit(FIELD_CHARACTERS)
    header, is_first = list(reading.header) if reading.header else None, True
    while True:
        line = rows.line_num
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            # A quote that is not closed swallows lines. Where its row ends is unknown, so each line is a faulty row.
            yield from [None] * (rows.line_num - line)
            continue
        if not row:  # a blank line
            continue
        if is_first:
            _check_first(path, row, reading)
            is_first = False
        if header is None:
            header = row
            if repeated := repeats(header):
                raise InputError(f"{path}: its first line names columns {repeated} more than once; rename all but one")
        else:
            yield dict(zip(header, row, strict=False)) if len(row) <= len(header) else None


def _check_first(path: Path, row: list[str], reading: Reading) -> None:
    """Refuse a first line that another mark divides, or that params repeat as `header`."""
    # In a text there may be commas; in the one name of a column that nobody asks for they divide names.
    marks = ";\t|" if reading.header or row[0] in reading.named else ";\t|,"
    is_one_wanted = len(reading.header or ()) == 1  # then the line is a text, which any mark may stand in
    if len(row) == 1 and not is_one_wanted and (other := next((mark for mark in marks if mark in row[0]), None)):
        raise InputError(
            f"{path}: its first line is one column, {row[0][:60]!r}, that {other!r} would divide; csv is read with "
            "commas and tsv with tabs: convert the file, or set its format"
        )
    if row == list(reading.header or ()):
        raise InputError(f"{path}: its first line is the `header` that params.yaml gives it; leave `header` out")


def _parquet(path: Path, reading: Reading) -> Iterator[Raw]:
    """Yield the rows of a file or a folder of them, of columns that are named alone: others may be vectors or images.

    Where one that is named is missing, all are read, so that an error can say which there are.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
        if not files:
            raise InputError(f"{path} is a folder without *.parquet; correct the path or the format in params.yaml")
    for file in files:
        try:
            opened = pq.ParquetFile(file)
            are_there = reading.named <= set(opened.schema_arrow.names)
            for batch in opened.iter_batches(columns=sorted(reading.named) if are_there else None):
                yield from _rows(batch.to_pylist, batch)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file} is not a readable Parquet file ({error}); correct the path or the file") from None


def _rows(read: Callable[[], list[Raw]], table: pa.Table | pa.RecordBatch) -> list[Raw]:
    """Return the rows of a table by `read`, or one value at a time where `read` fails on text that is not UTF-8."""
    try:
        return read()
    except UnicodeDecodeError:
        columns = [map(_value, table[name]) for name in table.schema.names]
        return [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _value(scalar: pa.Scalar) -> Any:
    """Return the value of a scalar, with lone surrogates in place of bytes that are not UTF-8."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.ListScalar):
            return [_value(item) for item in scalar]
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(item) for name, item in scalar.items()}
        if isinstance(scalar, pa.DictionaryScalar):
            return _value(scalar.value)
        return scalar.as_buffer().to_pybytes().decode(errors="surrogateescape")


def _lines(path: Path, reading: Reading) -> Iterator[Raw]:
    pattern = re.compile(reading.pattern or "")
    with open_text(path) as file:
        for line in file:
            if line.strip():
                match = pattern.fullmatch(line.rstrip("\r\n"))
                yield match.groupdict() if match else None


def _folders(path: Path, _: Reading) -> Iterator[Raw]:
    """Yield one row per file: the name of its folder is its label. There is a warning of files below those."""
    files = sorted(file for file in path.glob("[!.]*/[!.]*") if file.is_file())
    if not files:
        raise InputError(f"{path} has no folder with files in it, expected one per label; correct the path")
    if deeper := sorted(file for file in path.glob("[!.]*/[!.]*/**/[!.]*") if file.is_file()):
        _log.warning(
            "%s: %d files lie deeper than in the folder of a label and are not read, among them %s; move them up, or "
            "out of it",
            path,
            len(deeper),
            deeper[0],
        )
    for file in files:
        with open_text(file) as opened:
            yield {"text": opened.read(), "label": file.parent.name}


def _beir(path: Path, _: Reading) -> Iterator[Raw]:
    yield from beir.documents(path)


def _obo(path: Path, reading: Reading) -> Iterator[Raw]:
    with open_text(path) as file:
        terms = ontologies.parse_obo(file)
    yield from ontologies.synonym_pairs(terms) if reading.records == "synonym_pairs" else ontologies.synonyms(terms)


def _stix(path: Path, _: Reading) -> Iterator[Raw]:
    bundle = load_json(path)
    objects = bundle.get("objects") if isinstance(bundle, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{path} has no list `objects`, expected a STIX bundle; correct the path or the format")
    yield from ontologies.procedures(objects)


FORMATS: dict[Format | None, Callable[[Path, Reading], Iterator[Raw]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "lines": _lines,
    "folders": _folders,
    "beir": _beir,
    "obo": _obo,
    "stix": _stix,
}


def _hub(origin: HubOrigin, named: Set[str]) -> Iterator[Raw]:
    """Yield the rows of a data set of the hub, or of the folder that stands in for it on this machine.

    Args:
        origin: The data set.
        named: The columns that are read, if it has all of them; else all that there are, as for `_parquet`.
    """
    import datasets  # heavy; only hub sources need it

    mirror = origins.hub_mirror("datasets", origin.repo)
    place = describe(origin) if mirror is None else str(mirror / (origin.name or ""))
    try:
        if mirror is None:
            data = datasets.load_dataset(origin.repo, origin.name, revision=origin.revision, split=origin.split)
        elif any((Path(place) / name).is_file() for name in _SAVED):
            data = datasets.load_from_disk(place)
        else:
            cache = str(origins.copy_cache(mirror))
            data = datasets.load_dataset(str(mirror), origin.name, split=origin.split, cache_dir=cache)
    except Exception as error:  # the library raises many types; all mean the same to the user
        raise InputError(
            f"data set {place} did not load ({type(error).__name__}: {one_line(error)}); check repo, name, revision, "
            f"split and network, or put a copy of it at ${origins.HUB_DIR_VARIABLE}/datasets/{origin.repo}"
        ) from None
    if isinstance(data, datasets.DatasetDict):
        if origin.split not in data:
            raise InputError(f"data set {place} has no split {origin.split!r}, only {sorted(data)}; correct the split")
        data = data[origin.split]
    if named <= set(data.column_names):
        data = data.select_columns(sorted(named))
    for begin in range(0, len(data), ROWS_AT_ONCE):
        part = data.select(range(begin, min(begin + ROWS_AT_ONCE, len(data))))
        yield from _rows(partial(list, part), part.with_format("arrow")[:])
