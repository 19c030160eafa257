"""What the tests of ingestion share."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anna.corpus.rows import load_rows
from anna.corpus.sources import Reading
from anna.corpus.values import Row


class Counted(Counter[str]):
    """Counts drops by reason, as `anna.corpus.drops` does, where a test can compare them."""

    def __call__(self, reason: str, example: str) -> None:
        self[reason] += 1


def lines(*rows: Any) -> str:
    """Return the rows as the text of a JSONL file."""
    return "\n".join(json.dumps(row) for row in rows)


@pytest.fixture
def drops() -> Counted:
    return Counted()


@pytest.fixture
def load(tmp_path: Path, drops: Counted) -> Callable[..., list[Row]]:
    """Return a function that writes bytes to a file and returns the rows read from it."""

    def _load(content: bytes | str, *, max_faulty_share: float = 1.0, **options: Any) -> list[Row]:
        path = tmp_path / "source"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options.setdefault("format", "jsonl")
        reading = Reading(origin={"kind": "files", "path": str(path)}, **options)
        return list(load_rows(reading, drops, task="T", max_faulty_share=max_faulty_share))

    return _load
