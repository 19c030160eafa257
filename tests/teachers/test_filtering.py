"""Groups and drops of a toy collection: the reason of every candidate."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.teachers import filtering
from anna.teachers.blocks import Block
from anna.teachers.filtering import FilterParams
from tests.teachers.conftest import Toy, table

SETTINGS: dict[str, Any] = {
    "rule": "absolute",
    "margin": 0.5,
    "background_quantile": 0.1,
    "positives_per_query": 1,
    "negatives_per_query": 1,
    "min_negatives": 1,
    "max_positive_rank": None,
    "relabel_margin": None,
}

LABELS = [
    ("A:q:1", 1, "A:d:3", 2.5, 0.4),
    ("A:q:1", 2, "A:d:1", 2.0, 0.3),
    ("A:q:1", 3, "A:d:2", 1.9, 0.2),
    ("A:q:1", 4, "A:d:4", 1.0, 0.08),
    ("A:q:1", 5, "A:d:5", -1.0, 0.02),
    ("A:q:2", 1, "A:d:4", 0.2, 0.6),
    ("A:q:2", 2, "A:d:3", 0.1, 0.4),
    ("B:q:1", 1, "B:d:1", 1.0, 0.5),
    ("B:q:1", 2, "B:d:3", 0.0, 0.3),
    ("B:q:1", 3, "B:d:2", -1.0, 0.2),
]


@pytest.fixture
def labels() -> pa.Table:
    return table(schemas.LABELS, LABELS)


class Selected(NamedTuple):
    """Both tables, and the metrics."""

    groups: pa.Table
    drops: pa.Table
    metrics: dict[str, Any]


def positives(toy: Toy) -> pa.Table:
    """Judgements without what was judged not relevant, which no margin applies to."""
    return toy.qrels.filter(pc.greater(toy.qrels["relevance"], 0))


def blocks(
    toy: Toy,
    labels: pa.Table,
    size: int = 99,
    reranked: Sequence[Sequence[Any]] = (),
    qrels: pa.Table | None = None,
) -> Iterator[Block]:
    """Yield blocks of so many queries."""
    tables = {"labels": labels, "qrels": qrels or positives(toy), "reranker": table(schemas.RUN, reranked)}
    for start in range(0, len(toy.queries), size):
        own = toy.queries.slice(start, size)
        rows = {name: part.filter(pc.is_in(part["query_id"], own["query_id"])) for name, part in tables.items()}
        yield Block(own, rows)


def select(
    toy: Toy, labels: pa.Table, size: int = 99, reranked: Sequence[Sequence[Any]] = (), **settings: Any
) -> Selected:
    """Select in blocks of so many queries."""
    selector = filtering.Selector(toy.corpus, toy.queries, FilterParams(**settings))
    groups: list[pa.Table] = []
    drops: list[pa.Table] = []
    metrics = filtering.select_all(selector, blocks(toy, labels, size, reranked), groups.append, drops.append)
    return Selected(pa.concat_tables(groups), pa.concat_tables(drops), metrics)


def reasons(selection: Selected) -> dict[tuple[str, str], str]:
    return {(row["query_id"], row["doc_id"]): row["reason"] for row in selection.drops.to_pylist()}


def test_every_candidate_has_its_reason(toy: Toy, labels: pa.Table) -> None:
    selection = select(toy, labels, **SETTINGS)
    assert reasons(selection) == {
        ("A:q:1", "A:d:3"): "above_positive",
        ("A:q:1", "A:d:1"): "labelled_positive",
        ("A:q:1", "A:d:2"): "duplicate_of_positive",  # but for case and a comma
        ("A:q:1", "A:d:5"): "beyond_quota",
        ("A:q:2", ""): "too_few_negatives",
        ("A:q:2", "A:d:4"): "labelled_positive",
        ("A:q:2", "A:d:3"): "inside_margin",
        ("B:q:1", "B:d:1"): "labelled_positive",  # of the query's class, though not in the qrels
        ("B:q:1", "B:d:2"): "labelled_positive",
    }


def test_what_was_judged_not_relevant_is_a_negative_inside_the_margin_too(toy: Toy, labels: pa.Table) -> None:
    selector = filtering.Selector(toy.corpus, toy.queries, FilterParams(**SETTINGS))
    groups: list[pa.Table] = []
    filtering.select_all(selector, blocks(toy, labels, qrels=toy.qrels), groups.append, lambda _: None)
    assert pa.concat_tables(groups).to_pylist()[1]["negative_ids"] == ["A:d:3"]


def test_groups(toy: Toy, labels: pa.Table, tmp_path: Any) -> None:
    selection = select(toy, labels, **SETTINGS)
    io.write(tmp_path / "groups.parquet", selection.groups, schemas.GROUPS)
    io.write(tmp_path / "drops.parquet", selection.drops, schemas.DROPS)
    first, second = selection.groups.to_pylist()
    assert (first["query_id"], first["positive_ids"], first["negative_ids"]) == ("A:q:1", ["A:d:1"], ["A:d:4"])
    np.testing.assert_allclose(first["soft_labels"], [0.3 / 0.38, 0.08 / 0.38], rtol=1e-6)
    assert (second["query_id"], second["positive_ids"], second["negative_ids"]) == ("B:q:1", ["B:d:1"], ["B:d:3"])
    assert second["soft_labels"] == [], "classes say more than the teachers' scores"


def test_margins_and_scores_are_recorded(toy: Toy, labels: pa.Table) -> None:
    rows = {(row["query_id"], row["doc_id"]): row for row in select(toy, labels, **SETTINGS).drops.to_pylist()}
    assert rows["A:q:1", "A:d:3"]["margin"] == pytest.approx(-0.5)
    assert rows["A:q:1", "A:d:3"]["score"] == pytest.approx(2.5)
    assert rows["A:q:2", ""]["margin"] is None
    assert rows["A:q:2", ""]["score"] is None


@pytest.mark.parametrize("rule", ["adaptive", "percent", "absolute", "none"])
@pytest.mark.parametrize("quota", [0, 1, 3])
def test_kept_and_dropped_are_all_candidates(toy: Toy, labels: pa.Table, rule: str, quota: int) -> None:
    settings = SETTINGS | {"rule": rule, "negatives_per_query": quota, "min_negatives": 0}
    selection = select(toy, labels, **settings)
    metrics = selection.metrics
    kept = [(row["query_id"], doc) for row in selection.groups.to_pylist() for doc in row["negative_ids"]]
    dropped = [pair for pair in reasons(selection) if pair[1]]
    assert sorted(kept + dropped) == sorted((row[0], row[2]) for row in LABELS)
    assert metrics["negatives"] + sum(metrics["drops"].values()) == metrics["candidates"] == len(LABELS)
    assert metrics["groups"] + sum(metrics["query_drops"].values()) == metrics["queries"] == 3
    for row in selection.groups.to_pylist():
        if row["query_id"].startswith("B"):
            assert row["soft_labels"] == []
        else:
            assert len(row["soft_labels"]) == 1 + len(row["negative_ids"])
            assert sum(row["soft_labels"]) == pytest.approx(1, abs=1e-6)


def test_metrics(toy: Toy, labels: pa.Table) -> None:
    metrics = select(toy, labels, **SETTINGS).metrics
    assert metrics["suspected_missing_positives"] == 1
    assert (metrics["positives"], metrics["negatives"]) == (2, 2)
    assert metrics["query_drops"] == {"weak_positive": 0, "too_few_negatives": 1}
    assert metrics["drops"] == {
        "labelled_positive": 4,
        "duplicate_of_positive": 1,
        "above_positive": 1,
        "inside_margin": 1,
        "beyond_quota": 1,
        "weak_positive": 0,
        "too_few_negatives": 0,
        "relabelled": 0,
    }
    assert metrics["tasks"]["B"]["groups"] == 1
    assert metrics["tasks"]["B"]["candidates"] == 3


def test_punctuation_alone_is_no_duplicate(toy: Toy, labels: pa.Table) -> None:
    rows = [tuple(row.values()) for row in toy.corpus.to_pylist()]
    rows = [(*row[:2], {"A:d:4": "!!!", "A:d:3": "???"}.get(row[0], row[2]), row[3]) for row in rows]
    selection = select(toy._replace(corpus=table(schemas.CORPUS, rows)), labels, **SETTINGS)
    assert reasons(selection)["A:q:2", "A:d:3"] == "inside_margin"


def test_what_the_reranker_puts_above_the_positive_is_no_negative(toy: Toy, labels: pa.Table) -> None:
    # Of A:q:1 the positive has -2 and the others -1, -1.8, -4: deviation 1.11, so that half of it ends at -1.44.
    reranked = [
        ("A:q:1", rank, f"A:d:{n}", -score) for rank, n, score in ((1, 4, 1), (2, 3, 1.8), (3, 1, 2), (4, 5, 4))
    ]
    settings = SETTINGS | {"relabel_margin": 0.5, "rule": "none"}
    selection = select(toy, labels, reranked=reranked, **settings)
    assert reasons(selection)["A:q:1", "A:d:4"] == "relabelled"
    first = selection.groups.to_pylist()[0]
    assert (first["positive_ids"], first["negative_ids"]) == (["A:d:1"], ["A:d:3"])
    assert selection.metrics["drops"]["relabelled"] == selection.metrics["tasks"]["A"]["drops"]["relabelled"] == 1
    twin = [tuple(row.values()) for row in toy.corpus.to_pylist()]
    twin.append(("A:d:6", "A", "PARIS, is the capital of France", None))
    own = [("A:q:1", 6, "A:d:6", -1.5, 0.01)]
    rows = sorted([*LABELS, *own])
    twins = select(
        toy._replace(corpus=table(schemas.CORPUS, sorted(twin))),
        table(schemas.LABELS, rows),
        reranked=reranked,
        **settings,
    )
    assert reasons(twins)["A:q:1", "A:d:4"] == "relabelled"
    assert reasons(twins)["A:q:1", "A:d:6"] == "duplicate_of_positive", "nor is another candidate with its text"
    without = select(toy, labels, reranked=reranked, **settings | {"relabel_margin": None, "margin": 0.0})
    assert reasons(without)["A:q:1", "A:d:4"] == "beyond_quota"


@pytest.mark.parametrize(
    ("most", "ids"), [(None, ["A:d:3", "A:d:1", "A:d:4"]), (2, ["A:d:3", "A:d:1"]), (1, ["A:d:3"])]
)
def test_groups_of_several_positives_have_the_labelled_first(toy: Toy, most: int | None, ids: list[str]) -> None:
    labels = [("A:q:1", "A:d:4", 2.5, 0.4), ("A:q:1", "A:d:3", 2.0, 0.3), ("A:q:1", "A:d:1", 1.5, 0.2)]
    labels += [("A:q:1", "A:d:5", 0.0, 0.1), ("A:q:1", "A:d:2", -1.0, 0.05)]
    rows = [tuple(row.values()) for row in toy.corpus.to_pylist()]
    texts = [(*row[:2], f"text {row[0]}", row[3]) for row in rows]
    own = toy._replace(
        corpus=table(schemas.CORPUS, texts),
        queries=toy.queries.slice(0, 1),
        qrels=table(schemas.QRELS, [("A:q:1", doc_id, 1) for doc_id in ("A:d:1", "A:d:2", "A:d:3")]),
    )
    ranked = table(schemas.LABELS, [(query, rank, *rest) for rank, (query, *rest) in enumerate(labels, 1)])
    reranked = [("A:q:1", 1, "A:d:4", 3.0), ("A:q:1", 2, "A:d:3", 1.0), ("A:q:1", 3, "A:d:1", 0.0)]
    settings = SETTINGS | {"positives_per_query": most, "relabel_margin": 0.5}
    (group,) = select(own, ranked, reranked=reranked, **settings).groups.to_pylist()
    # A:d:2 has the lowest score, as most that nothing found; A:d:4 is a positive by the reranker alone.
    assert (group["positive_ids"], group["negative_ids"]) == (ids, ["A:d:5"])
    shares = np.array([{"A:d:3": 0.3, "A:d:1": 0.2, "A:d:4": 0.4}[doc_id] for doc_id in ids] + [0.1])
    np.testing.assert_allclose(group["soft_labels"], shares / shares.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "drops", "remedies"),
    [
        (
            {"margin": 99.0, "negatives_per_query": 2, "min_negatives": 2},
            (0, 3),
            "lower filter.margin or lower filter.min_negatives",
        ),
        ({"negatives_per_query": 9, "min_negatives": 9, "margin": 0.0}, (0, 3), "lower filter.min_negatives"),
        ({"max_positive_rank": 1}, (2, 1), "lower filter.min_negatives or raise filter.max_positive_rank"),
        ({"rule": "adaptive"}, (2, 1), "lower filter.min_negatives or lower filter.background_quantile"),
        (
            {"rule": "adaptive", "background_quantile": 0.0},
            (2, 1),
            "lower filter.min_negatives or set filter.rule to absolute",
        ),
        ({"rule": "percent"}, (2, 1), "lower filter.min_negatives or set filter.rule to absolute"),
    ],
)
def test_no_group_at_all_says_why_and_what_helps(
    toy: Toy, changes: dict[str, Any], drops: tuple[int, int], remedies: str
) -> None:
    # Positives last, and a query with a class, which is weak nowhere, alone with its positive.
    worst = [("A:q:1", "A:d:5", "A:d:1"), ("A:q:2", "A:d:5", "A:d:4"), ("B:q:1", "B:d:2")]
    rows = [(query, rank, doc, 1.0 / rank, 0.5) for query, *docs in worst for rank, doc in enumerate(docs, 1)]
    weak, short = drops
    why = f"queries: {{'weak_positive': {weak}, 'too_few_negatives': {short}}}, candidates: {{'labelled_positive': "
    with pytest.raises(InputError, match=rf"^no query of 3 gives a training group \({why}.*}}\); {remedies} in params"):
        select(toy, table(schemas.LABELS, rows if weak else LABELS), **SETTINGS | changes)


@pytest.mark.parametrize(("least", "said"), [(0.0, "0"), (1e-44, "1e-44|2e-44")])
def test_soft_labels_too_small_for_shares_are_refused(toy: Toy, least: float, said: str) -> None:
    rows = [(*row[:4], 1.0 if row[1] == 1 else least) for row in LABELS]
    message = rf"soft labels of query 'A:q:1' add up to ({said}) over .*raise label.teacher_temperature"
    with pytest.raises(InputError, match=message):
        select(toy, table(schemas.LABELS, rows), **SETTINGS)


@pytest.mark.parametrize(
    ("soft_labels", "is_refused"),
    [((1.0, 0.5, 0.0, 0.0), False), ((1.0, 0.0, 0.5, 0.0), False), ((1.0, 0.0, 0.0, 0.0), True)],
)
def test_of_several_positives_each_needs_soft_labels_with_the_negatives(
    toy: Toy, soft_labels: tuple[float, ...], is_refused: bool
) -> None:
    docs, scores = ("A:d:1", "A:d:3", "A:d:4", "A:d:5"), (3.0, 2.0, 0.0, -1.0)
    judged = table(schemas.QRELS, [("A:q:1", doc_id, 1) for doc_id in docs[:2]])
    rows = [("A:q:1", n, *row) for n, row in enumerate(zip(docs, scores, soft_labels, strict=True), 1)]
    own = toy._replace(queries=toy.queries.slice(0, 1), qrels=judged)
    settings = SETTINGS | {"positives_per_query": None}
    if is_refused:
        with pytest.raises(InputError, match="soft labels of query 'A:q:1' add up to 0 over"):
            select(own, table(schemas.LABELS, rows), **settings)
    else:
        (group,) = select(own, table(schemas.LABELS, rows), **settings).groups.to_pylist()
        assert group["soft_labels"] == pytest.approx(np.array(soft_labels[:3]) / sum(soft_labels[:3]))


def test_soft_labels_of_a_class_may_be_anything_and_its_positives_several(toy: Toy) -> None:
    docs = [(("B:d:2", "B:d:1", "B:d:3")[n], 2.0 - n) for n in range(3)]
    own = toy._replace(queries=toy.queries.slice(2, 1))
    rows = [("B:q:1", n, doc_id, score, 0.0) for n, (doc_id, score) in enumerate(docs, 1)]
    selection = select(own, table(schemas.LABELS, rows), **SETTINGS | {"positives_per_query": None})
    (group,) = selection.groups.to_pylist()
    assert selection.metrics["positives"] == selection.metrics["tasks"]["B"]["positives"] == 2
    assert (group["positive_ids"], group["negative_ids"]) == (["B:d:2", "B:d:1"], ["B:d:3"])
    assert group["soft_labels"] == []


@pytest.mark.parametrize("rule", ["adaptive", "none"])
def test_blocks_of_queries_make_no_difference(toy: Toy, labels: pa.Table, rule: str) -> None:
    settings = SETTINGS | {"rule": rule}
    whole, single = (select(toy, labels, size, **settings) for size in (99, 1))
    assert single.groups.equals(whole.groups)
    assert single.drops.equals(whole.drops)
    assert single.metrics == whole.metrics


def test_a_task_that_loses_most_queries_is_named_with_what_helps(
    toy: Toy, labels: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS | {"margin": 2.0}
    filtering.warn_of_losses(select(toy, labels, **settings).metrics, FilterParams(**settings))
    assert [message[:6] for message in caplog.messages] == ["task A"]
    assert caplog.messages[0] == (
        "task A: 50 % of its queries give no training group (too_few_negatives 1); to have more, lower filter.margin "
        "or lower filter.min_negatives"
    )
    counts = {"queries": 10, "groups": 5, "query_drops": {"weak_positive": 0, "too_few_negatives": 5}}
    of_classes = counts | {"drops": {"labelled_positive": 60, "inside_margin": 0}}
    filtering.warn_of_losses({"tasks": {"C": of_classes}}, FilterParams(**settings))
    assert caplog.messages[-1].endswith(
        "lower filter.min_negatives or raise retrieve_bm25.depth and retrieve_dense.depth"
    )
