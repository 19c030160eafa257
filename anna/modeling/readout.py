"""A start for the last layer from which EOS reads its text at the first step: a whitened mean, rare tokens first.

What a pretrained decoder computes at EOS says little of the text before it, and a short training is over before that
has changed. In the last layer nothing but EOS is a query, so its weights can be written down from a sample of texts:
attention gives each token a share that grows with its information, values and output take the mean that comes of it to
one whose directions vary alike, and the MLP adds nothing yet. After in-context examples EOS sees no further back than
queries reach: the examples' rare words would drown the query's. The architecture stays what it is, and all of it is
trained from there on.

References: weighted means, and taking away what all texts have in common, Arora et al. 2017 (SIF); whitening, Su et al.
2021, arXiv:2103.15316. Attention that is linear in a token's state, and the constants, are ours (docs/LOG.md).

Legend: N texts, T tokens of all of them, D hidden dimensions, R dimensions of all value heads together.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anna import log
from anna.errors import InputError
from anna.modeling import lookback
from anna.modeling.encoder import Encoder
from anna.modeling.packing import Text, pack

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

REACH = 0.9
"""Share of queries that EOS sees whole after examples."""

_RIDGE = 0.01
"""Added to a covariance's diagonal, as a share of its mean."""

_SMALL_RIDGE = 0.001
"""The same where there is little noise to fit."""

_BATCH = 16
"""Texts read at once."""

_EVERY = 8
"""Of texts with examples, which are long, the states of every eighth token are kept."""

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """A tokenised text as training feeds it."""

    tokens: Sequence[int]
    """EOS last."""
    num_prompt: int
    """Leading tokens that are its prompt, examples included."""
    is_query: bool
    has_examples: bool = False


class _State(NamedTuple):
    """What the last layer is given of a text, float64."""

    normed: Tensor
    """After the layer's norm, of the tokens that are kept, the first and EOS among them, (tokens, D)."""
    at_eos: Tensor
    """What the layer adds to at EOS, (D,)."""


@torch.no_grad()
def start(encoder: Encoder, texts: Sequence[Reading], docs: Sequence[Sequence[int]]) -> None:
    """Write the last layer's weights, and ones into the final norm.

    Args:
        encoder: Untrained, read at EOS.
        texts: Queries and documents to fit the weights on, of both more than D for a good fit, in zero-shot prompts;
            and some with examples, which decide only how far back EOS looks after examples. Without these it looks
            back as far as ever.
        docs: Tokenised documents, which say how rare a token is.

    Raises:
        InputError: If the encoder is not a causal Mistral decoder read at EOS, or its value heads are together wider
            than D.
    """
    num_values = _check(encoder)
    plain = [text for text in texts if not text.has_examples]
    num_dims = encoder.backbone.config.hidden_size
    if len(plain) < num_dims:
        _log.warning(
            "the last layer is fitted on %d texts, fewer than its %d dimensions, and may start badly: train on more "
            "groups, or set student.last_layer to pretrained",
            *(len(plain), num_dims),
        )
    states = list(_states(encoder, plain))
    after_examples = list(_states(encoder, [text for text in texts if text.has_examples], every=_EVERY))
    at_eos_ND = torch.stack([state.normed[-1] for state in [*states, *after_examples]])
    key_D = _fit_key([state.normed for state in states], plain, docs)
    query_D = _constant(at_eos_ND)
    mean_ND = torch.stack([torch.softmax(state.normed @ key_D, 0) @ state.normed for state in states])
    is_query = torch.tensor([text.is_query for text in plain])
    value_RD, output_DR = whiten(mean_ND, is_query, num_values)
    read_ND = (mean_ND - mean_ND.mean(0)) @ (output_DR @ value_RD).T
    added_to_ND = torch.stack([state.at_eos for state in states])
    strength = STRENGTH * added_to_ND.norm(dim=1).mean() / read_ND.norm(dim=1).mean()
    _write(encoder, query_D, key_D, value_RD * strength.sqrt(), output_DR * strength.sqrt())
    if after_examples:
        gate_D = _fit_gate(at_eos_ND, torch.arange(len(at_eos_ND)) >= len(plain))
        lengths = torch.tensor([len(text.tokens) - text.num_prompt for text in plain if text.is_query])
        # Of every token but a text's first, whose state is like no other.
        every_D = _constant(torch.cat([state.normed[1:] for state in [*states, *after_examples]]))
        lookback.write(encoder, gate_D, every_D, reach=int(lengths.double().quantile(REACH)))


def information(tokens: Sequence[int], frequencies: Counter[int], num_docs: int) -> Tensor:
    """Return log((n + 1) / (df + 1)) of each token in nats, `LEAST_INFORMATION` at least, (T,)."""
    counts = torch.tensor([frequencies[token] for token in tokens], dtype=torch.float64)
    return torch.log((num_docs + 1) / (counts + 1)).clamp(min=LEAST_INFORMATION)


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
    within_ND = torch.cat([kind - kind.mean(0) for kind in kinds])
    inverse_D2 = _solve(within_ND.T @ within_ND, kind_2D.T, share=_SMALL_RIDGE)
    away_DD = kind_2D.T @ torch.linalg.solve(kind_2D @ inverse_D2, inverse_D2.T)
    centre_DD = torch.eye(len(away_DD), dtype=away_DD.dtype) - away_DD
    centred_ND = (mean_ND - mean_ND.mean(0)) @ centre_DD.T
    variances, directions = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
    floor = _RIDGE * variances.mean()
    variances_R, output_DR = variances[-rank:].clamp(min=0) + floor, directions[:, -rank:]
    return variances_R[:, None] ** (-WHITENING / 2) * (output_DR.T @ centre_DD), output_DR


