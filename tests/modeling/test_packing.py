"""A packed row gives what each text gives alone: vectors and gradients, against transformers' own padded form."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModel, MistralConfig, MistralModel
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

from anna.modeling.attention import READS_EARLY, read_early, use_packing
from anna.modeling.packing import ABSENT, Block, Packing, Text, pack
from tests.conftest import as_loaded

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture(autouse=True)
def _exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm rounds to float32 in every model; here it must not, or float64 would show nothing."""

    def forward(self: Any, hidden: Tensor) -> Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (
        modeling_mistral.MistralRMSNorm,
        modeling_llama.LlamaRMSNorm,
        modeling_qwen2.Qwen2RMSNorm,
        modeling_qwen3.Qwen3RMSNorm,
    ):
        monkeypatch.setattr(norm, "forward", forward)


@pytest.fixture
def random_tokens() -> Callable[[int], list[int]]:
    generator = torch.Generator().manual_seed(3)
    return lambda count: torch.randint(0, 90, (count,), generator=generator).tolist()


def decoder(window: int | None = None, **sizes: int) -> Any:
    torch.manual_seed(0)
    config = MistralConfig(**(SIZES | sizes), sliding_window=window, initializer_range=0.3, attn_implementation="sdpa")
    return MistralModel(config).double().eval()


def padded(model: Any, texts: list[Text], prefixes: list[list[int]]) -> Tensor:
    """Every text with its prefix, padded on the right, as transformers computes it; the last real token, (S, D)."""
    rows = [[*(prefixes[t.prefix] if t.prefix is not None else []), *t.tokens] for t in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [7] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    hidden = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]  # type: ignore[no-any-return]


def run_packed(model: Any, packing: Packing) -> Tensor:
    """The packed row through the model; last tokens in the order of the texts, (S, D)."""
    hidden = model(input_ids=packing.ids, position_ids=packing.positions, packing=packing, use_cache=False)
    rows = hidden.last_hidden_state[0]
    return (rows if len(rows) == len(packing.texts) else rows[packing.last()])[packing.texts]  # type: ignore[no-any-return]


