"""A distance from which attention sees little, written into rotary embeddings.

A constant query and key have the logit a * cos(w * distance) in a pair of dimensions that turns by w a token. Over all
pairs such logits add up to one that is near 0 up to a distance and far below it beyond.

Legend: P pairs of dimensions, N distances, D hidden dimensions.
"""

from typing import Any

import torch
from torch import Tensor

from anna.modeling.encoder import Encoder

DEPTH = 5.0
"""How far logits are to fall, and a token's weight with them, by e^-5. What the least squares give is less: in the
default a token beyond weighs 0.02 of a near one in the mean, just beyond up to 0.11."""

FADE = 16
"""Tokens over which they fall."""

FASTEST = 0.3
"""Radians a token: pairs that turn faster would tell neighbours apart."""

_RIDGE = 3.0
"""Added to the diagonal of the least squares: keeps single amplitudes, and with them noise, small."""

_NEAR = 4.0
"""Weight of the distances up to the end of the fall; that of those beyond is 1."""


def amplitudes(turns_P: Tensor, reach: int, span: int) -> Tensor:
    """Return each pair's `a` for a sum near 0 up to `reach` tokens and near -`DEPTH` from `FADE` after it, (P,).

    Args:
        turns_P: Radians a token, float64.
        reach: Distance in tokens.
        span: Longest distance for which the sum is to be right.
    """
    distances_N = torch.arange(max(span, reach + 2 * FADE), dtype=turns_P.dtype)
    wanted_N = -DEPTH * ((distances_N - reach) / FADE).clamp(0, 1)
    weights_N = torch.where(distances_N < reach + FADE, _NEAR, 1.0).to(turns_P)
    cosines_NP = torch.cos(distances_N[:, None] * turns_P)
    weighted_NP = weights_N[:, None] * cosines_NP
    ridge_PP = _RIDGE * torch.eye(len(turns_P), dtype=turns_P.dtype)
    found: Tensor = torch.linalg.solve(cosines_NP.T @ weighted_NP + ridge_PP, weighted_NP.T @ wanted_N)
    return found


@torch.no_grad()
def write(encoder: Encoder, query_D: Tensor, key_D: Tensor, *, reach: int) -> None:
    """Add logits to the last layer by which EOS hardly sees beyond `reach`, as far as `query_D` times its state says.

    They take up all pairs of dimensions but those that turn too fast and the slowest, which has the key of information.

    Args:
        encoder: Whose last layer `readout.start` has written.
        query_D: Near 1 at EOS where it is to be so, near 0 elsewhere.
        key_D: Near 1 at all tokens.
        reach: In tokens.
    """
    attention: Any = encoder.backbone.layers[-1].self_attn
    turns: Any = encoder.backbone.rotary_emb.inv_freq
    turns_P = turns[:-1].double().cpu()
    pairs = (turns_P < FASTEST).nonzero()[:, 0]
    logits_P = amplitudes(turns_P[pairs], reach, encoder.config.max_tokens) / attention.scaling
    size = attention.head_dim
    query, key = (part.weight.view(-1, size, len(key_D)) for part in (attention.q_proj, attention.k_proj))
    query[:, pairs] = (logits_P.abs().sqrt() * logits_P.sign())[:, None].mul(query_D).to(query)
    key[:, pairs] = logits_P.abs().sqrt()[:, None].mul(key_D).to(key)
    key[:, pairs + size // 2] = 0
