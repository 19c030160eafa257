"""From tables to groups and texts."""

import numpy as np
import pyarrow as pa
import pytest

from anna import schemas
from anna.errors import InputError
from anna.modeling.encoder_config import TaskInstruction
from anna.negatives import Verdict
from anna.training.batches import Batch, Group
from anna.training.checks import check_sides
from anna.training.data import (
    examples_by_task,
    kinds,
    needed_drops,
    training_groups,
    training_texts,
    validation_groups,
)
from anna.training.layout import lay_out

REASONS = [verdict.reason for verdict in Verdict if verdict]


def queries() -> pa.Table:
    rows = [
        {"query_id": f"q{n}", "task": task, "kind": kind, "split": split, "text": f"text {n}", "label": label}
        for n, (task, kind, split, label) in enumerate(
            [
                ("A", "retrieval", "train", None),
                ("A", "retrieval", "validation", None),
                ("B", "classification", "train", "x"),
            ]
        )
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def groups() -> pa.Table:
    rows = [
        {"query_id": "q0", "positive_ids": ["d1"], "negative_ids": ["d2", "d3"], "soft_labels": [0.5, 0.3, 0.2]},
        {"query_id": "q1", "positive_ids": ["d1", "d8"], "negative_ids": ["d2", "d3"], "soft_labels": [0.25] * 4},
        {"query_id": "q2", "positive_ids": ["d1", "d9"], "negative_ids": ["d2", "d3"], "soft_labels": []},
    ]
    return pa.Table.from_pylist(rows, schema=schemas.GROUPS)


def test_groups_are_those_of_the_training_split_positive_first() -> None:
    got = training_groups(groups(), queries())
    assert [(group.query_id, group.task) for group in got] == [("q0", "A"), ("q2", "B")]
    assert got[0].doc_ids == ("d1", "d2", "d3")
    assert got[0].soft_labels == pytest.approx((0.5, 0.3, 0.2))
    assert got[1] == Group("q2", "B", ("d1", "d9", "d2", "d3"), (), num_positives=2)


def test_validation_groups_are_those_of_the_other_split_with_all_negatives_hardest_first() -> None:
    dropped = [
        ("q0", "d9", "beyond_quota", 0.9),
        ("q1", "", "too_few_negatives", None),
        ("q1", "d4", "beyond_quota", 0.1),
        ("q1", "d5", "beyond_quota", 0.2),
        ("q1", "d6", "above_positive", 0.9),
        ("q1", "d7", "beyond_quota", 0.2),
    ]
    rows = [
        {"query_id": query, "doc_id": doc, "reason": reason, "margin": None, "score": score}
        for query, doc, reason, score in dropped
    ]
    got = validation_groups(groups(), pa.Table.from_pylist(rows, schema=schemas.DROPS), queries())
    assert got == [Group("q1", "A", ("d1", "d2", "d3", "d5", "d7", "d4"), ())]


@pytest.mark.parametrize("seed", range(5))
def test_of_the_drops_training_needs_few_and_no_others(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [
        {"query_id": f"q{query}", "doc_id": f"d{doc}", "reason": str(random.choice(REASONS)), "margin": 0.1, "score": s}
        for query in range(3)
        for doc, s in enumerate(random.random(12).tolist(), 1)
    ]
    whole = pa.Table.from_pylist(rows, schema=schemas.DROPS)
    needed = needed_drops([whole.slice(first, 5) for first in range(0, 36, 5)], groups(), queries())
    corpus = [{"doc_id": f"d{n}", "task": "A", "text": f"doc {n}", "label": None} for n in range(1, 13)]
    made = []
    for drops in (whole, needed):
        both = [*training_groups(groups(), queries()), *validation_groups(groups(), drops, queries())]
        tables = {"corpus": pa.Table.from_pylist(corpus, schema=schemas.CORPUS), "queries": queries(), "drops": drops}
        made.append((both, training_texts(both, **tables, qrels=schemas.QRELS.empty_table())))
    assert made[0] == made[1]
    assert needed.num_rows < whole.num_rows


def test_no_training_group_is_refused() -> None:
    with pytest.raises(InputError, match="no group of the training split"):
        training_groups(groups().slice(1, 1), queries())


def test_texts_know_every_positive_and_class() -> None:
    corpus = pa.Table.from_pylist(
        [
            {"doc_id": f"d{n}", "task": task, "text": f"doc {n}", "label": label}
            for n, task, label in ((1, "A", None), (2, "A", None), (3, "B", "y"), (4, "B", "x"))
        ],
        schema=schemas.CORPUS,
    )
    judged = [("q0", "d1", 1), ("q0", "d2", 1), ("q1", "d1", 0)]
    qrels = pa.Table.from_pylist(
        [dict(zip(("query_id", "doc_id", "relevance"), row, strict=True)) for row in judged], schema=schemas.QRELS
    )
    named = [Group("q0", "A", ("d1",), ()), Group("q1", "A", ("d1",), ()), Group("q2", "B", ("d3",), ())]
    texts = training_texts(named, corpus=corpus, queries=queries(), qrels=qrels, drops=schemas.DROPS.empty_table())
    assert texts.positives == {"q0": frozenset({"d1", "d2"})}
    assert texts.labels == {"q2": "x", "d3": "y"}
    assert (texts.queries["q2"], texts.docs["d2"]) == ("text 2", "doc 2")


def test_what_no_group_names_is_not_kept() -> None:
    corpus = pa.Table.from_pylist(
        [{"doc_id": f"d{n}", "task": "A", "text": f"doc {n}", "label": None} for n in range(1, 6)],
        schema=schemas.CORPUS,
    )
    judged = [("q0", "d1", 1), ("q0", "d3", 1), ("q1", "d4", 1)]
    qrels = pa.Table.from_pylist(
        [dict(zip(("query_id", "doc_id", "relevance"), row, strict=True)) for row in judged], schema=schemas.QRELS
    )
    parts = [
        pa.Table.from_pylist([{"id": name, "vector": [float(place), 1.0]}], schema=schemas.VECTORS)
        for place, name in enumerate(("d1", "d5", "q0", "q1"))
    ]
    texts = training_texts(
        [Group("q0", "A", ("d1", "d2"), ())],
        corpus=corpus,
        queries=queries(),
        qrels=qrels,
        drops=schemas.DROPS.empty_table(),
        vectors=parts,
    )
    assert texts.queries == {"q0": "text 0"}
    assert texts.docs == {"d1": "doc 1", "d2": "doc 2", "d3": "doc 3"}  # d3: another positive, for validation
    assert texts.positives == {"q0": frozenset({"d1", "d3"})}
    assert {name: vector.tolist() for name, vector in texts.vectors.items()} == {"d1": [0.0, 1.0], "q0": [2.0, 1.0]}


def test_the_relabelled_are_positives_of_the_training_split() -> None:
    judged = [{"query_id": query, "doc_id": "d1", "relevance": 1} for query in ("q0", "q1")]
    dropped = [
        ("q0", "d2", "relabelled"),
        ("q0", "d3", "above_positive"),
        ("q1", "d2", "relabelled"),
        ("q2", "d9", "relabelled"),
    ]
    rows = [
        {"query_id": query, "doc_id": doc, "reason": reason, "margin": -0.5, "score": 1.0}
        for query, doc, reason in dropped
    ]
    texts = training_texts(
        [Group(query_id, "A", ("d1",), ()) for query_id in ("q0", "q1", "q2")],
        corpus=schemas.CORPUS.empty_table(),
        queries=queries(),
        qrels=pa.Table.from_pylist(judged, schema=schemas.QRELS),
        drops=pa.Table.from_pylist(rows, schema=schemas.DROPS),
    )
    assert texts.positives == {"q0": frozenset({"d1", "d2"}), "q1": frozenset({"d1"}), "q2": frozenset({"d9"})}
    assert texts.spared == {}  # no group has d3
    batch = Batch("A", (Group("q0", "A", ("d1", "d5"), (0.6, 0.4)), Group("q3", "A", ("d2", "d3"), (0.6, 0.4))), ())
    named = {"queries": {"q0": "query 0", "q3": "query 3"}, "docs": {f"d{n}": f"doc {n}" for n in range(6)}}
    layout = lay_out(batch, 0, 1, texts._replace(**named))
    assert layout.doc_ids == ["d1", "d5", "d2", "d3"]
    assert layout.masked == [[2], []]  # in q0's batch as another query's positive, but no negative of q0


@pytest.mark.parametrize("reason", ["above_positive", "inside_margin", "duplicate_of_positive"])
def test_what_the_filter_found_too_close_is_no_negative_in_a_batch_either(reason: str) -> None:
    rows = [
        {"query_id": query, "doc_id": doc, "reason": why, "margin": 0.1, "score": 1.0}
        for query, doc, why in (
            ("q0", "d3", reason),
            ("q0", "d4", "beyond_quota"),
            ("q0", "d7", reason),  # of no group
            ("q1", "d1", reason),  # of the validation split
        )
    ]
    groups = [Group("q0", "A", ("d1", "d2"), (0.6, 0.4)), Group("q2", "A", ("d3", "d4"), (0.6, 0.4))]
    texts = training_texts(
        groups,
        corpus=pa.Table.from_pylist(
            [{"doc_id": f"d{n}", "task": "A", "text": f"doc {n}", "label": None} for n in range(1, 8)],
            schema=schemas.CORPUS,
        ),
        queries=queries(),
        qrels=schemas.QRELS.empty_table(),
        drops=pa.Table.from_pylist(rows, schema=schemas.DROPS),
    )
    assert texts.spared == {"q0": frozenset({"d3"})}
    layout = lay_out(Batch("A", tuple(groups), ()), 0, 1, texts)
    assert layout.doc_ids == ["d1", "d2", "d3", "d4"]
    assert layout.masked == [[2], []]


def test_examples_keep_their_order() -> None:
    rows = [{"task": "A", "position": n, "query": f"q{n}", "response": f"r{n}"} for n in (0, 1)]
    table = pa.Table.from_pylist(rows, schema=schemas.EXAMPLES)
    assert examples_by_task(table) == {"A": [("q0", "r0"), ("q1", "r1")]}


def test_bare_documents_of_a_task_that_is_scored_with_prompts_are_refused() -> None:
    prompts = {"A": TaskInstruction(instruction="do", symmetric=False)}
    check_sides(kinds(queries()), prompts)
    both = prompts | {"B": TaskInstruction(instruction="do", symmetric=True)}
    check_sides(kinds(queries()), both)
    with pytest.raises(InputError, match=r"^prompts\.tasks\.B\.symmetric is false, but the task is classification, of"):
        check_sides(kinds(queries()), prompts | {"B": prompts["A"]})
