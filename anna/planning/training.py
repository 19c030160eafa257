"""What training takes: tokens, operations and memory, from the batches that it will make."""

import math
from typing import Any, NamedTuple

from anna.errors import InputError
from anna.footprint import Setup, recomputed_layers, saved_by_last_layer, whole_weights
from anna.planning import work
from anna.planning.counts import Counts, Task, mean
from anna.planning.hardware import Hardware
from anna.planning.settings import Settings
from anna.shapes import Shape

NEW_NEGATIVES = 0.9
"""Share of hard negatives that are not in their batch anyway (default, not chained: 1.90 documents a query)."""

NEW_CHAINED = 0.5
"""The same with `train.chain_negatives` (default: 1.50)."""

AROUND_EXAMPLE = 5
"""Tokens of an in-context example beside instruction, query and response."""

VALIDATION_DOCS = 6
"""Documents that each validation query brings into its pool, as in `anna.training.validation`."""

SAMPLE, SAMPLE_BYTES = 1000, 2 * 2**30
"""Groups that `anna.training.last_layer` reads, and what it holds of their states at most."""

EXAMPLED, EXAMPLED_PER_BATCH, EXAMPLED_TOKENS = 200, 4, 128
"""Groups that it reads with examples, too, how many of a batch, and how much of their texts."""

READ_AT_ONCE = 32
"""Texts that it reads together; those with the same prompt share it."""

ALONE = 10_000
"""Groups that `anna.training.alone` reads, at most."""

TRAINED = 3
"""Passes of a training step: forward, and backward for what is given and for the weights."""


class Pass(NamedTuple):
    """What one rank computes for a batch."""

    tokens: float
    context: float
    """Keys that a token sees, mean."""
    texts: float
    is_cut: bool


class Work(NamedTuple):
    """What the whole run computes."""

    steps: int
    tokens: float
    """Of all ranks, those of GradCache's second pass counted once."""
    operations: float
    largest: int
    """Tokens of a rank that are computed at once."""
    cut_share: float
    """Of tokens in batches that are cut."""
    largest_batch: int
    """Tokens of a rank in the largest batch, cut or not."""


