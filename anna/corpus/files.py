"""Text files of a source, opened in one way."""

import codecs
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from anna.errors import InputError

_NO_TEXT = {
    codecs.BOM_UTF16_LE: "is UTF-16; make it UTF-8, e.g. by: iconv -f utf-16 -t utf-8",
    codecs.BOM_UTF16_BE: "is UTF-16; make it UTF-8, e.g. by: iconv -f utf-16 -t utf-8",
    b"\x1f\x8b": "holds what gzip has packed; let its name end in .gz, as often as it is packed",
    b"BZh91AY": "is packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "is packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it, or pack it by gzip",
    b"PK\x03\x04": "is a zip archive, or a spreadsheet; unpack it, or write it as csv",
    b"PAR1\x15": "is Parquet; set its format to parquet",
}
"""By how a file begins: what it is in place of text, and what helps."""

_NO_JSON = (ValueError, RecursionError)
"""What json raises; ValueError also for a whole number of thousands of digits, the other for brackets as many deep."""


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Return the file open for reading as UTF-8, unpacked where its name ends in .gz.

    Bytes that are not UTF-8 become lone surrogates (PEP 383).

    Args:
        path: What is opened.
        newline: As `open` takes it.

    Raises:
        InputError: If it is no file, or begins as one of UTF-16, an archive or Parquet does.
        OSError, EOFError, zlib.error: Now or while it is read, if its name ends in .gz and it is no gzip, or cut off.
    """
    if not path.is_file():
        raise InputError(f"{path} is a folder, expected a file; correct the path or the format in params.yaml")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        start = file.read(max(map(len, _NO_TEXT)))
    if found := next((what for magic, what in _NO_TEXT.items() if start.startswith(magic)), None):
        raise InputError(f"{path} {found}")
    return cast(TextIO, opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline))


def load_json(path: Path) -> Any:
    """Return the JSON value in the file `path`; bytes that are not UTF-8 become lone surrogates.

    Raises:
        InputError: As `open_text`, or if it is not JSON.
    """
    try:
        with open_text(path) as file:
            return json.load(file)
    except _NO_JSON as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct the file, or its format") from None


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the JSON object of each line of a file that is not blank; None where a line is none. See `open_text`."""
    with open_text(path) as file:
        for line in filter(str.strip, file):
            yield json_object(line)


def json_object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or None where it is none."""
    try:
        row = json.loads(line)
    except _NO_JSON:
        return None
    return row if isinstance(row, dict) else None
