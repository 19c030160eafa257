"""From hidden states to one unit vector per text.

Legend: B texts, L tokens, D hidden dimensions.
"""

import torch
from torch import Tensor
from torch.nn import functional


def last_token(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """Return the hidden state of each text's last real token, which is its EOS.

    The position is read from the mask, never from token ids (a padding token may be the EOS token) and never from a
    count (padding may be on either side).

    Args:
        hidden_BLD: Hidden states of the last layer, (B, L, D).
        mask_BL: 1 at real tokens, 0 at padding, (B, L); at least one real token in each row.

    Returns:
        (B, D), in the dtype of the hidden states.

    Reference: LGAI-Embedding-Preview, arXiv:2506.07438 (hidden state at the final EOS).
    """
    positions_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    last_B = (mask_BL * positions_L).argmax(dim=1)
    return hidden_BLD[torch.arange(len(last_B), device=mask_BL.device), last_B]


def normalise(pooled_BD: Tensor) -> Tensor:
    """Return unit vectors, (B, D), computed and returned in float32 whatever the input's dtype (float64 stays)."""
    exact = pooled_BD if pooled_BD.dtype == torch.float64 else pooled_BD.float()
    return functional.normalize(exact, dim=-1)
