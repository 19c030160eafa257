"""Arithmetic on flat arrays that hold the candidates of one query after another, without a loop over queries.

Legend: C candidates of all queries together, Q queries. `starts_Q` is the first row of each query, rising from 0; no
query is empty.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

Scalar = TypeVar("Scalar", bound=np.generic)


def find_starts(keys_C: NDArray[np.generic]) -> Int:
    """Return where each run of equal keys begins, (Q,)."""
    if not len(keys_C):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], keys_C[1:] != keys_C[:-1]])).astype(np.int64)


def count(starts_Q: Int, num_rows: int) -> Int:
    """Return the number of candidates of each query, (Q,)."""
    return np.diff(starts_Q, append=num_rows)


def spread(values_Q: NDArray[Scalar], starts_Q: Int, num_rows: int) -> NDArray[Scalar]:
    """Repeat each query's value for each of its candidates, (C,)."""
    return np.repeat(values_Q, count(starts_Q, num_rows))


def total(values_C: NDArray[np.generic], starts_Q: Int) -> Float:
    """Return the sum of each query's values, (Q,), in float64."""
    return np.add.reduceat(values_C.astype(np.float64), starts_Q) if len(starts_Q) else np.zeros(0)


def lowest(values_C: Float, starts_Q: Int) -> Float:
    """Return the smallest value of each query, (Q,)."""
    return np.minimum.reduceat(values_C, starts_Q) if len(starts_Q) else np.zeros(0)


def highest(values_C: Float, starts_Q: Int) -> Float:
    """Return the largest value of each query, (Q,)."""
    return np.maximum.reduceat(values_C, starts_Q) if len(starts_Q) else np.zeros(0)


def number_within(is_counted_C: Bool, starts_Q: Int) -> Int:
    """Return how many counted candidates of the same query there are up to and including each row, (C,)."""
    running_C = np.cumsum(is_counted_C, dtype=np.int64)
    before_Q = running_C[starts_Q] - is_counted_C[starts_Q]
    return running_C - np.repeat(before_Q, count(starts_Q, len(is_counted_C)))


def quantile(values_C: Float, starts_Q: Int, share: float) -> Float:
    """Return a quantile of each query's values, (Q,), linear between neighbours as `numpy.quantile`.

    Args:
        values_C: Values of each query's candidates, which fall from row to row.
        starts_Q: First row of each query.
        share: Which quantile, in [0, 1]; 0 is the smallest value.
    """
    counts_Q = count(starts_Q, len(values_C))
    place_Q = share * (counts_Q - 1)
    below_Q = np.floor(place_Q).astype(np.int64)
    above_Q = np.minimum(below_Q + 1, counts_Q - 1)
    last_Q = starts_Q + counts_Q - 1
    low_Q, high_Q = values_C[last_Q - below_Q], values_C[last_Q - above_Q]
    return np.asarray(low_Q + (high_Q - low_Q) * (place_Q - below_Q))
