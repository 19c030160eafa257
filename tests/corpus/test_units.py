from collections.abc import Iterable
from typing import Any

import pytest

from anna.corpus.sources import HeldOutSource
from anna.corpus.units import Unit, choose_examples, make_units, shuffle, take_in_turn
from anna.corpus.values import Row
from anna.errors import InputError
from anna.folding import normalise
from anna.prompts import Example
from tests.corpus.conftest import Counted


def source(kind: str, columns: Iterable[str], **others: Any) -> HeldOutSource:
    return HeldOutSource.model_validate(
        {
            "task": "T",
            "type": kind,
            "origin": {"kind": "files", "path": "x"},
            "format": "jsonl",
            "columns": {name: name for name in columns},
            **others,
        }
    )


def rows(*values: dict[str, Any]) -> list[Row]:
    return [Row(f"row {number}", value) for number, value in enumerate(values)]


def test_retrieval_groups_by_query(drops: Counted) -> None:
    given = rows({"query": "q", "doc": "b"}, {"query": "r", "doc": "a"}, {"query": "q", "doc": "a"})
    assert make_units(source("Retrieval", ["query", "doc"]), given, drops) == [
        Unit("q", ("a", "b"), (1.0, 1.0)),
        Unit("r", ("a",), (1.0,)),
    ]
    assert not drops


def test_rows_without_documents_or_summaries_are_counted(drops: Counted) -> None:
    given = rows({"query": "q", "docs": ("b", "a")}, {"query": "r", "docs": ()})
    assert make_units(source("Retrieval", ["query", "docs"]), given, drops) == [Unit("q", ("a", "b"), (1.0, 1.0))]
    assert drops == {"no_document": 1}
    drops.clear()
    lists = [((), ()), ((), (1.0,)), (("a", "b"), (1.0, 0.0))]
    given = rows(*({"source": "s", "summaries": texts, "relevances": scores} for texts, scores in lists))
    made = make_units(source("Summarization", ["source", "summaries", "relevances"]), given, drops)
    assert made == [Unit("s", ("a", "b"), (1.0, 0.0))]
    assert drops == {"no_document": 1, "unequal_lists": 1}


def test_queries_that_normalise_alike_are_one(drops: Counted) -> None:
    given = rows(
        {"query": "where is it", "doc": "b"},
        {"query": "Where is it?", "doc": "a"},
        {"query": "where  is it", "doc": "b"},
        {"query": "who", "doc": "a"},
    )
    (merged, other) = make_units(source("Retrieval", ["query", "doc"]), given, drops)
    assert (normalise(merged.text), merged.others) == ("where is it", ("a", "b"))
    assert other == Unit("who", ("a",), (1.0,))
    assert drops == {"duplicate_query": 2}
    graded = rows(
        {"query": "q", "docs": ("a",), "relevances": (2.0,)}, {"query": "Q", "docs": ("a",), "relevances": (1.0,)}
    )
    for order in (graded, graded[::-1]):
        (unit,) = make_units(source("Retrieval", ["query", "docs", "relevances"]), order, drops)
        assert unit.scores == (2.0,), "of two judgements the higher"


def test_of_two_judgements_of_one_pair_the_higher_counts(drops: Counted) -> None:
    given = rows(*({"query": "q", "docs": ("a",), "relevances": (grade,)} for grade in (2.0, 1.0, 3.0, 1.0)))
    assert make_units(source("Retrieval", ["query", "docs", "relevances"]), given, drops) == [Unit("q", ("a",), (3.0,))]


def test_retrieval_takes_grades(drops: Counted) -> None:
    graded = source("Retrieval", ["query", "docs", "relevances"])
    given = rows(
        {"query": "q", "docs": ("b", "a"), "relevances": (3.0, 1.0)},
        {"query": "q", "docs": ("a",), "relevances": (2.0,)},
        {"query": "r", "docs": ("a", "b"), "relevances": (1.0,)},
        {"query": "s", "docs": (), "relevances": ()},
    )
    assert make_units(graded, given, drops) == [Unit("q", ("a", "b"), (2.0, 3.0))]
    assert drops == {"duplicate_pair": 1, "unequal_lists": 1, "no_document": 1}


@pytest.mark.parametrize("relevance", [0.0, 1.5, -1.0, 128.0])
def test_a_relevance_that_is_no_grade_is_refused(relevance: float, drops: Counted) -> None:
    given = rows({"query": "q", "docs": ("a", "b"), "relevances": (1.0, relevance)})
    with pytest.raises(InputError, match=f"row 0: a document has relevance {relevance:g}, but those of type"):
        make_units(source("Retrieval", ["query", "docs", "relevances"]), given, drops)


def test_reranking_needs_both_sides(drops: Counted) -> None:
    reranking = source("Reranking", ["query", "doc", "relevance"], relevant=["True", "2"])
    given = rows(
        {"query": "q", "doc": "a", "relevance": "True"},
        {"query": "q", "doc": "b", "relevance": "False"},
        {"query": "q", "doc": "b", "relevance": "2"},
        {"query": "q", "doc": "c", "relevance": "1"},
        {"query": "all", "doc": "a", "relevance": "2"},
        {"query": "none", "doc": "a", "relevance": "0"},
    )
    assert make_units(reranking, given, drops) == [Unit("q", ("a", "b", "c"), (1.0, 1.0, 0.0))]
    assert drops == {"one_sided": 2, "duplicate_pair": 1}


