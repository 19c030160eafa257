"""From hidden states to one unit vector per text.

Legend: T tokens of a packed row, P prefixes and texts of it, S texts, D hidden dimensions.
"""

import torch
from torch import Tensor
from torch.nn import functional


def mean(
    hidden_TD: Tensor, piece_T: Tensor, own_S: Tensor, prefix_S: Tensor, before: tuple[Tensor, int] | None = None
) -> Tensor:
    """Return the mean hidden state of each text's tokens, those of its prefix included, (S, D), in float32.

    A prefix is summed once, however many texts share it.

    Args:
        hidden_TD: Hidden states of the last layer, (T, D).
        piece_T: Number of the prefix or text that each token belongs to, (T,).
        own_S: Number of each text, (S,).
        prefix_S: Number of the prefix that comes before each text; its own where there is none, (S,).
        before: Sum of the hidden states, (D,), and number of tokens that come before all of these and are not in the
            row.
    """
    counts_P = piece_T.bincount()
    sums_PD = exact(hidden_TD.new_zeros(len(counts_P), hidden_TD.shape[1])).index_add(0, piece_T, exact(hidden_TD))
    has_prefix_S = (prefix_S != own_S).long()
    sums_SD = sums_PD[own_S] + sums_PD[prefix_S] * has_prefix_S[:, None]
    counts_S = counts_P[own_S] + counts_P[prefix_S] * has_prefix_S
    if before is not None:
        sums_SD, counts_S = sums_SD + before[0], counts_S + before[1]
    return sums_SD / counts_S[:, None]


def normalise(pooled_SD: Tensor) -> Tensor:
    """Return unit vectors, (S, D), computed and returned in float32 whatever the input's dtype (float64 stays)."""
    return functional.normalize(exact(pooled_SD), dim=-1)


def exact(values: Tensor) -> Tensor:
    """Return the values in float32, or as they are in float64."""
    return values if values.dtype == torch.float64 else values.float()
