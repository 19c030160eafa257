"""The start of the last layer: EOS as a weighted, whitened mean of its text."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anna.errors import InputError
from anna.modeling import readout, readout_fit
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from tests.conftest import as_loaded, encoder_with, save_tiny

COMMON = ["water", "music", "science", "a city"]
RARE = ["Paris", "Berlin", "Madrid", "mountains", "rivers", "book"]


def sample(encoder: Encoder) -> tuple[list[readout_fit.Reading], list[list[int]]]:
    """Texts in which some words come up again and again, as queries with a prompt and as documents."""
    texts = [
        f"{RARE[n % 6]} {COMMON[n % 4]} {COMMON[n % 3]} near the sea {RARE[n * 5 % 6]} {COMMON[n % 2]}"[: 20 + n % 30]
        for n in range(80)
    ]
    prefix = encoder.config.prefix("Capitals")
    readings = []
    for number, text in enumerate(texts):
        before = "" if number % 2 else prefix
        (tokens,) = encoder.tokenize([text], prefix=before, max_tokens=40)
        readings.append(readout_fit.Reading(tokens, max(encoder.count(before) - 1, 0), is_query=number % 2 == 0))
    return readings, encoder.tokenize(texts, max_tokens=40)


def states(encoder: Encoder, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """What the last layer is given of a text: normed states, and what it adds to at EOS; by transformers alone."""
    plain = as_loaded(encoder.backbone)
    hidden = plain(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states[1][0]
    return plain.layers[-1].input_layernorm(hidden), hidden[-1]


def test_eos_becomes_the_weighted_mean_that_the_weights_say(tiny_encoder: Encoder) -> None:
    readings, docs = sample(tiny_encoder)
    readout.start(tiny_encoder, readings, docs)
    attention = tiny_encoder.backbone.layers[-1].self_attn
    scale = attention.scaling**-0.5
    key = attention.k_proj.weight.view(2, 8, 32)[:, 3] / scale
    query = attention.q_proj.weight.view(4, 8, 32)[0, 3] / scale
    torch.testing.assert_close(key[0], key[1])  # every head attends alike
    values = attention.v_proj.weight.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    for reading in (readings[0], readings[1], readings[38]):
        with torch.no_grad():
            normed, eos = states(tiny_encoder, list(reading.tokens))
            product = query @ normed[-1]
            mean = torch.softmax(product * (normed @ key[0]), 0) @ normed
            expected = tiny_encoder.backbone.norm(eos + attention.o_proj.weight @ (values @ mean))
            ((got,),) = tiny_encoder([Part([reading.tokens])])
        assert product == pytest.approx(1, abs=0.1)
        # All that rotary embeddings turn a key by is a thousandth of a turn per position.
        torch.testing.assert_close(got, torch.nn.functional.normalize(expected, dim=0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("every", [1, 3])
def test_states_are_those_of_each_text_alone_in_the_given_order(tiny_encoder: Encoder, every: int) -> None:
    texts = [*sample(tiny_encoder)[0], *repeated(tiny_encoder, 1)]  # three prompts, of which one is none
    read = readout.read_states(tiny_encoder, texts, every=every)
    assert len(read) == len(texts)
    for text, state in zip(texts, read, strict=True):
        with torch.no_grad():
            normed, eos = states(tiny_encoder, list(text.tokens))
        torch.testing.assert_close(
            state.normed, torch.cat([normed[:-1:every], normed[-1:]]).double(), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(state.at_eos, eos.double(), atol=1e-5, rtol=0)


def test_rare_tokens_get_more_of_eos_than_common_ones_and_a_prompt_little(tiny_encoder: Encoder) -> None:
    readings, docs = sample(tiny_encoder)
    readout.start(tiny_encoder, readings, docs)
    attention = tiny_encoder.backbone.layers[-1].self_attn
    key = attention.k_proj.weight.view(2, 8, 32)[0, 3] / attention.scaling**-0.5
    frequencies = Counter(token for doc in docs for token in set(doc))
    shares: dict[str, list[float]] = {"rare": [], "common": [], "prompt": []}
    for reading in readings:
        with torch.no_grad():
            normed, _ = states(tiny_encoder, list(reading.tokens))
            share = torch.softmax(normed @ key, 0) * len(reading.tokens)
        for place, token in enumerate(reading.tokens[:-1]):
            own = "rare" if frequencies[token] < 20 else "common"
            shares["prompt" if place < reading.num_prompt else own].append(float(share[place]))
    rare, common, prompt = (sum(part) / len(part) for part in shares.values())
    assert rare > 1.25 * common
    assert rare > 1.25 * prompt


def shares_of_examples(encoder: Encoder, reading: readout_fit.Reading) -> Tensor:
    """Which part of EOS's attention goes to what stands before the text, by head; by transformers alone."""
    plain = as_loaded(encoder.backbone)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        weights = plain(input_ids=torch.tensor([reading.tokens]), output_attentions=True).attentions[1]
    return weights[0, :, -1, : reading.num_prompt].sum(dim=1)  # type: ignore[no-any-return]


