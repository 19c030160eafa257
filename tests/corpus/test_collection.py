import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from anna.corpus.collection import Collection, Pair, build_collection, make_pairs, training_tables
from anna.corpus.decontaminate import HeldOutTexts
from anna.corpus.ids import text_id
from anna.corpus.sources import TrainSource
from anna.corpus.values import Row
from anna.folding import normalise
from tests.corpus.conftest import Counted

LONG = " ".join(f"w{number}" for number in range(40))


def build(kind: str, pairs: Sequence[Pair], drops: Counted, held_out: Sequence[str] = ()) -> Collection:
    return build_collection("T", kind, pairs, HeldOutTexts(held_out, 0.8), drops, near_duplicate=0.8, seed=1)


def judged(collection: Collection) -> dict[tuple[str, str], int]:
    """Judgements by text."""
    return {
        (collection.queries[query_id], collection.docs[doc_id]): relevance
        for (query_id, doc_id), relevance in collection.qrels.items()
    }


def pair(query: str, doc: str, relevance: int = 1, label: str | None = None) -> Pair:
    return Pair(query, doc, relevance, label, "place")


def source(kind: str, columns: dict[str, str], **others: Any) -> TrainSource:
    return TrainSource.model_validate(
        {
            "task": "T",
            "kind": kind,
            "origin": {"kind": "files", "path": "x"},
            "format": "jsonl",
            "columns": columns,
            **others,
        }
    )


def test_make_pairs_of_retrieval(drops: Counted) -> None:
    row = Row("here", {"query": "q", "docs": ("a", "b"), "negatives": ("c",)})
    made = make_pairs(source("retrieval", {"query": "q", "docs": "d", "negatives": "n"}), [row], drops)
    assert [(each.doc, each.relevance) for each in made] == [("a", 1), ("b", 1), ("c", 0)]


def test_a_row_without_any_document_is_counted(drops: Counted) -> None:
    row = Row("here", {"query": "q", "docs": (), "negatives": ()})
    assert make_pairs(source("retrieval", {"query": "q", "docs": "d", "negatives": "n"}), [row], drops) == []
    assert drops == {"no_document": 1}


def test_make_pairs_of_sts_at_the_threshold(drops: Counted) -> None:
    columns = {"text1": "a", "text2": "b", "score": "s"}
    rows = [Row("here", {"text1": "a", "text2": str(score), "score": score}) for score in (3.9, 4.0, 4.1)]
    made = make_pairs(source("sts", columns, positive_at=4.0), rows, drops)
    assert [each.relevance for each in made] == [0, 1, 1]


def test_union_of_positives_and_the_higher_judgement(drops: Counted) -> None:
    pairs = [pair("Q one", "a"), pair("q ONE!", "b"), pair("Q one", "c", 0), pair("Q one", "c"), pair("q two", "c", 0)]
    collection = build("retrieval", pairs, drops)
    survivor = min("Q one", "q ONE!", key=lambda text: text_id("T", "q", text))
    assert judged(collection) == {(survivor, "a"): 1, (survivor, "b"): 1, (survivor, "c"): 1}
    assert drops == {"duplicate_query": 1, "duplicate_pair": 1, "query_without_positive": 1}
    assert set(collection.docs.values()) == {"a", "b", "c"}


def test_alike_texts_are_positives_of_each_other_in_both_orders(drops: Counted) -> None:
    pairs = [pair("a", "b"), pair("B!", "c", 0), pair("d", "A"), pair("d", "b", 0), pair("e", "d", 0)]
    assert judged(build("sts", pairs, drops)) == {
        ("a", "b"): 1,
        ("a", "d"): 1,
        ("B!", "c"): 0,
        ("B!", "A"): 1,
        ("d", "A"): 1,
        ("d", "b"): 0,
    }
    assert ("B!", "A") not in judged(build("retrieval", pairs, drops))


def test_duplicate_documents_are_remapped(drops: Counted) -> None:
    pairs = [pair("q1", LONG), pair("q2", LONG + " more"), pair("q3", LONG.upper()), pair("q4", "other")]
    collection = build("retrieval", pairs, drops)
    assert len(collection.docs) == 2
    assert len({doc for (query, doc), _ in judged(collection).items() if query != "q4"}) == 1
    assert drops == {"duplicate_document": 1, "near_duplicate_document": 1}


def test_near_duplicates_are_what_sts_is_about(drops: Counted) -> None:
    pairs = [pair(LONG, LONG + " indeed"), pair("other", LONG), pair("third", LONG.upper())]
    collection = build("sts", pairs, drops)
    assert judged(collection)[LONG, LONG + " indeed"] == 1
    assert len(collection.docs) == 2
    assert drops == {"duplicate_document": 1}


def test_of_two_judgements_the_higher_counts_in_either_order(drops: Counted) -> None:
    for grades in ((1, 0), (0, 1)):
        pairs = [pair("q", "a", grade) for grade in grades]
        assert judged(build("retrieval", pairs, drops)) == {("q", "a"): 1}


def test_held_out_texts_take_their_pairs_with_them(drops: Counted) -> None:
    pairs = [pair("held out", "a"), pair("q", "Answer."), pair("q", "b"), pair("r", LONG + " more"), pair("r", "c")]
    collection = build("retrieval", pairs, drops, ["Held out?", "answer", LONG])
    assert judged(collection) == {("q", "b"): 1, ("r", "c"): 1}
    assert set(collection.docs.values()) == {"b", "c"}
    assert drops == {"contaminated": 2, "near_contaminated": 1}


