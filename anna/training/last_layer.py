"""The last layer before all layers are trained: its start, from a sample of what training reads, and training alone."""

import logging
from collections.abc import Sequence
from itertools import accumulate

from torch import nn

from anna import seeding
from anna.errors import InputError
from anna.modeling import readout
from anna.modeling.batching import shared_prefix
from anna.modeling.encoder import Encoder
from anna.modeling.hardware import pick_device
from anna.modeling.readout_fit import Reading
from anna.modeling.student import StudentParams
from anna.training.alone import Told, train_alone
from anna.training.batches import Batch, Group, Texts, draw_positives
from anna.training.checkpoint import Checkpoints, Start
from anna.training.recipe import TrainParams
from anna.training.step import batch_prefix

SAMPLE = 1000
"""Groups whose query and positive are read; half as many texts start 0.02 lower in nDCG@10 (docs/LOG.md)."""

SAMPLE_BYTES = 2 * 2**30
"""Of their states, at most, eight bytes per token and dimension: fitting holds them a few times over."""

EXAMPLED = 200
"""Groups whose texts are read besides, with examples and without, for how far back EOS looks (ours)."""

EXAMPLED_PER_BATCH = 4
"""Groups of a batch among them: they share its examples, and more examples say more."""

EXAMPLED_TOKENS = 128
"""Longest text among them: longer than training reads, since others will be."""

COUNTED = 20_000
"""Groups whose documents say how rare a token is: with more, a large corpus would take minutes to tokenise."""


_log = logging.getLogger(__name__)


def prepare_last_layer(
    encoder: Encoder,
    groups: Sequence[Group],
    batches: Sequence[Batch],
    texts: Texts,
    recipe: TrainParams,
    *,
    student: StudentParams,
    checkpoints: Checkpoints,
) -> Told:
    """Let the last layer begin as params say and train it alone, or take both from the run's folder if it was killed.

    Returns:
        As `train_alone`.

    Raises:
        InputError: As `start_as_mean` and `train_alone`, or if that run was under other conditions.
    """
    if student.last_layer == "pretrained" and recipe.last_layer_first is None:
        return {}
    encoder.to(pick_device())  # whole, on every rank, at ZeRO 3, too: `check_memory` has counted it
    changed = nn.ModuleList([encoder.backbone.layers[-1], encoder.backbone.norm])
    kept = checkpoints.start()
    if kept is not None:
        changed.load_state_dict(kept.weights)
        _log.info("the last layer is as this run left it before all layers, in %s", checkpoints.folder)
        return dict(kept.told)
    groups = draw_positives(groups, seeding.rng(recipe.seed, "positives of the last layer"))
    if student.last_layer == "weighted_mean":
        start_as_mean(encoder, groups, batches, texts, recipe)
    told = train_alone(encoder, groups, texts, recipe)
    if recipe.checkpoint_steps is not None:
        checkpoints.keep_start(Start(changed.state_dict(), told))
    return told


def start_as_mean(
    encoder: Encoder, groups: Sequence[Group], batches: Sequence[Batch], texts: Texts, recipe: TrainParams
) -> None:
    """Write the last layer's weights from a sample of groups, queries in zero-shot prompts and some with examples.

    Args:
        encoder: Untrained.
        groups: That it is trained on.
        batches: The run's own, whose prompts leave room for a text (`checks.check_prompts`).
        texts: What both name.
        recipe: How it is trained: whole (`checks.check_last_layer`).

    Raises:
        InputError: If there is a single group, or as `readout.start`.
    """
    if len(groups) < 2:
        raise InputError(
            "student.last_layer is weighted_mean, which is fitted to how texts differ, but there is a single training "
            "group; raise `rows` in ingest.train, loosen filter.margin, or set it to pretrained"
        )
    order = seeding.rng(recipe.seed, "last layer").permutation(len(groups))
    chosen = [groups[number] for number in order[:COUNTED]]
    doc_ids = sorted({doc_id for group in chosen for doc_id in group.doc_ids})
    docs = encoder.tokenize([texts.docs[doc_id] for doc_id in doc_ids], max_tokens=recipe.doc_tokens)
    read = [text for group in chosen[:SAMPLE] for text in _read(encoder, group, texts, recipe)]
    bytes_so_far = accumulate(8 * encoder.backbone.config.hidden_size * len(text.tokens) for text in read)
    sample = [text for text, total in zip(read, bytes_so_far, strict=True) if total <= SAMPLE_BYTES]
    readout.start(encoder, sample, docs, _short_and_long(encoder, batches, texts))


def _read(encoder: Encoder, group: Group, texts: Texts, recipe: TrainParams) -> list[Reading]:
    """Return the group's query and its positive."""
    prefix = encoder.config.prefix(group.task)
    doc_prefix = encoder.config.doc_prefix(group.task, prefix)
    return [
        _reading(encoder, texts.queries[group.query_id], prefix, recipe.query_tokens, is_query=True),
        _reading(encoder, texts.docs[group.doc_ids[0]], doc_prefix, recipe.doc_tokens, is_query=False),
    ]


def _short_and_long(encoder: Encoder, batches: Sequence[Batch], texts: Texts) -> list[Reading]:
    """Return queries and positives in training's own prompts with examples, and positives without.

    Positives stand in for long queries, which few tasks have. Nothing where training shows no examples.
    """
    found: list[Reading] = []
    for batch in [batch for batch in batches if batch.examples][: EXAMPLED // EXAMPLED_PER_BATCH]:
        shown, zero_shot = batch_prefix(encoder, batch, texts), encoder.config.prefix(batch.task)
        room = min(EXAMPLED_TOKENS, encoder.config.max_tokens - encoder.count(shown))
        apart = max(1, len(batch.groups) // EXAMPLED_PER_BATCH)  # neighbours are alike where negatives are chained
        for group in batch.groups[::apart][:EXAMPLED_PER_BATCH]:
            query, doc = texts.queries[group.query_id], texts.docs[group.doc_ids[0]]
            found += [
                _reading(encoder, text, prefix, room, is_query=prefix != "", has_examples=prefix == shown)
                for text, prefix in ((query, shown), (doc, shown), (doc, zero_shot), (doc, ""))
            ]
    return found


def _reading(
    encoder: Encoder, text: str, prefix: str, max_tokens: int, *, is_query: bool, has_examples: bool = False
) -> Reading:
    prompt, tokens = encoder.tokenize(["", text], prefix=prefix, max_tokens=max_tokens)
    # The prompt's last space may be part of the text's first token.
    return Reading(tokens, shared_prefix([prompt, tokens]) if prefix else 0, is_query, has_examples)
