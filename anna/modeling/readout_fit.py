"""What a last layer is fitted on, and how: which tokens EOS attends to, and what of them it reads.

Linear least squares and principal directions over the states of a sample of texts, in float64.

References: weighted means, and taking away what all texts have in common, Arora et al. 2017 (SIF); whitening, Su et al.
2021, arXiv:2103.15316. Attention that is linear in a token's state, and the constants, are ours (docs/LOG.md).

Legend: N texts, T tokens of all of them, D hidden dimensions, R dimensions of all value heads together.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POWER = 1.5
"""Attention is proportional to information to this power."""

LEAST_INFORMATION = 0.3
"""In nats: of a common token, of a prompt's tokens, and of EOS."""

PROMPT_WEIGHT = 0.1
"""Of a prompt's token where attention is fitted: they are many, and always the same."""

WHITENING = 0.75
"""From 0, directions as they are, to 1, all of one variance."""

STRENGTH = 3.0
"""Length of what is read of a text, in the mean, relative to that of the state at EOS that it is added to."""

_RIDGE = 0.01
"""Added to a covariance's diagonal, as a share of its mean."""

_SMALL_RIDGE = 0.001
"""The same where there is little noise to fit."""

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """A tokenised text as training feeds it."""

    tokens: Sequence[int]
    """EOS last."""
    num_prompt: int
    """Leading tokens that are its prompt, examples included."""
    is_query: bool
    has_examples: bool = False

    @property
    def prompt(self) -> Sequence[int]:
        """The tokens of its prompt."""
        return self.tokens[: self.num_prompt]

    @property
    def num_own(self) -> int:
        """Tokens that are not its prompt's, EOS included."""
        return len(self.tokens) - self.num_prompt


class State(NamedTuple):
    """What the last layer is given of a text, float64."""

    normed: Tensor
    """After the layer's norm, of the tokens that are kept, the first and EOS among them, (tokens, D)."""
    at_eos: Tensor
    """What the layer adds to at EOS, (D,)."""


def information(tokens: Sequence[int], frequencies: Counter[int], num_docs: int) -> Tensor:
    """Return log((n + 1) / (df + 1)) of each token in nats, `LEAST_INFORMATION` at least, (T,)."""
    counts = torch.tensor([frequencies[token] for token in tokens], dtype=torch.float64)
    return torch.log((num_docs + 1) / (counts + 1)).clamp(min=LEAST_INFORMATION)


def fit_key(normed: Sequence[Tensor], texts: Sequence[Reading], docs: Sequence[Sequence[int]]) -> Tensor:
    """Return the direction along which a token's state is `POWER` times the log of its information, (D,).

    Each token counts by the square of its information, since those that will be attended to have to be right.
    """
    frequencies = Counter(token for doc in docs for token in set(doc))
    wanted, weights = [], []
    for text in texts:
        informed = information(text.tokens, frequencies, len(docs))
        weight = informed**2
        informed[: text.num_prompt] = informed[-1] = LEAST_INFORMATION
        weight[: text.num_prompt] = PROMPT_WEIGHT
        wanted.append(POWER * informed.log())
        weights.append(weight)
    x_TD, y_T, weight_T = torch.cat(list(normed)), torch.cat(wanted), torch.cat(weights)
    x_TD -= (weight_T @ x_TD) / weight_T.sum()  # in place: it is large
    y_T -= (weight_T @ y_T) / weight_T.sum()
    weighted_TD = weight_T[:, None] * x_TD
    key_D = _solve(x_TD.T @ weighted_TD, y_T @ weighted_TD, share=_RIDGE)
    unexplained = (weight_T @ (x_TD @ key_D - y_T) ** 2 / (weight_T @ y_T**2)).item()
    _log.info("the last layer starts as a mean of the text: %.2f of information explained by states", 1 - unexplained)
    return key_D


