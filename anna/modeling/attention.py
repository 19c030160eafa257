"""Attention over packed rows, and a last layer that computes only what is read.

Registered with transformers under the name `NAME`, so that any decoder that goes through its attention interface can
run packed rows, LoRA and gradient checkpointing included.

Legend: T queries of the row, B texts of a block, L longest of them, K keys, H heads, D head dimensions.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

from anna.errors import InputError
from anna.modeling import flex
from anna.modeling.packing import KeysValues, Packing
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


def check_direction(model: PreTrainedModel, attention: str) -> None:
    """Refuse a causal student of a checkpoint that is none: its export would be read in both directions.

    Args:
        model: The checkpoint's.
        attention: `student.attention`.
    """
    if attention == "causal" and getattr(model.config, "use_bidirectional_attention", None):
        raise InputError(
            f"student.attention is causal, but this {model.config.model_type} attends in both directions "
            "(use_bidirectional_attention); set student.attention to bidirectional"
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
    blocks = packing.blocks
    queries = _gathered(query, [block.queries for block in blocks])
    keys, values = (
        _gathered(part, [places for block in blocks for places in (block.common[None], block.keys)])
        for part in (key, value)
    )
    outputs = []
    for number, block in enumerate(blocks):
        common, own = ((keys[n], values[n]) for n in (2 * number, 2 * number + 1))
        if len(block.common) and block.fits(window) and not dropout:
            is_visible = block.own().visible(window, is_causal)
            output_BHLD = attend_split(queries[number], Keys(*common, *own), is_visible, scaling)
        else:
            is_visible = block.visible(window, is_causal)
            output_BHLD = functional.scaled_dot_product_attention(
                queries[number],
                *_joined(common, own),
                attn_mask=is_visible,
                is_causal=is_visible is None,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=True,
            )
        outputs.append(output_BHLD.transpose(1, 2).flatten(0, 1).index_select(0, block.real))
    return torch.cat(outputs)[None]


def _gathered(part: Tensor, places: Sequence[Tensor]) -> list[Tensor]:
    """Return the tokens of `part`, (1, H, T, D), at each of `places`, (B, L), as (B, H, L, D).

    All are gathered at once: backwards a block alone would fill a gradient of all T, most of it with zeros.
    """
    rows = part[0].transpose(0, 1).index_select(0, torch.cat([place.flatten() for place in places]))
    blocks = torch.split(rows, [place.numel() for place in places])
    return [own.view(*place.shape, *own.shape[1:]).transpose(1, 2) for own, place in zip(blocks, places, strict=True)]


def _joined(common: KeysValues, own: KeysValues) -> KeysValues:
    """Return all that the texts of a block attend to, (B, H, C + K, D) each, the common part copied for each text."""
    if not common[0].shape[2]:
        return own
    key, value = (torch.cat([c.expand(len(o), -1, -1, -1), o], dim=2) for c, o in zip(common, own, strict=True))
    return key, value


def _read_only_last(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a decoder layer runs: compute the keys and values of all tokens, then leave it the texts' last ones."""
    (hidden,), packing = args, kwargs["packing"]
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
