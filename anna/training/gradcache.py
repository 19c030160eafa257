"""A contrastive batch of any size in micro-steps of bounded memory.

All texts are embedded without a graph, the loss is taken over all vectors of all ranks, and then each micro-step embeds
its texts again and carries the loss's gradient at their vectors on to the weights. The sum over micro-steps is the
gradient of the whole batch, so how a batch is cut changes memory and time, and the result by rounding alone (in
bfloat16, as on GPUs, a sum of 64 parts by 1 %). Each micro-step is one accumulation step of the DeepSpeed engine, which
works at every ZeRO stage.

Reference: GradCache, Gao et al. 2021, arXiv:2101.06983.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from anna.modeling.batching import packed_batches
from anna.modeling.encoder import Part, num_tokens

Sides = tuple[Part, Part]
"""The queries of a rank, and its documents."""


class Chunk(NamedTuple):
    """A micro-step: rows of one side that are embedded together."""

    side: int
    rows: list[int]
    is_extra: bool = False
    """Whether they are embedded only so that all ranks run the same passes."""


Statistics = dict[str, Tensor]

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Statistics]]
"""(vectors of this rank's queries, of its documents) -> this rank's loss, and what else is to be known of it."""


def backward(engine: Any, sides: Sides, loss: Loss, max_tokens: int | None) -> tuple[Statistics, int]:
    """Leave the gradient of `loss` in the engine; return its statistics, and the tokens embedded by this rank.

    A token that is embedded more than once, without a graph, with one or for other ranks' sake, counts once; a prompt
    counts in every micro-step that computes it.

    Args:
        engine: DeepSpeed engine around the encoder; its next step is to be the optimizer's.
        sides: This rank's queries and its documents.
        loss: Called once, with all of this rank's vectors.
        max_tokens: Tokens that a micro-step computes at most on each rank; a longer text stands alone. None: one pass.
    """
    chunks = plan(sides, max_tokens)
    if chunks is None:
        engine.set_gradient_accumulation_boundary(True)
        value, statistics = loss(*engine(sides))
        engine.backward(value)
        return statistics, num_tokens(sides)
    states, vectors = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state())
            vectors.append(_embed(engine, sides, chunk))
    state_after = _random_state()
    leaves = [leaf.requires_grad_() for leaf in _assemble(sides, chunks, vectors)]
    value, statistics = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    for number, (chunk, state) in enumerate(zip(chunks, states, strict=True), start=1):
        _set_random_state(state)  # dropout falls as it did when the loss was taken
        engine.set_gradient_accumulation_boundary(number == len(chunks))
        gradient = gradients[chunk.side][chunk.rows] * (not chunk.is_extra)
        # A number whose gradient at the weights is the loss's through these vectors.
        engine.backward((_embed(engine, sides, chunk) * gradient).sum())
    _set_random_state(state_after)
    return statistics, sum(num_tokens([_part(sides, chunk)]) for chunk in chunks if not chunk.is_extra)


def plan(sides: Sides, max_tokens: int | None) -> list[Chunk] | None:
    """Return the micro-steps of this rank, as many as every other rank has, of the same sides; None: one pass.

    One pass where all texts fit on every rank. A rank with fewer micro-steps repeats rows, marked `is_extra`: at ZeRO 3
    all ranks gather each layer's weights together.
    """
    if max_tokens is None:
        return None
    chunks = [_cut(side, number, max_tokens) for number, side in enumerate(sides)]
    is_over = num_tokens(sides) > max_tokens
    counts = torch.tensor([int(is_over), *map(len, chunks)])
    counts = counts.cuda() if torch.cuda.is_available() else counts
    dist.all_reduce(counts, op=dist.ReduceOp.MAX)
    is_cut, *most = counts.tolist()
    if not is_cut:
        return None
    return [
        part[number] if number < len(part) else part[-1]._replace(is_extra=True)
        for part, count in zip(chunks, most, strict=True)
        for number in range(count)
    ]


def _cut(side: Part, number: int, max_tokens: int) -> list[Chunk]:
    own = [len(row) - side.num_shared for row in side.rows]
    return [Chunk(number, rows) for rows in packed_batches(own, max_tokens - side.num_shared)]


def _embed(engine: Any, sides: Sides, chunk: Chunk) -> Tensor:
    vectors: Tensor
    (vectors,) = engine([_part(sides, chunk)])
    return vectors


def _part(sides: Sides, chunk: Chunk) -> Part:
    side = sides[chunk.side]
    return Part([side.rows[row] for row in chunk.rows], side.num_shared)


def _assemble(sides: Sides, chunks: Sequence[Chunk], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the vectors of each side in the order of its rows; of rows that are embedded twice, the first ones.

    Under dropout the others differ, and they carry no gradient.
    """
    whole = [vectors[0].new_empty(len(side.rows), vectors[0].shape[1]) for side in sides]
    for chunk, part in zip(chunks, vectors, strict=True):
        if not chunk.is_extra:
            whole[chunk.side][chunk.rows] = part
    return whole


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all()


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])
