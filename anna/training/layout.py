"""What each rank embeds of a batch, and which of its documents are no negatives of a query."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from anna.folding import normalise
from anna.training.batches import Batch, Group, Texts

T = TypeVar("T")


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
    masked: list[list[int]]
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
        masked=_not_negative(share, place, contents, texts),
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
