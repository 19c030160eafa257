"""Which queries, documents and in-context examples make up each training batch.

A plan depends on groups, seed and epoch alone, so every rank makes the same one and knows what the others hold.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from anna import seeding
from anna.errors import InputError
from anna.folding import normalise
from anna.training.recipe import TrainParams

T = TypeVar("T")


class Group(NamedTuple):
    """A query with its positive, its hard negatives and the teacher's probabilities over them, positive first."""

    query_id: str
    task: str
    doc_ids: tuple[str, ...]
    soft_labels: tuple[float, ...]


class Batch(NamedTuple):
    """Groups of one task, and the groups whose query and positive are shown as in-context examples."""

    task: str
    groups: tuple[Group, ...]
    examples: tuple[Group, ...]

    def doc_ids(self) -> list[str]:
        """Return the distinct documents of all groups, in their order."""
        return list(dict.fromkeys(doc_id for group in self.groups for doc_id in group.doc_ids))


class Texts(NamedTuple):
    """Everything that batches name by id or by task."""

    queries: Mapping[str, str]
    """Text by query_id."""
    docs: Mapping[str, str]
    """Text by doc_id."""
    positives: Mapping[str, frozenset[str]]
    """Every labelled positive by query_id."""
    spared: Mapping[str, frozenset[str]] = MappingProxyType({})
    """By query_id, documents that the filter found too close to its positive to be negatives of it."""
    labels: Mapping[str, str] = MappingProxyType({})
    """Class by query_id and doc_id; nothing of tasks without classes."""
    vectors: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
    """Unit vector under the dense teacher, by query_id and doc_id; none where no term of the loss asks for them."""


def plan_epoch(
    groups: Sequence[Group], *, batch_queries: int, max_examples: int, chained: bool, seed: int, epoch: int
) -> list[Batch]:
    """Return the batches of one epoch, in order: every group exactly once, one task per batch.

    A task's last batch takes in a remainder of less than half a batch, so sizes lie between half and one and a half of
    `batch_queries` (or the task is smaller than that).

    Args:
        groups: All training groups.
        batch_queries: Queries per batch, over all ranks.
        max_examples: k_max; each batch shows k examples, k uniform in 0..k_max (BGE-EN-ICL: 5, drawn per query).
        chained: See `chain`.
        seed: Root seed.
        epoch: From 0; each has an order of its own.

    Reference: one task per batch: SFR-Embedding-Mistral, and BGE-EN-ICL's `same_dataset_within_batch`.
    """
    by_task: dict[str, list[Group]] = {}
    for group in sorted(groups):
        by_task.setdefault(group.task, []).append(group)
    batches: list[Batch] = []
    for task, members in by_task.items():
        order = seeding.rng(seed, "order", task, epoch).permutation(len(members))
        order = chain(members, order) if chained else order
        for number, chunk in enumerate(_chunks(order, batch_queries)):
            chosen = tuple(members[index] for index in chunk)
            stream = seeding.rng(seed, "examples", task, epoch, number)
            batches.append(Batch(task, chosen, draw_examples(members, chosen, max_examples, stream)))
    order = seeding.rng(seed, "batches", epoch).permutation(len(batches))
    return [batches[index] for index in order]


def plan_epochs(
    groups: Sequence[Group], recipe: TrainParams, *, epochs: int, batch_queries: int, max_examples: int
) -> Iterator[Batch]:
    """Yield the batches of so many epochs, in order; seed, and whether negatives are chained, are the recipe's."""
    for epoch in range(epochs):
        yield from plan_epoch(
            groups,
            batch_queries=batch_queries,
            max_examples=max_examples,
            chained=recipe.chain_negatives,
            seed=recipe.seed,
            epoch=epoch,
        )


