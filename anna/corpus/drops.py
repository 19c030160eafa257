"""Whatever is read and not kept, counted by reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, Protocol, TypeVar

import pyarrow as pa

from anna import schemas

Part = Literal["train", "held_out"]
Item = TypeVar("Item")

_APART = "keep it apart from what is held out by `where`, `unless` or `minus` in params.yaml, score on fewer rows"
_SHARED = "set a held-out task's hold_out_distractors to false where both search one collection"
_ALIKE = "raise ingest.near_duplicate (null keeps all documents that differ)"

_REMEDIES = {
    "beyond_rows": ("raise its rows",),
    "contaminated": (_APART, _SHARED),
    "near_contaminated": (_APART, _SHARED, _ALIKE),
    "near_duplicate_document": (_ALIKE,),
    "example": ("lower ingest.examples_per_task or name another source under its `examples`",),
}
"""What keeps more of a task, by the reason for which it lost rows."""

EXAMPLE_CHARACTERS = 160
"""How much of the first case of a reason is shown."""


class Drop(Protocol):
    """Counts one case of `reason`; `example` says where it was and how it begins."""

    def __call__(self, reason: str, example: str) -> None:
        """Count."""


def uncounted(reason: str, example: str) -> None:
    """Count nothing: for rows that are read, but are not to become a task's own."""


def keep(
    items: Iterable[Item], reason: Callable[[Item], str | None], example: Callable[[Item], str], drop: Drop
) -> list[Item]:
    """Return the items that have no `reason` to go; `drop` counts the others and shows the `example` of each."""
    kept = []
    for item in items:
        if found := reason(item):
            drop(found, example(item))
        else:
            kept.append(item)
    return kept


def remedies(dropped: Mapping[str, int]) -> list[str]:
    """Return what keeps more of a task, beginning with what helps against the reason that took most."""
    most_first = sorted(dropped, key=lambda reason: -dropped[reason])
    return list(dict.fromkeys(step for reason in most_first for step in _REMEDIES.get(reason, ())))


def remedy(dropped: Mapping[str, int], *others: str) -> str:
    """Return, as the end of a sentence, what helps a task that too little is left of: `remedies`, and `others`."""
    more = () if "beyond_rows" in dropped else ("add rows to its source",)
    return f"{', '.join((*remedies(dropped), *others, *more))} or correct its columns"


class DropLog:
    """Counts of what was not kept, by task, part and reason, with the first case of each."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, Part, str]] = Counter()
        self._examples: dict[tuple[str, Part, str], str] = {}

    def of(self, task: str, part: Part) -> Drop:
        """Return the function that counts for one part of one task."""
        return partial(self._add, task, part)

    def _add(self, task: str, part: Part, reason: str, example: str) -> None:
        key = (task, part, reason)
        self._rows[key] += 1
        if key not in self._examples:
            shown = example.encode("utf-8", "backslashreplace").decode("utf-8")
            self._examples[key] = shown[:EXAMPLE_CHARACTERS]

    def by_reason(self, task: str, part: Part) -> dict[str, int]:
        """Return counts of one part of one task, by reason in alphabetical order."""
        return {key[2]: rows for key, rows in sorted(self._rows.items()) if key[:2] == (task, part)}

    def table(self) -> pa.Table:
        """Return table INGEST_DROPS."""
        names = schemas.INGEST_DROPS.names
        rows = [dict(zip(names, (*key, rows, self._examples[key]), strict=True)) for key, rows in self._rows.items()]
        return pa.Table.from_pylist(rows, schema=schemas.INGEST_DROPS)