def batch_sizes(groups: int, size: int) -> tuple[int, int]:
    """Return how many batches a task's groups make in an epoch, and the queries of the last and largest one."""
    count = max(1, groups // size + (groups % size >= (size + 1) // 2))
    return count, max(size if count > 1 else 0, groups - (count - 1) * size)


def own_tokens(task: Task, settings: Settings) -> tuple[float, float]:
    """Return the tokens of a query and of a document as training cuts them, prompts left out."""
    train = settings.train
    return mean(task.query_lengths, train.query_tokens), mean(task.doc_lengths, train.doc_tokens)


def example_tokens(task: Task, settings: Settings) -> float:
    """Return the tokens of an in-context example, its instruction left out."""
    limit = settings.prompts.example_tokens
    return mean(task.query_lengths, limit) + mean(task.doc_lengths, limit) + AROUND_EXAMPLE


def plan_pass(task: Task, settings: Settings, queries: float, examples: float) -> Pass:
    """Return what a rank computes for its `queries` of a batch that shows so many in-context examples."""
    train = settings.train
    asked, read = own_tokens(task, settings)
    prompt = task.prompt_tokens + examples * (task.prompt_tokens + example_tokens(task, settings))
    fresh = NEW_CHAINED if train.chain_negatives else NEW_NEGATIVES
    docs = queries * (1 + settings.filter.negatives_per_query * fresh)
    is_shared = settings.student.attention == "causal"
    sides = [(queries, asked, prompt), (docs, read, prompt if task.is_symmetric else 0.0)]
    tokens = texts = keys = 0.0
    for number, own, before in sides:
        repeats = 1.0 if is_shared else number
        side = number * own + before * repeats
        tokens, texts = tokens + side, texts + number
        if is_shared:  # a token sees what comes before it, otherwise its whole text
            keys += number * own * (before + own / 2) + before * before / 2
        else:
            keys += side * (before + own)
    most = train.max_micro_step_tokens or math.inf
    is_cut = tokens > most
    if is_cut and is_shared:  # each micro-step computes the prompt again
        tokens += sum(before * (max(1.0, number * own / max(1.0, most - before)) - 1) for number, own, before in sides)
    return Pass(tokens, keys / tokens, texts, is_cut)


def plan(settings: Settings, counts: Counts, shape: Shape, ranks: int) -> Work:
    """Return the work of `train.epochs` epochs, or of `train.max_steps` steps.

    Raises:
        InputError: If there is no group to train on.
    """
    train = settings.train
    if not counts.trained:
        raise InputError("no training group is left of so few rows; raise --rows, or rows in ingest.train")
    reads_early = settings.student.pooling == "last_token" and shape.is_decoder
    steps = tokens = operations = cut = largest = 0.0
    for task in counts.trained:
        batches, last = batch_sizes(task.groups, train.batch_queries)
        per_rank = task.groups / batches / ranks
        for examples in range(train.max_examples + 1):
            share = batches * train.epochs / (train.max_examples + 1)
            done = plan_pass(task, settings, per_rank, examples)
            texts_per_token = done.texts / done.tokens if reads_early else 1.0
            own = work.training(
                shape,
                done.context,
                texts_per_token,
                method=train.method,
                recomputed=recomputed_layers(train.gradient_checkpointing, shape.layers) / shape.layers,
                twice=float(done.is_cut),
            )
            tokens += share * ranks * done.tokens
            operations += share * ranks * done.tokens * own
            cut += share * ranks * done.tokens * done.is_cut
        steps += batches * train.epochs
        largest = max(largest, plan_pass(task, settings, last / ranks, train.max_examples).tokens)
    part = min(1.0, (train.max_steps or steps) / steps)
    at_once = min(largest, train.max_micro_step_tokens or largest)
    operations = operations * part + validation(settings, counts, shape, round(steps * part))
    operations += ranks * (last_layer(settings, counts, shape) + alone(settings, counts, shape))
    return Work(round(steps * part), tokens * part, operations, round(at_once), cut / tokens, round(largest))


def last_layer(settings: Settings, counts: Counts, shape: Shape) -> float:
    """Return the operations of reading the sample that the last layer starts from, which each rank does."""
    if settings.student.last_layer == "pretrained":
        return 0.0
    train, tokens = settings.train, 0.0
    total = counts.groups
    share = min(1.0, SAMPLE / total)
    exampled = min(EXAMPLED, EXAMPLED_PER_BATCH * total / train.batch_queries) if train.max_examples else 0.0
    shown = (train.max_examples + 1) / 2
    for task in counts.trained:
        asked, read = own_tokens(task, settings)
        plain = task.prompt_tokens * (1 + task.is_symmetric) / READ_AT_ONCE
        tokens += share * task.groups * (asked + read + plain)
        prompt = task.prompt_tokens + shown * (task.prompt_tokens + example_tokens(task, settings))
        texts = mean(task.query_lengths, EXAMPLED_TOKENS) + 3 * mean(task.doc_lengths, EXAMPLED_TOKENS)
        tokens += exampled * task.groups / total * (texts + prompt / EXAMPLED_PER_BATCH)
    return tokens * work.forward_read(shape, 0.0, 0.0)


def alone(settings: Settings, counts: Counts, shape: Shape) -> float:
    """Return the operations of training the last layer first, which each rank does, reading its texts included."""
    first = settings.train.last_layer_first
    if first is None:
        return 0.0
    share = min(1.0, ALONE / counts.groups)
    operations = 0.0
    for task in counts.trained:
        done = plan_pass(task, settings, first.batch_queries, examples=0)
        tokens, per_token = done.tokens / first.batch_queries, done.texts / done.tokens
        epoch = TRAINED * work.last_layer(shape, done.context, per_token)
        once = work.forward_read(shape, done.context, per_token)
        operations += share * task.groups * tokens * (once + first.epochs * epoch)
    return operations


def start(settings: Settings, counts: Counts, own: Setup) -> float:
    """Return the bytes of a process for the last layer's start or for training it first, whichever takes more.

    On a GPU the whole weights in float32, at every ZeRO stage. On a CPU there is more beside them: the start is fitted
    on a sample of states in float64, held three times: by text, together and weighted. Training it first holds what it
    is given of all texts in half precision, and a batch's backward pass.
    """
    if settings.student.last_layer == "pretrained" and settings.train.last_layer_first is None:
        return 0.0
    if own.is_gpu:
        return 4.0 * own.shape.parameters
    return whole_weights(own) + max(_start_memory(settings, counts, own.shape), _alone_memory(settings, counts, own))


def _start_memory(settings: Settings, counts: Counts, shape: Shape) -> float:
    if settings.student.last_layer == "pretrained":
        return 0.0
    share = min(1.0, SAMPLE / counts.groups)
    tokens = 0.0
    for task in counts.trained:
        asked, read = own_tokens(task, settings)
        tokens += share * task.groups * (asked + read + task.prompt_tokens * (1 + task.is_symmetric))
    return 3 * min(8 * tokens * shape.hidden, SAMPLE_BYTES)


def _alone_memory(settings: Settings, counts: Counts, own: Setup) -> float:
    first = settings.train.last_layer_first
    if first is None:
        return 0.0
    share = min(1.0, ALONE / counts.groups)
    known = largest = 0.0
    for task in counts.trained:
        queries = share * task.groups
        docs = min(float(task.docs), queries * (1 + settings.filter.negatives_per_query))
        asked, read = own_tokens(task, settings)
        known += 2 * (queries * asked + docs * read) + 4 * (queries + docs)
        largest = max(largest, plan_pass(task, settings, min(queries, first.batch_queries), examples=0).tokens)
    return known * own.shape.hidden + largest * (4 * own.shape.hidden + saved_by_last_layer(own))


def validation(settings: Settings, counts: Counts, shape: Shape, steps: int) -> float:
    """Return the operations of all validations of the run, that before its first step included."""
    train = settings.train
    ranked = [task for task in counts.tasks if task.kind != "classification"]
    total = sum(task.queries for task in ranked)
    if not train.validation_queries or not total:
        return 0.0
    after_steps = -(-steps // train.validation_steps) if train.validation_steps else 1
    available = min(train.validation_queries, total * settings.ingest.validation_share)
    tokens = 0.0
    for task in ranked:
        docs = mean(task.doc_lengths, train.doc_tokens) * VALIDATION_DOCS
        tokens += available * task.queries / total * (mean(task.query_lengths, train.query_tokens) + docs)
    return (1 + after_steps) * tokens * work.forward_read(shape, 0.0, 0.0)


def setup(train: Any, shape: Shape, hardware: Hardware, ranks: int, tokens: int) -> Setup:
    """Return what decides the memory of training by section `train`."""
    return Setup(
        shape=shape,
        ranks=ranks,
        tokens=tokens,
        is_gpu=hardware.is_gpu,
        zero_stage=train.zero_stage,
        method=train.method,
        lora_rank=train.lora.rank,
        freeze_token_table=train.freeze_token_table,
        recomputed=recomputed_layers(train.gradient_checkpointing, shape.layers),
        is_quantized=train.quantize is not None,
        weight_bytes=2 if hardware.is_gpu and train.dtype != "float32" else 4,
    )
