"""Load models from local files: safetensors or GGUF, never pickle, never remote code."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from anna.errors import InputError, one_line
from anna.modeling.hardware import Quantize, tell_deepspeed
from anna.modeling.outline import HEAD, UNREADABLE, outline
from anna.origins import dequantised_name, made_once

_log = logging.getLogger(__name__)


def load_causal_lm(
    path: Path,
    quantize: Quantize | None = None,
    dtype: torch.dtype = torch.float32,
    weight_dtype: torch.dtype = torch.float32,
    *,
    needs_head: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the causal model at `path` in evaluation mode, and its tokenizer.

    A Llama checkpoint becomes a Mistral model: without a sliding window the two compute the same function from the same
    weights. A quantised one stays what it is.

    Args:
        path: Folder of safetensors, or a GGUF file.
        quantize: What all matrices of the layers are rounded to; None: nothing.
        dtype: What quantised matrices are multiplied in.
        weight_dtype: What weights that are not quantised are kept in.
        needs_head: Refuse a checkpoint without a language head.

    Raises:
        InputError: As `outline`, or if bitsandbytes, which quantises, is not installed.
    """
    folder = _converted(path) if path.suffix == ".gguf" else path
    spare = () if needs_head else HEAD
    options = _quantised(dtype) if quantize else {}
    model, tokenizer = _load(AutoModelForCausalLM, folder, weight_dtype, spare, **options)
    if model.config.model_type == "llama" and not quantize:
        model = _as_mistral(model)
    return model.eval(), tokenizer


def load_saved(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the decoder without language head saved in `folder`, in float32 and evaluation mode, and its tokenizer.

    Raises:
        InputError: As `outline`.
    """
    model, tokenizer = _load(AutoModel, folder, torch.float32)
    return model.eval(), tokenizer


def check_quantizer() -> None:
    """Refuse to quantise without the library for it."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            "train.quantize is nf4, but bitsandbytes is not installed; run: pip install -e '.[quantize]', or set "
            "train.quantize to null"
        )


def check_biases(config: PretrainedConfig) -> None:
    """Refuse a Llama with biases, which cannot become a Mistral model."""
    if config.model_type == "llama" and (config.attention_bias or config.mlp_bias):
        raise InputError(
            f"{config.name_or_path or 'the model'} has biases, which Mistral lacks; choose another checkpoint"
        )


def _quantised(dtype: torch.dtype) -> dict[str, Any]:
    """Return what `from_pretrained` needs to load matrices in 4 bits."""
    check_quantizer()
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config}


def _load(
    kind: type[AutoModel] | type[AutoModelForCausalLM],
    folder: Path,
    dtype: torch.dtype,
    spare: tuple[str, ...] = (),
    **options: Any,
) -> tuple[Any, PreTrainedTokenizerFast]:
    outline(kind, folder, spare=spare)
    model = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True, **options)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _converted(path: Path) -> Path:
    """Return a folder of safetensors with the dequantised weights of a GGUF file, made on first use.

    Reading GGUF takes many times as long as reading safetensors, and three stages read the same file.
    """

    def convert(temporary: Path) -> None:
        _log.info("dequantising %s", path.name)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        except UNREADABLE as error:
            raise InputError(
                f"{path} is not a GGUF file of a causal model ({one_line(error)}); correct the origin"
            ) from None
        if model.config.model_type != "llama":
            raise InputError(
                f"{path} is a GGUF file of a {model.config.model_type}, but only those of a Llama can be read; give "
                "the model as a folder of safetensors"
            )
        tell_deepspeed()
        _as_mistral(model).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)

    return made_once(dequantised_name(path), convert)


def _as_mistral(model: PreTrainedModel) -> PreTrainedModel:
    """Return the Llama model's weights, not copied, in a Mistral model."""
    old = model.config
    check_biases(old)
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
    with torch.device("meta"):
        mistral = MistralForCausalLM(config)
    mistral.load_state_dict(model.state_dict(), strict=True, assign=True)
    mistral.model.rotary_emb = type(mistral.model.rotary_emb)(config)  # its frequencies are no part of the state
    if config.tie_word_embeddings:
        mistral.tie_weights()
    return mistral
