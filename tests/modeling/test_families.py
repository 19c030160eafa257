"""Decoders of other families as students: sentence-transformers computes what was trained, or they are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from anna.errors import InputError
from anna.modeling import export
from anna.modeling.attention import use_packing
from anna.modeling.checkpoint import load_causal_lm
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.student import load_student
from anna.training.engine import add_lora
from anna.training.results import save_encoder
from tests.conftest import as_loaded, tiny_student

TEXTS = ["the capital of France", "x", "a very long text about rivers and mountains " * 3]

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma": {},
    "gemma3_text": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "phi3": {},
    "olmo2": {},
    "granite": {},
}


def save(folder: Path, family: str, tokenizer_folder: Path, **sizes: Any) -> Path:
    """Write a random model of the family with the tiny tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{"vocab_size": len(tokenizer), **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_is_trained_on_packed_rows_and_exported_as_what_it_is(
    family: str, tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", family, tiny_checkpoint, **SIZES, **FAMILIES[family])
    encoder = Encoder(*load_student(folder, 2), tiny_config, torch.float32).eval()
    add_lora(encoder, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():
        for name, parameter in encoder.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    rows = encoder.tokenize(TEXTS, prefix=tiny_config.prefix("Capitals", 2), max_tokens=40)
    encoder([Part(rows, encoder.num_shared(rows))])[0].square().sum().backward()
    trained = {name: weight for name, weight in encoder.backbone.named_parameters() if weight.requires_grad}
    assert trained
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained.values())
    save_encoder(tmp_path / "encoder", encoder, trained)
    loaded = export.load_trained(tmp_path / "encoder", tiny_student(folder))
    texts = {"": TEXTS, "Capitals+examples": TEXTS, "Similar": TEXTS}
    expected = export.embed(loaded, texts)
    export.export(loaded, tmp_path / "out")
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.99999


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_of_any_family_are_what_transformers_computes(
    family: str, tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", family, tiny_checkpoint, **SIZES, **FAMILIES[family])
    encoder = Encoder(*load_student(folder, 2), tiny_config, torch.float32).eval()
    plain, prefix = as_loaded(encoder.backbone), tiny_config.prefix("Capitals", 2)
    with torch.no_grad():
        last = [
            plain(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0, -1]
            for row in encoder.tokenize(TEXTS, prefix=prefix, max_tokens=40)
        ]
    expected = torch.nn.functional.normalize(torch.stack(last), dim=-1).numpy()
    got = encoder.encode(TEXTS, prefix=prefix, max_tokens=40, tokens_per_batch=64)
    np.testing.assert_allclose(got, expected, atol=3e-6)


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        *((family, {}) for family in FAMILIES),
        ("mistral", {"rope_type": "linear", "factor": 4.0}),
        ("llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("qwen3", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
        ("olmo2", {"rope_type": "linear", "factor": 4.0}),
        ("gemma3_text", {"rope_type": "linear", "factor": 4.0}),
        ("phi3", {"rope_type": "longrope", "short_factor": [1.5] * 4, "long_factor": [2.5] * 4}),
    ],
)
def test_the_old_names_in_an_exported_config_say_the_same(
    family: str, rope: dict[str, Any], tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": 500.0, **rope}
    if "layer_types" in FAMILIES[family]:
        parameters = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}
    sizes = {**SIZES, **FAMILIES[family], "rope_parameters": parameters}
    folder = save(tmp_path / "model", family, tiny_checkpoint, **sizes)
    encoder = Encoder(*load_student(folder, 2), tiny_config, torch.float32).eval()
    texts = {"": TEXTS, "Similar": TEXTS}
    expected = export.embed(encoder, texts)
    export.export(encoder, tmp_path / "out")
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.99999
    config = json.loads((tmp_path / "out/config.json").read_text())
    del config["rope_parameters"]  # which transformers 4 does not know
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.99999
    del config["rope_theta"]
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has cosine"):
        export.compare(expected, texts, tmp_path / "out", 0.9999)


@pytest.mark.parametrize(
    ("family", "sizes", "fault"),
    [
        ("gemma2", SIZES | {"attn_logit_softcapping": 50.0}, "a gemma2 caps its attention scores"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "a gpt2 has no list `layers`"),
        ("gpt_oss", SIZES | {"num_local_experts": 2, "num_experts_per_tok": 1}, "a gpt_oss has attention sinks"),
        ("lfm2", SIZES | {"layer_types": ["conv", "full_attention", "conv"]}, "a lfm2 has layers of other kinds"),
        ("qwen3_next", SIZES, "a qwen3_next has layers of other kinds than attention .linear_attention."),
    ],
)
def test_what_packed_rows_do_not_compute_is_refused(
    family: str, sizes: dict[str, Any], fault: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", family, tiny_checkpoint, **sizes)
    with pytest.raises(InputError, match=rf"{fault}.*choose another student.model or rerank.model, of the Llama"):
        load_student(folder, 1)
    with pytest.raises(InputError, match=fault):
        use_packing(load_causal_lm(folder)[0])
