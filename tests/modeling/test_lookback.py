"""Cosines that add up to a window."""

import torch

from anna.modeling import lookback


def test_logits_are_near_zero_up_to_the_reach_and_far_below_beyond() -> None:
    turns = torch.tensor(1e5, dtype=torch.float64) ** (-torch.arange(4, 31, dtype=torch.float64) / 32)
    for reach in (16, 24, 48):
        amplitudes = lookback.amplitudes(turns, reach, 512)
        distances = torch.arange(512, dtype=torch.float64)
        logits = torch.cos(distances[:, None] * turns) @ amplitudes
        assert logits[: reach // 2].abs().max() < 0.16 * lookback.DEPTH
        assert logits[reach + 2 * lookback.FADE :].max() < -0.65 * lookback.DEPTH
        assert logits.min() > -1.5 * lookback.DEPTH
        assert amplitudes.abs().max() < 2  # small amplitudes, small noise


def test_a_span_shorter_than_the_fall_is_no_matter() -> None:
    turns = torch.logspace(-1, -3, 8, dtype=torch.float64)
    assert torch.equal(lookback.amplitudes(turns, 20, 10), lookback.amplitudes(turns, 20, 20 + 2 * lookback.FADE))
