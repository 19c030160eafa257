"""How many rows a score is of, and among how many documents it was searched: a score of few rows may be chance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anna.reporting import style

FEW = 50
"""Scored rows below which a task is named: one row of so few moves its score by 0.02 (ours)."""

COLUMNS = {"scored": "Scored", "docs": "Docs"}
"""What `ingest` counts of a held-out task, and what we call it. It counts documents of searched tasks alone."""

Sizes = Mapping[str, Mapping[str, Any]]
"""Held-out task -> what `COLUMNS` names; nothing where a benchmark of mteb's own is scored."""


def head(sizes: Sizes) -> list[str]:
    """Return the heads of the columns that `cells` fills: none where no size is known."""
    return list(COLUMNS.values()) if sizes else []


def cells(sizes: Sizes, tasks: Iterable[str]) -> list[str]:
    """Return rows and documents of tasks together, a dash where none is known."""
    if not sizes:
        return []
    known = [sizes[task] for task in tasks if task in sizes]
    counted = [[size[name] for size in known if name in size] for name in COLUMNS]
    return [style.count(sum(numbers) if numbers else None) for numbers in counted]


def warning(sizes: Sizes, tasks: Iterable[str]) -> str:
    """Return a sentence that names each of `tasks` with fewer than `FEW` scored rows; empty if there is none."""
    scored = {task: int(sizes[task]["scored"]) for task in tasks if task in sizes}
    few = [f"{task} ({count})" for task, count in scored.items() if count < FEW]
    if not few:
        return ""
    return f"Fewer than {FEW} rows are scored of {_listed(few)}: such a score, and each mean with it, may be chance."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
