"""The index against exhaustive search, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import pytest

from anna.engine import Local
from anna.errors import InputError
from anna.segments import Int
from anna.teachers import ivfpq
from anna.teachers.dense import IndexParams
from anna.teachers.topk import Scores
from anna.teachers.vectors import VectorFile
from tests.teachers.models import INDEX
from tests.teachers.test_topk import nearest

NONE = np.full(40, -1)


def clustered(seed: int, rows: int) -> Scores:
    """Return unit vectors around ten centres: what an index of lists is for."""
    centres = np.random.default_rng(0).normal(size=(10, 16))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 10, rows)] + 0.5 * rng.normal(size=(rows, 16))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


QUERIES, DOCS = clustered(1, 40), clustered(2, 3000)


@pytest.fixture
def docs(tmp_path: Path) -> VectorFile:
    return VectorFile(len(DOCS), iter([(np.arange(len(DOCS)), DOCS)]), tmp_path)


def search(docs: VectorFile, nprobe: int, rescore: int, **more: Any) -> tuple[Any, Scores]:
    index = ivfpq.build(docs, nlist=20, m=4, nprobe=nprobe, where=Local())
    settings = {"k": 10, "num_rescored": rescore, "excluded_Q": NONE} | more
    return ivfpq.search(index, QUERIES, docs, where=Local(), **settings)


def test_with_all_lists_and_all_documents_it_is_exact(docs: VectorFile) -> None:
    exact = nearest(QUERIES, DOCS, 10, NONE)
    found = search(docs, nprobe=20, rescore=3000)
    np.testing.assert_array_equal(found[0], exact[0])
    np.testing.assert_array_equal(found[1], exact[1])


def test_more_lists_and_candidates_find_more_and_scores_are_exact(docs: VectorFile) -> None:
    exact = nearest(QUERIES, DOCS, 10, NONE)
    recalls = [ivfpq.recall(search(docs, nprobe, rescore), exact) for nprobe, rescore in ((1, 11), (1, 200), (8, 400))]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.6
    assert recalls[2] > 0.95
    index, scores = search(docs, 1, 20)
    np.testing.assert_allclose(scores, (QUERIES[:, None] * DOCS[index]).sum(axis=2), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_query_is_not_found_by_its_own_text(docs: VectorFile) -> None:
    first = nearest(QUERIES, DOCS, 1, NONE)[0][:, 0]
    found = search(docs, nprobe=20, rescore=3000, excluded_Q=first)
    assert not (found[0] == first[:, None]).any()
    np.testing.assert_array_equal(found[0], nearest(QUERIES, DOCS, 10, first)[0])


def test_the_same_vectors_give_the_same_index(docs: VectorFile) -> None:
    one, two = (faiss.serialize_index(ivfpq.build(docs, nlist=None, m=4, nprobe=1, where=Local())) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("nlist", "learnt"), [(8, 40 * 256), (300, 40 * 300)])
def test_codebooks_are_learnt_from_as_many_vectors_as_lists_are(nlist: int, learnt: int) -> None:
    asked = []

    class Docs:
        shape = (20_000, 16)

        def take(self, rows: Int) -> Scores:
            asked.append(len(rows))
            return clustered(0, len(rows))

        def blocks(self) -> Iterator[Scores]:
            return iter([DOCS])

    ivfpq.build(cast(VectorFile, Docs()), nlist=nlist, m=4, nprobe=1, where=Local())
    assert asked == [learnt]


def test_one_more_than_asked_for_is_scored_exactly(docs: VectorFile) -> None:
    """Else a query that must not find a document would be left with one too few."""
    first = nearest(QUERIES, DOCS, 1, NONE)[0][:, 0]
    assert np.isfinite(search(docs, nprobe=20, rescore=1, excluded_Q=first)[1]).all()


def test_recall_counts_exact_results_that_were_found() -> None:
    exact = np.array([[1, 2], [3, 4]]), np.array([[0.9, 0.8], [0.7, -np.inf]], dtype=np.float32)
    found = np.array([[2, 7], [5, 3]]), np.array([[0.8, 0.1], [0.9, 0.7]], dtype=np.float32)
    assert ivfpq.recall(found, exact) == pytest.approx(2 / 3)
    assert ivfpq.recall(exact, exact) == 1.0


def test_bytes_that_do_not_divide_the_dimensions_are_refused(docs: VectorFile) -> None:
    message = r"retrieve_dense.index.m is 5, which does not divide the model's 16 dimensions"
    with pytest.raises(InputError, match=message):
        ivfpq.build(docs, nlist=20, m=5, nprobe=1, where=Local())


@pytest.mark.parametrize(("nlist", "least"), [(None, 256), (20, 256), (4000, 4000)])
def test_collections_too_small_to_learn_from_are_refused(nlist: int | None, least: int) -> None:
    settings = INDEX | {"nlist": nlist, "min_docs": least}
    IndexParams(**settings)
    with pytest.raises(ValueError, match=rf"min_docs is {least - 1}, .* raise min_docs to {least}"):
        IndexParams(**settings | {"min_docs": least - 1})
