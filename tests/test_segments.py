"""Each function against a loop over queries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anna import segments

Rows = list[list[float]]
NUMBERS = st.floats(-1e3, 1e3, width=32)
QUERIES = st.lists(st.lists(NUMBERS, min_size=1, max_size=7), min_size=1, max_size=5)


def flat(rows: Rows) -> tuple[segments.Float, segments.Int]:
    keys = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return np.concatenate([np.array(row, dtype=np.float64) for row in rows]), segments.find_starts(keys)


@given(QUERIES, st.floats(0, 1))
def test_equal_to_a_loop(rows: Rows, share: float) -> None:
    values, starts = flat(rows)
    assert segments.count(starts, len(values)).tolist() == [len(row) for row in rows]
    assert segments.lowest(values, starts).tolist() == [min(row) for row in rows]
    assert segments.highest(values, starts).tolist() == [max(row) for row in rows]
    np.testing.assert_allclose(segments.total(values, starts), [sum(row) for row in rows], atol=1e-9)
    falling, _ = flat([sorted(row, reverse=True) for row in rows])
    np.testing.assert_allclose(
        segments.quantile(falling, starts, share), [np.quantile(row, share) for row in rows], rtol=1e-12, atol=1e-12
    )


@given(QUERIES)
def test_number_within_counts_each_query_anew(rows: Rows) -> None:
    values, starts = flat(rows)
    expected = [sum(value > 0 for value in row[: place + 1]) for row in rows for place in range(len(row))]
    assert segments.number_within(values > 0, starts).tolist() == expected


def test_starts_of_nothing() -> None:
    assert segments.find_starts(np.zeros(0)).tolist() == []
    assert segments.find_starts(np.array([3, 3, 1, 1, 1, 2])).tolist() == [0, 2, 5]
