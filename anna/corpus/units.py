"""What held-out tasks score, in one shape for all seven types, and which of it is shown as in-context examples."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import NamedTuple

from anna.corpus.dedup import merge_texts
from anna.corpus.drops import Drop
from anna.corpus.ids import text_id
from anna.corpus.sources import HeldOutSource
from anna.corpus.values import Row, class_name
from anna.errors import InputError
from anna.folding import normalise
from anna.prompts import Example
from anna.seeding import derive_seed

LABELLED = ("Classification", "Clustering")
PAIRS = ("STS", "PairClassification")
SEARCHED = ("Retrieval", "Reranking")

HIGH_SHARE = 0.8
"""Share of a task's highest score that an in-context example's response must reach (4 of 5 in STS)."""

HIGHEST_GRADE = 127
"""Of relevance: what a byte of the table of judgements holds."""


class Unit(NamedTuple):
    """A text with other texts and their scores, or with its class."""

    text: str
    """Query, first text of a pair, labelled text, or text that was summarised."""
    others: tuple[str, ...] = ()
    """Documents, second text, or summaries."""
    scores: tuple[float, ...] = ()
    """Relevance, similarity or judgement of each of the others."""
    label: str = ""
    """Class, where the task has classes."""

    @property
    def texts(self) -> frozenset[str]:
        """All its texts, normalised."""
        return frozenset(normalise(text) for text in (self.text, *self.others))


def make_units(source: HeldOutSource, rows: Iterable[Row], drop: Drop) -> list[Unit]:
    """Return the units of a source's rows, whatever their order.

    Args:
        source: Its type says how rows are grouped: by text for queries, sources and classes; pairs are not grouped.
        rows: Usable rows.
        drop: Counts rows that repeat another (`duplicate_pair`, `duplicate_text`), texts with two classes
            (`conflicting_labels`), rows whose lists are all empty (`no_document`) or differ in length
            (`unequal_lists`), queries of Retrieval in whose place another stands (`duplicate_query`), and queries and
            sources for which there is nothing to tell apart (`one_sided`).

    Raises:
        InputError: If a document of Retrieval has a relevance that is no whole number from 1 to `HIGHEST_GRADE`.
    """
    if source.type in LABELLED:
        return _labelled(rows, drop)
    judgements = _group(_judgements(source, _with_others(rows, drop), drop), drop)
    if source.type in PAIRS:
        return [
            Unit(text, (other,), (score,)) for text, judged in judgements.items() for other, score in judged.items()
        ]
    if source.type == "Retrieval":
        return _ranked(_merge_queries(source.task, judgements, drop))
    units = _ranked(judgements)
    for unit in units:
        if len(set(unit.scores)) == 1:
            drop("one_sided", unit.text)
    return [unit for unit in units if len(set(unit.scores)) > 1]


def _ranked(judgements: Mapping[str, Mapping[str, float]]) -> list[Unit]:
    return [Unit(text, tuple(judged), tuple(judged.values())) for text, judged in judgements.items()]


def _with_others(rows: Iterable[Row], drop: Drop) -> Iterator[Row]:
    """Yield the rows whose lists, if they have any, hold a document or a summary."""
    for row in rows:
        lists = [value for value in row.values.values() if isinstance(value, tuple)]
        if lists and not any(lists):
            drop("no_document", f"{row.place}: {row.content}")
        else:
            yield row


def _judgements(source: HeldOutSource, rows: Iterable[Row], drop: Drop) -> Iterator[tuple[Row, str, str, float]]:
    relevant = set(map(class_name, source.relevant))
    for row in rows:
        if source.type in PAIRS:
            yield row, row.text("text1"), row.text("text2"), row.numbers("score")[0]
        elif source.type == "Reranking":
            yield row, row.text("query"), row.text("doc"), float(row.text("relevance") in relevant)
        elif source.type == "Retrieval" and "relevances" not in row.values:
            for doc in row.docs:
                yield row, row.text("query"), doc, 1.0
        elif "good" in row.values:
            yield row, row.text("source"), row.text("good"), 1.0
            yield row, row.text("source"), row.text("bad"), 0.0
        else:
            yield from _graded(source, row, drop)


def _graded(source: HeldOutSource, row: Row, drop: Drop) -> Iterator[tuple[Row, str, str, float]]:
    """Yield what a row judges by two lists, texts and how relevant each is."""
    judged, others = ("query", "docs") if source.type == "Retrieval" else ("source", "summaries")
    texts, scores = row.texts(others), row.numbers("relevances")
    if len(texts) != len(scores):
        drop("unequal_lists", f"{row.place}: {row.text(judged)}")
        return
    for text, score in zip(texts, scores, strict=True):
        if source.type == "Retrieval" and not (score.is_integer() and 1 <= score <= HIGHEST_GRADE):
            raise InputError(
                f"{row.place}: a document has relevance {score:g}, but those of type Retrieval are relevant: whole "
                f"numbers from 1 to {HIGHEST_GRADE}; leave out the others, or name them under `distractors`"
            )
        yield row, row.text(judged), text, score


def _group(judgements: Iterable[tuple[Row, str, str, float]], drop: Drop) -> dict[str, dict[str, float]]:
    """Return text -> other -> score, sorted by the texts; of two judgements of one pair, the higher."""
    grouped: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row, text, other, score in judgements:
        if other in grouped[text]:
            drop("duplicate_pair", f"{row.place}: {text}")
        grouped[text][other] = max(score, grouped[text].get(other, score))
    return {text: dict(sorted(grouped[text].items())) for text in sorted(grouped)}


def _merge_queries(task: str, judgements: Mapping[str, dict[str, float]], drop: Drop) -> dict[str, dict[str, float]]:
    """Return the judgements with one query for those that differ in case, punctuation or spacing alone.

    Each alone, what is relevant to one would count as wrong for the other.
    """
    survivor = merge_texts({text_id(task, "q", query): query for query in judgements}, None, "query", drop)
    merged: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for query, judged in judgements.items():
        own = merged[survivor[query]]
        for other, score in judged.items():
            own[other] = max(score, own.get(other, score))
    return {query: dict(sorted(merged[query].items())) for query in sorted(merged)}


def _labelled(rows: Iterable[Row], drop: Drop) -> list[Unit]:
    units: defaultdict[str, list[Unit]] = defaultdict(list)
    for row in rows:
        units[normalise(row.text("text"))].append(Unit(row.text("text"), label=row.text("label")))
    kept = []
    for same in units.values():
        is_conflict = len({unit.label for unit in same}) > 1
        for unit in same if is_conflict else same[1:]:
            drop("conflicting_labels" if is_conflict else "duplicate_text", unit.text)
        if not is_conflict:
            kept.append(min(same))
    return sorted(kept)


def shuffle(units: Iterable[Unit], seed: int) -> list[Unit]:
    """Return the units in an order that depends on seed and content alone."""
    return sorted(units, key=lambda unit: (derive_seed(seed, unit.text, *unit.others), unit))


def choose_examples(units: Sequence[Unit], count: int, avoid: frozenset[str]) -> list[Example]:
    """Return up to `count` in-context examples, of different texts, and of different classes as far as there are any.

    Args:
        units: Candidates, of which the first that will do are taken; the texts of those after them are not looked at.
        count: How many.
        avoid: Normalised texts that no example may hold.

    Returns:
        Query and highest-scoring document; or a text and another of its class.
    """
    candidates = _class_examples(units, avoid) if units and units[0].label else _scored_examples(units, avoid)
    chosen: list[Example] = []
    shown: set[str] = set()
    for example in candidates:
        if len(chosen) == count:
            break
        texts = {normalise(example.query), normalise(example.response)}
        if len(texts) == 2 and not texts & shown:
            chosen.append(example)
            shown |= texts
    return chosen


def _usable(units: Iterable[Unit], avoid: frozenset[str]) -> Iterator[Unit]:
    """Yield the units that hold no text of `avoid`."""
    return (unit for unit in units if unit.texts.isdisjoint(avoid))


def _scored_examples(units: Sequence[Unit], avoid: frozenset[str]) -> Iterator[Example]:
    high = HIGH_SHARE * max((max(unit.scores) for unit in units), default=0.0)
    for unit in _usable(units, avoid):
        highest = max(unit.scores)
        if highest >= high:
            yield Example(unit.text, unit.others[unit.scores.index(highest)])


def _class_examples(units: Iterable[Unit], avoid: frozenset[str]) -> Iterator[Example]:
    usable = [_usable(members, avoid) for members in _by_class(units)]
    # An iterator zipped with itself gives two of its items at once.
    twos = [zip(members, members, strict=False) for members in usable]
    for turn in zip_longest(*twos):
        for unit, other in filter(None, turn):
            yield Example(unit.text, other.text)


def take_in_turn(units: Iterable[Unit], count: int) -> list[Unit]:
    """Return the first `count` units, taking one of each class in turn; a class with none left gives no more."""
    turns = chain.from_iterable(zip_longest(*_by_class(units)))
    return list(islice(filter(None, turns), count))


def _by_class(units: Iterable[Unit]) -> list[list[Unit]]:
    classes: defaultdict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        classes[unit.label].append(unit)
    return list(classes.values())
