"""The rows of a source: read, selected, checked as a whole and sampled, with every other row counted."""

import hashlib
import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anna.corpus import formats
from anna.corpus.clean import UnusableError, is_missing, plain
from anna.corpus.drops import Drop, uncounted
from anna.corpus.sources import HeldOutSource, Reading, TrainSource
from anna.corpus.values import SHOWN_CHARACTERS, Row, make_row
from anna.errors import InputError
from anna.folding import normalise
from anna.origins import describe
from anna.seeding import derive_seed

_log = logging.getLogger(__name__)

_SHOWN = 5
"""Values of a column that an error shows."""

_SHOWN_COLUMNS = 30
"""Columns of a source that an error shows: a JSON object of all rows by number looks like a row with as many."""


class _Selection(NamedTuple):
    """Which rows of a source are meant: by column, the values asked for, as they compare."""

    where: dict[str, frozenset[str]]
    unless: dict[str, frozenset[str]]
    require: tuple[str, ...]


def load_rows(
    reading: Reading, drop: Drop, *, task: str, max_faulty_share: float, is_strict: bool = True
) -> Iterator[Row]:
    """Yield all usable rows of a source, one at a time; the source as a whole is checked after the last.

    Args:
        reading: The source; its `rows` is not applied.
        drop: Counts the rows not yielded: `where`, `unless`, `require` and `minus` are choices; `malformed`,
            `missing_column`, `undecodable`, `empty_text` and `not_a_number` are faults. `absent_document` is a
            judgement, and no row.
        task: What the rows are for; errors name it, as one file or data set may be the source of several.
        max_faulty_share: Share of the chosen rows that may have a fault, in [0, 1].
        is_strict: Whether a value of `unless` that no row has is refused; False if `unless` was declared for another
            source.

    Raises:
        InputError: If the source cannot be read, lacks a column, has no row with a value that `where` or `unless`
            names, has a list where a string belongs or the reverse, has too many faulty rows, or has no row left.
    """
    try:
        yield from _load(reading, drop, max_faulty_share, is_strict)
    except InputError as error:
        raise InputError(f"task {task!r}: {error}") from None


def _load(reading: Reading, drop: Drop, max_faulty_share: float, is_strict: bool = True) -> Iterator[Row]:
    name = describe(reading.origin)
    number = usable = 0
    faults, first = Counter[str](), dict[str, tuple[str, int]]()
    seen, nested = set[str](), set[str]()
    values: dict[str, dict[str, None]] = {}
    selection = _Selection(_as_text(reading.where), _as_text(reading.unless), reading.require)
    unwanted = [_minus(other, max_faulty_share) for other in reading.minus]
    for number, raw in enumerate(formats.read(reading, drop), start=1):
        place = f"{name} row {number}"
        seen.update(raw or ())
        nested.update(column for column, value in (raw or {}).items() if isinstance(value, dict))
        _note_values(selection, raw, values)
        reason = _not_chosen(selection, raw)
        if reason:
            drop(reason, f"{place}: {raw}")
            continue
        try:
            row = make_row(reading, raw, place)
        except UnusableError as error:
            faults[error.reason] += 1
            first.setdefault(error.reason, (error.shown, number))
            # What is missing does not stand in the row; any other fault does.
            shown = f"{error.shown}: {raw}" if error.reason == "missing_column" else raw
            drop(error.reason, f"{place}: {shown}")
            continue
        if any(_normal_key(row, columns) in keys for columns, keys in unwanted):
            drop("minus", f"{place}: {raw}")
            continue
        usable += 1
        yield row
    _log.info("%s: %d rows read, %d usable, %d faulty", name, number, usable, faults.total())
    if "undecodable" in faults:
        _warn_of_encoding(name, faults["undecodable"], first["undecodable"][1])
    _check_columns(reading, seen, nested)
    _check_values(reading, values, is_strict)
    if not number:
        raise InputError(f"{name} has no rows; correct the path, or the file")
    _check(reading, usable, faults.total(), first, max_faulty_share)


