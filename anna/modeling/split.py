"""Attention to keys that all texts of a block have in common and to each text's own, without a copy per text.

The common part is one product: the queries of all texts, and of all query heads that share a key head, in a single row
against the keys as they are. Softmax is then put together from the two parts' sums. Backwards each part is given the
whole's output and sums, from which it finds its share of every gradient.

Legend: B texts, L queries of each, C keys in common, K keys of its own, H query heads, G key heads, D head dimensions.
Reference: the sums, Milakov and Gimelshein 2018, arXiv:1805.02867; the backward pass, FlashAttention-2,
arXiv:2307.08691, algorithm 2.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Keys(NamedTuple):
    """Keys and their values."""

    common_key: Tensor
    """(1, G, C, D)."""
    common_value: Tensor
    own_key: Tensor
    """(B, G, K, D)."""
    own_value: Tensor


def attend_split(query: Tensor, keys: Keys, is_visible: Tensor | None, scaling: float) -> Tensor:
    """Return what softmax attention over both parts gives, (B, H, L, D), on a CPU; under autocast in its number format.

    Args:
        query: (B, H, L, D); every query sees all common keys.
        keys: Of both parts.
        is_visible: Which of its text's own keys a query sees, one at least, (B, 1, L, K); None: query n those up to n.
        scaling: Multiplies the products of queries and keys.
    """
    # Rotary embeddings leave queries and keys in float32; autocast knows torch's own attention, but not its parts.
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    query, keys = query.to(dtype), Keys(*(part.to(dtype) for part in keys))
    mask = None if is_visible is None else query.new_zeros(is_visible.shape).masked_fill(~is_visible, float("-inf"))
    return cast(Tensor, _Split.apply(query, *keys, mask, scaling))  # type: ignore[no-untyped-call]


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, *rest: Any) -> Tensor:
        common_key, common_value, own_key, own_value, mask, scaling = rest
        common, common_sum = _forward(_fold(query, common_key), common_key, common_value, scale=scaling)
        own, own_sum = _forward(query, own_key, own_value, 0.0, mask is None, attn_mask=mask, scale=scaling)
        common, common_sum = _unfold(common, query), _unfold(common_sum[..., None], query)
        log_sum = torch.logaddexp(common_sum, own_sum[..., None])
        weighted = common * (common_sum - log_sum).exp() + own * (own_sum[..., None] - log_sum).exp()
        output: Tensor = weighted.to(query)
        ctx.save_for_backward(query, common_key, common_value, own_key, own_value, mask, output, log_sum)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, common_key, common_value, own_key, own_value, mask, output, log_sum = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        folded = [_fold(part, common_key) for part in (gradient, query, output, log_sum)]
        by_common = _backward(
            *(*folded[:2], common_key, common_value, folded[2], folded[3][..., 0], 0.0, False), scale=ctx.scaling
        )
        by_own = _backward(
            *(gradient, query, own_key, own_value, output, log_sum[..., 0], 0.0, mask is None),
            attn_mask=mask,
            scale=ctx.scaling,
        )
        return (_unfold(by_common[0], query) + by_own[0], *by_common[1:], *by_own[1:], None, None)


def _fold(part: Tensor, common_key: Tensor) -> Tensor:
    """Return (B, H, L, D) as (1, G, H / G * B * L, D): all that meets a key head, in one row."""
    num_texts, _, length, size = part.shape
    by_head = part.reshape(num_texts, common_key.shape[1], -1, length, size)
    return by_head.permute(1, 2, 0, 3, 4).flatten(1, 3)[None]


def _unfold(part: Tensor, query: Tensor) -> Tensor:
    """Undo `_fold`."""
    (num_texts, num_heads, length, _), groups = query.shape, part.shape[1]
    by_head = part[0].view(groups, num_heads // groups, num_texts, length, -1)
    return by_head.permute(2, 0, 1, 3, 4).flatten(1, 2)