def both(model: Any, texts: list[Text], prefixes: list[list[int]], *, early: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors and all gradients of padded and of packed form, under a loss that weighs every vector differently."""
    results = []
    plain = as_loaded(model)
    use_packing(model)
    if early:
        assert read_early(model)
    for used in (plain, model):
        vectors = padded(plain, texts, prefixes) if used is plain else run_packed(model, pack(texts, prefixes))
        weights = torch.linspace(-1, 2, vectors.numel(), dtype=vectors.dtype).view_as(vectors)
        (vectors * weights).sum().backward()
        results.append([vectors.detach(), *(p.grad for p in used.parameters())])
    return results[0], results[1]


@pytest.mark.parametrize("early", [False, True], ids=["whole last layer", "only what is read"])
@pytest.mark.parametrize("window", [None, 1, 4, 60])
@pytest.mark.parametrize("num_examples", [0, 1, 5])
def test_packed_equals_padded(
    num_examples: int, window: int | None, early: bool, random_tokens: Callable[[int], list[int]]
) -> None:
    prefixes = [random_tokens(3 + 5 * num_examples)]
    texts = [Text(random_tokens(length), 0) for length in (4, 1, 17, 9, 1, 30, 2)]
    expected, got = both(decoder(window), texts, prefixes, early=early)
    for want, have in zip(expected, got, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-10)


def test_a_text_of_a_token_more_than_the_window_does_not_see_all() -> None:
    (block,) = pack([Text([1] * 5)]).blocks
    assert block.visible(5) is None, "each token sees those before it"
    visible = block.visible(4)
    assert visible is not None
    assert visible[0, 0].tolist() == [[key <= query < key + 4 for key in range(5)] for query in range(5)]


@pytest.mark.parametrize("early", [False, True])
def test_several_prefixes_none_and_a_batch_of_one(early: bool, random_tokens: Callable[[int], list[int]]) -> None:
    prefixes = [random_tokens(2), random_tokens(11)]
    mixed = [Text(random_tokens(5), 1), Text(random_tokens(6)), Text(random_tokens(1), 0), Text(random_tokens(12), 1)]
    for texts in (mixed, [Text(random_tokens(3), 1)], [Text(random_tokens(4))]):
        used = prefixes if any(text.prefix is not None for text in texts) else []
        expected, got = both(decoder(), texts, used, early=early)
        for want, have in zip(expected, got, strict=True):
            torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", sorted(READS_EARLY))
def test_every_model_type_that_reads_early_gives_the_same(kind: str, random_tokens: Callable[[int], list[int]]) -> None:
    torch.manual_seed(1)
    sizes = SIZES if kind != "qwen2" else {k: v for k, v in SIZES.items() if k != "head_dim"}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes), attn_implementation="sdpa").double().eval()
    texts = [Text(random_tokens(length), 0) for length in (4, 1, 9)]
    expected, got = both(model, texts, [random_tokens(6)], early=True)
    for want, have in zip(expected, got, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-10)


def test_checkpointed_layers_give_the_same_gradients(random_tokens: Callable[[int], list[int]]) -> None:
    texts, prefixes = [Text(random_tokens(length), 0) for length in (4, 8, 1)], [random_tokens(6)]
    model = decoder()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    expected, got = both(model, texts, prefixes, early=True)
    for want, have in zip(expected, got, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("window", [None, 4])
def test_a_cached_prefix_gives_what_a_computed_one_gives(
    window: int | None, random_tokens: Callable[[int], list[int]]
) -> None:
    model, prefix = decoder(window), random_tokens(9)
    rows = [random_tokens(length) for length in (3, 12, 1)]
    expected = padded(model, [Text(row, 0) for row in rows], [prefix])
    use_packing(model)
    read_early(model)
    kept: dict[int, Any] = {}
    first = pack([Text(prefix)])
    model(input_ids=first.ids, position_ids=first.positions, packing=replace(first, keep=kept))
    got = run_packed(model, replace(pack([Text(row) for row in rows], num_cached=9), cached=kept))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("window", [None, 1, 4])
def test_bidirectional_attention_sees_the_whole_text(
    window: int | None, random_tokens: Callable[[int], list[int]]
) -> None:
    model = decoder(window)
    model.config.is_causal = False
    texts = [Text(random_tokens(length)) for length in (4, 1, 17, 9)]
    expected, got = both(model, texts, [], early=True)
    for want, have in zip(expected, got, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-10)


def visible(block: Block, window: int | None, is_causal: bool = True) -> Tensor:
    """Which keys each query sees, (B, L, C + K), written out."""
    told = block.visible(window, is_causal)
    if told is not None:
        return told[:, 0]
    plain = torch.ones(block.key_positions.shape[1], block.key_positions.shape[1], dtype=torch.bool).tril()
    return plain & (block.key_positions != ABSENT)[:, None]


@given(
    st.lists(st.integers(1, 9), max_size=3),
    st.lists(st.tuples(st.integers(1, 40), st.integers(-1, 2)), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_every_token_is_a_query_once_and_sees_its_own_path(
    prefix_lengths: list[int], shapes: list[tuple[int, int]], num_cached: int
) -> None:
    num_cached = 0 if prefix_lengths else num_cached
    prefixes = [[-1] * length for length in prefix_lengths]
    texts = [Text([n] * length, p if 0 <= p < len(prefixes) else None) for n, (length, p) in enumerate(shapes)]
    packing = pack(texts, prefixes, num_cached)
    queries = torch.cat([block.queries.flatten()[block.real] for block in packing.blocks])
    assert queries.tolist() == list(range(packing.ids.shape[1]))
    assert packing.ids[0, packing.last()][packing.texts].tolist() == list(range(len(texts)))
    for number, text in enumerate(texts):
        start = packing.starts[len(prefixes) + number]
        before = len(prefixes[text.prefix]) if text.prefix is not None else num_cached
        place = packing.positions[0, start : start + len(text.tokens)]
        assert place.tolist() == list(range(before, before + len(text.tokens)))
    for block in packing.blocks:
        is_key = block.key_positions != ABSENT
        assert torch.equal(visible(block, None)[:, -1].sum(1), (block.query_positions[:, -1] + 1))
        assert (is_key.sum(1) == block.query_positions[:, -1] + 1).all()