def repeated(encoder: Encoder, repeats: int, *, num_examples: int = 2) -> list[readout_fit.Reading]:
    """Texts of so many times two words in a prompt with examples or without."""
    prefix, words = encoder.config.prefix("Capitals", num_examples), [*RARE, *COMMON]
    texts = [f"{words[n % 10]} {words[n * 3 % 10]} " * repeats for n in range(40)]
    shared = encoder.count(prefix) - 1
    rows = encoder.tokenize(texts, prefix=prefix, max_tokens=100)
    return [readout_fit.Reading(row, shared, is_query=True, has_examples=num_examples > 0) for row in rows]


def test_after_examples_eos_of_a_short_text_looks_back_less_far_and_elsewhere_as_far_as_before(
    tmp_path: Path, tiny_config: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "_EVERY", 1)  # the prompt is the same in all, and short
    save_tiny(tmp_path / "model", head_dim=16)  # a window takes more than a few pairs of dimensions
    without, having = (encoder_with(tmp_path / "model", tiny_config) for _ in range(2))
    readings, docs = sample(without)
    short, long = repeated(without, 1), repeated(without, 12)
    readout.start(without, readings, docs)
    readout.start(having, readings, docs, [*short, *long, *repeated(without, 12, num_examples=0)])
    for number in range(0, 40, 8):
        remained = []
        for reading in (short[number], long[number]):
            before, after = (shares_of_examples(encoder, reading) for encoder in (without, having))
            remained.append((after / (1 - after)) / (before / (1 - before)))
        assert (remained[0] < 0.5).all()
        assert (remained[1] > 1.5 * remained[0]).all()
    for reading in readings[::16]:
        moved = shares_of_examples(having, reading) - shares_of_examples(without, reading)
        assert moved.abs().max() < 0.05


def test_what_is_read_outweighs_the_constant_by_the_strength(tiny_encoder: Encoder) -> None:
    readings, docs = sample(tiny_encoder)
    readout.start(tiny_encoder, readings, docs)
    before = []
    hook = tiny_encoder.backbone.norm.register_forward_hook(lambda _, args, __: before.append(args[0]))
    with torch.no_grad():
        tiny_encoder([Part([reading.tokens for reading in readings])])
    hook.remove()
    read = before[0].reshape(-1, 32)
    deviation = (read - read.mean(0)).norm(dim=1).mean()
    eos = torch.stack([states(tiny_encoder, list(reading.tokens))[1] for reading in readings]).norm(dim=1).mean()
    assert 0.7 * readout_fit.STRENGTH < deviation / eos < 1.3 * readout_fit.STRENGTH


