"""Text files of a source, opened in one way."""

import codecs
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from anna.errors import InputError


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Return the file open for reading as UTF-8, unpacked where its name ends in .gz.

    Bytes that are not UTF-8 become lone surrogates (PEP 383).

    Args:
        path: What is opened.
        newline: As `open` takes it.

    Raises:
        InputError: If it is no file, or UTF-16.
        OSError, EOFError, zlib.error: Now or while it is read, if its name ends in .gz and it is no gzip, or cut off.
    """
    if not path.is_file():
        raise InputError(f"{path} is a folder, expected a file; correct the path or the format in params.yaml")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise InputError(f"{path} is UTF-16; make it UTF-8, e.g. by: iconv -f utf-16 -t utf-8")
    return cast(TextIO, opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline))


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the JSON object of each line of a file that is not blank; None where a line is none. See `open_text`."""
    with open_text(path) as file:
        for line in filter(str.strip, file):
            yield json_object(line)


def json_object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or None where it is none."""
    try:
        row = json.loads(line)
    except ValueError:  # not JSON, or a whole number of thousands of digits
        return None
    return row if isinstance(row, dict) else None
