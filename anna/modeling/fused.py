"""Decoder layers whose steps between matrix products are compiled into few passes over memory, for training on a GPU.

In bfloat16 a GPU multiplies so fast that norms, rotations, gates, adapters' sums and dropout take half of a step, each
reading and writing all tokens. Compiled, a step of Mistral-7B takes a seventh less (docs/SCALING.md).

Compiled layers also keep less for the backward pass, which computes again what was no matrix product and no attention:
of Mistral-7B with adapters and dropout half as much.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._functorch import config as partition_config
from torch._inductor import config as compiler_config
from torch._inductor import inductor_prims
from torch.utils.checkpoint import CheckpointPolicy
from transformers import PreTrainedModel

from anna.modeling import flex
from anna.modeling.attention import READS_EARLY

KEPT = frozenset({inductor_prims.seed, inductor_prims.seeds, torch.ops.higher_order.flex_attention})
"""What a compiled layer never computes again. Seeds would be drawn anew: dropout would fall elsewhere in the backward
pass, and gradients would be wrong without a word."""


def can_fuse(*, is_quantized: bool) -> bool:
    """Return whether training gains by `fuse`: on a GPU alone. On quantised matrices it was not tried."""
    return torch.cuda.is_available() and not is_quantized


def gathered_whole(backbone: PreTrainedModel) -> Sequence[Any]:
    """Return the layers that ZeRO 3 is to gather as one, and that can be compiled there: its hooks go around them.

    All but two, whose parts are gathered one by one. Nothing trained comes before the first, so that its input has no
    gradient, and DeepSpeed would take its weights' gradients for ready too early; parts of the last are called before
    it is (`anna.modeling.attention`).
    """
    return backbone.layers[1:-1]  # type: ignore[no-any-return]


def fuse(backbone: PreTrainedModel, *, zero_stage: int = 0) -> bool:
    """Compile all layers of a decoder but the last, which computes few tokens, and return whether that was possible.

    Attention, MLP and norms are compiled one by one, so that gradient checkpointing goes around them; all layers share
    the same kernels. In evaluation mode they run as they are. Weights, their names and adapters put in later are left
    alone. At ZeRO 3 the first layer runs as it is, too: hooks that gather weights cannot be compiled.
    """
    if backbone.config.model_type not in READS_EARLY:
        return False
    backbone.register_forward_pre_hook(_make_masks, with_kwargs=True)
    for layer in gathered_whole(backbone) if zero_stage == 3 else backbone.layers[:-1]:
        for part in (layer.input_layernorm, layer.self_attn, layer.post_attention_layernorm, layer.mlp):
            fuse_part(part)
    return True


def fuse_part(part: nn.Module) -> None:
    """Compile a module's forward and backward pass in training mode; in evaluation mode it runs as it is."""
    plain, compiled = part.forward, torch.compile(part.forward, dynamic=True, backend=sparing)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if part.training else plain)(*args, **kwargs)

    part.forward = forward


def sparing(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
    """Compile as `torch.compile` does, but keep as few activations as can be: its backend for this module."""
    with partition_config.patch(aggressive_recomputation=True), compiler_config.patch(joint_custom_post_pass=_keep):
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)


def _keep(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.target in KEPT:
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE


def _make_masks(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a decoder runs: make the row's masks, so that compiled code finds them."""
    packing, config = kwargs["packing"], backbone.config
    for layer in backbone.layers:
        window = getattr(layer.self_attn, "sliding_window", getattr(config, "sliding_window", None))
        flex.mask(packing, window, getattr(config, "is_causal", True))