def _check(encoder: Encoder) -> int:
    """Return the dimensions of all value heads together."""
    kind, config = encoder.backbone.config.model_type, encoder.config
    if (kind, config.pooling, config.attention) != ("mistral", "last_token", "causal"):
        raise InputError(
            "student.last_layer is weighted_mean, which is known for Llama and Mistral decoders with pooling "
            f"last_token and causal attention; this is a {kind} with pooling {config.pooling} and {config.attention} "
            "attention. Set it to pretrained"
        )
    num_dims: int = encoder.backbone.config.hidden_size
    num_values: int = encoder.backbone.layers[-1].self_attn.v_proj.out_features
    if num_values > num_dims:
        raise InputError(
            "student.last_layer is weighted_mean, which needs value heads no wider together than the hidden states; "
            f"this student has {num_values} for {num_dims}. Set it to pretrained"
        )
    return num_values


def _states(encoder: Encoder, texts: Sequence[Reading], *, every: int = 1) -> Iterator[_State]:
    layer = encoder.backbone.layers[-1]
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: given.append(args[0][0]), prepend=True)
    try:
        for first in log.progress(range(0, len(texts), _BATCH), unit="batch", desc="reading a sample of texts"):
            batch = texts[first : first + _BATCH]
            packing = pack([Text(text.tokens) for text in batch])
            encoder.hidden(packing.to(encoder.device))
            hidden_TD = given.pop()
            normed_TD = layer.input_layernorm(hidden_TD)
            for text, begin in zip(batch, packing.starts, strict=True):
                last = begin + len(text.tokens) - 1
                kept = [*range(begin, last, every), last]
                yield _State(normed_TD[kept].double().cpu(), hidden_TD[last].double().cpu())
    finally:
        hook.remove()


def _fit_key(normed: Sequence[Tensor], texts: Sequence[Reading], docs: Sequence[Sequence[int]]) -> Tensor:
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
    x_TD = x_TD - (weight_T @ x_TD) / weight_T.sum()
    y_T = y_T - (weight_T @ y_T) / weight_T.sum()
    weighted_TD = weight_T[:, None] * x_TD
    key_D = _solve(x_TD.T @ weighted_TD, y_T @ weighted_TD, share=_RIDGE)
    unexplained = (weight_T @ (x_TD @ key_D - y_T) ** 2 / (weight_T @ y_T**2)).item()
    _log.info("the last layer starts as a mean of the text: %.2f of information explained by states", 1 - unexplained)
    return key_D


def _constant(normed_TD: Tensor) -> Tensor:
    """Return the direction along which all states are near 1, (D,)."""
    return _solve(normed_TD.T @ normed_TD, normed_TD.sum(0), share=_SMALL_RIDGE)


def _fit_gate(at_eos_ND: Tensor, has_examples_N: Tensor) -> Tensor:
    """Return the direction along which EOS is near 1 after examples and near 0 elsewhere, (D,)."""
    gate_D = _solve(at_eos_ND.T @ at_eos_ND, has_examples_N.double() @ at_eos_ND, share=_SMALL_RIDGE)
    found_N = at_eos_ND @ gate_D
    _log.info(
        "EOS looks back less far after examples: by %.2f there, by %.2f elsewhere",
        *(found_N[has_examples_N].mean(), found_N[~has_examples_N].mean()),
    )
    return gate_D


def _solve(matrix_DD: Tensor, right: Tensor, *, share: float) -> Tensor:
    """Solve with `share` of the mean of the diagonal added to it."""
    ridge = share * matrix_DD.diagonal().mean()
    solved: Tensor = torch.linalg.solve(matrix_DD + ridge * torch.eye(len(matrix_DD), dtype=matrix_DD.dtype), right)
    return solved


def _write(encoder: Encoder, query_D: Tensor, key_D: Tensor, value_RD: Tensor, output_DR: Tensor) -> None:
    """Write a layer whose attention has the logits `key_D` times a token's state, and reads `output_DR @ value_RD`.

    The logits take up one dimension of each head, of the pair that rotary embeddings turn least: over the length of a
    text that pair hardly turns at all. The keys' other dimensions stay the checkpoint's, so that the queries, 0 there,
    have gradients.
    """
    layer: Any = encoder.backbone.layers[-1]
    attention, config = layer.self_attn, encoder.backbone.config
    size, heads = attention.head_dim, config.num_key_value_heads
    repeats = config.num_attention_heads // heads
    slowest, scale = size // 2 - 1, attention.scaling**-0.5
    query, key = (part.weight.view(-1, size, len(key_D)) for part in (attention.q_proj, attention.k_proj))
    query.zero_()
    query[:, slowest] = (scale * query_D).to(query)
    key[:, slowest] = (scale * key_D).to(key)
    key[:, slowest + size // 2] = 0
    in_turn = torch.arange(len(value_RD)).view(size, heads).T.flatten()  # each head has large and small directions
    attention.v_proj.weight.copy_(value_RD[in_turn] / repeats**0.5)
    by_head = output_DR[:, in_turn].view(-1, heads, 1, size).expand(-1, -1, repeats, -1)
    attention.o_proj.weight.copy_(by_head.reshape(len(output_DR), -1) / repeats**0.5)
    layer.mlp.down_proj.weight.zero_()
    encoder.backbone.norm.weight.fill_(1.0)