def sample(rows: Iterable[Row], size: int | None, drop: Drop, *, seed: int) -> list[Row]:
    """Return `size` different rows, those whose content hashes lowest; all if `size` is None.

    Whether a row ranks before another depends on seed and content alone, not on the order of the rows or on what other
    rows there are. Repeated rows are counted as `duplicate_row`, those left over as `beyond_rows`. Of rows that are not
    chosen, memory holds no more than a digest.
    """
    seen: set[bytes] = set()
    ranked = _ranked(rows, seen, drop, seed)
    if size is None:
        return [row for *_, row in sorted(ranked)]
    lowest = [row for *_, row in heapq.nsmallest(size + 1, ranked)]
    example = "".join(f"{row.place}: {row.content}" for row in lowest[size:])
    for _ in range(len(seen) - size):
        drop("beyond_rows", example)
    return lowest[:size]


def _ranked(rows: Iterable[Row], seen: set[bytes], drop: Drop, seed: int) -> Iterator[tuple[int, bytes, Row]]:
    """Yield each different row after what it is ranked by, and add the digest of its content to `seen`."""
    for row in rows:
        content = row.content
        digest = hashlib.blake2b(content.encode(), digest_size=16).digest()
        if digest in seen:
            drop("duplicate_row", f"{row.place}: {content}")
            continue
        seen.add(digest)
        yield derive_seed(seed, content), digest, row


def load_distractors(
    source: TrainSource | HeldOutSource, drop: Drop, *, max_faulty_share: float, seed: int
) -> list[str]:
    """Return the documents of a source's distractors, drawn by a seed; see `load_rows` for errors.

    A row whose list is empty holds none; `drop` counts it as `no_document`.
    """
    docs: list[str] = []
    for number, reading in enumerate(source.distractors):
        rows = load_rows(reading, drop, task=source.task, max_faulty_share=max_faulty_share)
        for row in sample(rows, reading.rows, drop, seed=derive_seed(seed, "distractors", source.task, number)):
            if not row.docs:
                drop("no_document", row.place)
            docs.extend(row.docs)
    return docs


def _as_text(rule: Mapping[str, Iterable[Any]]) -> dict[str, frozenset[str]]:
    return {column: frozenset().union(*map(_spellings, wanted)) for column, wanted in rule.items()}


def _spellings(wanted: Any) -> frozenset[str]:
    """Return how a source may write a value that is asked for: in text, a whole number with a decimal point, too."""
    is_whole = isinstance(wanted, int | float) and not isinstance(wanted, bool) and float(wanted).is_integer()
    return frozenset({plain(wanted), *([f"{wanted:.1f}"] if is_whole else ())})


def _note_values(selection: _Selection, raw: formats.Raw, values: dict[str, dict[str, None]]) -> None:
    """Note, for each column that rows are selected by, the first few values, and those asked for that occur."""
    if raw is None:
        return
    for column, wanted in (*selection.where.items(), *selection.unless.items()):
        got, noted = plain(raw.get(column)), values.setdefault(column, {})
        if len(noted) < _SHOWN or got in wanted:
            noted[got] = None


def _not_chosen(selection: _Selection, raw: formats.Raw) -> str | None:
    """Return the rule of selection that leaves the row out, or None."""
    if raw is None:
        return None
    if any(plain(raw.get(column)) not in wanted for column, wanted in selection.where.items()):
        return "where"
    if any(plain(raw.get(column)) in wanted for column, wanted in selection.unless.items()):
        return "unless"
    if any(_is_empty(raw.get(column)) for column in selection.require):
        return "require"
    return None


def _is_empty(value: Any) -> bool:
    return is_missing(value) or value == [] or (isinstance(value, str) and not value.strip())