def test_relevance_is_a_number_however_it_is_written(drops: Counted) -> None:
    given = rows(*({"query": "q", "doc": f"d{value}", "relevance": value} for value in ("0", "0.5", "1")))
    for relevant, scores in ((["1"], (0.0, 0.0, 1.0)), (["0.5", "1.0"], (0.0, 1.0, 1.0))):
        reranking = source("Reranking", ["query", "doc", "relevance"], relevant=relevant)
        assert [unit.scores for unit in make_units(reranking, given, drops)] == [scores]


def test_pairs_are_not_grouped(drops: Counted) -> None:
    given = rows(
        {"text1": "a", "text2": "b", "score": 1.0},
        {"text1": "a", "text2": "c", "score": 2.0},
        {"text1": "a", "text2": "c", "score": 3.0},
    )
    made = make_units(source("STS", ["text1", "text2", "score"]), given, drops)
    assert made == [Unit("a", ("b",), (1.0,)), Unit("a", ("c",), (3.0,))]
    assert drops == {"duplicate_pair": 1}


def test_summaries_in_both_forms(drops: Counted) -> None:
    good_bad = make_units(
        source("Summarization", ["source", "good", "bad"]),
        rows({"source": "s", "good": "g", "bad": "b"}, {"source": "s", "good": "g", "bad": "c"}),
        Counted(),
    )
    assert good_bad == [Unit("s", ("b", "c", "g"), (0.0, 0.0, 1.0))]
    lists = make_units(
        source("Summarization", ["source", "summaries", "relevances"]),
        rows(
            {"source": "s", "summaries": ("x", "y"), "relevances": (0.5, 1.0)},
            {"source": "t", "summaries": ("x",), "relevances": (0.5, 1.0)},
            {"source": "u", "summaries": ("x", "y"), "relevances": (0.5, 0.5)},
        ),
        drops,
    )
    assert lists == [Unit("s", ("x", "y"), (0.5, 1.0))]
    assert drops == {"unequal_lists": 1, "one_sided": 1}


def test_labelled_texts_are_distinct_and_of_one_class(drops: Counted) -> None:
    given = rows(
        *(
            {"text": text, "label": label}
            for text, label in [("b", "1"), ("A.", "1"), ("a", "1"), ("c", "1"), ("C", "2")]
        )
    )
    made = make_units(source("Clustering", ["text", "label"]), given, drops)
    assert made == [Unit("A.", label="1"), Unit("b", label="1")]
    assert drops == {"duplicate_text": 1, "conflicting_labels": 2}


def test_units_do_not_depend_on_the_order_of_rows(drops: Counted) -> None:
    given = rows(*({"text": f"text {n % 7}.{'!' * n}", "label": "x"} for n in range(30)))
    clustering = source("Clustering", ["text", "label"])
    assert shuffle(make_units(clustering, given, drops), 1) == shuffle(make_units(clustering, given[::-1], drops), 1)


def labelled(*labels: str) -> list[Unit]:
    return [Unit(f"{label}{number}", label=label) for number, label in enumerate(labels)]


def test_take_in_turn() -> None:
    assert [unit.text for unit in take_in_turn(labelled(*"aaabbc"), 5)] == ["a0", "b3", "c5", "a1", "b4"]
    assert [unit.text for unit in take_in_turn(labelled(*"aaabbc"), 99)] == ["a0", "b3", "c5", "a1", "b4", "a2"]


def test_examples_of_classes_come_from_different_classes() -> None:
    examples = choose_examples(labelled(*"aaaabbc"), 3, frozenset())
    assert examples == [Example("a0", "a1"), Example("b4", "b5"), Example("a2", "a3")]
    without = choose_examples(labelled(*"aaaabbc"), 3, frozenset({"a1"}))
    assert without == [Example("a0", "a2"), Example("b4", "b5")]


def test_examples_of_pairs_score_high() -> None:
    units = [
        Unit("low", ("x",), (3.9,)),
        Unit("Same", ("same.",), (5.0,)),
        Unit("a", ("b",), (4.0,)),
        Unit("c", ("B",), (5.0,)),
        Unit("d", ("e",), (5.0,)),
    ]
    assert choose_examples(units, 3, frozenset()) == [Example("a", "b"), Example("d", "e")]
    assert choose_examples(units, 3, frozenset({"a"})) == [Example("c", "B"), Example("d", "e")]
    assert choose_examples(units, 1, frozenset()) == [Example("a", "b")]


@pytest.mark.parametrize("label", ["", "a"])
def test_of_candidates_behind_those_taken_no_text_is_looked_at(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def normalise(text: str) -> str:
        read.append(text)
        return text

    monkeypatch.setattr("anna.corpus.units.normalise", normalise)
    units = [Unit(f"q{n}", (f"d{n}",), (1.0,), label) for n in range(100)]
    assert len(choose_examples(units, 2, frozenset({"q0"}))) == 2
    assert {"q0", "q1", "q2"} < set(read) < {f"{mark}{n}" for mark in "qd" for n in range(9)}


def test_example_of_a_query_is_its_best_document() -> None:
    units = [Unit("q", ("x", "y", "z"), (0.0, 1.0, 1.0))]
    assert choose_examples(units, 2, frozenset()) == [Example("q", "y")]


@pytest.mark.parametrize("count", [0, 2])
def test_no_units_give_no_examples(count: int) -> None:
    assert choose_examples([], count, frozenset()) == []
