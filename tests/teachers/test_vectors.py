"""Vectors on disk are those that were given, in whatever order and blocks."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from anna.errors import InputError
from anna.shards import Values
from anna.teachers.vectors import VectorFile

MATRIX = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def write(folder: Path, matrix: Values = MATRIX, step: int = 7) -> VectorFile:
    order = np.random.default_rng(1).permutation(len(matrix))
    places = (order[start : start + step] for start in range(0, len(matrix), step))
    return VectorFile(len(matrix), ((part, matrix[part]) for part in places), folder)


@pytest.mark.parametrize("num_bytes", [1, 16 * 7, 2**20])
def test_blocks_are_the_matrix(tmp_path: Path, num_bytes: int) -> None:
    vectors = write(tmp_path / "work")
    blocks = list(vectors.blocks(num_bytes))
    np.testing.assert_array_equal(np.concatenate(blocks), MATRIX)
    assert max(block.nbytes for block in blocks) <= max(num_bytes, 16)
    assert (vectors.shape, len(vectors)) == ((50, 4), 50)


def test_rows_are_taken_in_the_shape_asked_for(tmp_path: Path) -> None:
    rows = np.array([[3, 49, 3], [0, 7, 21]])
    np.testing.assert_array_equal(write(tmp_path).take(rows), MATRIX[rows])


def test_reading_in_between_does_not_disturb_a_pass(tmp_path: Path) -> None:
    vectors = write(tmp_path)
    seen = []
    for block in vectors.blocks(16 * 20):
        seen.append(block)
        vectors.take(np.array([0]))
        next(vectors.blocks(16))
    np.testing.assert_array_equal(np.concatenate(seen), MATRIX)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, start: int, num_bytes: int) -> None:
        assert (start, num_bytes) == (0, 50 * 4 * 4)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(InputError, match=rf"{tmp_path} has no room for 7.45e-07 GiB of vectors, .*; free so much"):
        write(tmp_path)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(tmp_path.iterdir()) == []