def test_all_weights_of_the_last_layer_get_gradients_but_those_before_the_empty_matrix(tiny_encoder: Encoder) -> None:
    readings, docs = sample(tiny_encoder)
    readout.start(tiny_encoder, readings, docs)
    (vectors,) = tiny_encoder([Part([reading.tokens for reading in readings[:6]])])
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    layer = tiny_encoder.backbone.layers[-1]
    for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.self_attn.o_proj):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().max() > 0
    assert layer.mlp.down_proj.weight.grad.abs().max() > 0
    assert layer.mlp.up_proj.weight.grad.abs().max() == 0


def test_the_same_sample_gives_the_same_bits(tiny_checkpoint: Path, tiny_config: EncoderConfig) -> None:
    first, second = (encoder_with(tiny_checkpoint, tiny_config) for _ in range(2))
    for encoder in (first, second):
        readout.start(encoder, *sample(encoder))
    for name, weight in first.backbone.state_dict().items():
        assert torch.equal(weight, second.backbone.state_dict()[name]), name


def test_information_is_the_log_of_the_share_of_documents() -> None:
    got = readout_fit.information([3, 4, 5, 3], Counter({3: 1, 4: 9}), num_docs=9)
    assert got.tolist() == pytest.approx([math.log(5), readout_fit.LEAST_INFORMATION, math.log(10), math.log(5)])


def test_whitening_takes_both_kinds_to_zero_and_evens_out_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    is_query = torch.arange(4000) % 2 == 0
    # States have directions that all texts share, as after a norm with a bias towards some dimensions.
    mean = torch.randn(4000, 12, dtype=torch.float64) * torch.logspace(0, -1.5, 12)
    mean = mean + torch.where(is_query[:, None], torch.linspace(1, 2, 12), torch.linspace(3, 0, 12))
    for power, spread in ((0.0, 20.0), (1.0, 1.5)):
        monkeypatch.setattr(readout_fit, "WHITENING", power)
        value, output = readout_fit.whiten(mean, is_query, 10)
        torch.testing.assert_close(output.T @ output, torch.eye(10, dtype=torch.float64))
        read = mean @ (output @ value).T
        for kind in (is_query, ~is_query):
            assert read[kind].mean(0).norm() < 1e-6 * read.norm(dim=1).mean()
        deviations = (mean @ value.T).std(0)
        assert (deviations.max() / deviations.min() > spread) == (power == 0.0)
        correlations = torch.corrcoef((mean @ value.T).T) - torch.eye(10)
        assert correlations.abs().max() < 0.1


def test_pairs_listed_both_ways_round_are_whitened_like_the_rest() -> None:
    """Queries and documents are then the same texts, in the same prompt: there is one mean to take to 0, not two."""
    torch.manual_seed(1)
    texts = torch.randn(8, 6, dtype=torch.float64) + 3
    mean, is_query = torch.cat([texts, texts.flip(0)]), torch.arange(16) < 8
    value, output = readout_fit.whiten(mean, is_query, 4)
    read = mean @ (output @ value).T
    assert read.mean(0).norm() < 1e-3 * read.norm(dim=1).mean()
    assert 0.1 < read.std(0).norm() < 10


def test_a_sample_that_is_too_small_is_said(tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    readings, docs = sample(tiny_encoder)
    readout.start(tiny_encoder, readings[:20], docs)
    assert "fitted on 20 texts, fewer than its 32 dimensions" in caplog.text


def test_another_family_is_refused(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.config.model_type = "qwen2"
    with pytest.raises(InputError, match=r"Llama and Mistral decoders alone; this is a qwen2\. Set it to pretrained"):
        readout.start(tiny_encoder, [], [])


def test_value_heads_wider_than_the_states_are_refused(tmp_path: Path, tiny_config: EncoderConfig) -> None:
    save_tiny(tmp_path / "model", head_dim=32)
    encoder = encoder_with(tmp_path / "model", tiny_config)
    with pytest.raises(InputError, match=r"this student has 64 for 32. Set it to pretrained"):
        readout.start(encoder, *sample(encoder))
