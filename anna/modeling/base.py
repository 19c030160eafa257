"""Load causal models and the student's backbone: local files only, safetensors or GGUF, no remote code."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from anna import io
from anna.errors import InputError
from anna.origins import INPUTS_DIR, Origin, sha256
from anna.params import Params

_log = logging.getLogger(__name__)


class StudentParams(Params):
    """The decoder that becomes an embedding model."""

    section: ClassVar[str] = "student"

    model: Origin
    """Checkpoint: a folder with safetensors, or one GGUF file."""
    layers: int | None = Field(gt=0)
    """First layers kept; null keeps all."""


def load_causal_lm(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the causal model at `path` in float32 and evaluation mode, and its tokenizer.

    A Llama checkpoint becomes a Mistral model: without a sliding window the two compute the same function from the
    same weights, and the rest of the code has one architecture to know.

    Args:
        path: Folder of safetensors, or a GGUF file.

    Raises:
        InputError: If there is no such model, or it is not a causal one that transformers knows.
    """
    folder = _converted(path) if path.suffix == ".gguf" else path
    model, tokenizer = _load(AutoModelForCausalLM, folder)
    if model.config.model_type == "llama":
        model = _as_mistral(model)
    return model.eval(), tokenizer


def load_saved(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the decoder without language head saved in `folder`, in float32 and evaluation mode, and its tokenizer.

    Raises:
        InputError: If there is no such model.
    """
    model, tokenizer = _load(AutoModel, folder)
    return model.eval(), tokenizer


def load_student(path: Path, layers: int | None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the first `layers` decoder layers of the checkpoint, without language head, and a tokenizer that adds EOS.

    Raises:
        InputError: As `load_causal_lm`, or if the checkpoint has fewer layers.
    """
    causal, tokenizer = load_causal_lm(path)
    depth = causal.config.num_hidden_layers
    if layers is not None and layers > depth:
        raise InputError(f"student.layers is {layers}, but {path.name} has {depth}; choose at most {depth}, or null")
    backbone = causal.base_model
    backbone.layers = backbone.layers[: layers or depth]
    backbone.config.num_hidden_layers = layers or depth
    if getattr(backbone.config, "layer_types", None):
        backbone.config.layer_types = backbone.config.layer_types[: layers or depth]
    backbone.config.architectures = [type(backbone).__name__]
    backbone.config.use_cache = False
    append_eos(tokenizer)
    return backbone, tokenizer


def append_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    """Make the tokenizer itself end every text with EOS, also after truncation, wherever it is loaded.

    transformers 5 ignores `add_eos_token` for some tokenizers (mteb #5237), so the rule is part of tokenizer.json,
    where truncation accounts for it.
    """
    eos = tokenizer.eos_token
    if eos is None:
        raise InputError("the student's tokenizer has no EOS token, which the embedding is read from; choose another")
    specials = [(eos, tokenizer.eos_token_id)]
    bos = tokenizer.bos_token if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else None
    if bos is not None:
        specials.append((bos, tokenizer.bos_token_id))
    single = f"{bos} $A {eos}" if bos else f"$A {eos}"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} $B {eos}", special_tokens=specials
    )
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = eos


def _load(kind: type[AutoModel] | type[AutoModelForCausalLM], folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    try:
        model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder} holds no model of safetensors and tokenizer.json ({reason}); correct it") from None


def _converted(path: Path) -> Path:
    """Return a folder of safetensors with the dequantised weights of a GGUF file, made on first use.

    Reading GGUF takes many times as long as reading safetensors, and three stages read the same file.
    """
    folder = INPUTS_DIR / f"{path.stem}-{sha256(path)[:12]}"
    if folder.is_dir():
        return folder
    _log.info("dequantising %s", path.name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a GGUF file of a causal model ({error}); correct the origin") from None
    with io.atomic(folder) as temporary:
        _as_mistral(model).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def _as_mistral(model: PreTrainedModel) -> PreTrainedModel:
    """Return the Llama model's weights in a Mistral model."""
    old = model.config
    if getattr(old, "attention_bias", False) or getattr(old, "mlp_bias", False):
        raise InputError(
            f"{old.name_or_path or 'the model'} has biases, which Mistral lacks; choose another checkpoint"
        )
    config = MistralConfig(
        vocab_size=old.vocab_size,
        hidden_size=old.hidden_size,
        intermediate_size=old.intermediate_size,
        num_hidden_layers=old.num_hidden_layers,
        num_attention_heads=old.num_attention_heads,
        num_key_value_heads=old.num_key_value_heads,
        head_dim=old.head_dim,
        hidden_act=old.hidden_act,
        max_position_embeddings=old.max_position_embeddings,
        rms_norm_eps=old.rms_norm_eps,
        rope_parameters=old.rope_parameters,
        sliding_window=None,
        tie_word_embeddings=old.tie_word_embeddings,
        bos_token_id=old.bos_token_id,
        eos_token_id=old.eos_token_id,
        pad_token_id=old.pad_token_id,
    )
    mistral = MistralForCausalLM(config)
    mistral.load_state_dict(model.state_dict(), strict=True)
    if config.tie_word_embeddings:
        mistral.tie_weights()
    return mistral
