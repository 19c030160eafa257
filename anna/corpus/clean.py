"""What a source's values become, and why one cannot be used."""

import math
import re
from typing import Any

from anna.cleaning import clean

_SURROGATES = re.compile(r"[\ud800-\udfff]")
"""Lone surrogates: they stand for bytes that are not UTF-8 (PEP 383), and for broken JSON escapes."""


class UnusableError(ValueError):
    """A row that cannot be used.

    `reason` is what it is counted under, `column` the source's that is at fault, `value` what stands there, if that
    tells more than the reason does.
    """

    def __init__(self, reason: str, column: str = "", value: str = "") -> None:
        super().__init__(reason)
        self.reason, self.column, self.value = reason, column, value

    @property
    def shown(self) -> str:
        """The reason and, where they are known, column and value."""
        column, value = f" {self.column!r}" if self.column else "", f" ({self.value})" if self.value else ""
        return f"{self.reason}{column}{value}"


def clean_text(text: str) -> str:
    """Return `text` as `clean` makes it.

    Raises:
        UnusableError: `undecodable` if it holds bytes that were not UTF-8, `empty_text` if nothing is left.
    """
    if not text.isascii() and _SURROGATES.search(text):
        raise UnusableError("undecodable")
    cleaned = clean(text)
    if not cleaned:
        raise UnusableError("empty_text")
    return cleaned


def is_missing(value: Any) -> bool:
    """Return whether a source has no value here: null, or the NaN that pandas writes in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain(value: Any) -> str:
    """Return as text a value that rows are selected or classed by, a whole number without a decimal point.

    pandas makes floats of integers where a column has nulls; 1 and 1.0 are one class all the same.
    """
    if is_missing(value):
        return str(None)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
