"""Attention over packed rows, and a last layer that computes only what is read.

Registered with transformers under the name `NAME`, so that any decoder that goes through its attention interface can
run packed rows, LoRA and gradient checkpointing included.

Legend: T queries of the row, B texts of a block, L longest of them, K keys, H heads, D head dimensions.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

from anna.errors import InputError
from anna.modeling import flex
from anna.modeling.packing import Block, KeysValues, Packing
from anna.modeling.split import Keys, attend_split

NAME = "anna_packed"

READS_EARLY = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose last layer is known to be built of the parts that `_read_only_last` calls."""

_log = logging.getLogger(__name__)


def use_packing(model: PreTrainedModel) -> None:
    """Make `model` attend over packed rows: from now on each call needs `packing=` and its `position_ids`.

    Raises:
        InputError: As `check_architecture`.
    """
    check_architecture(model)
    model.set_attn_implementation(NAME)


def check_architecture(model: PreTrainedModel) -> None:
    """Refuse a decoder whose attention is not what this module computes, or that mixes tokens by other means.

    Convolutions and recurrences would carry one text of a packed row into the next.

    Raises:
        InputError: With what it has and what to choose instead.
    """
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        fault = "has no list `layers`"
    elif getattr(model.config, "attn_logit_softcapping", None):
        fault = "caps its attention scores"
    elif any(hasattr(getattr(layer, "self_attn", None), "sinks") for layer in layers):
        fault = "has attention sinks"
    elif {*(getattr(model.config, "layer_types", None) or ())} - {"full_attention", "sliding_attention"}:
        fault = f"has layers of other kinds than attention ({', '.join(sorted({*model.config.layer_types}))})"
    else:
        return
    raise InputError(
        f"a {model.config.model_type} {fault}, which packed rows do not compute; choose another student.model or "
        "rerank.model, of the Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 or OLMo 2 families for instance"
    )


def read_early(backbone: PreTrainedModel) -> bool:
    """Make the last layer of a decoder compute the last token of each text alone, and return whether it now does.

    Other tokens serve there as keys and values only: of a layer's products, nine in ten would never be read. The output
    is then one row per text, in the order of the packed row.
    """
    if backbone.config.model_type not in READS_EARLY:
        return False
    backbone.layers[-1].register_forward_pre_hook(_read_only_last, with_kwargs=True)
    return True


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention output of every query of a packed row, (1, T, H, D); transformers' attention interface.

    Args:
        module: The attention layer.
        query: (1, H, T, D).
        key: (1, key heads, T, D).
        value: As `key`.
        attention_mask: None; which key is seen follows from `packing`.
        packing: The row.
        scaling: Multiplies the products of queries and keys.
        dropout: Of attention weights.
        sliding_window: Positions that a query looks back at, itself included; None: all.
        is_causal: What the model's config says; False: a query sees what comes after it in its text, too.
        kwargs: What else the model passes on.
    """
    key, value = packing.given or (key, value)
    if packing.keep is not None:
        packing.keep[module.layer_idx] = key, value  # type: ignore[index]
    if packing.cached is not None:
        cached_key, cached_value = packing.cached[module.layer_idx]  # type: ignore[index]
        key, value = torch.cat([cached_key, key], dim=2), torch.cat([cached_value, value], dim=2)
    attend = flex.attend if pick_kernel(query.device.type) == "flex" else _attend_blocks
    output = attend(
        packing,
        query,
        key,
        value,
        scaling=scaling,
        dropout=dropout,
        window=sliding_window,
        is_causal=is_causal is not False,
    )
    return output, None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def pick_kernel(device_type: str) -> str:
    """Return what attends over packed rows on a device, and log why; compiled code asks once.

    FlexAttention skips the tiles of a row that no text shares, but is fast only where it is compiled for a GPU. On a
    CPU texts of like length are padded side by side, for attention alone, which is a few percent of all work.
    """
    return _picked(device_type)


@cache  # so that it says only once what it chose
def _picked(device_type: str) -> str:
    if device_type == "cuda":
        _log.info("packed rows attend by FlexAttention: the GPU compiles its block mask")
        return "flex"
    _log.info("packed rows attend text by text: there is no GPU to compile FlexAttention for")
    return "blocks"


def _attend_blocks(
    packing: Packing,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    dropout: float,
    window: int | None,
    is_causal: bool,
) -> Tensor:
    """Attend block by block; rows of T are gathered into (B, L) and back."""
    query_THD, key_THD, value_THD = (part[0].transpose(0, 1) for part in (query, key, value))
    outputs = []
    for block in packing.blocks:
        query_BHLD = _rows(query_THD, block.queries).transpose(1, 2)
        if block.sees_all_common(window) and not dropout:
            keys = Keys(*_common(key_THD, value_THD, block), *_own(key_THD, value_THD, block))
            output_BHLD = attend_split(query_BHLD, keys, block.own().visible(window, is_causal), scaling)
        else:
            output_BHLD = functional.scaled_dot_product_attention(
                query_BHLD,
                *_seen(key_THD, value_THD, block),
                attn_mask=block.visible(window, is_causal),
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=True,
            )
        outputs.append(_rows(output_BHLD.transpose(1, 2).flatten(0, 1), block.real))
    return torch.cat(outputs)[None]


def _rows(part: Tensor, places: Tensor) -> Tensor:
    """Return `part[places]`, whose gradient a CPU adds up row by row and not number by number."""
    return part.index_select(0, places.flatten()).view(*places.shape, *part.shape[1:])


def _own(key_THD: Tensor, value_THD: Tensor, block: Block) -> KeysValues:
    """Return the keys and values that each text of a block sees for itself, (B, H, K, D) each."""
    return _rows(key_THD, block.keys).transpose(1, 2), _rows(value_THD, block.keys).transpose(1, 2)


def _common(key_THD: Tensor, value_THD: Tensor, block: Block) -> KeysValues:
    """Return the keys and values that all texts of a block see, (1, H, C, D) each."""
    return _rows(key_THD, block.common[None]).transpose(1, 2), _rows(value_THD, block.common[None]).transpose(1, 2)


def _seen(key_THD: Tensor, value_THD: Tensor, block: Block) -> KeysValues:
    """Return all that the texts of a block attend to, (B, H, C + K, D) each, the common part copied for each text."""
    own = _own(key_THD, value_THD, block)
    if not len(block.common):
        return own
    common = _common(key_THD, value_THD, block)
    key, value = (torch.cat([c.expand(len(o), -1, -1, -1), o], dim=2) for c, o in zip(common, own, strict=True))
    return key, value


def _read_only_last(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a decoder layer runs: compute the keys and values of all tokens, then leave it the texts' last ones."""
    (hidden,), packing = args, kwargs["packing"]
    if packing.given is not None:
        return args, kwargs
    attention, (cos, sin) = layer.self_attn, kwargs["position_embeddings"]
    normed = layer.input_layernorm(hidden)
    heads = (*normed.shape[:-1], -1, attention.head_dim)
    key, value = attention.k_proj(normed).view(heads), attention.v_proj(normed).view(heads).transpose(1, 2)
    key = (attention.k_norm(key) if hasattr(attention, "k_norm") else key).transpose(1, 2)
    _, key = apply_rotary_pos_emb(key, key, cos, sin)
    last = packing.last()
    cut = {"position_embeddings": (cos[:, last], sin[:, last]), "packing": packing.reading((key, value))}
    return (hidden[:, last],), kwargs | cut


AttentionInterface.register(NAME, packed_attention)
