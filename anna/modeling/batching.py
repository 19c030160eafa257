"""Batches with a budget of tokens instead of a number of texts: pure arithmetic on lengths."""

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Return batches of indices, longest texts first, of texts of like length.

    Args:
        lengths: Tokens of each text, > 0.
        tokens_per_batch: Largest number of texts times longest text, padding included; a longer text stands alone.

    Returns:
        Every index exactly once. The order depends on nothing but lengths and indices.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= tokens_per_batch:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def packed_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Return batches of indices, longest texts first, for packed rows: as `token_batches`, without padding to count."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    room = 0
    for index in order:
        if not batches or lengths[index] > room:
            batches.append([])
            room = tokens_per_batch
        batches[-1].append(index)
        room -= lengths[index]
    return batches


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences have in common, leaving each at least one token of its own."""
    rows = [tuple(sequence) for sequence in sequences]
    first, last = min(rows), max(rows)  # in lexical order: what these two begin with, all begin with
    limit = max(min(map(len, rows)) - 1, 0)
    return next((position for position in range(limit) if first[position] != last[position]), limit)
