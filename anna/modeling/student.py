"""The student: the first layers of a causal model, and a tokenizer that ends every text with EOS."""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna.errors import InputError
from anna.modeling.attention import check_architecture
from anna.modeling.checkpoint import load_causal_lm
from anna.modeling.encoder_config import Attention, Pooling
from anna.modeling.hardware import Quantize
from anna.origins import Origin
from anna.params import Params


class StudentParams(Params):
    """The decoder that becomes an embedding model."""

    section: ClassVar[str] = "student"

    model: Origin
    """Checkpoint: a folder with safetensors, or one GGUF file."""
    layers: int | None = Field(gt=0)
    """First layers kept; null keeps all."""
    pooling: Pooling
    """What becomes the vector: the hidden state at EOS (paper), or the mean over all tokens, prompt included."""
    attention: Attention
    """What a token sees: what comes before it (paper), or its whole text (LLM2Vec, NV-Embed).

    A prompt would then see its query, so it is computed for each text anew, not once for all.
    """
    last_layer: Literal["pretrained", "weighted_mean"]
    """What the last layer begins training as: the checkpoint's, or one by which EOS is a mean of its text (`readout`).

    The second is for training whole weights.
    """


def load_student(
    path: Path,
    layers: int | None,
    *,
    quantize: Quantize | None = None,
    dtype: torch.dtype = torch.float32,
    weight_dtype: torch.dtype = torch.float32,
    is_packed: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the first `layers` decoder layers of the checkpoint, without language head, and a tokenizer that adds EOS.

    Args:
        path: As `load_causal_lm`.
        layers: None: all.
        quantize: As `load_causal_lm`.
        dtype: As `load_causal_lm`.
        weight_dtype: As `load_causal_lm`.
        is_packed: Keep quantised matrices in 4 bits; otherwise as float32 of the same values.

    Raises:
        InputError: As `load_causal_lm`, or if the checkpoint has fewer layers or attends in a way that packed rows
            cannot.
    """
    causal, tokenizer = load_causal_lm(path, quantize, dtype, weight_dtype, needs_head=False)
    check_architecture(causal)
    if quantize and not is_packed:
        # Where bitsandbytes has put it is a GPU that has room for 4 bits of a weight, not for 32.
        causal = causal.cpu().dequantize()
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
    # peft asks the model that it adapts, but transformers tells the outer one alone.
    backbone.is_loaded_in_4bit = quantize == "nf4" and is_packed
    # torch gives the row of the padding token no gradient, and that is EOS's where a model pads with EOS. Packed rows
    # hold no padding.
    backbone.get_input_embeddings().padding_idx = None
    append_eos(tokenizer)
    return backbone, tokenizer


def recompute(backbone: PreTrainedModel, layers: int) -> None:
    """Make the first `layers` layers compute their activations again in the backward pass (gradient checkpointing)."""
    backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in backbone.layers[layers:]:
        layer.gradient_checkpointing = False


def append_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    """Make the tokenizer itself end every text with EOS, also after truncation, wherever it is loaded.

    transformers 5 ignores `add_eos_token` for some tokenizers (mteb #5237), so the rule is part of tokenizer.json,
    where truncation accounts for it.

    Raises:
        InputError: If the tokenizer has no EOS.
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
    # With a chat template, sentence-transformers 6 would wrap every text in it as a message.
    tokenizer.chat_template = None
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = eos
