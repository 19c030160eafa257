"""Floating-point operations of a transformer. A multiplication and the addition that follows count as two.

Matrix products and attention are counted; norms, activations and softmax are a few percent and are part of the share of
a device's peak that is reached.
"""

from typing import Literal

from anna.shapes import Shape


def forward(shape: Shape, context: float) -> float:
    """Return the operations of all layers for one token.

    Args:
        shape: Of the model.
        context: Keys that a token sees, mean.
    """
    return shape.layers * _layer(shape, context)


def forward_read(shape: Shape, context: float, texts_per_token: float) -> float:
    """Return the operations for one token where the last layer computes the texts' last tokens alone.

    Of other tokens it needs keys and values (`anna.modeling.attention.read_early`).
    """
    return (shape.layers - 1) * _layer(shape, context) + last_layer(shape, context, texts_per_token)


def last_layer(shape: Shape, context: float, texts_per_token: float) -> float:
    """Return the operations of that last layer for one token."""
    keys = 2 * shape.key_matrices
    return keys + texts_per_token * (_layer(shape, context) - keys)


def training(
    shape: Shape,
    context: float,
    texts_per_token: float,
    *,
    method: Literal["full", "lora"],
    recomputed: float,
    twice: float,
) -> float:
    """Return the operations of one token's share of a training step.

    Forward once; backward once more for the gradient of the inputs, and once more for that of the weights if they are
    trained (adapters are so small that they are left out); gradient checkpointing adds a forward pass for the share
    `recomputed` of the layers, and GradCache one more for the share `twice` of all tokens that lie in batches that are
    cut.
    """
    passes = 2 + (method == "full") + recomputed + twice
    return forward_read(shape, context, texts_per_token) * passes


def _layer(shape: Shape, context: float) -> float:
    """Return the operations of one layer for one token: 2 per weight; 4 per query dimension and key that it sees."""
    return 2 * shape.matrices + 4 * shape.query_dims * context
