"""How long texts are, and how far batches are padded.

A text or pair is to get the same result to the last bit in whatever company. Padding adds zeros to sums, which changes
no sum; but how a CPU groups the terms of a sum, and so how it rounds, depends on sizes. With these sizes no size does.
"""

from collections.abc import Iterable, Sequence
from typing import Any

PADDED_TO = 16
"""Tokens of a row: as many numbers as one instruction takes at once."""

ROWS = 4
"""Rows of a batch whose rows become one vector each: as many as a matrix product takes at once."""

TOKENISED_AT_ONCE = 1_000
"""Texts; only their lengths are kept."""


def count_tokens(tokenizer: Any, texts: Sequence[str], *, prefix: str = "", **options: Any) -> list[int]:
    """Return how many tokens each text has.

    Args:
        tokenizer: Of transformers.
        texts: Bare texts.
        prefix: Put before each text.
        options: The tokenizer's own.
    """
    lengths: list[int] = []
    for start in range(0, len(texts), TOKENISED_AT_ONCE):
        part = [prefix + text for text in texts[start : start + TOKENISED_AT_ONCE]]
        lengths += map(len, tokenizer(part, **options)["input_ids"])
    return lengths


def count_each(tokenizer: Any, texts: Iterable[str], max_tokens: int) -> dict[str, int]:
    """Return how many tokens each distinct text has when it is cut to `max_tokens`, special ones not among them."""
    distinct = list(dict.fromkeys(texts))
    counts = count_tokens(tokenizer, distinct, add_special_tokens=False, truncation=True, max_length=max_tokens)
    return dict(zip(distinct, counts, strict=True))


def padded(length: int) -> int:
    """Return the length of a batch whose longest row has `length` tokens."""
    return -(-length // PADDED_TO) * PADDED_TO


def whole_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Return batches of indices, longest rows first, all but the last of a multiple of `ROWS` rows.

    Args:
        lengths: Padded tokens of each row.
        tokens_per_batch: Largest number of rows times longest row, where `ROWS` of them fit.

    Returns:
        Every index exactly once. The order depends on nothing but lengths and indices.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        num_rows = max(1, tokens_per_batch // lengths[order[start]] // ROWS) * ROWS
        batches.append(order[start : start + num_rows])
        start += num_rows
    return batches
