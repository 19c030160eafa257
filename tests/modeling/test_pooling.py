"""Neither side nor amount of padding changes what is pooled."""

import pytest
import torch

from anna.modeling.pooling import last_token, normalise


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_left_and_right_padding_pool_the_same_token(pad: int) -> None:
    hidden = torch.randn(1, 4, 3)
    padding = torch.randn(1, pad, 3)
    mask, zeros = torch.ones(1, 4, dtype=torch.long), torch.zeros(1, pad, dtype=torch.long)
    right = last_token(torch.cat([hidden, padding], 1), torch.cat([mask, zeros], 1))
    left = last_token(torch.cat([padding, hidden], 1), torch.cat([zeros, mask], 1))
    assert torch.equal(right, hidden[:, -1])
    assert torch.equal(left, hidden[:, -1])


def test_a_text_of_one_token() -> None:
    hidden = torch.randn(2, 3, 4)
    got = last_token(hidden, torch.tensor([[1, 0, 0], [0, 0, 1]]))
    assert torch.equal(got, torch.stack([hidden[0, 0], hidden[1, 2]]))


def test_unit_length_in_float32_from_bfloat16() -> None:
    got = normalise(torch.randn(8, 16).to(torch.bfloat16))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(8))
