"""Fusion and soft labels against a loop over queries, and at their limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna import fusion, segments

Rows = list[list[float]]
SCORES = st.one_of(st.floats(-50, 50, width=32), st.sampled_from([0.0, 0.1, -0.1, 1.0]))
QUERIES = st.lists(st.lists(SCORES, min_size=1, max_size=8), min_size=1, max_size=4)


def flat(rows: Rows) -> tuple[segments.Float, segments.Int]:
    keys = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return np.concatenate([np.array(row, dtype=np.float64) for row in rows]), segments.find_starts(keys)


def z_scores(row: list[float]) -> list[float]:
    if max(row) == min(row):
        return [0.0] * len(row)
    mean = math.fsum(row) / len(row)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / len(row))
    return [(value - mean) / deviation for value in row]


@given(QUERIES)
def test_standardise_equals_a_loop(rows: Rows) -> None:
    expected = [value for row in rows for value in z_scores(row)]
    np.testing.assert_allclose(fusion.standardise_scores(*flat(rows)), expected, rtol=1e-6, atol=1e-6)


def test_constant_scores_give_zeros_although_their_mean_is_rounded() -> None:
    scores, starts = flat([[0.1, 0.1, 0.1], [7.0], [-1.0, 1.0]])
    assert fusion.standardise_scores(scores, starts).tolist() == [0, 0, 0, 0, -1, 1]


def test_fused_score_by_hand() -> None:
    # Query 1: z of (3, 1) is (1, -1); z of (0.2, 0.8) is (-1, 1). Query 2: one candidate, no spread.
    first, starts = flat([[3, 1], [5]])
    second, _ = flat([[0.2, 0.8], [0.9]])
    np.testing.assert_allclose(fusion.fuse_scores([first, second], [0.5, 1.0], starts), [-0.5, 0.5, 0.0])


def test_missing_scores_take_the_lowest_of_their_query() -> None:
    scores, starts = flat([[3, math.nan, 1], [math.nan, math.nan], [math.nan, -4]])
    assert fusion.fill_missing(scores, starts).tolist() == [3, 1, 1, 0, 0, -4, -4]


def test_what_bm25_had_room_to_list_shares_no_word() -> None:
    scores, starts = flat([[3, math.nan], [3, 1, math.nan], [math.nan, math.nan]])
    filled = fusion.fill_unmatched(scores, starts, depth=2)
    np.testing.assert_array_equal(filled, [3, 0, 3, 1, math.nan, 0, 0])


def test_a_teacher_without_scores_for_a_query_has_no_say() -> None:
    scores, starts = flat([[3, 1, 2]])
    silent = np.full(3, math.nan)
    np.testing.assert_array_equal(
        fusion.fuse_scores([scores, silent], [1.0, 5.0], starts), fusion.fuse_scores([scores], [1.0], starts)
    )


def test_signals_and_weights_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        fusion.fuse_scores([np.zeros(2)], [1.0, 2.0], np.array([0]))


@given(QUERIES, st.floats(0.01, 100))
def test_soft_labels_equal_a_loop_and_sum_to_one(rows: Rows, temperature: float) -> None:
    scores, starts = flat(rows)
    soft = fusion.soften(scores, temperature, starts)
    expected = []
    for row in rows:
        weights = [math.exp((value - max(row)) / temperature) for value in row]
        expected += [weight / sum(weights) for weight in weights]
    np.testing.assert_allclose(soft, expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(segments.total(soft, starts), 1.0)


@given(QUERIES, st.floats(-1000, 1000))
def test_shift_of_a_teacher_changes_nothing(rows: Rows, shift: float) -> None:
    rows = [[round(value, 2) for value in row] for row in rows]
    scores, starts = flat(rows)
    is_flat = segments.highest(scores, starts) == segments.lowest(scores, starts)
    moved = fusion.fuse_scores([scores + shift], [1.0], starts)[~segments.spread(is_flat, starts, len(scores))]
    still = fusion.fuse_scores([scores], [1.0], starts)[~segments.spread(is_flat, starts, len(scores))]
    np.testing.assert_allclose(moved, still, atol=1e-6)


def test_temperature_limits() -> None:
    scores, starts = flat([[1, 0, -1], [2, 2]])
    np.testing.assert_allclose(fusion.soften(scores, 1e-6, starts), [1, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(fusion.soften(scores, 1e9, starts), [1 / 3] * 3 + [0.5] * 2, rtol=1e-6)


def test_entropy_of_one_hot_uniform_and_single() -> None:
    soft, starts = flat([[1, 0, 0], [0.25] * 4, [1]])
    entropy, share = fusion.entropies(soft, starts)
    np.testing.assert_allclose(entropy, [0, math.log(4), 0], atol=1e-12)
    np.testing.assert_allclose(share, [0, 1, math.nan], atol=1e-12)


@given(QUERIES, st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(rows: Rows, random: object) -> None:
    scores, starts = flat(rows)
    turned, _ = flat([row[::-1] for row in rows])
    fused = fusion.fuse_scores([scores], [1.0], starts)
    back = np.concatenate([part[::-1] for part in np.split(fusion.fuse_scores([turned], [1.0], starts), starts[1:])])
    np.testing.assert_allclose(fused, back, rtol=1e-6, atol=1e-6)