def chain(members: Sequence[Group], order: np.ndarray) -> np.ndarray:
    """Return `order` with every group followed, where one is left, by a group whose positive is its hard negative.

    A batch embeds each document once, so such a negative costs nothing: it is there as the next query's positive. And
    the queries of a batch become each other's near misses.

    Args:
        members: Groups of one task.
        order: Their numbers; where no group can follow, the first of it that is left does.
    """
    with_positive: dict[str, deque[int]] = {}
    for number in order:
        with_positive.setdefault(members[number].doc_ids[0], deque()).append(int(number))
    chained: list[int] = []
    for start in order:
        waiting = with_positive[members[start].doc_ids[0]]
        if start not in waiting:
            continue
        waiting.remove(start)
        following: int | None = int(start)
        while following is not None:
            chained.append(following)
            queues = (with_positive.get(doc_id) for doc_id in members[following].doc_ids[1:])
            following = next((queue.popleft() for queue in queues if queue), None)
    return np.array(chained)


def draw_examples(
    members: Sequence[Group], batch: Sequence[Group], max_examples: int, stream: np.random.Generator
) -> tuple[Group, ...]:
    """Return k groups of the task, k uniform in 0..max_examples, none of which would show a text of `batch`."""
    num_examples = int(stream.integers(0, max_examples + 1))
    embedded = {_text_hash(text_id) for group in batch for text_id in (group.query_id, *group.doc_ids)}
    drawn = (members[number] for number in _shuffled(len(members), stream))
    allowed = (
        group for group in drawn if embedded.isdisjoint((_text_hash(group.query_id), _text_hash(group.doc_ids[0])))
    )
    return tuple(islice(allowed, num_examples))


def _text_hash(text_id: str) -> str:
    """Return the hash that an id ends in: a query and a document of one text, as symmetric tasks have, share it."""
    return text_id.rpartition(":")[2]


def _shuffled(count: int, stream: np.random.Generator) -> Iterator[int]:
    """Yield 0..count-1 in random order, at a cost of those that are asked for alone (Fisher and Yates)."""
    moved: dict[int, int] = {}
    for place in range(count):
        other = int(stream.integers(place, count))
        yield moved.get(other, other)
        moved[other] = moved.get(place, place)


def check_world(batches: Sequence[Batch], world_size: int) -> None:
    """Refuse a batch that would leave a rank without a query or without a document: all must make the same passes.

    Raises:
        InputError: With the task, its size and the remedy.
    """
    for batch in batches:
        least = min(len(batch.groups), len(batch.doc_ids()))
        if least < world_size:
            raise InputError(
                f"task {batch.task!r} has a batch of {len(batch.groups)} queries and {len(batch.doc_ids())} documents "
                f"for {world_size} ranks; set train.batch_queries to {2 * world_size} or more (a task's last batch may "
                "hold half of it), give the task more rows, or train on fewer ranks"
            )


class Sizes(NamedTuple):
    """Texts of a batch that each rank embeds."""

    queries: list[int]
    docs: list[int]


class Layout(NamedTuple):
    """What a rank embeds of a batch, and how that relates to all of it. Columns are documents of all ranks."""

    share: tuple[Group, ...]
    """Groups whose queries the rank embeds."""
    doc_ids: list[str]
    """Distinct documents that it embeds."""
    columns: list[list[int]]
    """Columns of each group's documents, positive first."""
    is_masked: list[list[int]]
    """Columns of documents in the batch that must not count as negatives of the group's query, ascending."""
    text_ids: list[str]
    """Queries of all ranks, by rank, then their documents, by column."""
    contents: list[int]
    """A number for each of these, the same where texts differ in nothing but case, punctuation and spacing."""
    own: list[int]
    """Which of these the rank embeds, queries first."""
    sizes: Sizes


