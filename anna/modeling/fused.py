"""Decoder layers whose steps between matrix products are compiled into few passes over memory, for training on a GPU.

In bfloat16 a GPU multiplies so fast that norms, rotations, gates, adapters' sums and dropout take half of a step, each
reading and writing all tokens. Compiled, a step of Mistral-7B takes a seventh less (docs/SCALING.md).
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from anna.modeling import flex
from anna.modeling.attention import READS_EARLY


def can_fuse(zero_stage: int, *, is_quantized: bool) -> bool:
    """Return whether training gains by `fuse`: on a GPU alone.

    Not at ZeRO 3, which gathers weights in hooks that cannot be compiled; on quantised matrices it was not tried.
    """
    return torch.cuda.is_available() and zero_stage < 3 and not is_quantized


def fuse(backbone: PreTrainedModel) -> bool:
    """Compile all layers of a decoder but the last, which computes few tokens, and return whether that was possible.

    Attention, MLP and norms are compiled one by one, so that gradient checkpointing goes around them; all layers share
    the same kernels. In evaluation mode they run as they are. Weights, their names and adapters put in later are left
    alone.
    """
    if backbone.config.model_type not in READS_EARLY:
        return False
    backbone.register_forward_pre_hook(_make_masks, with_kwargs=True)
    for layer in backbone.layers[:-1]:
        for part in (layer.input_layernorm, layer.self_attn, layer.post_attention_layernorm, layer.mlp):
            _fuse_part(part)
    return True


def _fuse_part(part: nn.Module) -> None:
    plain, compiled = part.forward, torch.compile(part.forward, dynamic=True)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if part.training else plain)(*args, **kwargs)

    part.forward = forward


def _make_masks(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a decoder runs: make the row's masks, so that compiled code finds them."""
    packing, config = kwargs["packing"], backbone.config
    for layer in backbone.layers:
        window = getattr(layer.self_attn, "sliding_window", getattr(config, "sliding_window", None))
        flex.mask(packing, window, getattr(config, "is_causal", True))