def _minus(reading: Reading, max_faulty_share: float) -> tuple[tuple[str, ...], set[tuple[str, ...]]]:
    """Return the columns by which rows to leave out are known, and the values of those rows in them."""
    columns = tuple(sorted(reading.columns))
    rows = _load(reading, uncounted, max_faulty_share)
    return columns, {_normal_key(row, columns) for row in rows}


def _normal_key(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(normalise(text) for column in columns for text in row.texts(column))


def _check_columns(reading: Reading, seen: set[str], nested: set[str]) -> None:
    """Refuse a column that no row has; `nested` are those that hold objects."""
    name = describe(reading.origin)
    for column in sorted(reading.named):
        if seen and column not in seen:
            is_field = column.partition(".")[0] in nested
            hint = (
                "; nested fields cannot be named: flatten the source once, e.g. by polars' unnest" if is_field else ""
            )
            raise InputError(
                f"{name}: no row has a column {column!r}, only {_some(seen)}; correct it in params.yaml{hint}"
            )


def _some(columns: set[str]) -> str:
    """Return the names of columns, or of the first of many and how many more there are."""
    names = sorted(columns)
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return f"{names[:_SHOWN_COLUMNS]}{more}"


def _check_values(reading: Reading, values: dict[str, dict[str, None]], is_strict: bool) -> None:
    """Refuse a value of `where` or `unless` that no row has in its column."""
    name = describe(reading.origin)
    for rule, wanted in (("where", reading.where), ("unless", reading.unless if is_strict else {})):
        for column, noted in values.items():
            absent = [value for value in wanted.get(column, ()) if _spellings(value).isdisjoint(noted)]
            if absent:
                is_bool = any(isinstance(value, bool) for value in absent)
                hint = "; YAML reads a bare true or false as a boolean: quote what is text" if is_bool else ""
                first = [text[:SHOWN_CHARACTERS] for text in noted][:_SHOWN]
                raise InputError(
                    f"{name}: no row has {' or '.join(map(repr, absent))} in column {column!r}, whose first values are "
                    f"{first}; correct {rule}{hint}"
                )


def _warn_of_encoding(name: str, count: int, first: int) -> None:
    """Warn of rows left out for their encoding: they are those with accents, and no random sample."""
    _log.warning(
        "%s: %d rows are not UTF-8 and are left out, the first of them row %s; convert the file, e.g. by: "
        "iconv -f cp1252 -t utf-8",
        name,
        count,
        first,
    )


def _check(
    reading: Reading, usable: int, faulty: int, first: dict[str, tuple[str, int]], max_faulty_share: float
) -> None:
    """Refuse a source with too many faults, or no row left; `first` shows and numbers the first row of each fault."""
    name = describe(reading.origin)
    if faulty > max_faulty_share * (usable + faulty):
        reason, (shown, number) = next(iter(first.items()))
        raise InputError(
            f"{name}: {faulty} of {usable + faulty} rows are faulty, more than max_faulty_share {max_faulty_share}; "
            f"the first is {shown} at {name} row {number}. {_remedy(reading, reason, faulty > usable)}"
        )
    if not usable:
        raise InputError(
            f"{name}: no row is left; correct the path, or where, unless, require and minus in params.yaml"
        )


def _remedy(reading: Reading, reason: str, are_most: bool) -> str:
    """Return what is likely to help, by the reason of the first fault and whether most rows are faulty."""
    if reason == "malformed" and are_most:
        return f"Most rows are not of format {reading.format!r}: correct the format in params.yaml, or the file"
    if reason == "undecodable":
        return "It is not UTF-8: convert the file, e.g. by: iconv -f cp1252 -t utf-8"
    if reason == "not_a_number":
        return "Map a column of numbers, with a decimal point, correct the source or raise ingest.max_faulty_share"
    if reason in ("missing_column", "empty_text"):
        return "Leave such rows out by `require`, correct the source or raise ingest.max_faulty_share"
    return "Correct the source or raise ingest.max_faulty_share"
