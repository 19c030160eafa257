"""Batches for query likelihood: the queries of a passage together, so that the passage is computed once for them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from anna.teachers.padding import count_each, count_tokens
from anna.teachers.query_likelihood import HEAD, TAIL


def plan_batches(
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
    *,
    doc_tokens: int,
    query_tokens: int,
    tokens_per_batch: int,
) -> list[list[int]]:
    """Return batches of places in `pairs`; see `group_by_passage`.

    Args:
        tokenizer: The model's.
        pairs: (query, passage) texts.
        doc_tokens: Passages are cut to this many tokens.
        query_tokens: Queries are cut to this many tokens.
        tokens_per_batch: Largest number of tokens computed at once.
    """
    (around,) = count_tokens(tokenizer, [HEAD + TAIL], add_special_tokens=False)
    queries = count_each(tokenizer, (query for query, _ in pairs), query_tokens)
    docs = count_each(tokenizer, (doc for _, doc in pairs), doc_tokens)
    return group_by_passage(
        pairs, [queries[query] for query, _ in pairs], [docs[doc] + around for _, doc in pairs], tokens_per_batch
    )


def group_by_passage(
    pairs: Sequence[tuple[str, str]], query_lengths: Sequence[int], doc_lengths: Sequence[int], tokens_per_batch: int
) -> list[list[int]]:
    """Return batches of places in `pairs`: longest passages first, each followed by its queries, longest first.

    Where some batches are done, what is left gives the batches that are left: the order depends on content alone, and
    each batch takes whatever fits.

    Args:
        pairs: (query, passage) texts.
        query_lengths: Tokens of each pair's query.
        doc_lengths: Tokens of each pair's passage, and of what is put around it.
        tokens_per_batch: Largest number of tokens of a batch, a passage counted once; a larger pair stands alone.
    """
    order = sorted(range(len(pairs)), key=lambda n: (-doc_lengths[n], pairs[n][1], -query_lengths[n], pairs[n][0]))
    batches: list[list[int]] = []
    used = 0
    for place in order:
        is_same_passage = bool(batches) and pairs[batches[-1][-1]][1] == pairs[place][1]
        extra = query_lengths[place] + (0 if is_same_passage else doc_lengths[place])
        if batches and used + extra <= tokens_per_batch:
            batches[-1].append(place)
            used += extra
        else:
            batches.append([place])
            used = query_lengths[place] + doc_lengths[place]
    return batches
