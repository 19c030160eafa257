"""Means against a loop over tokens, and unit length."""

import pytest
import torch

from anna.modeling.packing import Text, pack
from anna.modeling.pooling import mean, normalise


@pytest.mark.parametrize("num_cached", [0, 3])
def test_mean_is_over_all_tokens_of_prefix_and_text(num_cached: int) -> None:
    prefixes = [[1, 2], [3, 4, 5]] if not num_cached else []
    texts = [Text([6], 1), Text([7] * 5), Text([8] * 9, 0), Text([9] * 2, 1)]
    texts = [text._replace(prefix=None) for text in texts] if num_cached else texts
    packing = pack(texts, prefixes, num_cached)
    hidden = torch.randn(packing.ids.shape[1], 4, dtype=torch.float64)
    cached = torch.randn(num_cached, 4, dtype=torch.float64)
    before = (cached.sum(0), num_cached) if num_cached else None
    got = mean(hidden, packing.piece, *packing.parts(), before)
    for number, text in enumerate(texts):
        rows = list(cached)
        if text.prefix is not None:
            start = packing.starts[text.prefix]
            rows += list(hidden[start : start + len(prefixes[text.prefix])])
        start = packing.starts[len(prefixes) + number]
        rows += list(hidden[start : start + len(text.tokens)])
        torch.testing.assert_close(got[number], torch.stack(rows).mean(0))


def test_sums_of_bfloat16_are_taken_in_float32() -> None:
    packing = pack([Text([1] * 1001)])
    hidden = torch.randn(1001, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    got = mean(hidden, packing.piece, *packing.parts())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], hidden.float().mean(0), rtol=1e-5, atol=1e-7)


def test_unit_length_in_float32_from_bfloat16() -> None:
    got = normalise(torch.randn(8, 16).to(torch.bfloat16))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(8))
