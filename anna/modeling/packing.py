"""Packed rows: many texts in one row without padding, and what several of them begin with computed once.

Each text sees its prefix and itself, at positions that go on where the prefix ends. All else in a decoder works on
single tokens, so outputs and gradients are those of each text alone, to rounding. Where attention is causal, that is;
where it is bidirectional a prefix would have to see its text, and there must be none.

Legend: T tokens of the row, B texts of a block, L longest of them, C keys that all of them see first, K most keys that
one of them sees after these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, (1, heads, tokens, head dimensions) each."""

ABSENT = 2**40
"""Position of padding among keys: so far after every query that none sees it."""


class Text(NamedTuple):
    """A text's tokens after its prefix, and which prefix that is."""

    tokens: Sequence[int]
    prefix: int | None = None


class Block(NamedTuple):
    """Texts of like length, padded side by side for attention alone."""

    queries: Tensor
    """(B, L), row numbers; a shorter text repeats its last one."""
    query_positions: Tensor
    """(B, L)."""
    real: Tensor
    """Which of the B * L places, flattened, are no repetition."""
    common: Tensor
    """(C,), row numbers of the keys of the prefix, where all texts have the same; else none."""
    keys: Tensor
    """(B, K), row numbers of the keys after these: a prefix of its own, then the text itself."""
    key_positions: Tensor
    """(B, C + K), `ABSENT` at padding."""

    def visible(self, window: int | None, is_causal: bool = True) -> Tensor | None:
        """Return which keys each query sees, (B, 1, L, C + K); None: query n the keys up to n, be they padding.

        Causal attention sees those up to itself, of the last `window` positions; bidirectional attention all, or those
        `window` positions away at most, as transformers does.
        """
        if is_causal and self.fits(window) and self.queries.shape == self.key_positions.shape:
            return None  # key n is the token of query n
        distance = self.query_positions[:, :, None] - self.key_positions[:, None, :]
        if is_causal:
            is_visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        else:
            is_visible = distance.abs() <= (ABSENT // 2 if window is None else window)
        return is_visible[:, None]

    def fits(self, window: int | None) -> bool:
        """Return whether no query comes so late that it would not see the first key."""
        return window is None or int(self.query_positions.max()) < window

    def own(self) -> "Block":
        """Return the block as it is without its common keys."""
        return self._replace(common=self.common[:0], key_positions=self.key_positions[:, len(self.common) :])


@dataclass(frozen=True, eq=False)
class Packing:
    """A packed row, and how attention reads it."""

    ids: Tensor
    """(1, T)."""
    positions: Tensor
    """(1, T), counted from the start of the prefix."""
    piece: Tensor
    """(T,), number of the prefix or text that a token belongs to."""
    sees: Tensor
    """(T,), number of the prefix that the token sees besides its own piece; its own piece where there is none."""
    blocks: tuple[Block, ...]
    """Every token is a query once, in the order of the row."""
    num_prefix_blocks: int
    """The first so many blocks are prefixes."""
    texts: Tensor
    """(S,), for each text in the given order its number in the row."""
    starts: tuple[int, ...]
    """Where in the row each prefix begins, then each text, in the given order."""
    num_cached: int = 0
    """Tokens before the row that every text sees and that are not computed again."""
    cached: Mapping[int, KeysValues] | None = None
    """Their keys and values by layer."""
    keep: dict[int, KeysValues] | None = None
    """Where attention leaves the row's keys and values by layer."""
    given: KeysValues | None = None
    """The row's keys and values, where only some of its tokens are queries."""
    rows: Tensor | None = None
    """Those tokens."""
    masks: dict[Any, Any] = field(default_factory=dict, init=False)
    """What attention has made of the row for one layer and uses again in the next."""

    def to(self, device: torch.device) -> "Packing":
        """Return the packing with its tensors on `device`."""
        blocks = tuple(Block(*(part.to(device) for part in block)) for block in self.blocks)
        names = ("ids", "positions", "piece", "sees", "texts")
        return replace(self, blocks=blocks, **{name: getattr(self, name).to(device) for name in names})

    def last(self) -> Tensor:
        """Return where in the row each text ends, in the order of the row, (S,)."""
        return torch.cat([block.queries[:, -1] for block in self.blocks[self.num_prefix_blocks :]])

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return the number of each text, and of the prefix that comes before it or its own without one, (S,) each."""
        own = torch.arange(len(self.starts) - len(self.texts), len(self.starts), device=self.sees.device)
        return own, self.sees[torch.tensor(self.starts, device=self.sees.device)[own]]

    def reading(self, given: KeysValues) -> "Packing":
        """Return the packing for a layer whose queries are the texts' last tokens alone."""
        blocks, done = [], 0
        for block in self.blocks[self.num_prefix_blocks :]:
            numbers = torch.arange(len(block.queries), device=block.queries.device)
            queries = (numbers + done)[:, None]
            blocks.append(block._replace(queries=queries, query_positions=block.query_positions[:, -1:], real=numbers))
            done += len(numbers)
        return replace(self, blocks=tuple(blocks), given=given, rows=self.last())


def pack(texts: Sequence[Text], prefixes: Sequence[Sequence[int]] = (), num_cached: int = 0) -> Packing:
    """Return the row of prefixes, then texts that begin with one, then others, each longest first.

    Args:
        texts: Each of at least one token.
        prefixes: Shared beginnings, computed in the row; they see themselves alone.
        num_cached: Tokens that come before every text and are not computed again; then there are no prefixes.
    """
    pieces = [*prefixes, *(text.tokens for text in texts)]
    parents = [*[None] * len(prefixes), *(text.prefix for text in texts)]
    lengths = [len(piece) for piece in pieces]
    kinds = [
        range(len(prefixes)),
        [n for n in range(len(prefixes), len(pieces)) if parents[n] is not None],
        [n for n in range(len(prefixes), len(pieces)) if parents[n] is None],
    ]
    ordered = [_longest_first(lengths, kind) for kind in kinds]
    order = [piece for kind in ordered for piece in kind]
    starts = [0] * len(pieces)
    for before, piece in pairwise(order):
        starts[piece] = starts[before] + lengths[before]
    spans = [
        _Span(starts[n] + num_cached, lengths[n], *((0, num_cached) if p is None else (starts[p], lengths[p])))
        for n, p in enumerate(parents)
    ]
    groups = [_like_lengths([spans[piece] for piece in kind]) for kind in ordered]
    in_row, repeats = torch.tensor(order), torch.tensor([lengths[piece] for piece in order])
    sees = torch.tensor([n if p is None else p for n, p in enumerate(parents)])
    return Packing(
        ids=torch.tensor([[token for piece in order for token in pieces[piece]]]),
        positions=torch.cat([torch.arange(spans[n].length) + spans[n].num_before for n in order])[None],
        piece=in_row.repeat_interleave(repeats),
        sees=sees[in_row].repeat_interleave(repeats),
        blocks=tuple(_block(group, num_cached) for kind in groups for group in kind),
        num_prefix_blocks=len(groups[0]),
        texts=in_row.argsort()[len(prefixes) :] - len(prefixes),
        starts=tuple(starts),
        num_cached=num_cached,
    )


class _Span(NamedTuple):
    """Where a piece and what comes before it lie among the keys."""

    start: int
    length: int
    before: int
    num_before: int


def _longest_first(lengths: Sequence[int], pieces: Iterable[int]) -> list[int]:
    return sorted(pieces, key=lambda piece: (-lengths[piece], piece))


def _like_lengths(spans: Sequence[_Span]) -> list[list[_Span]]:
    """Return the spans, longest first, cut where one has less than half the length of its block's longest."""
    groups: list[list[_Span]] = []
    for span in spans:
        if not groups or 2 * span.length < groups[-1][0].length:
            groups.append([])
        groups[-1].append(span)
    return groups


def _block(spans: Sequence[_Span], num_cached: int) -> Block:
    """Return the block of pieces that follow one another in the row."""
    start, length, _, num_before = (torch.tensor(column)[:, None] for column in zip(*spans, strict=True))
    steps = torch.arange(spans[0].length)
    places = torch.minimum(steps, length - 1)
    befores = {(span.before, span.num_before) for span in spans}
    first, num_common = befores.pop() if len(befores) == 1 else (0, 0)
    keys = [_own_keys(span, num_common) for span in spans]
    positions = [torch.arange(num_common + len(row)) for row in keys]
    return Block(
        queries=places + start - num_cached,
        query_positions=places + num_before,
        real=(steps < length).flatten().nonzero()[:, 0],
        common=torch.arange(first, first + num_common),
        keys=pad_sequence(keys, batch_first=True),
        key_positions=pad_sequence(positions, batch_first=True, padding_value=ABSENT),
    )


def _own_keys(span: _Span, num_common: int) -> Tensor:
    """Return the row numbers of what a piece sees, without the `num_common` keys that its block has in common."""
    before = torch.arange(span.before + num_common, span.before + span.num_before)
    return torch.cat([before, torch.arange(span.start, span.start + span.length)])