def test_distractors_join_without_held_out_texts_and_duplicates(drops: Counted) -> None:
    distractors = ["far", "far", "A!", LONG + " more", "held out", LONG.upper(), "Near by"]
    collection = build_collection(
        "T",
        "retrieval",
        [pair("q", "a"), pair("r", "near by")],
        HeldOutTexts(["Held out?", LONG], 0.8),
        drops,
        distractors=distractors,
        near_duplicate=0.8,
        seed=1,
    )
    assert {normalise(doc) for doc in collection.docs.values()} == {"far", "a", "near by"}
    assert len(collection.docs) == 3
    assert {normalise(doc) for _, doc in judged(collection)} == {"a", "near by"}, "a positive may be one of them"
    assert drops == {"contaminated": 2, "near_contaminated": 1, "duplicate_document": 2}


def test_a_document_that_is_the_query_is_no_positive(drops: Counted) -> None:
    collection = build("sts", [pair("Same", "same."), pair("other", "b")], drops)
    assert judged(collection) == {("other", "b"): 1}
    assert drops["positive_is_query"] == 1


def test_classification_draws_another_text_of_the_class(drops: Counted) -> None:
    pairs = [pair(f"{label} text {n}", f"{label} text {n}", label=label) for label in "ab" for n in range(10)]
    collection = build("classification", [*pairs, pairs[0], pair("lone", "lone", label="c")], drops)
    assert drops == {"duplicate_pair": 1, "query_without_positive": 1}
    assert (len(collection.docs), len(collection.queries), len(collection.qrels)) == (21, 20, 20)
    for query, doc in judged(collection):
        assert query != doc
        assert query[0] == doc[0]
    assert len({doc for _, doc in judged(collection)}) > 5, "different texts are drawn"
    again = build_collection("T", "classification", pairs, HeldOutTexts((), None), drops, near_duplicate=None, seed=2)
    assert judged(again).keys() != judged(collection).keys(), "by the seed"


def test_classification_with_two_classes_for_one_text(drops: Counted) -> None:
    pairs = [pair("x", "x", label="a"), pair("X.", "X.", label="b"), *(pair(t, t, label="a") for t in ("y", "z"))]
    assert set(build("classification", pairs, drops).queries.values()) == {"y", "z"}
    assert drops == {"conflicting_labels": 2}


def test_near_duplicates_of_different_classes_stay(drops: Counted) -> None:
    pairs = [
        pair(text, text, label=label) for text, label in ((LONG, "a"), (LONG + " more", "b"), ("x", "a"), ("y", "b"))
    ]
    assert len(build("classification", pairs, drops).docs) == 4


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_tables(drops: Counted, share: float) -> None:
    pairs = [pair(f"query {n}", f"document {n}") for n in range(200)]
    labelled = [pair(text, text, label="a") for text in ("x", "y")]
    collections = [build("retrieval", pairs, drops), build("classification", labelled, drops)]
    corpus, queries, qrels = training_tables(collections, validation_share=share, seed=1)
    assert (corpus.num_rows, queries.num_rows, qrels.num_rows) == (202, 202, 202)
    assert set(corpus["label"].to_pylist()) == {None, "a"}
    held = queries["split"].to_pylist().count("validation")
    assert held == pytest.approx(share * 202, abs=25)
    assert (held > 0) == (share > 0)


def test_a_query_is_in_the_same_split_in_every_task() -> None:
    texts = [f"query {number}" for number in range(60)]
    collections = [
        Collection(task, "retrieval", queries={text_id(task, "q", change(text)): change(text) for text in texts})
        for task, change in (("A", str.lower), ("B", str.upper))
    ]
    _, queries, _ = training_tables(collections, validation_share=0.3, seed=1)
    splits = queries["split"].to_pylist()
    assert splits[:60] == splits[60:]
    assert {"train", "validation"} == set(splits)


def test_rows_of_the_tables_are_those_of_the_collections() -> None:
    judged = {("q1", "d1"): 1, ("q1", "d2"): 0}
    first = Collection("A", "retrieval", {"d1": "doc", "d2": "other"}, {"q1": "query"}, judged)
    second = Collection("B", "classification", {"d3": "x"}, {"q2": "x"}, {("q2", "d3"): 1}, {"x": "a"})
    corpus, queries, qrels = (each.to_pylist() for each in training_tables([first, second], validation_share=0, seed=1))
    assert corpus == [
        {"doc_id": "d1", "task": "A", "text": "doc", "label": None},
        {"doc_id": "d2", "task": "A", "text": "other", "label": None},
        {"doc_id": "d3", "task": "B", "text": "x", "label": "a"},
    ]
    assert queries == [
        {"query_id": "q1", "task": "A", "kind": "retrieval", "split": "train", "text": "query", "label": None},
        {"query_id": "q2", "task": "B", "kind": "classification", "split": "train", "text": "x", "label": "a"},
    ]
    assert [tuple(row.values()) for row in qrels] == [("q1", "d1", 1), ("q1", "d2", 0), ("q2", "d3", 1)]


def test_tables_are_made_of_columns_not_of_a_dictionary_for_each_row() -> None:
    judged = {("q", f"d{n}"): 1 for n in range(20_000)}
    collection = Collection("A", "retrieval", {"d": "doc"}, {"q": "query"}, judged)
    tracemalloc.start()
    training_tables([collection], validation_share=0, seed=1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * len(judged)
