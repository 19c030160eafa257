"""The training collections: documents, queries and judgements of each task, free of duplicates and held-out texts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from anna import schemas
from anna.corpus.decontaminate import HeldOutTexts
from anna.corpus.dedup import merge_texts
from anna.corpus.drops import Drop, keep
from anna.corpus.ids import text_id
from anna.corpus.sources import TrainSource
from anna.corpus.values import Row
from anna.folding import normalise
from anna.seeding import derive_seed


class Pair(NamedTuple):
    """A query and a document with their judgement; in a classification task, one text twice, with its class."""

    query: str
    doc: str
    relevance: int
    label: str | None
    place: str

    def shown(self) -> str:
        """Return what stands for the pair among the drops: its place and its query."""
        return f"{self.place}: {self.query}"


@dataclass
class Collection:
    """One task's documents, queries and judgements, by id."""

    task: str
    kind: str
    docs: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[tuple[str, str], int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Class of each text, by the text; empty where the task has no classes."""


def make_pairs(source: TrainSource, rows: Iterable[Row], drop: Drop) -> list[Pair]:
    """Return the judged pairs of a source's rows; `negatives` and pairs below `positive_at` have relevance 0.

    A row whose lists are all empty makes no pair; `drop` counts it as `no_document`.
    """
    pairs: list[Pair] = []
    for row in rows:
        if source.kind == "classification":
            pairs.append(Pair(row.text("text"), row.text("text"), 1, row.text("label"), row.place))
        elif source.kind == "sts":
            relevance = int(row.numbers("score")[0] >= (source.positive_at or 0.0))
            pairs.append(Pair(row.text("text1"), row.text("text2"), relevance, None, row.place))
        else:
            query = row.text("query")
            parts = (("doc", 1), ("docs", 1), ("negatives", 0))
            made = [Pair(query, doc, value, None, row.place) for name, value in parts for doc in row.texts(name)]
            if not made:
                drop("no_document", f"{row.place}: {query}")
            pairs.extend(made)
    return pairs


def build_collection(
    task: str,
    kind: str,
    pairs: Sequence[Pair],
    held_out: HeldOutTexts,
    drop: Drop,
    *,
    distractors: Sequence[str] = (),
    near_duplicate: float | None,
    seed: int,
) -> Collection:
    """Return the collection that is left of `pairs` and `distractors` once held-out texts and duplicates are gone.

    Args:
        task: Name of the task.
        kind: `retrieval`, `sts` or `classification`.
        pairs: All pairs of the task.
        held_out: Texts that no pair and no distractor may hold.
        drop: Counts what goes. Pairs and distractors: `contaminated`, `near_contaminated`. Pairs: `conflicting_labels`,
            `positive_is_query`, `duplicate_pair`. Texts in whose place another stands: `duplicate_document`,
            `near_duplicate_document`, `duplicate_query`. Queries: `query_without_positive`.
        distractors: More documents, whether or not a pair holds them; none where the task has classes.
        near_duplicate: Jaccard similarity from which documents count as one, in (0, 1], but for STS; None: equal ones
            only.
        seed: Draws the positives of classification.
    """
    leaks = held_out.verdicts((*(text for pair in pairs for text in (pair.query, pair.doc)), *distractors))
    pairs = keep(pairs, lambda pair: leaks.get(pair.query) or leaks.get(pair.doc), Pair.shown, drop)
    distractors = keep(distractors, leaks.get, str, drop)
    pairs = _without_conflicts(pairs, drop) if kind == "classification" else pairs
    # In STS near duplicates are not copies but the best positives: merged, a pair would be one text twice.
    survivor = _merge_documents(task, pairs, distractors, None if kind == "sts" else near_duplicate, drop)
    pairs = [pair._replace(doc=survivor[pair.doc]) for pair in pairs]
    pairs = _merge_queries(task, pairs, drop) if kind != "classification" else pairs
    docs = (*(pair.doc for pair in pairs), *(survivor[doc] for doc in distractors))
    collection = Collection(task, kind, docs={text_id(task, "d", doc): doc for doc in docs})
    if kind == "classification":
        _judge_by_class(collection, pairs, seed, drop)
    else:
        _judge(collection, pairs, drop)
    return collection


def _without_conflicts(pairs: Sequence[Pair], drop: Drop) -> list[Pair]:
    """Drop texts that occur with more than one class: at least one of them is wrong."""
    labels = defaultdict(set)
    for pair in pairs:
        labels[normalise(pair.doc)].add(pair.label)
    conflicting = {text for text, own in labels.items() if len(own) > 1}
    reason = "conflicting_labels"
    return keep(pairs, lambda pair: reason if normalise(pair.doc) in conflicting else None, Pair.shown, drop)


def _merge_documents(
    task: str, pairs: Iterable[Pair], distractors: Iterable[str], near_duplicate: float | None, drop: Drop
) -> dict[str, str]:
    """Return, for each document, the one that stands for it; texts of different classes are never merged."""
    by_label: defaultdict[str | None, dict[str, str]] = defaultdict(dict)
    for label, doc in (*((pair.label, pair.doc) for pair in pairs), *((None, doc) for doc in distractors)):
        by_label[label][text_id(task, "d", doc)] = doc
    survivor: dict[str, str] = {}
    for texts in by_label.values():
        survivor.update(merge_texts(texts, near_duplicate, "document", drop))
    return survivor


def _merge_queries(task: str, pairs: Sequence[Pair], drop: Drop) -> list[Pair]:
    """Put the surviving query in place of its duplicates, so that it has the positives of all."""
    texts = {text_id(task, "q", pair.query): pair.query for pair in pairs}
    survivor = merge_texts(texts, None, "query", drop)
    return [pair._replace(query=survivor[pair.query]) for pair in pairs]


def _judge(collection: Collection, pairs: Iterable[Pair], drop: Drop) -> None:
    """Add each query that has a positive, with all its judgements; of two judgements of one pair, the higher."""
    judgements: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for pair in pairs:
        judged = judgements[pair.query]
        if normalise(pair.query) == normalise(pair.doc):
            drop("positive_is_query", pair.shown())
            continue
        if pair.doc in judged:
            drop("duplicate_pair", pair.shown())
        judged[pair.doc] = max(pair.relevance, judged.get(pair.doc, 0))
    if collection.kind == "sts":
        _judge_both_ways(judgements, collection.docs.values())
    for query, judged in judgements.items():
        if not any(judged.values()):
            drop("query_without_positive", query)
            continue
        query_id = text_id(collection.task, "q", query)
        collection.queries[query_id] = query
        for doc, relevance in judged.items():
            collection.qrels[query_id, text_id(collection.task, "d", doc)] = relevance


def _judge_both_ways(judgements: Mapping[str, dict[str, int]], docs: Iterable[str]) -> None:
    """Judge the pairs that are alike in the other order, too, where their texts are there as query and document."""
    as_query, as_doc = ({normalise(text): text for text in texts} for texts in (judgements, docs))
    alike = [(query, doc) for query, judged in judgements.items() for doc, relevance in judged.items() if relevance]
    for query, doc in alike:
        other, own = as_query.get(normalise(doc)), as_doc.get(normalise(query))
        if other is not None and own is not None:
            judgements[other][own] = 1


def _judge_by_class(collection: Collection, pairs: Iterable[Pair], seed: int, drop: Drop) -> None:
    """Make every text a query whose positive is one other text of its class (example-based classes, NV-Embed-v2)."""
    for pair in pairs:
        if pair.doc in collection.labels:
            drop("duplicate_pair", f"{pair.place}: {pair.doc}")
        collection.labels[pair.doc] = pair.label or ""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for text in sorted(collection.labels):
        members[collection.labels[text]].append(text)
    for texts in members.values():
        if len(texts) == 1:
            drop("query_without_positive", texts[0])
            continue
        for position, text in enumerate(texts):
            query_id = text_id(collection.task, "q", text)
            # A step of 1 to n - 1 around the class reaches every text but this one.
            step = 1 + derive_seed(seed, query_id) % (len(texts) - 1)
            positive = texts[(position + step) % len(texts)]
            collection.queries[query_id] = text
            collection.qrels[query_id, text_id(collection.task, "d", positive)] = 1


def training_tables(
    collections: Sequence[Collection], *, validation_share: float, seed: int
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return corpus, queries and qrels of all tasks.

    Args:
        collections: One per task.
        validation_share: Share of queries that are put aside by a hash of their text, of all tasks alike, in [0, 1).
        seed: Of that hash.
    """
    # Columns and not rows: a dictionary for each judgement takes three times the memory of the table.
    docs = {
        "doc_id": [key for each in collections for key in each.docs],
        "task": [each.task for each in collections for _ in each.docs],
        "text": [text for each in collections for text in each.docs.values()],
        "label": [each.labels.get(text) for each in collections for text in each.docs.values()],
    }
    queries = {
        "query_id": [key for each in collections for key in each.queries],
        "task": [each.task for each in collections for _ in each.queries],
        "kind": [each.kind for each in collections for _ in each.queries],
        "split": [
            "validation" if derive_seed(seed, normalise(text)) < validation_share * 2**63 else "train"
            for each in collections
            for text in each.queries.values()
        ],
        "text": [text for each in collections for text in each.queries.values()],
        "label": [each.labels.get(text) for each in collections for text in each.queries.values()],
    }
    qrels = {
        "query_id": [query_id for each in collections for query_id, _ in each.qrels],
        "doc_id": [doc_id for each in collections for _, doc_id in each.qrels],
        "relevance": [relevance for each in collections for relevance in each.qrels.values()],
    }
    return (
        pa.Table.from_pydict(docs, schema=schemas.CORPUS),
        pa.Table.from_pydict(queries, schema=schemas.QUERIES),
        pa.Table.from_pydict(qrels, schema=schemas.QRELS),
    )
