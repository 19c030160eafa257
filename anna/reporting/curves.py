"""The CSV files of a run: the training curve, the validations, and how any of them is read."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna import schemas
from anna.errors import InputError

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """The training curve, one entry per step."""

    values: Mapping[str, Floats]
    """By name, all of `schemas.CURVE` but the task."""
    tasks: Sequence[str]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.tasks)


class Validation(NamedTuple):
    """nDCG@10 on validation queries while the student was trained, one entry per validation."""

    queries: Floats
    """Training queries seen until then."""
    ndcg: Floats


def read_curve(path: Path) -> Curve:
    """Return the training curve.

    Raises:
        InputError: If the file is missing or not a training curve.
    """
    rows = list(read_rows(path, schemas.CURVE))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schemas.CURVE)
    values = {
        name: np.array([number(path, value) for value in column])
        for name, column in zip(schemas.CURVE[:-1], columns, strict=False)
    }
    return Curve(values, list(columns[-1]))


def read_validation(path: Path) -> Validation:
    """Return the validations, none where the run had none.

    Raises:
        InputError: If the file is missing or not a table of validations.
    """
    rows = [[number(path, value) for value in row] for row in read_rows(path, schemas.VALIDATION)]
    _, queries, ndcg = np.array(rows).reshape(-1, 3).T
    return Validation(queries, ndcg)


def read_rows(path: Path, header: Sequence[str]) -> Iterable[list[str]]:
    """Return the rows below `header`.

    Raises:
        InputError: If the file is missing, or has other columns or incomplete rows.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; make it with: dvc repro")
    with path.open(encoding="utf-8", newline="") as file:
        found, *rows = list(csv.reader(file)) or [[]]
    if tuple(found) != tuple(header):
        raise InputError(f"{path} has columns {found}, expected {list(header)}; run: dvc repro")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{path}: line {number} has {len(row)} values, expected {len(header)}; run: dvc repro")
    return rows


def number(path: Path, value: str) -> float:
    """Return `value` of the file at `path` as a number; anything else is an InputError."""
    try:
        return float(value)
    except ValueError:
        raise InputError(f"{path}: {value!r} is not a number; delete the file and run: dvc repro") from None
