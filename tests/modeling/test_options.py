"""Mean pooling and bidirectional attention: as transformers and sentence-transformers compute them, padded."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anna.modeling import export
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from tests.conftest import as_loaded, encoder_with, save_tiny

TEXTS = ["Paris", "the capital of France and a city near the sea", "x", "rivers, mountains; science!", "one two three"]

OPTIONS = [("mean", "causal"), ("last_token", "bidirectional"), ("mean", "bidirectional")]


def padded(encoder: Encoder, backbone: Any, rows: list[list[int]]) -> Tensor:
    """Every text with its whole prompt, padded on the right, pooled by hand, (B, D)."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [7] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    is_mean = encoder.config.pooling == "mean"
    pooled = [h[: len(row)].mean(0) if is_mean else h[len(row) - 1] for h, row in zip(hidden, rows, strict=True)]
    return torch.nn.functional.normalize(torch.stack(pooled), dim=-1)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize(("pooling", "attention"), OPTIONS)
def test_encode_equals_the_padded_form(
    pooling: str, attention: str, window: int | None, tmp_path: Path, tiny_config: EncoderConfig
) -> None:
    save_tiny(tmp_path / "model", sliding_window=window)
    encoder = encoder_with(tmp_path / "model", tiny_config, pooling=pooling, attention=attention)
    prefix = encoder.config.prefix("Capitals", 2)
    with torch.no_grad():
        expected = padded(encoder, as_loaded(encoder.backbone), encoder.tokenize(TEXTS, prefix=prefix, max_tokens=40))
    for budget in (1, 40, 4096):
        got = encoder.encode(TEXTS, prefix=prefix, max_tokens=40, tokens_per_batch=budget)
        np.testing.assert_allclose(got, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize(("pooling", "attention"), OPTIONS)
def test_vectors_and_gradients_of_a_shared_prompt_equal_those_of_the_padded_form(
    pooling: str, attention: str, tiny_checkpoint: Path, tiny_config: EncoderConfig
) -> None:
    encoder = encoder_with(tiny_checkpoint, tiny_config, pooling=pooling, attention=attention)
    plain = as_loaded(encoder.backbone)
    rows = encoder.tokenize(TEXTS, prefix=encoder.config.prefix("Capitals", 2), max_tokens=40)
    results = []
    for backbone, vectors in ((plain, padded(encoder, plain, rows)), (encoder.backbone, encoder([Part(rows, 10)])[0])):
        weights = torch.linspace(-1, 2, vectors.numel()).view_as(vectors)
        (vectors * weights).sum().backward()
        results.append([vectors.detach(), *(p.grad for p in backbone.parameters())])
    for want, have in zip(*results, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-5)


def test_only_causal_attention_shares_a_prompt(tiny_checkpoint: Path, tiny_config: EncoderConfig) -> None:
    rows = [[5, 9, 30, 1], [5, 9, 12, 8, 1]]
    assert encoder_with(tiny_checkpoint, tiny_config, pooling="mean").num_shared(rows) == 2
    assert encoder_with(tiny_checkpoint, tiny_config, attention="bidirectional").num_shared(rows) == 0


@pytest.mark.parametrize(("pooling", "attention"), OPTIONS)
def test_the_export_gives_the_same_in_plain_sentence_transformers(
    pooling: str, attention: str, tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    encoder = encoder_with(tiny_checkpoint, tiny_config, pooling=pooling, attention=attention)
    texts = {"": TEXTS, "Capitals": TEXTS[:2], "Capitals+examples": TEXTS[:1], "Similar": TEXTS}
    expected = export.embed(encoder, texts)
    export.export(copy.deepcopy(encoder), tmp_path / "out")
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.999999
    again = Encoder.load(tmp_path / "out")
    np.testing.assert_allclose(export.embed(again, texts)["Similar"], expected["Similar"], atol=1e-6)


@pytest.mark.parametrize(("pooling", "attention"), OPTIONS)
def test_each_option_gives_other_vectors(
    pooling: str, attention: str, tiny_checkpoint: Path, tiny_config: EncoderConfig
) -> None:
    plain, other = (
        encoder_with(tiny_checkpoint, tiny_config, **changes).encode(TEXTS, max_tokens=40, tokens_per_batch=4096)
        for changes in ({}, {"pooling": pooling, "attention": attention})
    )
    assert (plain * other).sum(axis=1).max() < 0.999
