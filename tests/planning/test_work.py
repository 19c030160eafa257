"""Operations: against torch's own count, and by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from anna.modeling.encoder import Encoder, Part
from anna.planning import work
from anna.shapes import Shape

SHAPE = Shape(layers=3, hidden=4, ffn=8, heads=2, key_heads=1, head_dim=2, vocabulary=10)


def test_by_hand() -> None:
    whole = 2 * (16 + 8 + 8 + 16 + 96) + 4 * 4 * 5
    assert work.forward(SHAPE, 5) == 3 * whole
    assert work.forward_read(SHAPE, 5, 0.0) == 2 * whole + 2 * 16
    assert work.forward_read(SHAPE, 5, 1.0) == 3 * whole


@pytest.mark.parametrize(
    ("method", "recomputed", "twice", "passes"),
    [("full", 0.0, 0.0, 3), ("full", 1.0, 0.0, 4), ("lora", 0.0, 0.0, 2), ("lora", 0.25, 0.5, 2.75)],
)
def test_passes_of_training(method: str, recomputed: float, twice: float, passes: float) -> None:
    once = work.forward_read(SHAPE, 5, 0.1)
    got = work.training(SHAPE, 5, 0.1, method=method, recomputed=recomputed, twice=twice)  # type: ignore[arg-type]
    assert got == passes * once


def test_as_torch_counts_them(tiny_encoder: Encoder) -> None:
    shape = Shape.of(tiny_encoder.backbone.config.to_dict())
    rows = [list(range(3, 43))] * 6
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        tiny_encoder.eval()([Part(rows)])
    # Attention is computed for all keys, seen or not, and is not among torch's counted operations on every CPU.
    ours = 240 * work.forward_read(shape, 0, 1 / 40)
    attention = 240 * 4 * 32 * 40 * 3
    assert ours * 0.99 <= counted.get_total_flops() <= ours + attention
