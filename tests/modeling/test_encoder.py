"""The encoder: EOS, prefixes, padding, batches and saved prompts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anna.errors import InputError
from anna.modeling.encoder import Encoder, Part, num_tokens
from anna.modeling.encoder_config import EncoderConfig, PromptParams, cut_text, task_prompts
from anna.modeling.student import load_student, recompute
from tests.conftest import as_loaded, save_tiny

TEXTS = ["Paris", "the capital of France and a city near the sea", "x", "rivers, mountains; science!", "one two three"]


def reference(encoder: Encoder, text: str) -> np.ndarray:
    """One text alone, whole prompt, through the backbone as transformers runs it."""
    ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        hidden = as_loaded(encoder.backbone)(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
    return (hidden / hidden.norm()).numpy()


@pytest.mark.parametrize("num_examples", [0, 1, 2])
@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_encode_equals_one_text_at_a_time(tiny_encoder: Encoder, budget: int, num_examples: int) -> None:
    prefix = tiny_encoder.config.prefix("Capitals", num_examples)
    got = tiny_encoder.encode(TEXTS, prefix=prefix, max_tokens=40, tokens_per_batch=budget)
    for text, vector in zip(TEXTS, got, strict=True):
        np.testing.assert_allclose(vector, reference(tiny_encoder, prefix + text), atol=2e-6)


@pytest.mark.parametrize("is_causal", [True, False])
def test_parts_together_are_each_part_alone(tiny_encoder: Encoder, is_causal: bool) -> None:
    if not is_causal:
        tiny_encoder.config = tiny_encoder.config.model_copy(update={"attention": "bidirectional"})
        tiny_encoder.backbone.config.is_causal = False
    prefixes = [tiny_encoder.config.prefix("Capitals", 2), "", tiny_encoder.config.prefix("Similar")]
    parts = []
    for prefix, texts in zip([*prefixes, prefixes[0]], (TEXTS[:3], TEXTS, TEXTS[1:4], TEXTS[3:]), strict=True):
        rows = tiny_encoder.tokenize(texts, prefix=prefix, max_tokens=40)
        parts.append(Part(rows, tiny_encoder.count(prefix) - 1 if prefix else 0))
    row = []
    handle = tiny_encoder.backbone.register_forward_pre_hook(
        lambda _, args, given: row.append(given["input_ids"].numel()), with_kwargs=True
    )
    got = tiny_encoder(parts)
    handle.remove()
    assert row == [num_tokens(parts if is_causal else [part._replace(num_shared=0) for part in parts])]
    for part, vectors in zip(parts, got, strict=True):
        alone = torch.cat([tiny_encoder([Part([tokens])])[0] for tokens in part.rows])
        torch.testing.assert_close(vectors, alone, rtol=0, atol=2e-6)


def test_equal_texts_get_equal_vectors_and_order_is_kept(tiny_encoder: Encoder) -> None:
    got = tiny_encoder.encode(["b", "a", "b"], max_tokens=8, tokens_per_batch=64)
    assert np.array_equal(got[0], got[2])
    assert not np.array_equal(got[0], got[1])
    assert tiny_encoder.encode([], max_tokens=8, tokens_per_batch=64).shape == (0, 32)


@pytest.mark.parametrize("max_tokens", [2, 3, 7, 50])
def test_eos_is_last_for_every_truncation(tiny_encoder: Encoder, max_tokens: int) -> None:
    for prefix in ("", tiny_encoder.config.prefix("Capitals"), tiny_encoder.config.prefix("Capitals", 2)):
        rows = tiny_encoder.tokenize(TEXTS, prefix=prefix, max_tokens=max_tokens)
        limit = tiny_encoder.count(prefix) + max_tokens
        assert all(row[-1] == tiny_encoder.tokenizer.eos_token_id for row in rows)
        assert all(len(row) <= limit for row in rows)


@pytest.mark.parametrize("layers", [3, 1])
def test_gradient_checkpointing_changes_no_vector_and_no_gradient(tiny_encoder: Encoder, layers: int) -> None:
    rows = tiny_encoder.tokenize(TEXTS, prefix=tiny_encoder.config.prefix("Capitals", 1), max_tokens=20)
    results = []
    for is_on in (False, True):
        if is_on:
            recompute(tiny_encoder.backbone, layers)
        tiny_encoder.train().zero_grad()
        (vectors,) = tiny_encoder([Part(rows, 10)])
        vectors.pow(3).sum().backward()
        results.append([vectors.detach(), *(p.grad.clone() for p in tiny_encoder.parameters() if p.grad is not None)])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_shorter_than_the_prompt_is_respected(tmp_path: Path, tiny_config: EncoderConfig) -> None:
    save_tiny(tmp_path / "model", sliding_window=6)
    encoder = Encoder(*load_student(tmp_path / "model", None), tiny_config, torch.float32).eval()
    prefix = encoder.config.prefix("Capitals", 2)
    got = encoder.encode(TEXTS, prefix=prefix, max_tokens=40, tokens_per_batch=4096)
    for text, vector in zip(TEXTS, got, strict=True):
        np.testing.assert_allclose(vector, reference(encoder, prefix + text), atol=2e-6)


def test_a_prompt_that_leaves_no_room_is_refused(tiny_encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"more than prompts\.max_tokens"):
        tiny_encoder.tokenize(["x"], prefix="one two three " * 80, max_tokens=10)


def test_an_unknown_task_is_refused_with_the_known_ones(tiny_config: EncoderConfig) -> None:
    with pytest.raises(InputError, match=r"no prompt for task 'Nope' \(it has \['Capitals', 'Similar'\]\)"):
        tiny_config.prefix("Nope")


def test_config_round_trip(tiny_config: EncoderConfig, tmp_path: Path) -> None:
    tiny_config.save(tmp_path)
    assert EncoderConfig.load(tmp_path) == tiny_config


def test_examples_are_cut_to_their_tokens(tiny_encoder: Encoder) -> None:
    prompts = PromptParams.model_validate(
        {"tasks": {"A": {"instruction": "do", "symmetric": False}}, "example_tokens": 4, "max_tokens": 64}
    )
    long = "the capital of France and who wrote this book"
    got = task_prompts(prompts, {"A": [(long, "x")]}, tiny_encoder.tokenizer)["A"].examples[0]
    assert long.startswith(got.query)
    assert len(tiny_encoder.tokenizer(got.query, add_special_tokens=False)["input_ids"]) <= 4
    assert got.response == "x"
    assert cut_text("Paris", tiny_encoder.tokenizer, 50) == "Paris"


def test_a_model_that_attends_in_both_directions_is_no_causal_student(tiny_encoder: Encoder) -> None:
    backbone, config = tiny_encoder.backbone, tiny_encoder.config
    backbone.config.use_bidirectional_attention = True
    with pytest.raises(InputError, match=r"student\.attention is causal, but this mistral attends in both directions"):
        Encoder(backbone, tiny_encoder.tokenizer, config, torch.float32)
    either = config.model_copy(update={"attention": "bidirectional"})
    assert Encoder(backbone, tiny_encoder.tokenizer, either, torch.float32).config.attention == "bidirectional"
