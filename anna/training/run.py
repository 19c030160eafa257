"""One training run from groups to a saved encoder."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from anna import seeding
from anna.errors import InputError
from anna.footprint import recomputed_layers
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, PromptParams, task_prompts
from anna.modeling.fused import can_fuse, fuse
from anna.modeling.hardware import compute_dtype
from anna.modeling.student import StudentParams, load_student, recompute
from anna.origins import describe, fetch_model
from anna.training import engine as engines
from anna.training.batches import Batch, Group, Texts, check_world, plan_epochs
from anna.training.checkpoint import Checkpoints
from anna.training.checks import check_dims, check_last_layer, check_prompts, tell_cut
from anna.training.gather import from_first
from anna.training.identity import conditions, identify
from anna.training.last_layer import prepare_last_layer
from anna.training.loop import kept_step, train
from anna.training.memory import check_memory
from anna.training.recipe import TrainParams
from anna.training.results import Outputs, save_encoder, save_records, summary
from anna.training.schedule import learning_rate
from anna.training.validation import HeldOut, sample, score

MANY = 8
"""Batches of a task that all draw no example by chance once in 6,561 times, where there are up to two."""

_log = logging.getLogger(__name__)


class Scratch(NamedTuple):
    """What a run writes while it goes on; all of it can be deleted."""

    checkpoints: Path
    """Folder of all unfinished runs, and of the last that has come to its end."""
    live: Path
    """Folder for DVCLive; stays until the next run."""


class TrainingData(NamedTuple):
    """What a run reads."""

    groups: Sequence[Group]
    """To train on."""
    validation: Sequence[Group]
    """To draw validation queries from."""
    texts: Texts
    examples: Mapping[str, Sequence[tuple[str, str]]]
    """In-context examples of each task as (query, response), for encoder.json."""


def train_encoder(
    *,
    data: TrainingData,
    student: StudentParams,
    prompts: PromptParams,
    recipe: TrainParams,
    outputs: Outputs,
    scratch: Scratch,
) -> None:
    """Train the student, from the run's last checkpoint if it was killed, and save encoder, metrics and curves.

    Raises:
        InputError: If the student's last layer cannot start or be trained as params say, the student cannot fit into
            memory, a task that is trained or held out has no prompt, a prompt is too long, a batch is too small for the
            ranks, the checkpoint cannot be continued exactly, or training went wrong: nothing is saved then.
    """
    check_last_layer(recipe, student)
    rank, world_size = engines.init_distributed()
    torch.manual_seed(seeding.derive_seed(recipe.seed, "torch", rank))
    fetch_model(student.model)  # whose shape is in its config.json
    check_memory(student, recipe, world_size)
    encoder = new_encoder(student, prompts, data.examples, recipe)
    held_out = sample(data.validation, data.texts, recipe.validation_queries, data.groups)
    for task in sorted({group.task for group in data.groups} | {part.task for part in held_out} | {*data.examples}):
        encoder.config.task(task)
    batches = plan(data.groups, recipe)
    check_world(batches, world_size)
    check_prompts(encoder, batches, data.texts, recipe)
    _say(data.groups, held_out, batches, recipe, world_size)
    tell_cut(encoder, data.texts, recipe)
    identity = {}
    if rank == 0:
        identity = identify(
            recipe=recipe, student=student, encoder=encoder, groups=data.groups, held_out=held_out, texts=data.texts
        )
    checkpoints = Checkpoints(scratch.checkpoints, identity, conditions(world_size))
    told = prepare_last_layer(
        encoder, data.groups, batches, data.texts, recipe, student=student, checkpoints=checkpoints
    )
    engine = engines.start_engine(encoder, recipe)
    before = engines.weights(encoder.backbone, is_trained=True)
    records = train(
        engine,
        encoder,
        batches,
        data.texts,
        recipe,
        checkpoints=checkpoints,
        validate=partial(score, engine, encoder, held_out, data.texts, recipe) if held_out else None,
        live=scratch.live,
    )
    kept = kept_step(records, recipe)
    # Of every rank, whose shares they are, though the first alone gets and saves them.
    after = engines.weights(encoder.backbone, is_trained=True) if kept == len(records) else checkpoints.best(kept)
    frozen = {} if recipe.method == "lora" else engines.weights(encoder.backbone, is_trained=False)
    update = _check_update(before, after, recipe, kept=kept, steps=len(batches))
    if rank == 0:
        _log.info("saving the weights after step %d of %d", kept, len(records))
        save_encoder(outputs.encoder, encoder, frozen | after)
        save_records(outputs, records, summary(records, told, len(data.groups), kept, update))
    if recipe.checkpoint_steps is None:
        checkpoints.remove()


def _check_update(
    before: dict[str, Tensor], after: dict[str, Tensor], recipe: TrainParams, *, kept: int, steps: int
) -> float:
    """Return the relative size of the update that the first rank sees.

    Raises:
        InputError: On every rank, if the first one finds that it is none: the others would wait for it.
    """
    fault, update = None, 0.0
    if before:
        rates = (learning_rate(n, steps, recipe.learning_rate, recipe.warmup_steps) for n in range(kept))
        decay = math.prod(1 - recipe.weight_decay * rate for rate in rates)
        try:
            update = engines.check_moved(before, after, kept, decay)
        except InputError as error:
            fault = str(error)
    if fault := from_first(fault):
        raise InputError(fault)
    return update


def _say(
    groups: Sequence[Group],
    held_out: Sequence[HeldOut],
    batches: Sequence[Batch],
    recipe: TrainParams,
    world_size: int,
) -> None:
    _log.info(
        "%d groups of %d tasks, %d steps of about %d queries on %d process(es), ZeRO %d, %s",
        len(groups),
        len({group.task for group in groups}),
        len(batches),
        round(sum(len(batch.groups) for batch in batches) / len(batches)),
        world_size,
        recipe.zero_stage,
        recipe.method,
    )
    if recipe.warmup_steps >= len(batches):
        _log.warning(
            "train.warmup_steps is %d and there are %d steps: the learning rate stays below its peak; lower the one, "
            "or train on more",
            recipe.warmup_steps,
            len(batches),
        )
    if recipe.max_examples:
        _warn_of_no_example(batches)
    if recipe.keep == "best" and (not held_out or (recipe.validation_steps or 0) >= len(batches)):
        _log.warning(
            "train.keep is best, but %s: the weights after the last step are saved",
            "there is one validation alone, after it" if held_out else "no query is there to validate on",
        )
    _log.info(
        "validation on %d queries of %d tasks, against %d documents",
        sum(len(part.query_ids) for part in held_out),
        len(held_out),
        sum(len(part.doc_ids) for part in held_out),
    )


def _warn_of_no_example(batches: Sequence[Batch]) -> None:
    """Say of which tasks no batch shows an example: the student will not know how to read them."""
    shown: defaultdict[str, list[bool]] = defaultdict(list)
    for batch in batches:
        shown[batch.task].append(bool(batch.examples))
    for task, are_shown in sorted(shown.items()):
        if len(are_shown) >= MANY and not any(are_shown):
            _log.warning(
                "task %s: none of its %d batches can show an example, as each embeds a text of nearly every group; "
                "lower train.batch_queries, or set train.max_examples to 0",
                task,
                len(are_shown),
            )


def new_encoder(
    student: StudentParams,
    prompts: PromptParams,
    examples: Mapping[str, Sequence[tuple[str, str]]],
    recipe: TrainParams,
) -> Encoder:
    """Return the untrained encoder with what the recipe trains set to require gradients."""
    dtype = compute_dtype(recipe.dtype)
    # Frozen weights are rounded on a GPU in any case; rounded at once, they take half the time and memory to load.
    weight_dtype = dtype if recipe.method == "lora" and torch.cuda.is_available() else torch.float32
    backbone, tokenizer = load_student(
        fetch_model(student.model), student.layers, quantize=recipe.quantize, dtype=dtype, weight_dtype=weight_dtype
    )
    check_dims(recipe.matryoshka_dims, backbone.config.hidden_size)
    config = EncoderConfig(
        base=describe(student.model),
        layers=student.layers,
        pooling=student.pooling,
        attention=student.attention,
        quantize=recipe.quantize,
        max_tokens=prompts.max_tokens,
        example_tokens=prompts.example_tokens,
        tasks=task_prompts(prompts, examples, tokenizer),
    )
    encoder = Encoder(backbone, tokenizer, config, dtype)
    if can_fuse(is_quantized=recipe.quantize is not None) and fuse(backbone, zero_stage=recipe.zero_stage):
        _log.info("the first step takes longer: what lies between the layers' matrix products is compiled")
    if recipe.zero_stage == 3:
        engines.gather_layers(backbone)
    if layers := recomputed_layers(recipe.gradient_checkpointing, len(backbone.layers)):
        recompute(backbone, layers)
    if recipe.method == "lora":
        engines.add_lora(encoder, rank=recipe.lora.rank, alpha=recipe.lora.alpha, dropout=recipe.lora.dropout)
    else:
        encoder.backbone.get_input_embeddings().requires_grad_(not recipe.freeze_token_table)
    return encoder


def plan(groups: Sequence[Group], recipe: TrainParams) -> list[Batch]:
    """Return the batches of the whole run, in order."""
    batches = plan_epochs(
        groups,
        recipe,
        epochs=recipe.epochs,
        batch_queries=recipe.batch_queries,
        max_examples=recipe.max_examples,
    )
    return list(islice(batches, recipe.max_steps))
