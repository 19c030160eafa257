"""Top-k against sorting everything, with ties at the cut and more ties than the search leaves room for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from anna.segments import Int
from anna.teachers import topk
from anna.teachers.topk import Scores


def literal(scores: Scores, k: int) -> tuple[list[list[int]], list[list[float]]]:
    orders = [sorted(range(scores.shape[1]), key=lambda i: (-row[i], i))[:k] for row in scores]
    return orders, [[float(row[i]) for i in order] for row, order in zip(scores, orders, strict=True)]


@given(
    npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from([0, 1, 2, -np.inf])),
    st.integers(1, 8),
)
def test_top_k_equals_sorting(scores: Scores, k: int) -> None:
    index, best = topk.top_k(scores, k)
    assert (index.tolist(), best.tolist()) == literal(scores, k)


def unit(rng: np.random.Generator, rows: int, dims: int = 16) -> Scores:
    vectors = rng.normal(size=(rows, dims))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def brute_force(queries: Scores, docs: Scores, k: int, excluded: Int) -> tuple[list[list[int]], list[list[float]]]:
    scores = np.array([[(q.astype(np.float64) * d).sum() for d in docs] for q in queries], dtype=np.float32)
    for row, doc in enumerate(excluded):
        if doc >= 0:
            scores[row, doc] = -np.inf
    return literal(scores, k)


def nearest(queries: Scores, docs: Scores, k: int, excluded: Int, block: int = 10**9) -> tuple[Int, Scores]:
    """Search a collection block by block."""
    blocks = topk.numbered(docs[start : start + block] for start in range(0, len(docs), block))
    return topk.merge((topk.nearest_of_block(part, queries, k, excluded) for part in blocks), k)


@pytest.mark.parametrize("num_docs", [3, 40, 300])
@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("block", [1000, 37])
def test_nearest_equals_brute_force(num_docs: int, k: int, block: int) -> None:
    rng = np.random.default_rng(0)
    docs, queries = unit(rng, num_docs), unit(rng, 25)
    docs[num_docs // 2 :] = docs[: num_docs - num_docs // 2]  # every document twice: ties everywhere
    excluded = rng.integers(-1, num_docs, size=25)
    index, scores = nearest(queries, docs, k, excluded, block)
    expected = brute_force(queries, docs, k, excluded)
    assert scores.tolist() == expected[1]
    assert np.where(np.isfinite(scores), index, -1).tolist() == np.where(np.isfinite(scores), expected[0], -1).tolist()


@pytest.mark.parametrize("block", [1000, 150, 100])
def test_more_ties_at_the_cut_than_the_search_leaves_room_for(block: int) -> None:
    rng = np.random.default_rng(0)
    docs = np.repeat(unit(rng, 3), 200, axis=0)
    queries = unit(rng, 4)
    excluded = np.array([-1, 0, 200, 400])
    index, scores = nearest(queries, docs, 7, excluded, block)
    assert (index.tolist(), scores.tolist()) == brute_force(queries, docs, 7, excluded)


def test_what_rounding_hides_from_the_search_is_found() -> None:
    """Of documents that differ by less than float32 sums are off by, FAISS leaves out some that are better."""
    rng = np.random.default_rng(0)
    base = unit(rng, 1, 384)[0].astype(np.float64)
    docs, queries = (base + scale * rng.normal(size=(rows, len(base))) for scale, rows in ((3e-7, 400), (0.01, 30)))
    docs, queries = ((one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (docs, queries))
    none = np.full(30, -1)
    expected = brute_force(queries, docs, 5, none)[0]
    assert nearest(queries, docs, 5, none)[0].tolist() == expected


def test_blocks_and_company_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    docs, queries, none = unit(rng, 500), unit(rng, 60), np.full(60, -1)
    whole = nearest(queries, docs, 10, none)
    monkeypatch.setattr(topk, "CHUNK_BYTES", 100_000)
    for block in (1000, 45):
        for found, expected in zip(nearest(queries, docs, 10, none, block), whole, strict=True):
            np.testing.assert_array_equal(found, expected)
    alone = nearest(queries[7:8], docs, 10, none[:1])
    np.testing.assert_array_equal(alone[1], whole[1][7:8])


@pytest.mark.parametrize("dims", [384, 768, 1000, 1024, 4096, 8193])
def test_a_score_is_the_rounded_sum_and_has_the_same_bits_in_any_company_and_place(dims: int) -> None:
    rng = np.random.default_rng(0)
    docs, queries = unit(rng, 40, dims), unit(rng, 3, dims)
    whole = topk._inner_products(queries[:, None], np.stack([docs] * 3))
    expected = np.multiply(queries[:, None], docs, dtype=np.float64).sum(axis=-1)
    np.testing.assert_array_equal(whole, expected.astype(np.float32))
    elsewhere = np.empty(dims + 1, dtype=np.float32)[1:]
    for row, place in ((0, 0), (1, 17), (2, 39)):
        elsewhere[:] = docs[place]
        alone = topk._inner_products(queries[row], docs[place])
        few = topk._inner_products(queries[row], docs[place : place + 2])[0]
        assert whole[row, place] == alone == few == topk._inner_products(queries[row], elsewhere)


def test_candidates_are_ranked_by_exact_score_without_the_excluded_and_the_absent() -> None:
    docs = unit(np.random.default_rng(0), 6)
    docs[4] = docs[1]
    named = np.array([[4, 1, 2, -1], [5, -1, -1, -1]])
    index, scores = topk.rescore(docs[[1, 5]], named, docs.__getitem__, 3, np.array([-1, 5]))
    assert index[0].tolist() == [1, 4, 2]
    np.testing.assert_allclose(scores[0], [1, 1, docs[1] @ docs[2]], atol=1e-6)
    assert np.isneginf(scores[1]).all()
