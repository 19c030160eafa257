"""FlexAttention over packed rows: which tiles it computes follows from arithmetic on the row, and it is compiled once.

What a token sees is two intervals of keys, its prefix and its own text. A mask made of these needs no memory quadratic
in the row, and is made once for all layers.

Legend: T tokens of the row, Q queries, K keys (cached tokens, then the row), Q' and K' the same filled up to tiles.

Reference: FlexAttention, Dong et al. 2024, arXiv:2412.05496.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from anna.errors import InputError
from anna.modeling.packing import Packing

TILE = 128
"""Side of the squares that FlexAttention computes or skips; its own default."""


def attend(
    packing: Packing,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    dropout: float,
    window: int | None,
    is_causal: bool,
) -> Tensor:
    """Return the attention output of every query, (1, Q, H, D); arguments as `attention.packed_attention`.

    Raises:
        InputError: If there is dropout of attention weights.
    """
    if dropout:
        raise InputError(f"attention_dropout is {dropout}, which FlexAttention lacks; set it to 0 in the checkpoint")
    # Under autocast RoPE leaves queries and keys in float32. Lengths are whole tiles, so that one kernel fits all rows.
    query_HQD, key_HKD, value_HKD = (_fill(part.to(value.dtype), dim=2) for part in (query, key, value))
    made = mask(packing, window, is_causal)
    # In a layer that is compiled it is compiled with it.
    run = _compiled() if query.is_cuda and not torch.compiler.is_compiling() else flex_attention
    output = run(query_HQD, key_HKD, value_HKD, block_mask=made, scale=scaling, enable_gqa=True)
    return output[:, :, : query.shape[2]].transpose(1, 2)  # type: ignore[no-any-return]


def mask(packing: Packing, window: int | None, is_causal: bool) -> BlockMask:
    """Return FlexAttention's mask of a packed row, made when it is first asked for."""
    name = (window, is_causal)
    if name not in packing.masks:
        packing.masks[name] = block_mask(packing, window, is_causal)
    return packing.masks[name]  # type: ignore[no-any-return]


def block_mask(packing: Packing, window: int | None, is_causal: bool) -> BlockMask:
    """Return FlexAttention's mask of a packed row, its queries and keys filled up to whole tiles that see nothing."""
    seen_4Q = _fill(intervals(packing, window, is_causal), dim=1)
    num_keys = _whole_tiles(packing.num_cached + packing.ids.shape[1])
    first_K = torch.arange(0, num_keys, TILE, device=seen_4Q.device)
    starts_2Q1, ends_2Q1 = seen_4Q[::2, :, None], seen_4Q[1::2, :, None]
    touches_2QK = (starts_2Q1 < first_K + TILE) & (ends_2Q1 > first_K) & (starts_2Q1 < ends_2Q1)
    covers_2QK = (starts_2Q1 <= first_K) & (ends_2Q1 >= first_K + TILE)
    is_touched = touches_2QK.any(0).view(-1, TILE, len(first_K)).any(1)
    # A prefix that ends where its text begins covers tiles together with it.
    own_Q1, own_end_Q1, before_Q1, before_end_Q1 = seen_4Q[:, :, None]
    is_joined = (before_Q1 <= first_K) & (before_end_Q1 >= own_Q1) & (own_end_Q1 >= first_K + TILE)
    is_full = (covers_2QK.any(0) | is_joined).view(-1, TILE, len(first_K)).all(1)

    def is_visible(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        in_own = (k >= seen_4Q[0, q]) & (k < seen_4Q[1, q])
        return in_own | ((k >= seen_4Q[2, q]) & (k < seen_4Q[3, q]))

    return BlockMask.from_kv_blocks(
        *_listed(is_touched & ~is_full),
        *_listed(is_full),
        BLOCK_SIZE=TILE,
        mask_mod=is_visible,
        seq_lengths=(seen_4Q.shape[1], num_keys),
    )


def intervals(packing: Packing, window: int | None, is_causal: bool) -> Tensor:
    """Return where the keys that each query sees start and end: of its own text, then before it, (4, Q)."""
    rows = torch.arange(packing.ids.shape[1], device=packing.ids.device)
    starts, lengths = torch.tensor(packing.starts, device=rows.device), packing.piece.bincount()
    own, positions = starts[packing.piece], packing.positions[0]
    ends = rows + 1 if is_causal else own + lengths[packing.piece]
    is_shared = packing.sees != packing.piece
    before = torch.where(is_shared, starts[packing.sees] + packing.num_cached, 0)
    num_before = torch.where(is_shared, lengths[packing.sees], packing.num_cached)
    before_end = before + num_before
    if window is not None:
        reach = window - 1 if is_causal else window
        own = torch.maximum(own, rows - reach)
        ends = torch.minimum(ends, rows + reach + 1)
        before = torch.minimum(torch.maximum(before, before + positions - reach), before_end)
    seen = torch.stack([own + packing.num_cached, ends + packing.num_cached, before, before_end]).int()
    return seen if packing.rows is None else seen[:, packing.rows]


def _whole_tiles(length: int) -> int:
    """Return `length` rounded up to whole tiles, two at least: a single one would be compiled apart."""
    return max(2, -(-length // TILE)) * TILE


def _fill(part: Tensor, dim: int) -> Tensor:
    """Return `part` with zeros behind it along `dim`, up to whole tiles, and contiguous.

    What needs no zeros would else keep the strides of the projection that it is a view of, and a kernel is compiled for
    each order of strides, up to a limit.
    """
    missing = _whole_tiles(part.shape[dim]) - part.shape[dim]
    filled = functional.pad(part, (0, 0) * (part.dim() - 1 - dim) + (0, missing)) if missing else part
    return filled.contiguous()


def _listed(is_chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many tiles of each row are chosen, and which: these first."""
    order = is_chosen.int().argsort(dim=1, descending=True, stable=True)
    return is_chosen.sum(1, dtype=torch.int32)[None, None], order.int()[None, None]


@cache
def _compiled() -> Any:
    """Return the kernel for rows of any length.

    With a full graph an unforeseen recompilation beyond the limit is an error; otherwise it would quietly become
    attention with a matrix of T x T in memory.
    """
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)