def lay_out(batch: Batch, rank: int, world_size: int, texts: Texts) -> Layout:
    """Return a rank's part of a batch, which embeds each document once, as many and as much text on each rank.

    Masked for a query are other queries' documents that are labelled positives of it, that the filter found too close
    to its positive, that are of its class, or that have its own text (a question that is asked twice; retrieval leaves
    it out, too).

    Args:
        batch: The batch of all ranks.
        rank: Whose part.
        world_size: Number of ranks.
        texts: What the batch names.
    """
    shares = deal(batch.groups, [len(texts.queries[group.query_id]) for group in batch.groups], world_size)
    share, query_blocks = shares[rank], [[group.query_id for group in other] for other in shares]
    doc_ids = batch.doc_ids()
    doc_blocks = deal(doc_ids, [len(texts.docs[doc_id]) for doc_id in doc_ids], world_size)
    text_ids = [text_id for block in (*query_blocks, *doc_blocks) for text_id in block]
    sizes = Sizes([len(block) for block in query_blocks], [len(block) for block in doc_blocks])
    first_query, first_doc = sum(sizes.queries[:rank]), len(batch.groups) + sum(sizes.docs[:rank])
    place = {doc_id: column for column, doc_id in enumerate(text_ids[len(batch.groups) :])}
    contents = contents_by_id(text_ids[: len(batch.groups)], place, texts)
    own = [*range(first_query, first_query + len(share)), *range(first_doc, first_doc + len(doc_blocks[rank]))]
    return Layout(
        share=tuple(share),
        doc_ids=doc_blocks[rank],
        columns=[[place[doc_id] for doc_id in group.doc_ids] for group in share],
        is_masked=_not_negative(share, place, contents, texts),
        text_ids=text_ids,
        contents=[contents[text_id] for text_id in text_ids],
        own=own,
        sizes=sizes,
    )


def deal(items: Sequence[T], sizes: Sequence[int], world_size: int) -> list[list[T]]:
    """Return the items of each rank: numbers differ by at most one, and so, nearly, does what they add up to.

    A step takes as long as the rank that has most: dealt in the order of the batch, 8 ranks of 128 documents each wait
    for one with 7 % more than their mean, 64 ranks for one with 35 % (BoolQ's lengths). Here each round of one item a
    rank, the largest first, goes to the rank that has least so far. A rank alone keeps the order.

    Args:
        items: Queries or documents of a batch.
        sizes: How much each costs.
        world_size: Number of ranks.
    """
    if world_size == 1:
        return [list(items)]
    order = sorted(range(len(items)), key=lambda number: -sizes[number])
    blocks: list[list[T]] = [[] for _ in range(world_size)]
    totals = [0] * world_size
    for first in range(0, len(order), world_size):
        ranks = sorted(range(world_size), key=totals.__getitem__)
        for rank, number in zip(ranks, order[first : first + world_size], strict=False):
            blocks[rank].append(items[number])
            totals[rank] += sizes[number]
    return blocks


def contents_by_id(query_ids: Iterable[str], doc_ids: Iterable[str], texts: Texts) -> dict[str, int]:
    """Return `Layout.contents` of some queries and documents by id."""
    said = {query_id: texts.queries[query_id] for query_id in query_ids}
    said |= {doc_id: texts.docs[doc_id] for doc_id in doc_ids}
    known: dict[str, int] = {}
    return {text_id: known.setdefault(normalise(text), len(known)) for text_id, text in said.items()}


def _not_negative(
    share: Sequence[Group], place: Mapping[str, int], contents: Mapping[str, int], texts: Texts
) -> list[list[int]]:
    by_content: dict[int, list[str]] = {}
    by_label: dict[str, list[str]] = {}
    for doc_id in place:
        by_content.setdefault(contents[doc_id], []).append(doc_id)
        if doc_id in texts.labels:
            by_label.setdefault(texts.labels[doc_id], []).append(doc_id)
    masked = []
    for group in share:
        relevant = {*by_content.get(contents[group.query_id], ())}
        for known in (texts.positives, texts.spared):
            relevant |= place.keys() & known.get(group.query_id, frozenset())
        if group.query_id in texts.labels:
            relevant.update(by_label.get(texts.labels[group.query_id], ()))
        masked.append(sorted(place[doc_id] for doc_id in relevant.difference(group.doc_ids)))
    return masked


def _chunks(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Return consecutive pieces of `size`, the last one with a remainder below half a piece."""
    count = max(1, len(order) // size + (len(order) % size >= (size + 1) // 2))
    ends = [min((number + 1) * size, len(order)) for number in range(count - 1)]
    return np.split(order, ends)
