"""What is refused, or told, before the first step, so that no run is lost to it later."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from transformers import PretrainedConfig

from anna.errors import InputError
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import TaskInstruction
from anna.modeling.student import StudentParams
from anna.training.batches import Batch, Texts
from anna.training.recipe import TrainParams
from anna.training.step import batch_prefix

SAMPLED = 1000
"""Texts of each side of which it is told how many lose their end."""

BARE = ("retrieval", "Retrieval", "Reranking")
"""Kinds of training sources and types of held-out tasks whose documents may be scored without a prompt."""

_log = logging.getLogger(__name__)


class _Prompt(NamedTuple):
    task: str
    prefix: str
    where: str
    """What has this prompt, for people."""
    remedy: str
    """The parameter that makes it shorter."""


def check_last_layer(recipe: TrainParams, student: StudentParams) -> None:
    """Refuse students whose last layer cannot start or be trained as params say, as far as params alone tell."""
    if student.last_layer == "weighted_mean":
        for name, value, needed in (
            ("train.method", recipe.method, "full"),
            ("student.pooling", student.pooling, "last_token"),
            ("student.attention", student.attention, "causal"),
        ):
            if value != needed:
                raise InputError(
                    f"student.last_layer is weighted_mean, which needs {name} {needed}, but that is {value}; set "
                    "student.last_layer to pretrained, or change that"
                )
    if recipe.last_layer_first and student.pooling != "last_token":
        raise InputError(
            f"train.last_layer_first is for students read at their last token, but student.pooling is "
            f"{student.pooling}; set train.last_layer_first to null, or change that"
        )


def check_sides(kinds: Mapping[str, str], prompts: Mapping[str, TaskInstruction]) -> None:
    """Refuse bare documents where evaluation prompts every text: training would show another prompt than it.

    Args:
        kinds: By task, the kind of its training source or the type of its held-out one.
        prompts: By task.

    Raises:
        InputError: With the task and its kind.
    """
    for task, kind in kinds.items():
        if kind not in BARE and task in prompts and not prompts[task].symmetric:
            raise InputError(
                f"prompts.tasks.{task}.symmetric is false, but the task is {kind}, of which all texts have the prompt "
                "when they are scored; set it to true"
            )


def check_dims(dims: Sequence[int], hidden_size: int) -> None:
    """Refuse a truncation that would not truncate the student's vectors."""
    if max(dims, default=0) >= hidden_size:
        raise InputError(
            f"train.matryoshka_dims has {max(dims)}, but the student's vectors have {hidden_size} dimensions, which "
            "count anyway; leave it out"
        )


def check_positions(config: PretrainedConfig, max_tokens: int) -> None:
    """Refuse inputs that are longer than a student with this config has positions for.

    With `longrope` all positions turn otherwise once a batch holds a text longer than those of pretraining, and a
    text's vector would depend on the texts beside it.
    """
    positions = getattr(config, "max_position_embeddings", None) or max_tokens
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        positions = min(positions, rope["original_max_position_embeddings"])
    if max_tokens > positions:
        raise InputError(f"prompts.max_tokens is {max_tokens}, but the student knows {positions} positions; lower it")


def check_prompts(encoder: Encoder, batches: Sequence[Batch], texts: Texts, recipe: TrainParams) -> None:
    """Refuse prompts that leave less room for a text than training gives it: of each batch, and of the export.

    Raises:
        InputError: With the longest of them, where it is, and what to change; or if the student has no positions for
            the longest input.
    """
    limit, longest, refused = encoder.config.max_tokens, 0, ""
    check_positions(encoder.backbone.config, limit)
    if recipe.doc_tokens > limit:  # bare: of a task that is not symmetric
        raise InputError(f"train.doc_tokens is {recipe.doc_tokens}, but prompts.max_tokens is {limit}; lower it")
    for task, prefix, where, remedy in _prompts(encoder, batches, texts):
        room = max(recipe.query_tokens, recipe.doc_tokens if encoder.config.task(task).symmetric else 0)
        needed = encoder.count(prefix) + room
        if needed > max(limit, longest):
            longest = needed
            refused = (
                f"prompts.max_tokens is {limit}, but the prompt of {where} has {needed - room} tokens, with {room} of "
                f"a text {needed}; raise it, or lower {remedy} or prompts.example_tokens"
            )
    if refused:
        raise InputError(refused)


def _prompts(encoder: Encoder, batches: Sequence[Batch], texts: Texts) -> Iterator[_Prompt]:
    for number, batch in enumerate(batches, start=1):
        where = f"step {number} (task {batch.task!r}, {len(batch.examples)} examples)"
        yield _Prompt(batch.task, batch_prefix(encoder, batch, texts), where, "train.max_examples")
    for task, prompt in encoder.config.tasks.items():
        count = len(prompt.examples)
        where = f"task {task!r} with all of its {count} examples, which the export carries,"
        yield _Prompt(task, encoder.config.prefix(task, count), where, "ingest.examples_per_task")


def tell_cut(encoder: Encoder, texts: Texts, recipe: TrainParams) -> None:
    """Log how many texts are longer than training reads of them, by a sample of queries and of documents."""
    sides = ("queries", texts.queries, recipe.query_tokens), ("documents", texts.docs, recipe.doc_tokens)
    for name, by_id, limit in sides:
        some = [by_id[text_id] for text_id in sorted(by_id)[:: -(-len(by_id) // SAMPLED)]]
        lengths = [len(row) for row in encoder.tokenizer(some, verbose=False)["input_ids"]]
        if num_longer := sum(length > limit for length in lengths):
            _log.info(
                "%.0f %% of %s are longer than the %d tokens that are read of each, and lose their end; the longest of "
                "%d has %d",
                100 * num_longer / len(lengths),
                name,
                limit,
                len(lengths),
                max(lengths),
            )
