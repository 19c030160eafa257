"""Attention in two parts against softmax written out over all keys."""

import torch
from torch import Tensor

from anna.modeling.split import Keys, attend_split

B, L, C, K, H, G, D = 3, 5, 7, 6, 4, 2, 8
"""Texts, queries of each, common keys, own keys, query heads, key heads, head dimensions."""


def drawn() -> tuple[Tensor, Keys, Tensor]:
    """Random queries and keys with gradients, and own keys of which each query sees the first and some more."""
    torch.manual_seed(3)
    sizes = [(B, H, L, D), (1, G, C, D), (1, G, C, D), (B, G, K, D), (B, G, K, D)]
    query, *keys = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)
    is_visible = torch.rand(B, 1, L, K) < 0.5
    is_visible[..., 0] = True
    return query, Keys(*keys), is_visible


def written_out(query: Tensor, keys: Keys, is_visible: Tensor, scaling: float) -> Tensor:
    """Softmax attention text by text and head by head."""
    output = torch.zeros_like(query)
    for text in range(B):
        for head in range(H):
            group = head // (H // G)
            key = torch.cat([keys.common_key[0, group], keys.own_key[text, group]])
            value = torch.cat([keys.common_value[0, group], keys.own_value[text, group]])
            logits = scaling * query[text, head] @ key.T
            is_seen = torch.cat([torch.ones(L, C, dtype=torch.bool), is_visible[text, 0]], dim=1)
            output[text, head] = logits.masked_fill(~is_seen, float("-inf")).softmax(dim=1) @ value
    return output


def test_values_and_gradients_are_those_of_softmax_over_all_keys() -> None:
    query, keys, is_visible = drawn()
    weights = torch.randn(B, H, L, D, dtype=torch.float64)
    results = []
    for attend in (written_out, attend_split):
        output = attend(query, keys, is_visible, 0.3)
        results.append([output, *torch.autograd.grad((output * weights).sum(), [query, *keys])])
    for want, have in zip(*results, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-13)


def test_logits_of_hundreds_do_not_overflow() -> None:
    query, keys, is_visible = drawn()
    want, have = (attend(query * 300, keys, is_visible, 1.0) for attend in (written_out, attend_split))
    torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)


def test_rounded_numbers_stay_what_they_are() -> None:
    query, keys, is_visible = drawn()
    rounded = Keys(*(part.bfloat16() for part in keys))
    have = attend_split(query.bfloat16(), rounded, is_visible, 0.3)
    assert have.dtype == torch.bfloat16
    torch.testing.assert_close(have.double(), written_out(query, keys, is_visible, 0.3), rtol=0.03, atol=0.03)
    (gradient,) = torch.autograd.grad(have.sum(), query)
    assert gradient.isfinite().all()


def test_under_autocast_all_parts_are_rounded_and_gradients_are_not() -> None:
    query, keys, is_visible = drawn()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = Keys(*(part.float() if number % 2 else part.bfloat16() for number, part in enumerate(keys)))
        have = attend_split(query.float(), mixed, is_visible, 0.3)
    assert have.dtype == torch.bfloat16
    torch.testing.assert_close(have.double(), written_out(query, keys, is_visible, 0.3), rtol=0.03, atol=0.03)
    assert all(part.dtype == torch.float64 for part in torch.autograd.grad(have.sum(), [query, *keys]))
