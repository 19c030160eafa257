"""Which queries, documents and in-context examples make up each training batch.

A plan depends on groups, seed and epoch alone, so every rank makes the same one and knows what the others hold.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna import seeding
from anna.errors import InputError
from anna.training.recipe import TrainParams


class Group(NamedTuple):
    """A query with its positives, of which a batch shows one (`draw_positives`), and its hard negatives."""

    query_id: str
    task: str
    doc_ids: tuple[str, ...]
    """The positives, best first, then the negatives, hardest first."""
    soft_labels: tuple[float, ...]
    """The teachers' probabilities over them; nothing where the query has a class."""
    num_positives: int = 1
    """1 in every batch."""


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
    for task, undrawn in by_task.items():
        members = draw_positives(undrawn, seeding.rng(seed, "positives", task, epoch))
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


def draw_positives(groups: Sequence[Group], stream: np.random.Generator) -> list[Group]:
    """Return the groups with one positive each, any of a group's as likely, and its soft labels shared out anew.

    Softmax over fewer documents is softmax over all, divided by their sum: so no teacher's score is needed.

    Reference: a positive is drawn at random, as FlagEmbedding's training for BGE-EN-ICL does.
    """
    chosen = stream.integers(0, [group.num_positives for group in groups])
    return [_with_positive(group, int(place)) for group, place in zip(groups, chosen, strict=True)]


def _with_positive(group: Group, place: int) -> Group:
    if group.num_positives == 1:
        return group
    doc_ids, soft_labels = (  # by slices, as there may be no labels
        (*part[place : place + 1], *part[group.num_positives :]) for part in (group.doc_ids, group.soft_labels)
    )
    total = sum(soft_labels)
    return group._replace(doc_ids=doc_ids, soft_labels=tuple(share / total for share in soft_labels), num_positives=1)


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


def _chunks(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Return consecutive pieces of `size`, the last one with a remainder below half a piece."""
    count = max(1, len(order) // size + (len(order) % size >= (size + 1) // 2))
    ends = [min((number + 1) * size, len(order)) for number in range(count - 1)]
    return np.split(order, ends)
