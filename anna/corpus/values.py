"""One row of a source in our columns: its values mapped, of the type that each column implies, and cleaned."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anna.corpus.clean import UnusableError, clean_text, is_missing, plain
from anna.corpus.formats import Raw
from anna.corpus.sources import Reading, fill, is_one_column, is_template, source_columns
from anna.errors import InputError

Value = str | float | tuple[str, ...] | tuple[float, ...]

_TEXT_LISTS = ("docs", "negatives", "unjudged", "summaries")
_OPTIONAL = ("negatives", "unjudged")
"""Lists that a data set may have for some of its queries alone; one text in place of a list is a list of one."""

_CLASSES = ("label", "relevance")

_WHOLE = re.compile(r"^(-?\d+)\.0+$")
"""A whole number as pandas writes it where a column has nulls (1.0); as a class it has no decimal point (1)."""

_WRITTEN = re.compile(r"\[\s*(['\"].*|[^\[\]]*)\]", re.DOTALL)
"""A list written as text; "[Chorus] La, la [twice]" is none."""

SHOWN_CHARACTERS = 60
"""How much of a value an error shows."""


@dataclass(frozen=True)
class Row:
    """One row of a source."""

    place: str
    """Which source, and which of its rows, counted from 1."""
    values: dict[str, Value]
    """By our column."""

    def text(self, name: str) -> str:
        """Return a column that holds one text or class name."""
        return str(self.values[name])

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a column of texts, one or a list; none where the source has no such column."""
        value = self.values.get(name, ())
        return tuple(str(item) for item in value) if isinstance(value, tuple) else (str(value),)

    @property
    def docs(self) -> tuple[str, ...]:
        """Its documents, whether the source has one in a row or a list."""
        return (*self.texts("doc"), *self.texts("docs"))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a column of numbers, one or a list."""
        value = self.values[name]
        return tuple(float(item) for item in value) if isinstance(value, tuple) else (float(value),)

    @property
    def content(self) -> str:
        """The values alone, as one string: what sampling depends on."""
        return json.dumps(self.values, sort_keys=True)


def make_row(reading: Reading, raw: Raw, place: str) -> Row:
    """Return a row of the source in our columns.

    Raises:
        UnusableError: With the fault that it has, and its column: `malformed`, `missing_column`, `not_a_number`, or one
            of `clean_text`.
        InputError: If there is a list where a string belongs, or the reverse.
    """
    if raw is None:
        raise UnusableError("malformed")
    values: dict[str, Value] = {}
    for ours, theirs in reading.columns.items():
        try:
            value = _value(ours, theirs, raw, place)
        except UnusableError as error:
            raise UnusableError(error.reason, error.column or theirs, error.value) from None
        values[ours] = class_name(str(value)) if ours in _CLASSES else value
    return Row(place, values)


def class_name(text: str) -> str:
    """Return the class that a text names: 1.0 is 1."""
    return _WHOLE.sub(r"\1", text)


def _value(ours: str, theirs: str, raw: dict[str, Any], place: str) -> Value:
    """Return the value of our column `ours`, of the type that its name implies."""
    names = source_columns(theirs)
    parts = [raw.get(name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if is_missing(part):
            if name == theirs and ours in _OPTIONAL:
                return ()
            raise UnusableError("missing_column", name)
    if is_template(theirs):
        if not is_one_column(theirs) or ours in _CLASSES:  # a number may be part of a text, and is no whole one
            parts = [plain(part) if _is_number(part) else part for part in parts]
        texts = {name: _string(part, ours, name, place) for name, part in zip(names, parts, strict=True)}
        return clean_text(fill(theirs, texts))
    part = parts[0]
    if ours in _TEXT_LISTS:
        return tuple(clean_text(_string(item, ours, theirs, place)) for item in _list(part, ours, theirs, place))
    if ours == "relevances":
        return tuple(_number(item) for item in _list(part, ours, theirs, place))
    if ours == "score":
        return _number(part)
    is_class = ours in _CLASSES and isinstance(part, bool | int | float)
    return clean_text(plain(part) if is_class else _string(part, ours, theirs, place))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _string(value: Any, ours: str, theirs: str, place: str) -> str:
    if isinstance(value, str):
        return value
    has_plural = isinstance(value, list) and f"{ours}s" in _TEXT_LISTS
    remedy = f"map the column to {ours}s, if every row has a list" if has_plural else "correct the row"
    raise InputError(f"{place}, column {theirs!r}: got {_show(value)}, expected a string for {ours}; {remedy}")


def _list(value: Any, ours: str, theirs: str, place: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        if any(is_missing(item) for item in value):
            raise UnusableError("missing_column")
        return value
    is_written = isinstance(value, str) and _WRITTEN.fullmatch(value.strip()) is not None
    if ours in _OPTIONAL and isinstance(value, str) and not is_written:
        return [value] if value.strip() else []  # a CSV has no other way to say none
    if is_written:
        remedy = "this is a list written as text; write the source as jsonl or parquet, which have lists"
    elif ours == "docs":
        remedy = "write it as a list in every row, or map the column to doc if no row has one"
    else:
        remedy = f"write it as a list, such as {json.dumps([str(value)[:SHOWN_CHARACTERS]])}"
    raise InputError(f"{place}, column {theirs!r}: got {_show(value)}, expected a list for {ours}; {remedy}")


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # a whole number of hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        raise UnusableError("not_a_number", value=_show(value))
    return number


def _show(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:SHOWN_CHARACTERS]!r}"
