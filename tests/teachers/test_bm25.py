"""BM25 against a literal one, its ties, and what it must never find."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna import schemas
from anna.errors import InputError
from anna.teachers import bm25, runs
from tests.teachers.conftest import Toy, table

DOCS = {
    "d3": "the river runs through the city, the river is long",
    "d1": "a city without river",
    "d2": "mountains mountains mountains",
    "d5": "city river",
    "d4": "river city",
    "d6": "the and of",
}
SETTINGS: dict[str, Any] = {"k1": 1.2, "b": 0.6, "depth": 10}


def literal(query: str, k1: float, b: float) -> dict[str, float]:
    """Return the BM25 score of each document, Lucene's variant, from the formula."""
    words = dict(zip(DOCS, bm25.tokenize(list(DOCS.values())), strict=True))
    mean_length = sum(map(len, words.values())) / len(words)
    scores = {}
    for doc_id, own in words.items():
        score = 0.0
        for word in bm25.tokenize([query])[0]:
            df = sum(word in other for other in words.values())
            tf = Counter(own)[word]
            if not tf:
                continue
            idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(own) / mean_length))
        scores[doc_id] = score
    return scores


def search(queries: dict[str, str], **settings: Any) -> pa.Table:
    arguments = SETTINGS | settings
    return bm25.bm25_search(list(DOCS), list(DOCS.values()), list(queries), list(queries.values()), **arguments)


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.0, 0.0), (2.0, 1.0)])
def test_equal_to_the_literal_formula(k1: float, b: float) -> None:
    query = "River in the city, river mountains unknown"
    run = search({"q": query}, k1=k1, b=b)
    found = dict(zip(run["doc_id"].to_pylist(), run["score"].to_pylist(), strict=True))
    expected = {doc_id: score for doc_id, score in literal(query, k1, b).items() if score > 0}
    assert found == pytest.approx(expected, rel=1e-6)


def test_ties_go_to_the_smaller_id_at_the_cut_too() -> None:
    run = search({"q": "river, the city"}, depth=2)
    assert run["doc_id"].to_pylist()[:2] == ["d4", "d5"]
    assert len(set(run["score"].to_pylist()[:2])) == 1
    assert search({"q": "river, the city"}, depth=1)["doc_id"].to_pylist() == ["d4"]


def test_only_matches_are_found_and_depth_may_exceed_the_collection() -> None:
    run = search({"q1": "mountains", "q2": "nothing here matches", "q3": "the of"}, depth=99)
    assert run["query_id"].to_pylist() == ["q1"]
    assert run["doc_id"].to_pylist() == ["d2"]
    assert run["rank"].to_pylist() == [1]


def test_the_query_itself_is_never_found() -> None:
    run = search({"q": "River, city!"})
    assert run["doc_id"].to_pylist() == ["d5", "d1", "d3"]
    assert search({"q": "River, city!"}, skip_own_text=False)["doc_id"].to_pylist() == ["d4", "d5", "d1", "d3"]


def test_threads_and_blocks_do_not_change_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = {f"q{i}": text for i, text in enumerate(["river", "city river", "mountains", "none", "long city"])}
    whole = search(queries)
    for at_once, threads in ((1, 3), (2, 1)):
        monkeypatch.setattr(bm25, "QUERIES_AT_ONCE", at_once)
        monkeypatch.setattr(bm25, "num_cpus", lambda threads=threads: threads)
        assert search(queries).equals(whole)


@given(values=st.lists(st.integers(0, 6), min_size=2, max_size=300), k=st.integers(1, 40), group=st.integers(1, 9))
def test_the_best_are_those_of_a_full_sort(values: list[int], k: int, group: int) -> None:
    scores = np.array(values, dtype=np.float32)
    expected = [place for place in np.argsort(-scores, kind="stable") if scores[place] > 0][:k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "GROUP", group)
        assert bm25.best_above_zero(scores, k).tolist() == expected


def test_a_collection_of_stopwords_has_no_match() -> None:
    run = bm25.bm25_search(["a", "b"], ["the", "of and"], ["q"], ["the river"], **SETTINGS)
    assert run.num_rows == 0


def test_one_document_is_refused() -> None:
    with pytest.raises(InputError, match=r"task 'X' has 1 documents, needs at least 2 .*ingest.train"):
        bm25.bm25_search(["a"], ["river"], ["q"], ["river"], task="X", **SETTINGS)


def test_a_query_is_searched_for_in_its_own_task(toy: Toy) -> None:
    run = bm25.retrieve(toy.corpus, toy.queries, k1=1.5, b=0.75, depth=10)
    pairs = zip(run["query_id"].to_pylist(), run["doc_id"].to_pylist(), strict=True)
    assert {(query[0], doc[0]) for query, doc in pairs} == {("A", "A"), ("B", "B")}


def test_a_task_whose_words_match_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    docs = [
        ("zh:d:1", "zh", "塞纳河流经巴黎。"),
        ("zh:d:2", "zh", "山很高"),
        ("en:d:1", "en", "a river"),
        ("en:d:2", "en", "hills"),
    ]
    asked = [
        ("zh:q:1", "哪条河流经巴黎"),
        ("zh:q:2", "什么很高"),
        ("zh:q:3", "山很高 吗"),
        ("en:q:1", "which river"),
        ("en:q:2", "who"),
    ]
    corpus = table(schemas.CORPUS, [(*doc, None) for doc in docs])
    queries = table(schemas.QUERIES, [(query, query[:2], "retrieval", "train", text, None) for query, text in asked])
    metrics = runs.summarise_run(bm25.retrieve(corpus, queries, **SETTINGS), queries)
    assert {task: each["queries_without_result"] for task, each in metrics["tasks"].items()} == {"en": 1, "zh": 2}
    bm25.warn_of_misses(metrics)
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(
        "task zh: BM25 finds nothing for 67 % of its queries, which share no word with any document;"
    )