def fit_values(states: Sequence[State], is_query: Tensor, key_D: Tensor, num_values: int) -> tuple[Tensor, Tensor]:
    """Return the matrices of values and output by which EOS reads a whitened mean, (R, D) and (D, R).

    Args:
        states: Of texts in zero-shot prompts.
        is_query: Which of them are queries, (N,).
        key_D: What attention gives each token's share by.
        num_values: R.
    """
    mean_ND = torch.stack([torch.softmax(state.normed @ key_D, 0) @ state.normed for state in states])
    value_RD, output_DR = whiten(mean_ND, is_query, num_values)
    read_ND = (mean_ND - mean_ND.mean(0)) @ (output_DR @ value_RD).T
    added_to_ND = torch.stack([state.at_eos for state in states])
    strength = STRENGTH * added_to_ND.norm(dim=1).mean() / read_ND.norm(dim=1).mean()
    return value_RD * strength.sqrt(), output_DR * strength.sqrt()


def whiten(mean_ND: Tensor, is_query: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return matrices whose product takes means of texts to almost uncorrelated ones around 0, (R, D) and (D, R).

    There is no bias, so the mean of queries and that of documents are taken to 0 by the linear map that changes all
    else least: it gives up two directions along which the texts of a kind hardly differ. What remains is written in its
    principal directions, each divided by its standard deviation to the power `WHITENING`, and the largest are kept.

    Args:
        mean_ND: Means of texts' states, float64.
        is_query: Which of them are queries, (N,); the others are documents.
        rank: R.
    """
    kinds = [mean_ND[is_query], mean_ND[~is_query]]
    kind_2D = torch.stack([kind.mean(0) for kind in kinds])
    if torch.allclose(kind_2D[0], kind_2D[1]):  # pairs that are listed both ways round, where both sides are prompted
        kind_2D = kind_2D[:1]
    within_ND = torch.cat([kind - kind.mean(0) for kind in kinds])
    inverse_D2 = _solve(within_ND.T @ within_ND, kind_2D.T, share=_SMALL_RIDGE)
    away_DD = kind_2D.T @ torch.linalg.solve(kind_2D @ inverse_D2, inverse_D2.T)
    centre_DD = torch.eye(len(away_DD), dtype=away_DD.dtype) - away_DD
    centred_ND = (mean_ND - mean_ND.mean(0)) @ centre_DD.T
    variances, directions = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
    floor = _RIDGE * variances.mean()
    variances_R, output_DR = variances[-rank:].clamp(min=0) + floor, directions[:, -rank:]
    return variances_R[:, None] ** (-WHITENING / 2) * (output_DR.T @ centre_DD), output_DR


def constant(normed_TD: Tensor) -> Tensor:
    """Return the direction along which all states are near 1, (D,)."""
    return _solve(normed_TD.T @ normed_TD, normed_TD.sum(0), share=_SMALL_RIDGE)


def fit_gate(at_eos_ND: Tensor, wanted_N: Tensor) -> Tensor:
    """Return the direction along which EOS is near 1 where that is wanted and near 0 elsewhere, (D,)."""
    gate_D = _solve(at_eos_ND.T @ at_eos_ND, wanted_N @ at_eos_ND, share=_SMALL_RIDGE)
    found_N = at_eos_ND @ gate_D
    _log.info(
        "how far EOS looks back is limited by %.2f on short texts after examples (1 is wanted) and by %.2f elsewhere "
        "(0 is wanted)",
        found_N[wanted_N == 1].mean(),
        found_N[wanted_N == 0].mean(),
    )
    return gate_D


def _solve(matrix_DD: Tensor, right: Tensor, *, share: float) -> Tensor:
    """Solve with `share` of the mean of the diagonal added to it."""
    ridge = share * matrix_DD.diagonal().mean()
    solved: Tensor = torch.linalg.solve(matrix_DD + ridge * torch.eye(len(matrix_DD), dtype=matrix_DD.dtype), right)
    return solved
