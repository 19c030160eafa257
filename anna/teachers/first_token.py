"""A cross-encoder whose last layer computes its first token alone, since its score is read from no other.

Legend: B pairs, L tokens, D hidden dimensions, H heads.
"""

from functools import partial
from typing import Any

from sentence_transformers import CrossEncoder
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

READS_FIRST = frozenset({"bert", "roberta", "xlm-roberta"})
"""Model types whose head reads the first token, and whose layers are built of the parts that `_read_first` calls."""


def read_first(model: CrossEncoder) -> bool:
    """Make the last layer compute the first token of each pair alone, and return whether it now does.

    Other tokens serve there as keys and values only. Scores stay the same, to rounding; of a layer's products five in
    six are left out, a seventh of all those of a model of 6 layers.
    """
    classifier = model[0].auto_model
    if classifier.config.model_type not in READS_FIRST:
        return False
    last = classifier.base_model.encoder.layer[-1]
    last.forward = partial(_read_first, last)
    return True


def _read_first(layer: Any, hidden_BLD: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Return the layer's output for the first token, (B, 1, D)."""
    attention, first_B1D = layer.attention, hidden_BLD[:, :1]
    parts = attention.self
    projected = (parts.query(first_B1D), parts.key(hidden_BLD), parts.value(hidden_BLD))
    query, key, value = (part.unflatten(2, (parts.num_attention_heads, -1)).transpose(1, 2) for part in projected)
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    context_BH1D = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=parts.scaling)
    attended_B1D = attention.output(context_BH1D.transpose(1, 2).flatten(2), first_B1D)
    output: Tensor = layer.feed_forward_chunk(attended_B1D)
    return output
