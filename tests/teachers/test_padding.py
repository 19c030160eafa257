"""Sizes of batches."""

import pytest

from anna.teachers.padding import padded, whole_batches


@pytest.mark.parametrize(("length", "expected"), [(1, 16), (16, 16), (17, 32), (64, 64)])
def test_rows_are_padded_to_a_multiple(length: int, expected: int) -> None:
    assert padded(length) == expected


@pytest.mark.parametrize(
    ("tokens_per_batch", "expected"),
    [
        (1, [[1, 4, 0, 2], [3, 5, 6, 7], [8]]),
        (127, [[1, 4, 0, 2], [3, 5, 6, 7], [8]]),
        (128, [[1, 4, 0, 2], [3, 5, 6, 7, 8]]),
        (256, [[1, 4, 0, 2, 3, 5, 6, 7], [8]]),
        (10_000, [[1, 4, 0, 2, 3, 5, 6, 7, 8]]),
    ],
)
def test_batches_are_of_whole_fours_within_the_budget(tokens_per_batch: int, expected: list[list[int]]) -> None:
    assert whole_batches([16, 32, 16, 16, 32, 16, 16, 16, 16], tokens_per_batch) == expected


def test_nothing_is_no_batch() -> None:
    assert whole_batches([], 100) == []
