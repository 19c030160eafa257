"""Tiny real models, built here so that no test needs a network."""

import copy
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, TaskPrompt
from anna.modeling.student import StudentParams, append_eos, load_student
from anna.prompts import Example

WORDS = (
    "what is the capital of France and who wrote this book about rivers mountains music science water a city where "
    "people live near the sea Paris Berlin Madrid is a capital. Instruct: Query: Response: given a question retrieve "
    "passages that answer it similar sentences one two three four five six seven eight nine ten"
)

settings.register_profile("anna", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("anna")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from tests that need none: equality to the bit, and two ranks against one, are tested on CPUs."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Put back the level of all logs, which a stage that runs in this process sets: others would record more."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random three-layer Mistral and a byte-level tokenizer that adds no EOS by itself."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny(folder)
    return folder


def save_tiny(folder: Path, *, sliding_window: int | None = None, head_dim: int = 8) -> None:
    """Write a random three-layer causal Mistral and its tokenizer to `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", pad_token="</s>")
    fast.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    config = MistralConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        sliding_window=sliding_window,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def tiny_student(checkpoint: Path, **changes: Any) -> StudentParams:
    """The first two layers of the tiny model, as changed."""
    plain = {"model": {"kind": "files", "path": str(checkpoint)}, "layers": 2, "last_layer": "pretrained"}
    return StudentParams.model_validate({**plain, "pooling": "last_token", "attention": "causal", **changes})


def encoder_with(checkpoint: Path, config: EncoderConfig, **changes: Any) -> Encoder:
    """An encoder of the tiny model's first two layers, its encoder.json as changed."""
    return Encoder(*load_student(checkpoint, 2), config.model_copy(update=changes), torch.float32).eval()


def as_loaded(backbone: Any) -> Any:
    """A copy of a decoder that runs as transformers made it: its own attention, the whole last layer."""
    copied = copy.deepcopy(backbone)
    copied.set_attn_implementation("sdpa")
    copied.layers[-1]._forward_pre_hooks.clear()
    copied.layers[-1]._forward_pre_hooks_with_kwargs.clear()
    return copied


@pytest.fixture
def tiny_config() -> EncoderConfig:
    """An encoder.json with one asymmetric and one symmetric task."""
    examples = (Example("who wrote it", "this book about rivers"), Example("one two", "three four five"))
    return EncoderConfig(
        base="tiny",
        layers=2,
        max_tokens=256,
        example_tokens=16,
        tasks={
            "Capitals": TaskPrompt(instruction="given a question retrieve", symmetric=False, examples=examples),
            "Similar": TaskPrompt(instruction="similar sentences", symmetric=True, examples=examples[:1]),
        },
    )


@pytest.fixture
def tiny_encoder(tiny_checkpoint: Path, tiny_config: EncoderConfig) -> Encoder:
    """A fresh two-layer encoder of random weights."""
    backbone, tokenizer = load_student(tiny_checkpoint, 2)
    append_eos(tokenizer)
    return Encoder(backbone, tokenizer, tiny_config, torch.float32).eval()
