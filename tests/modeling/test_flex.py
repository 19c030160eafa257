"""FlexAttention's tiles of a packed row: the same attention as text by text, one mask for all layers, one kernel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import MistralConfig, MistralModel

from anna.modeling import attention, flex
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.flex import TILE, block_mask
from anna.modeling.packing import ABSENT, Packing, Text, pack
from tests.conftest import as_loaded, encoder_with
from tests.modeling.test_packing import visible

TEXTS = ["Paris", "the capital of France and a city near the sea", "x", "rivers, mountains; science!"]


def dense(packing: Packing, window: int | None, is_causal: bool) -> Tensor:
    """What each query sees by the blocks that a CPU attends in, (Q, K)."""
    num_queries = packing.ids.shape[1]
    seen = torch.zeros(num_queries, packing.num_cached + num_queries, dtype=torch.bool)
    for block in packing.blocks:
        seen_BLK = visible(block, window, is_causal)
        for row in range(len(block.queries)):
            keys = torch.cat([block.common, block.keys[row]])[block.key_positions[row] < ABSENT]
            for place, query in enumerate(block.queries[row]):
                seen[query, keys] = seen_BLK[row, place, : len(keys)]
    return seen


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 300), max_size=3),
    st.lists(st.tuples(st.integers(1, 200), st.integers(-1, 2)), min_size=1, max_size=6),
    st.sampled_from([0, 1, 100, 300]),
    st.sampled_from([None, 1, 40, 150]),
    st.booleans(),
)
def test_the_mask_is_that_of_the_blocks_and_its_tiles_those_that_are_needed(
    prefix_lengths: list[int],
    shapes: list[tuple[int, int]],
    num_cached: int,
    window: int | None,
    is_causal: bool,
) -> None:
    num_cached, prefix_lengths = (0 if prefix_lengths else num_cached, prefix_lengths) if is_causal else (0, [])
    texts = [Text([n] * length, p if 0 <= p < len(prefix_lengths) else None) for n, (length, p) in enumerate(shapes)]
    packing = pack(texts, [[0] * length for length in prefix_lengths], num_cached)
    got, expected = block_mask(packing, window, is_causal), dense(packing, window, is_causal)
    num_queries, num_keys = got.seq_lengths
    assert num_queries % TILE == num_keys % TILE == 0
    queries, keys = torch.arange(num_queries)[:, None], torch.arange(num_keys)
    seen = got.mask_mod(torch.tensor(0), torch.tensor(0), queries, keys)
    assert torch.equal(seen[: expected.shape[0], : expected.shape[1]], expected)
    assert seen.sum() == expected.sum()
    reference = create_block_mask(got.mask_mod, None, None, num_queries, num_keys, device="cpu")
    for name in ("kv", "full_kv", "q", "full_q"):
        counts = getattr(got, f"{name}_num_blocks")
        assert torch.equal(counts, getattr(reference, f"{name}_num_blocks")), name
        for row, count in enumerate(counts[0, 0].tolist()):
            ours, theirs = (getattr(mask, f"{name}_indices")[0, 0, row, :count] for mask in (got, reference))
            assert sorted(ours.tolist()) == sorted(theirs.tolist()), name


@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["last_token", "mean"])
def test_encoding_by_tiles_equals_encoding_by_blocks(
    pooling: str,
    dtype: torch.dtype,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    tiny_config: EncoderConfig,
) -> None:
    encoder = encoder_with(tiny_checkpoint, tiny_config, pooling=pooling, attention=kind)
    encoder.dtype = dtype
    prefix = encoder.config.prefix("Capitals", 2)
    results = []
    for kernel in ("blocks", "flex"):
        monkeypatch.setattr(attention, "pick_kernel", lambda _, kernel=kernel: kernel)
        with torch.inference_mode():  # on a CPU FlexAttention has no backward pass
            rows = encoder.tokenize(TEXTS, prefix=prefix, max_tokens=40)
            results.append(
                (encoder([Part(rows, 10)])[0], encoder.encode(TEXTS, prefix=prefix, max_tokens=40, tokens_per_batch=99))
            )
    for by_blocks, by_tiles in zip(*results, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(by_tiles), torch.as_tensor(by_blocks), rtol=0, atol=1e-5 if dtype == torch.float32 else 3e-2
        )


def test_all_layers_use_one_mask(tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Any] = []

    def counted(*args: Any) -> Any:
        masks.append(args)
        return block_mask(*args)

    monkeypatch.setattr(flex, "block_mask", counted)
    monkeypatch.setattr(attention, "pick_kernel", lambda _: "flex")
    with torch.inference_mode():
        tiny_encoder([Part(tiny_encoder.tokenize(TEXTS, max_tokens=40))])
    assert len(masks) == 2  # one for all but the last layer, and one for that, which has fewer queries


@pytest.mark.slow
def test_rows_of_all_lengths_run_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    counters.clear()
    monkeypatch.setattr(flex, "flex_attention", flex._compiled())
    for lengths in ([300], [7], [40, 900, 60], [128, 128], [511, 2], [100] * 7):
        packing = pack([Text([1] * length) for length in lengths])
        # As projections give them: heads within each token.
        query, key, value = (torch.randn(1, sum(lengths), heads, 16).transpose(1, 2) for heads in (4, 2, 2))
        with torch.no_grad():
            got = flex.attend(packing, query, key, value, scaling=0.3, dropout=0.0, window=None, is_causal=True)
        mask = dense(packing, None, True)
        expected = scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(got.transpose(1, 2), expected, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("recomputes", [False, True])
def test_on_a_gpu_vectors_and_gradients_are_those_of_the_padded_form(recomputes: bool, window: int | None) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.2}
    model = MistralModel(MistralConfig(**sizes, **heads, sliding_window=window, attn_implementation="sdpa")).cuda()
    plain = as_loaded(model)
    attention.use_packing(model)
    attention.read_early(model)
    if recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    prefix = torch.randint(0, 90, (150,)).tolist()
    texts = [torch.randint(0, 90, (length,)).tolist() for length in (3, 300, 40, 41, 1, 129)]
    weights = torch.randn(len(texts), 128, device="cuda")
    found = []
    for used in (plain, model):
        if used is plain:
            rows = [torch.tensor([prefix + text], device="cuda") for text in texts]
            vectors = torch.cat([plain(input_ids=row).last_hidden_state[:, -1] for row in rows])
        else:
            packing = pack([Text(text, 0) for text in texts], [prefix]).to(torch.device("cuda"))
            inputs = {"input_ids": packing.ids, "position_ids": packing.positions, "use_cache": False}
            vectors = model(**inputs, packing=packing).last_hidden_state[0][packing.texts]
        (vectors * weights).sum().backward()
        found.append([vectors.detach(), *(p.grad for p in used.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()
