"""A start for the last layer from which EOS reads its text at the first step: a whitened mean, rare tokens first.

What a pretrained decoder computes at EOS says little of the text before it, and a short training is over before that
has changed. In the last layer nothing but EOS is a query, so its weights can be written down from a sample of texts:
attention gives each token a share that grows with its information, values and output take the mean that comes of it to
one whose directions vary alike, and the MLP adds nothing yet. Where a short text comes after in-context examples EOS
sees no further back than queries reach: the examples' rare words would drown the text's. The architecture stays what it
is, and all of it is trained from there on.

`anna.modeling.readout_fit` says how the weights are found, and where the formulas come from.

Legend: D hidden dimensions, R dimensions of all value heads together.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from anna import log
from anna.errors import InputError
from anna.modeling import lookback
from anna.modeling.encoder import Encoder
from anna.modeling.packing import Packing, Text, pack
from anna.modeling.readout_fit import Reading, State, constant, fit_gate, fit_key, fit_values

REACH = 0.9
"""Share of queries that are short: EOS sees them whole after examples."""

BATCH = 32
"""Texts read at once."""

_EVERY = 8
"""Of texts with examples, which are long, the states of every eighth token are kept."""

_log = logging.getLogger(__name__)


@torch.no_grad()
def start(
    encoder: Encoder, texts: Sequence[Reading], docs: Sequence[Sequence[int]], others: Sequence[Reading] = ()
) -> None:
    """Write the last layer's weights, and ones into the final norm.

    Args:
        encoder: Untrained, causal, read at EOS.
        texts: Queries and documents to fit the weights on, of both more than D for a good fit, in zero-shot prompts.
        docs: Tokenised documents, which say how rare a token is.
        others: Short and long texts, with examples and without, which decide only how far back EOS looks. Without them
            it looks back as far as ever.

    Raises:
        InputError: If the encoder is no Mistral decoder, or its value heads are together wider than D.
    """
    check_start(encoder.backbone.config)
    num_dims = encoder.backbone.config.hidden_size
    num_values = encoder.backbone.layers[-1].self_attn.v_proj.out_features
    if len(texts) < num_dims:
        _log.warning(
            "the last layer is fitted on %d texts, fewer than its %d dimensions, and may start badly: more training "
            "groups make it better",
            len(texts),
            num_dims,
        )
    states = read_states(encoder, texts)
    other_states = read_states(encoder, others, every=_EVERY)
    key_D = fit_key([state.normed for state in states], texts, docs)
    query_D = constant(torch.stack([state.normed[-1] for state in [*states, *other_states]]))
    is_query = torch.tensor([text.is_query for text in texts])
    _write(encoder, query_D, key_D, *fit_values(states, is_query, key_D, num_values))
    if others:
        reach = int(torch.tensor([text.num_own for text in texts if text.is_query]).double().quantile(REACH))
        _limit_reach(encoder, [*states, *other_states], [*texts, *others], reach=reach)


def check_start(config: PretrainedConfig) -> None:
    """Refuse a student of another family, and one whose value heads are together wider than its hidden states."""
    if config.model_type not in ("mistral", "llama"):  # a Llama is loaded as a Mistral
        raise InputError(
            "student.last_layer is weighted_mean, which is known for Llama and Mistral decoders alone; this is a "
            f"{config.model_type}. Set it to pretrained"
        )
    num_values = config.num_key_value_heads * (config.head_dim or config.hidden_size // config.num_attention_heads)
    if num_values > config.hidden_size:
        raise InputError(
            "student.last_layer is weighted_mean, which needs value heads no wider together than the hidden states; "
            f"this student has {num_values} for {config.hidden_size}. Set it to pretrained"
        )


@torch.no_grad()
def read_states(encoder: Encoder, texts: Sequence[Reading], *, every: int = 1) -> list[State]:
    """Return what the last layer is given of each text, at each `every`-th token and at EOS."""
    norm = encoder.backbone.layers[-1].input_layernorm
    found: dict[int, State] = {}
    for number, hidden_TD in read_hidden(encoder, texts):
        normed_TD = norm(hidden_TD)
        kept = [*range(0, len(hidden_TD) - 1, every), len(hidden_TD) - 1]
        found[number] = State(normed_TD[kept].double().cpu(), hidden_TD[-1].double().cpu())
    return [found[number] for number in range(len(texts))]


@torch.no_grad()
def read_hidden(encoder: Encoder, texts: Sequence[Reading]) -> Iterator[tuple[int, Tensor]]:
    """Yield each text's number, in no order, and what the last layer is given of its tokens, (tokens, D).

    Texts with the same prompt are read together, and the prompt once for them: equal to each alone, to rounding.
    """
    order = sorted(range(len(texts)), key=lambda number: tuple(texts[number].prompt))
    given: list[Tensor] = []
    layer = encoder.backbone.layers[-1]
    hook = layer.register_forward_pre_hook(lambda _, args: given.append(args[0][0]), prepend=True)
    try:
        for first in log.progress(range(0, len(texts), BATCH), unit="batch", desc="reading texts"):
            batch = order[first : first + BATCH]
            packing, places = pack_readings([texts[number] for number in batch])
            encoder.hidden(packing.to(encoder.device))
            hidden_TD = given.pop()
            for number, (prompt, own) in zip(batch, places, strict=True):
                yield number, hidden_TD[[*prompt, *own]]
    finally:
        hook.remove()


def pack_readings(texts: Sequence[Reading]) -> tuple[Packing, list[tuple[range, range]]]:
    """Return the row of the texts' prompts, each once, and the texts; and where in it each text's two parts are."""
    prompts = list(dict.fromkeys(tuple(text.prompt) for text in texts if text.num_prompt))
    number_of = {prompt: number for number, prompt in enumerate(prompts)}
    numbers = [number_of.get(tuple(text.prompt)) for text in texts]
    own_parts = [Text(text.tokens[text.num_prompt :], number) for text, number in zip(texts, numbers, strict=True)]
    packing = pack(own_parts, prompts)
    places = []
    for text, number, start in zip(texts, numbers, packing.starts[len(prompts) :], strict=True):
        begin = 0 if number is None else packing.starts[number]
        own = range(start, start + len(text.tokens) - text.num_prompt)
        places.append((range(begin, begin + text.num_prompt), own))
    return packing, places


def _limit_reach(encoder: Encoder, states: Sequence[State], texts: Sequence[Reading], *, reach: int) -> None:
    """Make EOS look back `reach` tokens where no longer a text comes after examples, and as far as ever elsewhere."""
    beyond_N = torch.tensor([text.num_own - reach for text in texts], dtype=torch.float64)
    has_examples_N = torch.tensor([text.has_examples for text in texts])
    wanted_N = (1 - beyond_N / lookback.FADE).clamp(0, 1) * has_examples_N
    gate_D = fit_gate(torch.stack([state.normed[-1] for state in states]), wanted_N)
    # Of every token but a text's first, whose state is like no other.
    every_D = constant(torch.cat([state.normed[1:] for state in states]))
    lookback.write(encoder, gate_D, every_D, reach=reach)


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
